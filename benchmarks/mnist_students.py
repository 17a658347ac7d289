"""MNIST at 16 x 16: a small U-Net as teacher, and one-step students of it, in minutes of one CPU core.

    python benchmarks/mnist_students.py [--divergences NAME ...] [--again] [--work FOLDER] [--picture FILE]

The networks see the 60,000 training images of $PUSHFORWARD_DATA/mnist/mnist.npz, by area average brought from 28 x 28
to 16 x 16 pixels, in [-1, 1]. Metrics are those of `diffusion.judge.SampleMetrics` on the 10,000 test images, which no
network has seen. It is a short run with one seed: it shows that the method works on a U-Net, and not which divergence
is the better one. Rows are those of `digits_students.py`; `--work` keeps the networks, from which `--picture` draws
data, teacher and students beside one another.

figure       meaning
draws        Frechet distance of so many draws (`samples` each)
modes        how many of the ten digits there are among the first draw's samples
seconds      CPU time of the training

Rows that are there are kept, unless --again.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from digits_runs import TEACHER, distilled, draws, picture, run
from lib import RESULTS, Row, cpu_seconds, data_folder, parsed
from torch import Tensor

from pushforward.diffusion import OneStepPipeline, TeacherTrainer
from pushforward.diffusion.judge import SampleMetrics
from pushforward.diffusion.teacher_training import load_teacher

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
    with np.load(data_folder("mnist/mnist.npz") / "mnist" / "mnist.npz", allow_pickle=False) as arrays:
        images, labels = (torch.from_numpy(arrays[f"{name}_{part}"]) for name in "xy")
    return area_averaged(images.float() / 255, PIXELS)[:, None] * 2 - 1, labels.long()


def measured(key: Row, work: Path) -> Row:
    """The row of a key. Runs in its own process, and leaves the network in `work`."""
    warnings.simplefilter("ignore")
    images, _ = data("train")
    divergence, steps = key["divergence"], key["steps"]
    out = work / divergence
    if divergence == TEACHER:
        trainer = TeacherTrainer(images, out=out, batch_size=TEACHER_BATCH, every=steps, seed=SEED, progress=False)
        network, seconds = cpu_seconds(lambda: trainer.fit(steps))
    else:
        teacher, _ = load_teacher(work / TEACHER / "teacher")
        network, seconds = distilled(
            teacher, images, divergence=divergence, gan=GAN, seed=SEED, steps=steps, out=out, setting=SETTING
        )
    return {"status": "ok", "seconds": seconds} | figures(draws(network, tuple(images.shape[1:]), COUNT, DRAWS))


def figures(drawn: list[Tensor]) -> Row:
    judge = SampleMetrics(*data("test"))
    shown = judge.classes(drawn[0])
    assert shown is not None
    return judge(drawn[0]) | {
        "draws": [judge(one)["frechet"] for one in drawn],
        "modes": len(shown.unique()),
        "of": len(data("test")[1].unique()),
    }


def main() -> None:
    options = {"divergences": (TEACHER, *DIVERGENCES), "again": False, "work": Path("runs/mnist-students")}
    asked = parsed(__doc__, options | {"out": RESULTS / "mnist_students.json", "picture": Path})
    keys = [
        {"data": "mnist", "divergence": name, "gan": gan, "seed": SEED, "steps": steps, "levels": "raised"}
        for name in asked.divergences
        for steps, gan in [(TEACHER_STEPS, 0.0) if name == TEACHER else (STEPS, GAN)]
    ]
    setting = SETTING | {"teacher_batch": TEACHER_BATCH, "samples": COUNT, "draws": DRAWS}
    run(keys, measured, asked.work, out=asked.out, setting=setting, again=asked.again)
    if asked.picture:
        teacher, _ = load_teacher(asked.work / TEACHER / "teacher")
        pipes = [OneStepPipeline.from_pretrained(asked.work / name / "student") for name in DIVERGENCES]
        picture(asked.picture, data("train")[0], [teacher, *(pipe.generator for pipe in pipes)])


if __name__ == "__main__":
    main()
