"""The gradient of a convex network, trained on the dual of optimal transport, for the squared Euclidean cost.

    min over convex phi   J(phi) = E phi(u) + E phi*(v),    phi*(v) = max_w <w, v> - phi(w)        T = grad phi     (1)
    dJ/dtheta = E dphi/dtheta(u) - E dphi/dtheta(w),    w = argmax of phi*(v) = grad phi*(v)                        (2)

symbol   meaning                                          shape
phi      an input-convex network (`convex`)               (n, d) -> (n,)
u, v     source and target points in the frame below      (n, d), (m, d)
w        conjugate points: where phi has the slope v      (m, d)

By the envelope theorem (2) holds no derivative of w, so that training needs phi's values alone, at u and at w, and no
second derivatives. Whatever the weights are, phi is convex: T is optimal onto its own image, and only its image can be
wrong.

The frame makes the best linear map, T(x) = m_y + A (x - m_x), the identity: u = A^(1/2) (x - m_x)/s and
v = A^(-1/2) (y - m_y)/s. Inner products and so optimal pairs stay as they are, and R = I, r = 0, a = 0 starts there.

The search for w starts from where it ended when the point was last met: amortised in memory, as Amos amortises it in a
second network, which was tried first and, at equal cost, left residuals a hundred times larger on the W2 benchmark.

Sources: Makkuva et al. 2020 (arXiv 1908.10812), for (1) with input-convex networks; Taghvaei and Jalali 2019 (arXiv
1902.07197), for (2); Amos 2023 (arXiv 2210.12153), for warm starts that a solver refines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sklearn.utils import check_random_state
from torch import Tensor

from pushforward._checks import check_count, check_positive
from pushforward._typed import check_folder
from pushforward.errors import InvalidArgument
from pushforward.maps.base import TransportMap
from pushforward.maps.convex import ConvexPotential, conjugate_points
from pushforward.maps.linear import bures_map
from pushforward.training.resume import Checkpoints, advance, fingerprint, interruptible

__all__ = ["ICNNMap"]

# An eighth of the points, and at most so many, are held out; the best weights are those with the least J there.
HELD, MOST_HELD = 8, 1024
CHECKS = 20  # in a whole training
PATIENCE = 8  # checks without a better J, after which it ends
# Held-out conjugates are sought for so many steps. A J whose conjugates miss their slopes by more than this share of
# the variance (mean squares) is no J: the maximum is understated, and an unbounded phi would look best of all.
CHECK_STEPS, WORST_RESIDUAL = 20, 1e-2
# A direction in which one side has no extent has no A^(1/2) to divide by; this much of the largest is used.
THINNEST = 1e-4
# Parameters that may change between a training and its resumption; of `random_state` the seed counts that it gave.
FREE = frozenset({"checkpoint", "random_state"})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frame:
    """The coordinates u, v of the module, in which the best linear map is the identity; in float64."""

    mean_x: Tensor
    mean_y: Tensor
    half: Tensor  # A^(1/2)/s
    inverse: Tensor  # A^(-1/2)/s
    back: Tensor  # s A^(1/2)

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Frame:
        mean_x, mean_y = x.mean(0), y.mean(0)
        values, axes = torch.linalg.eigh(bures_map(x, y).matrix)
        top = float(values[-1])
        roots = values.clamp_min(THINNEST * top).sqrt() if top > 0 else torch.ones_like(values)
        half = (axes * roots) @ axes.T
        s = math.sqrt(float(((x - mean_x) @ half).square().mean())) or 1.0
        inverse = (axes / roots) @ axes.T
        return cls(mean_x=mean_x, mean_y=mean_y, half=half / s, inverse=inverse / s, back=half * s)

    def source(self, x: Tensor) -> Tensor:
        return ((x.to(self.half) - self.mean_x) @ self.half).to(torch.float32)

    def target(self, y: Tensor) -> Tensor:
        return ((y.to(self.half) - self.mean_y) @ self.inverse).to(torch.float32)

    def image(self, v: Tensor) -> Tensor:
        return v.to(self.half) @ self.back + self.mean_y


# What of a judge changes from check to check.
_JUDGED = ("w", "history", "kept", "least", "stale", "kept_at")


@dataclass(kw_only=True, slots=True)
class _HeldOutObjective:
    """J on points held out, at each check."""

    u: Tensor
    v: Tensor
    w: Tensor
    history: list[dict[str, float]] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    least: float = math.inf
    stale: int = 0
    kept_at: int = 0

    @torch.no_grad()
    def check(self, step: int, potential: ConvexPotential) -> None:
        self.w, square = conjugate_points(potential, self.v, self.w, CHECK_STEPS)
        conjugate = (self.w * self.v).sum(1) - potential(self.w)
        dual = float(potential(self.u).mean(dtype=torch.float64) + conjugate.mean(dtype=torch.float64))
        residual = float(square.mean() / self.v.square().sum(1).mean().clamp_min(torch.finfo(self.v.dtype).tiny))
        self.history.append({"step": step, "dual": dual, "residual": residual})
        if dual < self.least and residual <= WORST_RESIDUAL:
            self.kept = {name: value.clone() for name, value in potential.state_dict().items()}
            self.least, self.stale, self.kept_at = dual, 0, len(self.history) - 1
        else:
            self.stale += 1


class _Training:
    """The training of a potential, as `advance` takes it.

    Args:
        potential: phi at its start.
        u, v: Source and target points to train on.
        batch: Points of each side in a step.
        inner: Gradient steps towards each conjugate point.
        rate: Adam's learning rate at the start, and the steps over which it falls to 0.
        generator: Draws the batches.
        judge: Evaluates J on held-out points.
    """

    def __init__(
        self,
        *,
        potential: ConvexPotential,
        u: Tensor,
        v: Tensor,
        batch: int,
        inner: int,
        rate: tuple[float, int],
        generator: torch.Generator,
        judge: _HeldOutObjective,
    ) -> None:
        self.potential, self.u, self.v, self.batch, self.inner = potential, u, v, batch, inner
        self.generator, self.judge = generator, judge
        self.met = v.clone()  # the conjugate point of each v as it was last found
        self.optimizer = torch.optim.Adam(potential.parameters(), lr=rate[0])
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, rate[1])
        self.steps, self.done = rate[1], 0

    def begin(self, state: dict[str, Any] | None) -> int:
        """Take up a checkpoint's state, or judge the start; returns the step to go on from."""
        if state is None:
            self.judge.check(0, self.potential)
            return 0
        for name in ("potential", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        self.met = state["met"].to(self.v)
        for name in _JUDGED:
            setattr(self.judge, name, state["judge"][name])
        self.judge.w = self.judge.w.to(self.v)
        self.done = state["step"]
        return self.done

    def step(self, number: int) -> bool:
        """Descend (2) on one batch; always True."""
        i, j = (
            torch.randint(len(side), (self.batch,), generator=self.generator).to(side.device)
            for side in (self.u, self.v)
        )
        w, _ = conjugate_points(self.potential, self.v[j], self.met[j], self.inner)
        self.met[j] = w
        at_u, at_w = self.potential(torch.cat([self.u[i], w])).split(self.batch)
        self.optimizer.zero_grad()
        (at_u.mean() - at_w.mean()).backward()
        self.optimizer.step()
        self.schedule.step()
        self.potential.project()
        self.done = number + 1
        return True

    def mark(self, count: int) -> bool:
        """Evaluate the potential; False where it has not become better for long."""
        self.judge.check(count, self.potential)
        return self.judge.stale < PATIENCE

    def state(self, count: int, *, over: bool) -> dict[str, Any]:
        """The state after `count` steps; where no step follows it says that all were taken."""
        parts = {name: getattr(self, name).state_dict() for name in ("potential", "optimizer", "schedule")}
        return parts | {
            "generator": self.generator.get_state(),
            "met": self.met,
            "judge": {name: getattr(self.judge, name) for name in _JUDGED},
            "step": self.steps if over else count,
        }

    def interruption(self) -> str:
        """The warning after Ctrl-C; "" where nothing has been judged yet."""
        message = f"interrupted in step {self.done + 1}; the best map until then is kept"
        return message if self.judge.kept else ""


class ICNNMap(TransportMap):
    """The gradient of an input-convex network (module docstring), for the squared Euclidean cost.

    Args:
        hidden: Widths of the network's layers.
        steps: Training steps; fewer where J on points held out stops falling.
        batch_size: Points of each side in a step.
        learning_rate: Adam's, at the start; it falls to 0 along a cosine.
        conjugate_steps: Gradient steps towards each conjugate point in a training step.
        checkpoint: Folder from which an interrupted `fit` goes on, and into which it writes; None for none.
        random_state: Seed of the weights and batches, as scikit-learn has it.

    Attributes:
        potential_: phi, a `ConvexPotential`.
        history_: A record a check: step, J on points held out ("dual", in the frame's units: the lower the better),
            and the mean squared residual of its conjugates over the variance.
        kept_: Which record of `history_` the kept map has; -1 where a map from an older version does not say.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).standard_normal((200, 2))
        >>> ICNNMap(hidden=(8,), steps=20, random_state=0).fit(x, 2.0 * x + 5.0).transform(np.zeros((1, 2))).round(0)
        array([[5., 5.]])
    """

    potential_: ConvexPotential
    history_: list[dict[str, float]]
    kept_: int

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (128, 128, 128),
        steps: int = 2000,
        batch_size: int = 512,
        learning_rate: float = 0.03,
        conjugate_steps: int = 4,
        checkpoint: str | Path | None = None,
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.conjugate_steps = conjugate_steps
        self.checkpoint = checkpoint
        self.random_state = random_state

    def _fit(self, x: Tensor, y: Tensor) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31))
        steps, batch = check_count("steps", self.steps), check_count("batch_size", self.batch_size)
        checkpoints = self._checkpoints(x, y, seed)
        generator = torch.Generator().manual_seed(seed)
        x, y = (points[torch.randperm(len(points), generator=generator).to(points.device)] for points in (x, y))
        self._frame = _Frame.of(x.to(torch.float64), y.to(torch.float64))
        self.potential_ = ConvexPotential(x.shape[1], self._widths(), generator).to(x.device)
        held_u, u = _hold_out(self._frame.source(x))
        held_v, v = _hold_out(self._frame.target(y))
        training = _Training(
            potential=self.potential_,
            u=u,
            v=v,
            batch=batch,
            inner=check_count("conjugate_steps", self.conjugate_steps),
            rate=(check_positive("learning_rate", self.learning_rate), steps),
            generator=generator,
            judge=_HeldOutObjective(u=held_u, v=held_v, w=held_v),
        )
        with torch.autocast(x.device.type, enabled=False), interruptible(training.interruption):
            first = training.begin(checkpoints.load())
            advance(training, checkpoints, steps=steps, every=max(1, steps // CHECKS), first=first)
        self.potential_.load_state_dict(training.judge.kept)
        self.history_, self.kept_ = training.judge.history, training.judge.kept_at

    def _checkpoints(self, x: Tensor, y: Tensor, seed: int) -> Checkpoints:
        """The checkpoints of this training, with its data and parameters as what tells it from others."""
        if self.checkpoint is None:
            return Checkpoints(folder=None, settings={})
        folder = check_folder("checkpoint", self.checkpoint)
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name not in FREE}
        settings = fingerprint(parameters | {"seed": seed, "data": [x, y]})
        return Checkpoints(folder=folder, settings=settings)

    def _transform(self, x: Tensor) -> Tensor:
        return self._frame.image(self.potential_.gradient(self._frame.source(x)))

    def _state(self) -> dict[str, Any]:
        frame = {name: getattr(self._frame, name) for name in _Frame.__slots__}
        return {"frame": frame, "potential": self.potential_.state_dict(), "history": self.history_, "kept": self.kept_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._frame = _Frame(**state["frame"])
        self.potential_ = ConvexPotential(len(self._frame.mean_x), self._widths(), torch.Generator())
        self.potential_.load_state_dict(state["potential"])
        self.history_, self.kept_ = state["history"], state.get("kept", -1)

    def _widths(self) -> tuple[int, ...]:
        widths: Any = self.hidden
        if not isinstance(widths, list | tuple) or not widths:
            raise InvalidArgument(f"hidden must be the widths of one layer or more, as (128, 128), got {widths!r}")
        return tuple(check_count("hidden", width) for width in widths)


def _hold_out(points: Tensor) -> tuple[Tensor, Tensor]:
    """The first of the points to judge on, and the others; all of them for both where there are too few to spare."""
    held = min(len(points) // HELD, MOST_HELD)
    return (points[:held], points[held:]) if held else (points, points)
