"""Sinkhorn divergences between probabilities, as the distillation losses need them: fast, and differentiable once.

    S = OT(q, p) - OT(q, q)/2 - OT(p, p)/2,     OT = min <P, C> + epsilon KL(P | a b^T)

Between *samples* (`between_samples`) q and p are two sets of N points of equal weight, the probabilities of a batch,
and C_ij = |q_i - p_j|_1 plus what the caller adds. By the envelope theorem

    dS/dq_i = sum_j P_ij sign(q_i - p_j) - sum_j Q_ij sign(q_i - q_j),     P, Q the plans of (q, p) and (q, q).

Between *classes* (`between_classes`) each sample is a problem of its own with weights a = q_i, b = p_i; dS/dq_i is
the difference of the row potentials of (q_i, p_i) and (q_i, q_i).

Nothing is unrolled: the gradient is taken in the forward pass, where the plans are at hand, and it alone, of q's
shape, is kept for the backward pass.

symbol    meaning                                              shape
q, p      probabilities of student and teacher                 (N, K)
P, Q, C   plans and costs                                      (B, N, N) or (N, K, K)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pdist

from pushforward._interop import compute_dtype
from pushforward.ot.certificates import dual_value
from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.geometry.line import LineGeometry
from pushforward.ot.geometry.protocol import Geometry
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solve import solve_detached
from pushforward.ot.solvers.symmetric import MOST_STEPS, self_transport

__all__ = ["between_classes", "between_samples", "warn_if_short"]


def between_samples(
    q: Tensor, p: Tensor, alike: Tensor | None = None, *, epsilon: float, tol: float, debiased: bool = True
) -> Tensor:
    """S between the rows of q and of p as points of equal weight, or OT(q, p) alone.

    Args:
        q, p: Probabilities, (N, K); the gradient flows to q only.
        alike: Added to all three costs, symmetric, (N, N).
        epsilon: Regularisation, in units of the L1 distance.
        tol: L1 marginal error to which plans are solved; there is a warning where it is not reached.
        debiased: Whether to subtract OT(q, q)/2 + OT(p, p)/2.

    Returns:
        A scalar in q's dtype.
    """
    return _BetweenSamples.apply(q, p.detach(), alike, epsilon, tol, debiased)


def between_classes(q: Tensor, p: Tensor, costs: Tensor, *, epsilon: float, tol: float) -> Tensor:
    """The mean over samples of S between the weights q_i and p_i on the classes.

    Args:
        q, p: Probabilities, (N, K); the gradient flows to q only.
        costs: The costs between the classes of each sample, (N, K, K), symmetric, in computing precision.
        epsilon: Regularisation, in units of the costs.
        tol: L1 marginal error to which plans are solved; there is a warning where it is not reached.

    Returns:
        A scalar in q's dtype.
    """
    return _BetweenClasses.apply(q, p.detach(), costs, epsilon, tol)


def warn_if_short(error: float, tol: float) -> None:
    """Warn where a plan is less exact than asked. NaN, which comes from NaN logits, is left to the loss's own error."""
    if error > 2 * tol:
        warnings.warn(
            f"a plan of the Sinkhorn distance has a marginal error of {error:.2g}, asked {tol:.2g}; "
            "raise epsilon or tol",
            RuntimeWarning,
            stacklevel=2,
        )


@dataclass(frozen=True, slots=True)
class _Optimum:
    """Solved problems of a batch: potentials f (B, n) and g (B, m) with exact rows, and the optimum (B,)."""

    problem: Problem
    f: Tensor
    g: Tensor
    value: Tensor

    def plan(self) -> Tensor:
        """The plans of the problems, (B, n, m)."""
        p = self.problem
        return p.geometry.plan(self.f, self.g, p.epsilon, p.a, p.b)


def _optimum(problem: Problem, tol: float, *, symmetric: bool = False) -> _Optimum:
    """Solve each problem of a batch; `symmetric` problems move a measure to itself."""
    g, done = self_transport(problem, tol, Recorder(MOST_STEPS)) if symmetric else (problem.b, False)
    if not done:
        g = solve_detached(problem, tol)
    measured = problem.measure(g)
    warn_if_short(float(problem.error(measured, g).max()), tol)
    return _Optimum(problem, measured.f, g, dual_value(problem, measured.f, g, measured.cols.sum(-1)))


def _of_equal_weight(geometry: Geometry, epsilon: float, like: Tensor) -> Problem:
    batch, n, m = geometry.shape
    dtype = compute_dtype(like.device)
    a, b = (torch.full((batch, size), 1 / size, dtype=dtype, device=like.device) for size in (n, m))
    return Problem(geometry=geometry, a=a, b=b, epsilon=epsilon)


