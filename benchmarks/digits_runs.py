"""What the benchmarks of one-step students share: training a student, drawing, the store of rows, pictures.

A row's key is its data, its divergence (or "teacher"), the weight of the GAN term, the seed, the steps, and the levels
of noise at which distributions are matched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from lib import Row, Store, conditions, cpu_seconds, in_own_process, say, stamp
from torch import Tensor

from pushforward.diffusion import Denoiser, Distiller, Generator, OneStepPipeline, Trainer
from pushforward.diffusion.samplers import sample
from pushforward.report.generators import save_grid
from pushforward.training.random import seeded

TEACHER = "teacher"
DIVERGENCES = ("reverse_kl", "softened_reverse_kl", "js", "squared_hellinger", "jeffreys", "kl")
KEY = ("data", "divergence", "gan", "seed", "steps", "levels")


def draws(network: Denoiser | Generator, shape: tuple[int, ...], count: int, times: int) -> list[Tensor]:
    """So many draws of a teacher's or a one-step student's samples, each (count, C, H, W)."""
    seeds = [torch.Generator().manual_seed(k) for k in range(times)]
    if isinstance(network, Denoiser):
        return [sample(network, count, shape, generator=seed) for seed in seeds]
    pipe = OneStepPipeline(network, shape=shape)
    return [pipe(count, generator=seed, output_type="raw", batch_size=1000).images for seed in seeds]


def distilled(
    teacher: Denoiser,
    images: Tensor,
    *,
    divergence: str,
    gan: float,
    seed: int,
    steps: int,
    out: Path,
    setting: dict[str, Any],
) -> tuple[Generator, float]:
    """The student, and the CPU seconds of its training."""
    given = dict(setting)
    critic_steps = int(given.pop("critic_steps"))
    levels = teacher.process if given.pop("levels", "raised") == "training" else None
    with seeded(seed, "students"):
        distiller = Distiller(teacher, divergence=divergence, gan_weight=gan, critic_steps=critic_steps, levels=levels)
        trainer = Trainer(distiller, images, out=out, every=steps, seed=seed, progress=False, **given)
        return cpu_seconds(lambda: trainer.fit(steps))


def run(
    keys: Iterable[Row], job: Callable[[Row, Path], Row], work: Path, *, out: Path, setting: Row, again: bool
) -> None:
    """Measures the rows that are missing, each in its own process, and writes it at once."""
    store = Store(
        path=out,
        key=KEY,
        about=lambda: conditions() | {"setting": setting},
        place=lambda row: tuple(str(row[name]) for name in KEY),
    )
    for key in store.missing(keys, again=again):
        row = in_own_process(job, key, work, wall_limit=3600.0)
        store.add(key | row | stamp())
        name, divergence, gan, seed, *_ = key.values()
        say(f"{name} {divergence} gan {gan:g} seed {seed}: FD {row.get('draws')}, {row['status']}")


def picture(file: Path, images: Tensor, networks: Iterable[Denoiser | Generator], *, count: int = 40) -> None:
    """Data and each network's samples, in this order, `count` of each in rows of 8."""
    shape = tuple(images.shape[1:])
    save_beside(file, [images[:count], *(draws(network, shape, count, 1)[0] for network in networks)])


def save_beside(file: Path, parts: list[Tensor], *, columns: int = 8) -> None:
    """Groups of as many images (n, C, H, W) in one picture, from left to right, with a column's gap between them."""
    count, *shape = parts[0].shape
    gap = torch.ones(count // columns, 1, *shape)
    rows: list[Tensor] = []
    for part in parts:
        rows += [part.reshape(-1, columns, *shape), gap]
    sheet = torch.cat(rows[:-1], 1)
    save_grid(file, sheet.flatten(0, 1).numpy(), columns=sheet.shape[1])
