"""A small teacher, trained in processes of its own, and killed before a checkpoint."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch

from pushforward.diffusion import VarianceExploding
from pushforward.diffusion.networks import MLPConfig
from pushforward.diffusion.teacher_training import TeacherTrainer
from pushforward.training import distributed
from pushforward.training.resume import Checkpoints

STEPS = 20


def train(folder: Path, kill: int | None) -> None:
    """Train; or die before the checkpoint of a step is written."""
    written = Checkpoints.save

    def save(checkpoints: Checkpoints, step: int, state: Any) -> None:
        if step == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        written(checkpoints, step, state)

    Checkpoints.save = save
    torch.set_num_threads(1)
    samples = torch.randn(100, 2, generator=torch.Generator().manual_seed(0)) + 1
    labels = (samples[:, 0] > 1).long()
    with distributed.setup():
        TeacherTrainer(
            (samples, labels),
            out=folder,
            network=MLPConfig(shape=(2,), width=16, blocks=1, classes=2),
            process=VarianceExploding(sigma_max=10.0),
            batch_size=16,
            every=5,
            log_every=1,
            progress=False,
        ).fit(STEPS)
        distributed.barrier()
