"""Teachers that are trained here: an EDM-preconditioned network by denoising score matching.

    L = E[(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 |D(x0 + sigma eps; sigma, label) - x0|^2] / d

symbol       meaning                                                     shape
x0           the data                                                    (B, ...)
sigma        noise, log-normal over training (`VarianceExploding`)       (B,)
sigma_data   the data's standard deviation about 0, over all numbers     ()
label        class, or with some probability `classes`, for none         (B,)

The rate rises for some steps and falls along a cosine to 0; what comes out is a running average. Every batch, and all
that is random in a step, follows from the seed and the step's number, so that a run that was killed, and is started
again with the same arguments, ends with the same bits.

Sources: Karras et al. 2022 (EDM, arXiv 2206.00364), Table 1 and section 5; Ho and Salimans 2022 (arXiv 2207.12598) for
labels that are left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pushforward._checks import check_count, check_instance, check_positive, check_weight
from pushforward._typed import typed, typed_fields
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
    unpacked,
)
from pushforward.diffusion.losses import denoising_loss
from pushforward.diffusion.networks import NetworkConfig, build, config_for, config_to_json
from pushforward.diffusion.processes import VarianceExploding
from pushforward.diffusion.saved import load_denoiser, save_denoiser
from pushforward.diffusion.teachers import Denoiser, from_edm
from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.training import Log
from pushforward.training.distributed import gather, is_main, parallel, rank, setup
from pushforward.training.random import seeded
from pushforward.training.resume import Checkpoints, advance, fingerprint, interruptible

__all__ = ["TeacherTrainer", "load_teacher", "save_teacher"]

# Steps over which the rate rises, and its share of the whole in a short run.
RISE, RISE_SHARE = 100, 0.1
CLIP = 10.0
# Settings that may change between a run and its resumption. Those of the log do not: its means are over their steps.
FREE = frozenset({"out", "workers", "progress", "pace"})
_NAME = "teacher"


@typed_fields
@dataclass
class TeacherTrainer:
    """Trains a teacher on data.

    Args:
        data: Samples (N, ...), images in [-1, 1]; a pair of them with their labels (N,), integers; or a dataset.
        out: The run's folder: checkpoints, log.jsonl, and at the end `teacher`, for `load_teacher`.
        network: The configuration of the network; None for one that suits the samples' shape (`networks.config_for`)
            and the labels.
        process: The process that noises the data.
        batch_size: Samples of a batch, over all processes together.
        learning_rate: Adam's peak learning rate.
        average: The running average's factor from step to step, which is reached in the course of the training.
        label_dropout: Share of samples whose label is left out, so that the teacher learns the data without labels,
            too.
        every: Steps between checkpoints.
        log_every: Steps between records.
        seed: The random seed.
        workers: Processes that load a dataset.
        progress: Whether to show a progress bar.
        pace: Called once, after the first steps, with the seconds of a step.

    Raises:
        InvalidArgument: A setting that no run can have.

    Example:
        >>> import tempfile
        >>> data = torch.randn(64, 2)
        >>> with tempfile.TemporaryDirectory() as run:
        ...     teacher = TeacherTrainer(data, out=run, batch_size=16, progress=False).fit(3)
        >>> teacher.x0(data, torch.tensor(0.5)).shape
        torch.Size([64, 2])
    """

    data: Data
    _: KW_ONLY
    out: str | Path
    network: NetworkConfig | None = None
    process: VarianceExploding = field(default_factory=VarianceExploding)
    batch_size: int = 256
    learning_rate: float = 2e-3
    average: float = 0.995
    label_dropout: float = 0.1
    every: int = 500
    log_every: int = 50
    seed: int = 0
    workers: int = 0
    progress: bool = True
    pace: Callable[[float], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_instance("process", self.process, VarianceExploding)
        check_run(self.data, out=self.out, batch_size=self.batch_size, workers=self.workers)
        check_positive("learning_rate", self.learning_rate)
        for name in ("average", "label_dropout"):
            if not check_weight(name, getattr(self, name)) < 1:
                raise InvalidArgument(f"{name} must be below 1, got {getattr(self, name)}")
        for name in ("every", "log_every"):
            check_count(name, getattr(self, name))

    @typed
    def fit(self, steps: int) -> Denoiser:
        """Train the teacher, from the last checkpoint in `out` if there is one.

        Args:
            steps: The number of steps in all.

        Returns:
            The averaged teacher, in evaluation mode, without gradients. After Ctrl-C there is a warning, and the
            teacher is the average so far.

        Raises:
            CheckpointError: The checkpoint is of another run.
            NonFiniteError: A gradient is not finite; the last good checkpoint is named.
        """
        check_count("steps", steps)
        batches = Batches(self.data, batch_size=self.batch_size, seed=self.seed, workers=self.workers)
        with setup() as device:
            run = _Run(self, batches, device, steps)
            message = "interrupted in step {}; the teacher is what there was"
            with interruptible(lambda: message.format(run.number + 1)):
                run.train()
            if is_main():
                save_teacher(run.out / _NAME, run.averaged, shape=run.shape)
            return run.averaged.eval()


def save_teacher(folder: str | Path, teacher: Denoiser, *, shape: tuple[int, ...]) -> None:
    """Write a teacher as teacher.json and teacher.safetensors, which cannot run code.

    Args:
        folder: Made if missing.
        teacher: The teacher, on a network of `networks` or on a module of the caller's own, which has to be given again
            when it is loaded.
        shape: The shape of one sample.
    """
    save_denoiser(Path(folder), _NAME, teacher, {"shape": list(shape)})


def load_teacher(folder: str | Path, *, network: nn.Module | None = None) -> tuple[Denoiser, tuple[int, ...]]:
    """Load the teacher that `save_teacher` wrote, onto the CPU.

    Args:
        folder: The folder it was saved to.
        network: The network again, where it was the caller's own module.

    Returns:
        The teacher, and the shape of its samples.

    Raises:
        CheckpointError: A file is missing or broken; the message names it.
        InvalidArgument: The network was the caller's own and is not given, or given and not needed.
    """
    file = Path(folder) / f"{_NAME}.json"
    if not file.is_file():
        raise CheckpointError(f"{file} is missing: no teacher was saved there")
    teacher, extra = load_denoiser(file.parent, _NAME, network)
    try:
        shape = tuple(check_count("shape", size) for size in extra["shape"])
    except (KeyError, TypeError, InvalidArgument) as error:
        raise CheckpointError(f"{file} holds no teacher: {error}") from error
    return teacher.eval().requires_grad_(False), shape


class _Run:
    """The state of one call of `fit`."""

    def __init__(self, settings: TeacherTrainer, batches: Batches, device: torch.device, steps: int) -> None:
        self.settings, self.batches, self.device, self.steps = settings, batches, device, steps
        self.out, self.number = Path(settings.out), 0
        first = next(batches.since(0))
        samples, _ = unpacked(first)
        self.shape = tuple(samples.shape[1:])
        data = settings.data
        # All the data where it is at hand, and the first process's word where each has seen a batch of its own.
        known = data if isinstance(data, Tensor) else data[0] if isinstance(data, tuple) else samples
        self.sigma_data = gather(known.double().square().mean().sqrt().clamp_min(1e-6)[None].to(device))[0].item()
        self.classes = _classes(data[1]) if isinstance(data, tuple) else None
        config = settings.network or config_for(self.shape, classes=self.classes)
        self.classes = config.classes
        with seeded(settings.seed, "weights"):
            self.denoiser = from_edm(build(config), settings.process, sigma_data=self.sigma_data).to(device)
        self.denoiser.labels = classes_in(data)
        own = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name not in FREE}
        made = {"network": config, "data": data_settings(data, first), "steps": steps}
        self.checkpoints = Checkpoints(
            folder=self.out, settings=fingerprint(own | made), digest=_digest(settings, config, samples, steps)
        )
        self.average = average_of(self.denoiser, settings.average)
        self.averaged = cast(Denoiser, self.average.module)
        self.optimiser = torch.optim.Adam(
            self.denoiser.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), fused=device.type != "mps"
        )
        state = self.checkpoints.load()
        if state is not None:
            self.number = state["step"]
            self.denoiser.load_state_dict(state["denoiser"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        self.forward: Callable[..., Tensor] = parallel(self.denoiser, device)
        self.pace, self.losses = Pace(settings.pace), list[Tensor]()

    def train(self) -> None:
        """Take the steps that are left."""
        settings, done = self.settings, self.number
        self.stream = self.batches.since(done)
        self.bar = tqdm(total=self.steps, initial=done, disable=not (settings.progress and is_main()), desc="teacher")
        with self.bar, Log(self.out / "log.jsonl", resumed=done or None) as self.log:
            advance(self, self.checkpoints, steps=self.steps, every=settings.every, first=done)

    def step(self, number: int) -> bool:
        """Descend on one batch, and log the mean loss now and then; always True."""
        settings, count = self.settings, number + 1
        self.number = number
        self.pace.batch()
        with seeded(settings.seed, f"step {number}", rank()):
            loss, norm = self._descend(next(self.stream))
        self.average.update_parameters(self.denoiser)
        self.losses.append(loss)
        if count % settings.log_every == 0 or count == self.steps:
            mean = gather(torch.stack(self.losses).mean()[None]).mean().item()
            self.log.write(count, {"loss": mean, "norm": norm.item(), "rate": self.optimiser.param_groups[0]["lr"]})
            self.bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        if count % settings.log_every == 0 or count % settings.every == 0:
            # Records begin anew at checkpoints, too, so that a resumed run writes the same ones.
            self.losses = []
        self.bar.update()
        return True

    def mark(self, count: int) -> bool:
        """Check nothing; always True."""
        return True

    def state(self, count: int, *, over: bool) -> dict[str, Any]:
        """The state after `count` steps."""
        return {
            "step": count,
            "denoiser": self.denoiser.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def _descend(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One step on one batch: the loss and the gradient's length, () each."""
        x, label = unpacked(batch)
        x = x.to(self.device)
        sigma = self.settings.process.sample_t(len(x), device=self.device)
        x_t = self.settings.process.add_noise(x, sigma, torch.randn_like(x))
        if label is not None:
            label = label.to(self.device).long()
            drop = torch.rand(len(x), device=self.device) < self.settings.label_dropout
            label = label.masked_fill(drop, self.classes or 0)
        alpha, _ = self.settings.process.coefficients(x, sigma)
        losses = denoising_loss(self.forward(x_t, sigma, label), x, alpha, sigma, sigma_data=self.sigma_data)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * _rate(self.number, self.steps)
        loss_name = f"the loss in step {self.number + 1}"
        norm = descend(losses.mean(), self.optimiser, clip=CLIP, loss_name=loss_name, folder=self.out)
        return losses.detach().mean(), norm


def _classes(labels: Any) -> int:
    """The number of classes that labels from 0 imply."""
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point() or int(labels.min()) < 0:
        what = f"{tuple(labels.shape)}, {labels.dtype}" if isinstance(labels, Tensor) else type(labels).__name__
        raise InvalidArgument(f"data: labels are {what}; classes are integers from 0, one a sample, (N,)")
    return int(labels.max()) + 1


def _rate(step: int, steps: int) -> float:
    """The factor of the learning rate in a step: a linear rise, then a cosine to 0."""
    rise = min(1.0, (step + 1) / min(RISE, max(1.0, RISE_SHARE * steps)))
    return rise * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _digest(settings: TeacherTrainer, config: NetworkConfig, samples: Tensor, steps: int) -> str:
    """The identity of this run in checkpoints of version 0.1."""
    names = ("batch_size", "learning_rate", "average", "label_dropout", "log_every", "every", "seed")
    decides = {name: getattr(settings, name) for name in names} | {
        "steps": steps,
        "network": config_to_json(config),
        "process": {item.name: getattr(settings.process, item.name) for item in fields(settings.process)},
        "samples": [list(samples.shape), samples.double().sum().item()],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