class _Samples(Protocol):
    """The costs between a batch's samples, and the gradient of S in q."""

    @property
    def across(self) -> Geometry:
        """Costs between q and p, (1, N, N)."""
        ...

    @property
    def within(self) -> Geometry:
        """Costs within q and within p, (2, N, N)."""
        ...

    def gradient(self, across: _Optimum, within: _Optimum | None) -> Tensor:
        """The gradient dS/dq, (N, K)."""
        ...


class _OnLine:
    """Two classes: |q_i - p_j|_1 = 2 |q_i1 - p_j1|, a distance on a line, where a product takes O(N)."""

    def __init__(self, q: Tensor, p: Tensor) -> None:
        x, y = (z[None, :, 0].to(compute_dtype(z.device)) for z in (q, p))
        self.across = LineGeometry(x, y, 2.0)
        both = torch.cat([x, y])
        self.within = LineGeometry(both, both, 2.0)

    def gradient(self, across: _Optimum, within: _Optimum | None) -> Tensor:
        """dS/dq, (N, 2): half of the derivative in q_i1 for each class, since both probabilities move."""
        slope = self._slope(self.across, across)[0]
        if within is not None:
            slope = slope - self._slope(self.within, within)[0]
        return torch.stack([slope, -slope], -1) / 2

    @staticmethod
    def _slope(geometry: LineGeometry, optimum: _Optimum) -> Tensor:
        problem = optimum.problem
        return geometry.displacement(optimum.f, optimum.g, problem.epsilon, problem.a, problem.b)


class _InSpace:
    """Any number of classes.

    One `pdist` gives all distances among q and p, at five times the speed of `cdist`, whose derivative is as fast as
    that of `pdist` and leaves out the pairs within p, on which nothing depends that is trained.
    """

    def __init__(self, q: Tensor, p: Tensor, alike: Tensor | None) -> None:
        n = len(q)
        self._q, self._p = q, p
        distances = pdist(torch.cat([q, p]), p=1.0).to(compute_dtype(q.device))
        upper = torch.ones(2 * n, 2 * n, dtype=torch.bool, device=q.device).triu_(1)
        among = distances.new_zeros(2 * n, 2 * n).masked_scatter_(upper, distances)
        across = among[:n, n:]
        within = torch.stack([among[:n, :n], among[n:, n:]])
        within = within + within.mT
        if alike is not None:
            across, within = across + alike, within + alike
        self.across, self.within = DenseGeometry.of(across[None]), DenseGeometry.of(within)

    def gradient(self, across: _Optimum, within: _Optimum | None) -> Tensor:
        """The gradient dS/dq, (N, K)."""
        slope = self._slope(across.plan()[0], self._p)
        return slope if within is None else slope - self._slope(within.plan()[0], self._q)

    def _slope(self, plan: Tensor, other: Tensor) -> Tensor:
        """sum_j P_ij sign(q_i - other_j), (N, K)."""
        # What autograd calls for the derivative of `cdist`; through autograd the distances would be taken once more.
        # For 1-norms the last argument, which would be these distances, is not read.
        plan = plan.to(self._q.dtype)
        return torch.ops.aten._cdist_backward(plan, self._q, other, 1.0, plan)


def _samples(q: Tensor, p: Tensor, alike: Tensor | None, epsilon: float) -> _Samples:
    if q.shape[-1] == 2 and alike is None:
        line = _OnLine(q, p)
        if line.across.fits(epsilon) and line.within.fits(epsilon):
            return line
    return _InSpace(q, p, alike)


class _BetweenSamples(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, p: Tensor, alike: Tensor | None, epsilon: float, tol: float, debiased: bool
    ) -> Tensor:
        samples = _samples(q, p, alike, epsilon)
        across = _optimum(_of_equal_weight(samples.across, epsilon, q), tol)
        within = _optimum(_of_equal_weight(samples.within, epsilon, q), tol, symmetric=True) if debiased else None
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(samples.gradient(across, within).to(q.dtype))
        value = across.value.sum() - (0.0 if within is None else 0.5 * within.value.sum())
        return value.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return bars[0] * ctx.saved_tensors[0], None, None, None, None, None


class _BetweenClasses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, p: Tensor, costs: Tensor, epsilon: float, tol: float) -> Tensor:
        a, b = q.to(costs.dtype), p.to(costs.dtype)
        geometry = DenseGeometry.of(costs)
        # Softmax in float32 sums to one within rounding only, and a plan keeps mass.
        a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
        across = _optimum(Problem(geometry=geometry, a=a, b=b, epsilon=epsilon), tol)
        own_q = _optimum(Problem(geometry=geometry, a=a, b=a, epsilon=epsilon), tol, symmetric=True)
        own_p = _optimum(Problem(geometry=geometry, a=b, b=b, epsilon=epsilon), tol, symmetric=True)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(((across.f - own_q.f) / len(q)).to(q.dtype))
        return (across.value - 0.5 * (own_q.value + own_p.value)).mean().to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return bars[0] * ctx.saved_tensors[0], None, None, None, None
