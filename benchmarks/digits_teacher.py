"""How good the small teacher of scikit-learn's digits is, and what it costs: what every student is compared with.

    python benchmarks/digits_teacher.py [--steps N ...] [--seeds N] [--halves] [--again]

A row is one training. It is sampled in 18 of Heun's steps, 35 evaluations, by `diffusion.samplers`, and judged by
`diffusion.judge.Judge` on 10,000 samples: in the features of a classifier trained on all the digits, against a random
half of them. The other half against that one is the floor. With `--halves` the teacher is trained on that other half
alone, and so has never seen what it is judged by.

figure      meaning
draws       Frechet distance of three draws of 10,000
small       the same of seven of 1,400, of which a draw's luck may be read
copying     median distance of a sample to the training image nearest to it, over that of a held-out image; of halves
seconds     CPU time of the training

Rows that are there are kept, unless --again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import conditions, say, write_json
from torch import Tensor

from pushforward import metrics, samples
from pushforward.diffusion import TeacherTrainer
from pushforward.diffusion.judge import Judge
from pushforward.diffusion.samplers import STEPS, sample
from pushforward.training.random import generator

RESULTS = Path(__file__).with_name("results") / "digits_teacher.json"
COUNT, SMALL, DRAWS = 10_000, 1_400, 3


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in [-1, 1], and labels."""
    pixels, labels = samples.digits()
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2) * 2 - 1).float(), torch.from_numpy(labels)


def halves(images: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The half that `Judge` measures by, and the other one."""
    order = torch.randperm(len(images), generator=generator(seed, "halves"))
    return images[order[: len(order) // 2]], images[order[len(order) // 2 :]]


def copying(drawn: Tensor, seen: Tensor, unseen: Tensor) -> float:
    """Median distance to the nearest training image, over that of images that were not trained on."""
    near, held = (torch.cdist(x.flatten(1), seen.flatten(1)).min(1).values.median() for x in (drawn, unseen))
    return float(near / held)


def row(steps: int, seed: int, *, half: bool) -> dict[str, Any]:
    """One training, judged."""
    images, labels = digits()
    judge = Judge(images, labels)
    unseen, seen = halves(images)
    data = seen if half else images
    with tempfile.TemporaryDirectory() as out:
        start = time.process_time()
        teacher = TeacherTrainer(data, out=out, seed=seed, every=steps, progress=False).fit(steps)
        seconds = time.process_time() - start
    drawn = [sample(teacher, COUNT, (1, 8, 8), generator=torch.Generator().manual_seed(k)) for k in range(DRAWS)]
    figures = judge(drawn[0])
    features = judge.features(drawn[0])
    parts = features[: COUNT // SMALL * SMALL].split(SMALL)
    return {
        "steps": steps,
        "seed": seed,
        "half": half,
        "seconds": seconds,
        **figures,
        "draws": [metrics.frechet_distance(judge.reference, judge.features(one)) for one in drawn],
        "small": [metrics.frechet_distance(judge.reference, part) for part in parts],
        **({"copying": copying(drawn[0][:2000], seen, unseen)} if half else {}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[3000, 6000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--halves", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [] if arguments.again or not arguments.out.exists() else json.loads(arguments.out.read_text())["rows"]
    done = {(one["steps"], one["seed"], one["half"]) for one in rows}
    for seed in range(arguments.seeds):
        for steps in arguments.steps:
            if (steps, seed, arguments.halves) in done:
                continue
            rows.append(row(steps, seed, half=arguments.halves))
            stamp = {name: value for name, value in conditions().items() if name != "tolerance"}
            setting = {"samples": COUNT, "small": SMALL, "sampling_steps": STEPS}
            write_json(arguments.out, stamp | {"setting": setting, "rows": rows})
            last = rows[-1]
            say(
                f"{steps} steps, seed {seed}: FD {np.mean(last['draws']):.3f}, floor {last['frechet_floor']:.3f}, "
                f"recall {last['recall']:.3f}, {last['seconds']:.0f} CPU s"
            )


if __name__ == "__main__":
    main()
