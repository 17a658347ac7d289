"""The training of a map: stages in turn, evaluated on held-out points; the best map is kept.

A stage begins at the best map so far and ends after its steps, after `patience` checks without improvement, when its
maps get worse from check to check (`Course.rises`), or when its loss is not finite, of which a warning speaks. A later
stage's map replaces an earlier one's only if its criterion is lower by more than `MARGIN`: nearly equal judgements
speak for the simpler map. They speak for the later map in a stage with a `tolerance`, whose own best judgement would be
chance's choice among maps still in motion, while the rate falls to its end; and over the start, too.

All that the next step depends on is in a checkpoint: weights, optimiser, the best weights, the figures so far. What a
stage is given, and its batches, follow from the arguments and the step. So a run that was killed, and is called again
with the same arguments, ends with the same bits.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pushforward.errors import InvalidArgument
from pushforward.maps.monge.judge import MapMetrics
from pushforward.maps.monge.stages import Stage
from pushforward.training.distributed import average_gradients, is_main
from pushforward.training.resume import Checkpoints, advance, interruptible

__all__ = ["MARGIN", "Course", "Progress", "train"]

Progress = Callable[[dict[str, Any]], None]

# A criterion that is lower by less than this is no reason to leave a simpler map: the mean cost is its unit.
MARGIN = 1e-3
CHECKS = 20  # a stage


@dataclass(kw_only=True, slots=True)
class Course:
    """The state of a training, and what it has found.

    Args:
        validation: One record a check: stage, step within it, the metrics of `MapMetrics`, and the loss's parts there.
        kept: Weights of the best map.
        criterion: Its judgement, or a lower one within its stage's tolerance.
        stage: The stage that it comes from; "start" for what training began with.
        at: Index of the stage in progress, and its next step.
        stale: Checks since the stage last improved on anything.
        kept_at: Which record of `validation` the best map has; -1 where an older checkpoint does not say.
    """

    validation: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    criterion: float = math.inf
    stage: str = "start"
    at: tuple[int, int] = (0, 0)
    stale: int = 0
    kept_at: int = -1

    def note(self, record: dict[str, Any], network: nn.Module, tolerance: float = 0.0) -> None:
        """Record a check, and keep the weights if none before were better by more than the stage tolerates."""
        self.validation.append(record)
        stage, judged = record["stage"], record["criterion"]
        if judged < self.criterion + (tolerance if tolerance or stage == self.stage else -MARGIN):
            self.kept = {name: value.detach().clone() for name, value in network.state_dict().items()}
            self.criterion, self.stage, self.stale = min(judged, self.criterion), stage, 0
            self.kept_at = len(self.validation) - 1
        else:
            self.stale += 1

    def rises(self, checks: int) -> bool:
        """Whether so many checks in a row were each judged worse than the one before, and the last worse than the best.

        A single check that is worse is noise, and so are several of them about one level. A criterion that rises from
        check to check is what a network shows that learns its sample by heart.
        """
        last = [record["criterion"] for record in self.validation[-checks - 1 :]]
        worse = len(last) > checks and all(a < b for a, b in itertools.pairwise(last))
        return worse and last[-1] > self.criterion + MARGIN


def train(
    network: nn.Module,
    stages: Sequence[Callable[[], Stage]],
    judge: MapMetrics,
    *,
    checkpoints: Checkpoints,
    progress: Progress | None,
) -> Course:
    """Train `network` in place; it ends with the best weights seen.

    Args:
        network: At its start.
        stages: Each is made when its turn comes, since making it may take long.
        judge: Gives the figures.
        checkpoints: Where the training goes on from, and where it writes.
        progress: Called with every record of `Course.validation`, on the first process.

    Returns:
        How it went. After Ctrl-C, a warning and the best map until then.

    Raises:
        CheckpointError: The checkpoint is of another training, or cannot be read.
    """
    run = _Run(network=network, judge=judge, checkpoints=checkpoints, progress=progress)
    with interruptible(run.interruption):
        run.begin()
        for index in range(run.course.at[0], len(stages)):
            run.stage(index, stages[index]())
    network.load_state_dict(run.course.kept)
    return run.course


@dataclass(kw_only=True, slots=True)
class _Run:
    network: nn.Module
    judge: MapMetrics
    checkpoints: Checkpoints
    progress: Progress | None
    course: Course = field(default_factory=Course)
    resumed: dict[str, Any] | None = None

    def begin(self) -> None:
        """Take up the last checkpoint, or judge the start."""
        self.resumed = self.checkpoints.load()
        if self.resumed is not None:
            self.course = Course(**self.resumed["course"])
            return
        self.check("start", 0, {}, 0.0)
        if not self.course.kept:
            raise InvalidArgument("network gives images that are not finite before any training")

    def stage(self, index: int, stage: Stage) -> None:
        """Train on one stage, from its start or from where the checkpoint was made."""
        optimiser = torch.optim.Adam(self.network.parameters(), lr=stage.learning_rate)
        first = 0
        if self.resumed is not None:
            self.network.load_state_dict(self.resumed["network"])
            first = self.course.at[1]
            if first:
                optimiser.load_state_dict(self.resumed["optimiser"])
            self.resumed = None
        if not first:
            self.network.load_state_dict(self.course.kept)
            self.course.stale = 0
        part = _Part(run=self, index=index, stage=stage, optimiser=optimiser)
        every, offset = max(1, stage.steps // CHECKS), index * stage.steps
        advance(part, self.checkpoints, steps=stage.steps, every=every, first=first, offset=offset)
        self.course.at = index + 1, 0

    def check(self, stage: str, step: int, parts: dict[str, float], tolerance: float) -> None:
        """Evaluate the network, and record it."""
        losses = {f"train_{name}": value for name, value in parts.items()}
        record = {"stage": stage, "step": step, **self.judge(self.network), **losses}
        self.course.note(record, self.network, tolerance)
        if self.progress is not None and is_main():
            self.progress(self.course.validation[-1])

    def interruption(self) -> str:
        """The warning after Ctrl-C; "" where no map has been judged yet."""
        index, step = self.course.at
        message = f"interrupted in step {step} of stage {index + 1}; the best map until then is kept"
        return message if self.course.kept else ""


@dataclass(kw_only=True, slots=True)
class _Part:
    """One stage of a run, as `advance` trains it."""

    run: _Run
    index: int
    stage: Stage
    optimiser: torch.optim.Adam
    parts: dict[str, float] = field(default_factory=dict)

    def step(self, number: int) -> bool:
        """Descend; False, with a warning, where the loss is not finite."""
        self.run.course.at = self.index, number
        stage, network = self.stage, self.run.network
        for group in self.optimiser.param_groups:
            group["lr"] = 0.5 * stage.learning_rate * (1.0 + math.cos(math.pi * number / stage.steps))
        self.optimiser.zero_grad()
        loss, parts = stage.loss(network, number)
        if bool(torch.isfinite(loss.detach())):
            loss.backward()
            # Every process has the gradient through its own share, times the number of processes (`gather`).
            average_gradients(network)
            self.optimiser.step()
        self.parts = {"loss": float(loss.detach()), **parts}
        finite = all(math.isfinite(value) for value in self.parts.values())
        if not finite:
            message = f"the loss of stage {stage.name!r} is {self.parts} in step {number}; it ends here"
            warnings.warn(message, stacklevel=3)
        return finite

    def mark(self, count: int) -> bool:
        """Evaluate the network; False where its stage gains nothing any more."""
        stage, course = self.stage, self.run.course
        self.run.check(stage.name, count, self.parts, stage.tolerance)
        rises = bool(stage.rising) and course.rises(stage.rising)
        return course.stale < stage.patience and not rises

    def state(self, count: int, *, over: bool) -> dict[str, Any]:
        """The state after `count` steps of the stage."""
        course = self.run.course
        course.at = (self.index + 1, 0) if over else (self.index, count)
        return {
            "course": {name: getattr(course, name) for name in Course.__slots__},
            "network": self.run.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
