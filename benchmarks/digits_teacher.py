"""How good the small teacher of scikit-learn's digits is, and what it costs: what every student is compared with.

    python benchmarks/digits_teacher.py [--steps N ...] [--seeds N] [--halves] [--again]

A row is one training. It is sampled in 18 of Heun's steps, 35 evaluations, by `diffusion.samplers`, and evaluated by
`diffusion.judge.SampleMetrics` on 10,000 samples: in the features of a classifier trained on all the digits, against a
random half of them. The other half against that one is the floor. With `--halves` the teacher is trained on that other
half alone, and so has never seen the images that it is compared with.

figure      meaning
draws       Frechet distance of three draws of 10,000
small       the same of seven of 1,400, of which a draw's luck may be read
copying     median distance of a sample to the training image nearest to it, over that of a held-out image; of halves
seconds     CPU time of the training

Rows that are there are kept, unless --again.
"""

from __future__ import annotations

import itertools
import tempfile

import numpy as np
import torch
from digits_runs import draws
from lib import RESULTS, Row, Store, conditions, cpu_seconds, parsed, say
from torch import Tensor

from pushforward import metrics, samples
from pushforward.diffusion import TeacherTrainer
from pushforward.diffusion.judge import SampleMetrics
from pushforward.diffusion.samplers import STEPS
from pushforward.training.random import generator

COUNT, SMALL, DRAWS = 10_000, 1_400, 3


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in [-1, 1], and labels."""
    pixels, labels = samples.digits()
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2) * 2 - 1).float(), torch.from_numpy(labels)


def halves(images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The half that `SampleMetrics` measures by, and the other one."""
    order = torch.randperm(len(images), generator=generator(seed, "halves"))
    return images[order[: len(order) // 2]], images[order[len(order) // 2 :]]


def copying(drawn: Tensor, seen: Tensor, unseen: Tensor) -> float:
    """Median distance to the nearest training image, over that of images that were not trained on."""
    near, held = (torch.cdist(x.flatten(1), seen.flatten(1)).min(1).values.median() for x in (drawn, unseen))
    return float(near / held)


def measured(steps: int, seed: int, *, half: bool) -> Row:
    """The figures of one training."""
    images, labels = digits()
    judge = SampleMetrics(images, labels)
    unseen, seen = halves(images)
    with tempfile.TemporaryDirectory() as out:
        trainer = TeacherTrainer(seen if half else images, out=out, seed=seed, every=steps, progress=False)
        teacher, seconds = cpu_seconds(lambda: trainer.fit(steps))
    drawn = draws(teacher, (1, 8, 8), COUNT, DRAWS)
    features = judge.features(drawn[0])
    parts = features[: COUNT // SMALL * SMALL].split(SMALL)
    frechet = {
        "draws": [metrics.frechet_distance(judge.reference, judge.features(one)) for one in drawn],
        "small": [metrics.frechet_distance(judge.reference, part) for part in parts],
    }
    near = {"copying": copying(drawn[0][:2000], seen, unseen)} if half else {}
    return {"seconds": seconds} | judge(drawn[0]) | frechet | near


def about() -> Row:
    return conditions() | {"setting": {"samples": COUNT, "small": SMALL, "sampling_steps": STEPS}}


def main() -> None:
    options = {"steps": (3000, 6000), "seeds": 3, "halves": False, "again": False}
    asked = parsed(__doc__, options | {"out": RESULTS / "digits_teacher.json"})
    torch.set_num_threads(1)
    store = Store(path=asked.out, key=("steps", "seed", "half"), about=about)
    keys = itertools.product(range(asked.seeds), asked.steps)
    wanted = [{"steps": steps, "seed": seed, "half": asked.halves} for seed, steps in keys]
    for key in store.missing(wanted, again=asked.again):
        row = key | measured(**key)
        store.add(row)
        say(
            f"{key['steps']} steps, seed {key['seed']}: FD {np.mean(row['draws']):.3f}, floor "
            f"{row['frechet_floor']:.3f}, recall {row['recall']:.3f}, {row['seconds']:.0f} CPU s"
        )


if __name__ == "__main__":
    main()
