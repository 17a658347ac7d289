"""A small training run with everything that a resume can get wrong, and ways to kill it.

Dropout, noise from Python's and numpy's generators, batches in random order, AdamW, a schedule and a moving average of
the weights; the loss is of all ranks' rows together. It saves at steps that are not the epochs' ends.

    python tiny_training.py FOLDER                                            one process
    torchrun --nproc-per-node=2 tiny_training.py FOLDER '{"rank": 1, "where": "step", "step": 9, "amount": 0}'
"""

from __future__ import annotations

import json
import os
import random as python_random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from pushforward.training import Log, distributed, latest, load_state, publishing, random, save_state

SEED, ROWS, BATCH, STEPS, SAVE_EVERY = 11, 35, 7, 23, 4


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When a rank kills itself, always with SIGKILL.

    Args:
        rank: Which one.
        where: "step": between this step's update and its record. "call": in this step's save, at one of the calls that
            open, make, rename, list or delete something. "moment": some time after this step's save began.
        step: The step.
        amount: "call": how many such calls are let through. "moment": seconds.
    """

    rank: int
    where: str
    step: int
    amount: float

    def after_update(self, step: int) -> None:
        if self.where == "step" and self._is_here(step):
            os.kill(os.getpid(), signal.SIGKILL)

    def before_save(self, step: int) -> None:
        if not self._is_here(step):
            return
        if self.where == "call":
            self._at_a_call()
        elif self.where == "moment":
            self._in_a_while()

    def _is_here(self, step: int) -> bool:
        return step == self.step and distributed.rank() == self.rank

    def _in_a_while(self) -> None:
        trainer = os.getpid()
        if os.fork() == 0:
            time.sleep(self.amount)
            if os.getppid() == trainer:  # it may have ended by itself
                os.kill(trainer, signal.SIGKILL)
            os._exit(0)

    def _at_a_call(self) -> None:
        left = self.amount

        def watch(event: str, _arguments: object) -> None:
            nonlocal left
            if event in {"open", "os.mkdir", "os.rename", "os.scandir", "os.remove", "os.rmdir", "shutil.rmtree"}:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)


class Training:
    def __init__(self, folder: Path, ballast: int) -> None:
        self.folder = folder
        random.seed_everything(SEED)  # the same on all ranks, for the same weights
        network = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(16), nn.Linear(16, 2))
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        self.model = DistributedDataParallel(network) if distributed.world_size() > 1 else network
        self.network = network
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=0.02)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=0.05, total_steps=STEPS)
        self.ballast = torch.zeros(ballast)
        random.seed_everything(SEED, distributed.rank())

    def save(self, step: int) -> None:
        parts = {
            "network": self.network,
            "average": self.average,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }
        with publishing(self.folder, step) as draft:
            save_state(draft / f"random-{distributed.rank()}", random.capture())
            if distributed.is_main():
                states = {name: part.state_dict() for name, part in parts.items()}
                save_state(draft / "training", states | {"step": step, "ballast": self.ballast})

    def resume(self) -> int:
        """The step to go on from: 0 without a checkpoint."""
        checkpoint = latest(self.folder)
        if checkpoint is None:
            return 0
        state = load_state(checkpoint / "training")
        for name in ("network", "average", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        random.restore(load_state(checkpoint / f"random-{distributed.rank()}"))
        return state["step"]

    def update(self, x: Tensor, y: Tensor) -> float:
        x = x + 0.1 * python_random.gauss(0, 1) + 0.1 * float(np.random.randn())  # noqa: NPY002
        predicted, wanted = distributed.gather(self.model(x)), distributed.gather(y)
        loss = mse_loss(predicted, wanted) + 0.1 * predicted.var(0).log().square().sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.network)
        return loss.item()


def batches(first: int) -> Iterator[list[Tensor]]:
    """This rank's rows of the batches from step `first` on, counted from 0."""
    x = torch.randn(ROWS, 5, generator=random.generator(SEED, "data"))
    data, per_epoch = TensorDataset(x, x[:, :2].sin()), ROWS // BATCH
    for epoch in range(first // per_epoch, STEPS // per_epoch + 1):
        order = torch.randperm(ROWS, generator=random.generator(SEED, f"order of epoch {epoch}"))
        mine = [part.tensor_split(distributed.world_size())[distributed.rank()].tolist() for part in order.split(BATCH)]
        done = max(first - epoch * per_epoch, 0)
        # A loader draws a seed when its iteration starts: from its own generator, or a resume would draw once more.
        yield from DataLoader(data, batch_sampler=mine[done:], generator=random.generator(SEED, "workers"))


def train(folder: Path, kill: Kill | None = None, ballast: int = 0) -> None:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    with distributed.setup():
        training = Training(folder, ballast)
        done = training.resume()
        if distributed.is_main():
            with (folder / "starts.txt").open("a") as starts:
                starts.write(f"{done}\n")
        with Log(folder / "log.jsonl", resumed=done or None) as log:
            for step, (x, y) in zip(range(done + 1, STEPS + 1), batches(done), strict=False):
                loss = training.update(x, y)
                if kill:
                    kill.after_update(step)
                log.write(step, {"loss": loss, "rate": training.schedule.get_last_lr()[0]})
                if step % SAVE_EVERY == 0 or step == STEPS:
                    if kill:
                        kill.before_save(step)
                    training.save(step)


if __name__ == "__main__":
    train(Path(sys.argv[1]), Kill(**json.loads(sys.argv[2])) if len(sys.argv) > 2 else None)
