"""MNIST at 16 x 16: a small U-Net as teacher, and one-step students of it, in minutes of one CPU core.

    python benchmarks/mnist_students.py [--divergences NAME ...] [--again] [--work FOLDER] [--picture FILE]

The networks see the 60,000 training images of $PUSHFORWARD_DATA/mnist/mnist.npz, by area average brought from 28 x 28
to 16 x 16 pixels, in [-1, 1]. The judge is `diffusion.judge.Judge` on the 10,000 test images, which no network has
seen. It is a short run with one seed: what it shows is that the method works on a U-Net, and not which divergence is
the better one. Rows are those of `digits_students.py`, whose parts it uses; `--work` keeps the networks, from which
`--picture` draws data, teacher and students beside one another.

figure       meaning
draws        Frechet distance of so many draws (`samples` each)
modes        how many of the ten digits there are among the first draw's samples
seconds      CPU time of the training

Rows that are there are kept, unless --again.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from digits_students import TEACHER, Row, add, distilled, key_of, save_beside
from maps import read
from measure import conditions, in_own_process, say
from torch import Tensor

from pushforward.diffusion import OneStepPipeline, TeacherTrainer
from pushforward.diffusion.judge import Judge
from pushforward.diffusion.samplers import sample
from pushforward.diffusion.teacher_training import load_teacher

RESULTS = Path(__file__).with_name("results") / "mnist_students.json"
DIVERGENCES = ("reverse_kl", "js")
PIXELS, SEED, GAN = 16, 0, 1e-3
TEACHER_STEPS, TEACHER_BATCH, STEPS = 1500, 64, 400
SETTING = {"batch_size": 64, "learning_rate": 6e-4, "average": 0.998, "warmup": 100, "critic_steps": 3}
COUNT, DRAWS = 2000, 2


def area_averaged(images: Tensor, pixels: int) -> Tensor:
    """Square images (N, n, n) on a coarser grid: each new pixel is the mean of what it covers."""
    size = images.shape[-1]
    edges = torch.arange(pixels + 1) * (size / pixels)
    left, right = edges[:-1, None], edges[1:, None]
    old = torch.arange(size)
    share = (torch.minimum(right, old + 1) - torch.maximum(left, old)).clamp_min(0) * (pixels / size)
    return share @ images @ share.T


@cache
def data(part: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 16, 16) in [-1, 1] and labels, of "train" or "test"."""
    folder = os.environ.get("PUSHFORWARD_DATA")
    if not folder:
        raise SystemExit("set PUSHFORWARD_DATA to the folder that holds mnist/mnist.npz")
    with np.load(Path(folder) / "mnist" / "mnist.npz", allow_pickle=False) as arrays:
        images, labels = (torch.from_numpy(arrays[f"{name}_{part}"]) for name in "xy")
    return area_averaged(images.float() / 255, PIXELS)[:, None] * 2 - 1, labels.long()


def measured(divergence: str, steps: int, work: Path) -> Row:
    """One row. Runs in its own process, and leaves the network in `work`."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    images, _ = data("train")
    shape, out = tuple(images.shape[1:]), work / divergence
    seeds = [torch.Generator().manual_seed(k) for k in range(DRAWS)]
    if divergence == TEACHER:
        start = time.process_time()
        trainer = TeacherTrainer(images, out=out, batch_size=TEACHER_BATCH, every=steps, seed=SEED, progress=False)
        teacher = trainer.fit(steps)
        seconds = time.process_time() - start
        drawn = [sample(teacher, COUNT, shape, generator=seed, batch_size=500) for seed in seeds]
    else:
        teacher, _ = load_teacher(work / TEACHER / "teacher")
        student, seconds = distilled(
            teacher, images, divergence=divergence, gan=GAN, seed=SEED, steps=steps, out=out, setting=SETTING
        )
        pipe = OneStepPipeline(student, shape=shape)
        drawn = [pipe(COUNT, generator=seed, output_type="raw", batch_size=500).images for seed in seeds]
    return {"status": "ok", "seconds": seconds, **figures(drawn)}


def figures(drawn: list[Tensor]) -> Row:
    judge = Judge(*data("test"))
    shown = judge.classes(drawn[0])
    assert shown is not None
    return judge(drawn[0]) | {
        "draws": [judge(one)["frechet"] for one in drawn],
        "modes": len(shown.unique()),
        "of": len(data("test")[1].unique()),
    }


def picture(file: Path, work: Path, *, count: int = 40) -> None:
    """Data, the teacher and the students that are in `work`, in this order, `count` of each in rows of 8."""
    images, _ = data("train")
    shape = tuple(images.shape[1:])
    teacher, _ = load_teacher(work / TEACHER / "teacher")
    parts = [images[:count], sample(teacher, count, shape, generator=torch.Generator().manual_seed(0))]
    for divergence in DIVERGENCES:
        pipe = OneStepPipeline.from_pretrained(work / divergence / "student")
        parts.append(pipe(count, generator=torch.Generator().manual_seed(0), output_type="raw").images)
    save_beside(file, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--divergences", nargs="+", default=[TEACHER, *DIVERGENCES], metavar="NAME")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/mnist-students"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    for divergence in arguments.divergences:
        steps, gan = (TEACHER_STEPS, 0.0) if divergence == TEACHER else (STEPS, GAN)
        key = {"data": "mnist", "divergence": divergence, "gan": gan, "seed": SEED, "steps": steps, "levels": "raised"}
        if not arguments.again and key_of(key) in {key_of(row) for row in read(arguments.out)["rows"]}:
            continue
        row = in_own_process(measured, divergence, steps, arguments.work, wall_limit=3600.0)
        stamp = {field: conditions()[field] for field in ("date", "commit")}
        setting = SETTING | {"teacher_batch": TEACHER_BATCH, "samples": COUNT, "draws": DRAWS}
        add(key | row | stamp, arguments.out, setting)
        say(f"mnist {divergence}: FD {row.get('draws')}, {row['status']}")
    if arguments.picture:
        picture(arguments.picture, arguments.work)


if __name__ == "__main__":
    main()
