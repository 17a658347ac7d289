"""A small map, fitted in processes of its own, and killed at a check."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pushforward.maps import MongeMap
from pushforward.maps.truths import LogSumExp
from pushforward.training import distributed

STEPS = 20  # and as many checks, each with a checkpoint


def points() -> tuple[torch.Tensor, torch.Tensor]:
    truth, random = LogSumExp(dim=2), torch.Generator().manual_seed(0)
    return truth.sample(200, random), truth.target(200, random)


def train(folder: Path, start: str, kill: tuple[str, int] | None) -> None:
    """Fit, with checkpoints, and save the map; or die at a check, before its checkpoint is written."""

    def progress(record: Mapping[str, Any]) -> None:
        if kill == (record["stage"], record["step"]):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    with distributed.setup():
        fitted = MongeMap(
            start=start,  # pyright: ignore[reportArgumentType]
            hidden=(16, 16),
            steps=STEPS,
            batch_size=32,
            checkpoint=folder / "checkpoints",
            progress=progress,
            random_state=0,
        ).fit(*points())
        if distributed.is_main():
            fitted.save(folder / "map")
        distributed.barrier()
