"""The gradient of a convex network, trained on the dual of optimal transport, for the squared Euclidean cost.

    min over convex phi   J(phi) = E phi(u) + E phi*(v),    phi*(v) = max_w <w, v> - phi(w)        T = grad phi     (1)
    dJ/dtheta = E dphi/dtheta(u) - E dphi/dtheta(w),    w = argmax of phi*(v) = grad phi*(v)                        (2)

    phi(u) = <a, z_L> + |u R|^2 / 2 + <r, u>,   z_k = softplus(z_{k-1} W_k + u S_k + b_k),   W_k, a >= 0            (3)

symbol     meaning                                                    shape
u, v       source and target points in the frame below                (n, d), (m, d)
w          conjugate points: where phi has the slope v                (m, d)
S, b, W    skips from the input, biases, non-negative weights         (d, h), (h,), (h, h)
a, R, r    last weights, root of the quadratic part, slope            (h,), (d, d), (d,)

By the envelope theorem (2) holds no derivative of w, so that training needs phi's values alone, at u and at w, and no
second derivatives; grad phi, which the search for w and the map need, is written out layer by layer. Whatever the
weights are, phi is convex: T is optimal onto its own image, and only its image can be wrong.

The frame makes the best linear map, T(x) = m_y + A (x - m_x), the identity: u = A^(1/2) (x - m_x)/s and
v = A^(-1/2) (y - m_y)/s. Inner products and so optimal pairs stay as they are, and R = I, r = 0, a = 0 starts there.

The search for w is Barzilai and Borwein's gradient method, with a step length for each point, from where it ended when
the point was last met: amortised in memory, as Amos amortises it in a second network, which was tried first and, at
equal cost, left residuals a hundred times larger on the W2 benchmark.

Sources: Makkuva et al. 2020 (arXiv 1908.10812), for (1) with input-convex networks; Taghvaei and Jalali 2019 (arXiv
1902.07197), for (2); Amos 2023 (arXiv 2210.12153), for warm starts that a solver refines; Amos, Xu and Kolter 2017,
for (3); Barzilai and Borwein 1988.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch.nn.functional import softplus

from pushforward._checks import check_count, check_positive
from pushforward.errors import InvalidArgument
from pushforward.maps.base import TransportMap
from pushforward.maps.linear import bures_map

__all__ = ["ConvexPotential", "ICNNMap", "conjugate_points"]

# An eighth of the points, and at most so many, are held out; the best weights are those with the least J there.
HELD, MOST_HELD = 8, 1024
CHECKS = 20  # in a whole training
PATIENCE = 8  # checks without a better J, after which it ends
# Held-out conjugates are sought for so many steps. A J whose conjugates miss their slopes by more than this share of
# the variance (mean squares) is no J: the maximum is understated, and an unbounded phi would look best of all.
CHECK_STEPS, WORST_RESIDUAL = 20, 1e-2
# First-layer slopes at the start, over unit-variance inputs: softplus then bends within the data, not across it.
BEND = 3.0
# A direction in which one side has no extent has no A^(1/2) to divide by; this much of the largest is used.
THINNEST = 1e-4


class ConvexPotential(nn.Module):
    """phi of (3), convex as long as `project` follows every change of its weights; |u|^2 / 2 at the start.

    Args:
        dim: d.
        hidden: Widths h of the layers.
        generator: Draws the weights.
    """

    def __init__(self, dim: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        scale = BEND / math.sqrt(dim)
        self.skips = nn.ParameterList([scale * torch.randn(dim, h, generator=generator) for h in hidden])
        self.biases = nn.ParameterList([0.5 * torch.randn(h, generator=generator) for h in hidden])
        pairs = zip(hidden[:-1], hidden[1:], strict=True)
        # Non-negative of mean 1/h: each unit starts as an average of those before it.
        self.weights = nn.ParameterList([torch.rand(h, after, generator=generator) * (2.0 / h) for h, after in pairs])
        self.last = nn.Parameter(torch.zeros(hidden[-1]))
        self.root = nn.Parameter(torch.eye(dim))
        self.slope = nn.Parameter(torch.zeros(dim))

    def forward(self, u: Tensor) -> Tensor:
        """Phi at points (n, d), (n,)."""
        return softplus(self._layers(u)[-1]) @ self.last + 0.5 * (u @ self.root).square().sum(1) + u @ self.slope

    @torch.no_grad()
    def gradient(self, u: Tensor) -> Tensor:
        """grad phi at points (n, d), without a graph."""
        layers = self._layers(u)
        out = torch.addmm(self.slope, u @ self.root, self.root.T)
        back = self.last
        for k in range(len(layers) - 1, -1, -1):
            back = back * torch.sigmoid(layers[k])  # softplus'
            out.addmm_(back, self.skips[k].T)
            if k:
                back = back @ self.weights[k - 1].T
        return out

    @torch.no_grad()
    def project(self) -> None:
        """Put the weights that must not be negative back to 0 where they are."""
        for weight in (*self.weights, self.last):
            weight.clamp_(min=0.0)

    def _layers(self, u: Tensor) -> list[Tensor]:
        """What softplus is applied to, layer by layer."""
        layers = [torch.addmm(self.biases[0], u, self.skips[0])]
        for weight, skip, bias in zip(self.weights, self.skips[1:], self.biases[1:], strict=True):
            layers.append(torch.addmm(torch.addmm(bias, u, skip), softplus(layers[-1]), weight))
        return layers


@torch.no_grad()
def conjugate_points(potential: ConvexPotential, v: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Points w where the potential has the slopes v, as nearly as so many steps find them.

    Args:
        potential: phi.
        v: Slopes, (m, d).
        start: Points to start from, (m, d).
        steps: Gradients beyond the first.

    Returns:
        Of each point the best that was met, (m, d), and its squared residual |v - grad phi(w)|^2, (m,).
    """
    w, residual = start, v - potential.gradient(start)
    best, least = w, residual.square().sum(1)
    length = torch.full_like(least, 0.5)[:, None]
    for _ in range(steps):
        move = length * residual
        w = w + move
        after = v - potential.gradient(w)
        # <move, residual - after> >= 0 by convexity; 0 only where nothing moved or phi is flat.
        bend = (move * (residual - after)).sum(1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
        length = (move.square().sum(1, keepdim=True) / bend).clamp(1e-3, 1e3)
        residual = after
        square = residual.square().sum(1)
        best, least = torch.where((square < least)[:, None], w, best), torch.minimum(square, least)
    return best, least


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


@dataclass(kw_only=True, slots=True)
class _Judge:
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


class ICNNMap(TransportMap):
    """The gradient of an input-convex network (module docstring), for the squared Euclidean cost.

    Args:
        hidden: Widths of the network's layers.
        steps: Training steps; fewer where J on points held out stops falling.
        batch_size: Points of each side in a step.
        learning_rate: Adam's, at the start; it falls to 0 along a cosine.
        conjugate_steps: Gradient steps towards each conjugate point in a training step.
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
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.conjugate_steps = conjugate_steps
        self.random_state = random_state

    def _fit(self, x: Tensor, y: Tensor) -> None:
        batch = check_count("batch_size", self.batch_size)
        generator = torch.Generator().manual_seed(int(check_random_state(self.random_state).randint(2**31)))
        x, y = (points[torch.randperm(len(points), generator=generator).to(points.device)] for points in (x, y))
        self._frame = _Frame.of(x.to(torch.float64), y.to(torch.float64))
        self.potential_ = ConvexPotential(x.shape[1], self._widths(), generator).to(x.device)
        held_u, u = _hold_out(self._frame.source(x))
        held_v, v = _hold_out(self._frame.target(y))
        judge = _Judge(u=held_u, v=held_v, w=held_v)
        with torch.autocast(x.device.type, enabled=False):
            self._train(u, v, batch, judge, generator)
        self.potential_.load_state_dict(judge.kept)
        self.history_, self.kept_ = judge.history, judge.kept_at

    def _train(self, u: Tensor, v: Tensor, batch: int, judge: _Judge, generator: torch.Generator) -> None:
        steps = check_count("steps", self.steps)
        inner = check_count("conjugate_steps", self.conjugate_steps)
        potential, met = self.potential_, v.clone()  # met: the conjugate point of each v as it was last found
        optimizer = torch.optim.Adam(potential.parameters(), lr=check_positive("learning_rate", self.learning_rate))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        every = max(1, steps // CHECKS)
        judge.check(0, potential)
        for step in range(1, steps + 1):
            i, j = (torch.randint(len(side), (batch,), generator=generator).to(side.device) for side in (u, v))
            w, _ = conjugate_points(potential, v[j], met[j], inner)
            met[j] = w
            at_u, at_w = potential(torch.cat([u[i], w])).split(batch)
            optimizer.zero_grad()
            (at_u.mean() - at_w.mean()).backward()
            optimizer.step()
            schedule.step()
            potential.project()
            if step % every == 0 or step == steps:
                judge.check(step, potential)
                if judge.stale >= PATIENCE:
                    break

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
