"""The alternating loop: the critics take some steps, then the student takes one.

    warm-up   critics only, so that the first scores the student hears are of its own samples
    step      critic_steps x [critics: Adam on the critics' loss],  student: Adam on its loss,  average of the student

Every batch, and all that is random in a step, follows from the seed and the step's number. So a run that was killed,
and is started again with the same arguments, ends with the same bits as one that was left alone.

Under torchrun every process has its share of each batch, and DistributedDataParallel averages the gradients.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pushforward._checks import check_choice, check_count, check_instance, check_positive, check_weight
from pushforward._typed import typed, typed_fields
from pushforward.diffusion.distiller import Distiller, Losses
from pushforward.diffusion.generator import Generator
from pushforward.diffusion.loop import (
    Batch,
    Batches,
    Data,
    Pace,
    average_of,
    check_run,
    classes_in,
    data_settings,
    descend,
    moved,
    unpacked,
)
from pushforward.diffusion.pipeline import OneStepPipeline
from pushforward.errors import InvalidArgument
from pushforward.training import Log
from pushforward.training.distributed import gather, is_main, parallel, rank, setup, world_size
from pushforward.training.random import seeded
from pushforward.training.resume import Checkpoints, advance, fingerprint, interruptible

__all__ = ["Check", "Trainer"]

Check = Callable[[int, Generator], dict[str, float]]

# Critics must follow the student, not the other way round.
CRITIC_RATE = 3.0
LEAST_SHARE, MOST_ACCURACY, MOST_SPREAD = 0.3, 0.9, 1.5
# Settings that may change between a run and its resumption: where it writes, what it shows, and how it loads the data.
FREE = frozenset({"out", "every", "check", "workers", "progress", "log_every", "pace"})


@typed_fields
@dataclass
class Trainer:
    """Trains a distiller's student. The result is a running average of the student.

    Args:
        distiller: The distiller with its teacher, not yet prepared.
        data: The teacher's data: samples (N, ...), a pair of them with their conditions, or a dataset.
        out: The run's folder: checkpoints, log.jsonl, and at the end `student`, for `OneStepPipeline`.
        batch_size: Samples of a batch, over all processes together.
        learning_rate: The student's learning rate.
        critic_rate: The critics' learning rate; None for three times the student's.
        warmup: The critics' steps before the student's first.
        average: The running average's factor from step to step, which is reached in the course of the training; 0 for
            the student itself.
        clip: The gradient's largest length, for student and critics; a longer one is scaled down to it.
        precision: The precision of the networks' passes; losses and weights are float32.
        every: Steps between checkpoints, and between calls of `check`.
        log_every: Steps between records in the log.
        check: Called on the first process with the step and the averaged generator; the numbers it returns are logged.
        seed: The random seed.
        workers: Processes that load a dataset.
        progress: Whether to show a progress bar.
        pace: Called once, after the first batches, with the seconds of a batch; there are
            warmup + steps (critic_steps + 1) batches.

    Raises:
        InvalidArgument: A setting that no run can have.

    Example:
        trainer = Trainer(Distiller(teacher), images, out="runs/js", batch_size=256)
        generator = trainer.fit(20_000)
    """

    distiller: Distiller
    data: Data
    _: KW_ONLY
    out: str | Path
    batch_size: int = 256
    learning_rate: float = 3e-4
    critic_rate: float | None = None
    warmup: int = 200
    average: float = 0.999
    clip: float = 10.0
    precision: Literal["float32", "bfloat16"] = "float32"
    every: int = 500
    check: Check | None = None
    seed: int = 0
    workers: int = 0
    progress: bool = True
    log_every: int = field(default=10, repr=False)
    pace: Callable[[float], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_instance("distiller", self.distiller, Distiller)
        check_run(self.data, out=self.out, batch_size=self.batch_size, workers=self.workers)
        for name in ("learning_rate", "clip"):
            check_positive(name, getattr(self, name))
        if self.critic_rate is not None:
            check_positive("critic_rate", self.critic_rate)
        if not check_weight("average", self.average) < 1:
            raise InvalidArgument(f"average must be below 1, got {self.average}")
        check_count("warmup", self.warmup, least=0)
        for name in ("every", "log_every"):
            check_count(name, getattr(self, name))
        check_choice("precision", self.precision, ("float32", "bfloat16"))

    @typed
    def fit(self, steps: int) -> Generator:
        """Train the student, from the last checkpoint in `out` if there is one.

        Args:
            steps: The student's steps in all.

        Returns:
            The averaged generator, in evaluation mode. After Ctrl-C there is a warning, and the generator is the
            average so far.

        Raises:
            CheckpointError: The checkpoint is of another run.
            NonFiniteError: A gradient is not finite; the last good checkpoint is named.
        """
        check_count("steps", steps)
        batches = Batches(self.data, batch_size=self.batch_size, seed=self.seed, workers=self.workers)
        with setup() as device:
            run = _Run(self, batches, device)
            message = "interrupted in step {}; the generator is what there was"
            with interruptible(lambda: message.format(run.number + 1)):
                run.train(steps)
            run.export()
            return run.averaged.eval()


class _Run:
    """The state of one call of `fit`."""

    def __init__(self, settings: Trainer, batches: Batches, device: torch.device) -> None:
        self.settings, self.batches, self.device = settings, batches, device
        self.distiller, self.out = settings.distiller, Path(settings.out)
        first = next(batches.since(0))
        with seeded(settings.seed, "preparation"):
            self.distiller.prepare(self._moved(first))
        samples, _ = unpacked(first)
        self.shape = tuple(samples.shape[1:])
        self.checkpoints = Checkpoints(
            folder=self.out,
            settings=_settings(settings, data_settings(settings.data, first)),
            digest=_digest(settings, samples),
        )
        self.distiller.student.denoiser.labels = classes_in(settings.data)
        self.average = average_of(self.distiller.student, settings.average)
        self.averaged = cast(Generator, self.average.module)
        rate = settings.learning_rate
        critic_rate = CRITIC_RATE * rate if settings.critic_rate is None else settings.critic_rate
        # Without a first moment: the two sides move each other's target.
        self.student_optimiser, self.critic_optimiser = (
            torch.optim.Adam(parameters, lr=lr, betas=(0.0, 0.99), fused=device.type != "mps")
            for parameters, lr in ((self.distiller.trained(), rate), (self.distiller.critics(), critic_rate))
        )
        self.number = self._resumed()
        if world_size() > 1:
            self.distiller.parallel(lambda module: parallel(module, device))
        self.warned: set[str] = set()
        self.pace = Pace(settings.pace)

    def train(self, steps: int) -> None:
        """Take the student's steps; those of the critics alone come first, unless the run was resumed."""
        settings, done = self.settings, self.number
        # The warm-up has the first batches, and every step critic_steps + 1 of the others.
        batch = settings.warmup + done * (self.distiller.critic_steps + 1) if done else 0
        self.stream, self.steps = self.batches.since(batch), steps
        self.bar = tqdm(total=steps, initial=done, disable=not (settings.progress and is_main()), desc="distilling")
        with self.bar, Log(self.out / "log.jsonl", resumed=done or None) as self.log:
            for number in range(0 if done else settings.warmup):
                self._critics(f"warm-up {number}")
            self.began, self.done = time.perf_counter(), done
            advance(self, self.checkpoints, steps=steps, every=settings.every, first=done)

    def step(self, number: int) -> bool:
        """Take the critics' steps and the student's; always True."""
        self.number, parts = number, {}
        for critics in range(self.distiller.critic_steps):
            parts = self._critics(f"step {number}, critics {critics}")
        with seeded(self.settings.seed, f"step {number}, student", rank()):
            losses = self._losses(self.distiller.student_loss)
            norm = self._descend(losses.total, self.student_optimiser, "student_loss")
        self.average.update_parameters(self.distiller.student)
        count = number + 1
        if count % self.settings.log_every == 0 or count == self.steps:
            seconds = torch.tensor((time.perf_counter() - self.began) / (count - self.done))
            self._log(count, parts | losses.parts | {"student_norm": norm, "seconds": seconds})
        self.bar.update()
        return True

    def mark(self, count: int) -> bool:
        """Log what the caller's check finds; always True."""
        if self.settings.check is not None and is_main():
            with seeded(self.settings.seed, f"check {count}"):
                found = self.settings.check(count, self.averaged)
            self.log.write(count, {f"check_{name}": float(value) for name, value in found.items()})
        return True

    def state(self, count: int, *, over: bool) -> dict[str, Any]:
        """The state after `count` steps."""
        return {
            "step": count,
            "distiller": self.distiller.state_dict(),
            "average": self.average.state_dict(),
            "student_optimiser": self.student_optimiser.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
        }

    def export(self) -> None:
        """Save the averaged student as a pipeline."""
        if is_main():
            OneStepPipeline(self.averaged, shape=self.shape).save_pretrained(self.out / "student")

    def _critics(self, purpose: str) -> dict[str, Tensor]:
        with seeded(self.settings.seed, purpose, rank()):
            losses = self._losses(self.distiller.critic_loss)
            norm = self._descend(losses.total, self.critic_optimiser, "critic_loss")
        return losses.parts | {"critic_norm": norm}

    def _losses(self, loss: Callable[[Batch], Losses]) -> Losses:
        self.pace.batch()
        batch = self._moved(next(self.stream))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            return loss(batch)

    def _descend(self, total: Tensor, optimiser: torch.optim.Optimizer, name: str) -> Tensor:
        loss_name = f"{name} in step {self.number + 1}"
        return descend(total, optimiser, clip=self.settings.clip, loss_name=loss_name, folder=self.out)

    def _log(self, step: int, parts: dict[str, Tensor]) -> None:
        names = sorted(parts)
        values = gather(torch.stack([parts[name].float().to(self.device) for name in names])[None]).mean(0).tolist()
        record = dict(zip(names, values, strict=True))
        self.log.write(step, record)
        self._warn("effective_share", record, lambda share: share < LEAST_SHARE, "few samples carry the step")
        self._warn("accuracy", record, lambda share: share > MOST_ACCURACY, "the discriminator tells all apart")
        self._warn("spread", record, lambda ratio: ratio > MOST_SPREAD, "the student leaves the data's range")

    def _warn(self, name: str, record: dict[str, float], bad: Callable[[float], bool], meaning: str) -> None:
        if name in record and bad(record[name]) and name not in self.warned and is_main():
            self.warned.add(name)
            warnings.warn(f"step {self.number + 1}: {name} is {record[name]:.3f}: {meaning}", stacklevel=2)

    def _resumed(self) -> int:
        state = self.checkpoints.load()
        if state is None:
            return 0
        self.distiller.load_state_dict(state["distiller"])
        self.average.load_state_dict(state["average"])
        self.averaged.times = self.distiller.student.times
        self.student_optimiser.load_state_dict(state["student_optimiser"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        return state["step"]

    def _moved(self, batch: Batch) -> Batch:
        samples, condition = unpacked(batch)
        samples = samples.to(self.device)
        return samples if condition is None else (samples, moved(condition, self.device))


def _settings(settings: Trainer, data: Any) -> dict[str, Any]:
    """What tells this run from others: all settings but the free ones, the distiller's among them.

    Args:
        settings: The trainer, with its distiller prepared.
        data: As `data_settings` gives it.
    """
    distiller, student = settings.distiller, settings.distiller.student
    names = {item.name for item in fields(settings)} - FREE - {"distiller", "data"}
    own = {name: getattr(settings, name) for name in names} | {"data": data}
    # Where what is trained has got to is in the checkpoint. A time is found by a search, which a GPU may end elsewhere.
    built = {
        "student": _structure(student),
        "ratio": _structure(distiller.ratio),
        "generator_steps": len(student.times),
    }
    made = {
        f"distiller.{name}": built[name] if name in built else getattr(distiller, name)
        for name in inspect.signature(Distiller).parameters
    }
    times = [f"{time:.3g}" for time in student.times]
    return fingerprint(own | made | {"times": times})


def _structure(module: Any) -> Any:
    """A module by its class, and by its parameters' names, shapes and which are trained; anything else as it is."""
    if not isinstance(module, nn.Module):
        return module
    weights = [[name, *weight.shape, weight.requires_grad] for name, weight in module.named_parameters()]
    return [type(module).__qualname__, weights, getattr(module, "taps", None)]


def _digest(settings: Trainer, samples: Tensor) -> str:
    """The identity of this run in checkpoints of version 0.1."""
    distiller = settings.distiller
    names = ("batch_size", "learning_rate", "critic_rate", "warmup", "average", "clip", "precision", "seed")
    decides = {name: getattr(settings, name) for name in names} | {
        "divergence": distiller.divergence.name,
        "gan_weight": distiller.gan_weight,
        "critic_steps": distiller.critic_steps,
        "levels": distiller.levels.quantile(torch.linspace(0.1, 0.9, 9)).tolist(),
        "steps": len(distiller.student.times),
        "samples": [list(samples.shape), samples.double().sum().item(), math.prod(samples.shape)],
        "weights": [[name, list(weight.shape)] for name, weight in distiller.student.named_parameters()],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
