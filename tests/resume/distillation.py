"""A small distillation, trained in processes of its own, and killed at a check."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pushforward.diffusion import Distiller, GaussianMixture, Generator, Trainer, VarianceExploding, teachers
from pushforward.training import distributed, save_state

STEPS = 20
PROCESS = VarianceExploding(sigma_min=0.01, sigma_max=20.0)


class Net(nn.Module):
    feature_taps = ("first",)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.last(self.first(torch.cat([x, t[:, None]], -1)).tanh())


def train(folder: Path, kill: int | None) -> None:
    """Distil, and save the averaged student; or die at a check, before its checkpoint is written."""

    def check(step: int, generator: Generator) -> dict[str, float]:
        if step == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"mean": float(generator(torch.ones(1, 2)).mean())}

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    law = GaussianMixture(
        weights=[1.0, 1.0], means=[[0.5, 0.0], [-0.5, 0.2]], covariances=[0.02, 0.02], process=PROCESS
    )
    data = law.sample(100, torch.Generator().manual_seed(0)).float()
    distiller = Distiller(
        teachers.from_edm(Net(), PROCESS), divergence="kl", generator_steps=2, gan_weight=0.1, critic_steps=2
    )
    with distributed.setup():
        generator = Trainer(
            distiller, data, out=folder, batch_size=16, warmup=4, every=5, log_every=1, check=check, progress=False
        ).fit(STEPS)
        if distributed.is_main():
            save_state(folder / "student", generator.state_dict())
        distributed.barrier()
