"""What the samples of a batch cost against one another: Sinkhorn divergences between two sets of probabilities.

    S = OT(q, p) - OT(q, q)/2 - OT(p, p)/2,     OT = min <P, C> + epsilon KL(P | a b^T)

q and p are two sets of N points of equal weight, the probabilities of a batch, and C_ij = |q_i - p_j|_1 plus what the
caller adds. By the envelope theorem

    dS/dq_i = sum_j P_ij sign(q_i - p_j) - sum_j Q_ij sign(q_i - q_j),     P, Q the plans of (q, p) and (q, q).

Nothing is unrolled: the gradient is taken in the forward pass, where the plans are at hand, and it alone, of q's
shape, is kept for the backward pass.

symbol    meaning                                              shape
q, p      probabilities of student and teacher                 (N, K)
P, Q, C   plans and costs                                      (B, N, N)
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pdist

from pushforward._interop import compute_dtype
from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.geometry.line import LineGeometry
from pushforward.ot.geometry.protocol import Geometry
from pushforward.ot.small import Optimum, best_permutation, optimum, uniform, warn_if_short
from pushforward.ot.solve import solve

__all__ = ["assigned", "between_samples", "published", "transport_cost"]

# The paper's code: so many normalisations of exp(-C/epsilon), whatever they reach, and this factor.
PUBLISHED_NORMALISATIONS, PUBLISHED_SCALE = 20, 0.001


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


def transport_cost(q: Tensor, p: Tensor, alike: Tensor | None, *, epsilon: float, tol: float) -> Tensor:
    """<P, C> at the plan of OT(q, p), a scalar in q's dtype, differentiated by the implicit function theorem.

    Args:
        q, p, alike, epsilon, tol: As `between_samples` takes them.
    """
    cost = torch.cdist(q, p, p=1.0).to(compute_dtype(q.device))
    solution = solve(cost if alike is None else cost + alike, epsilon=epsilon, tol=tol, throw=False)
    warn_if_short(float(solution.marginal_error), tol)
    return solution.transport_cost.to(q.dtype)


def assigned(q: Tensor, p: Tensor, alike: Tensor | None) -> Tensor:
    """The mean of |q_i - p_s(i)|_1 + w |r_i - r_s(i)|_2 over the best permutation s."""
    with torch.no_grad():
        if q.shape[-1] == 2 and alike is None:  # points on a line: the smallest goes to the smallest
            s = torch.empty(len(q), dtype=torch.long, device=q.device)
            s[q[:, 0].argsort()] = p[:, 0].argsort()
        else:
            cost = torch.cdist(q, p, p=1.0).to(compute_dtype(q.device))
            s = best_permutation(cost if alike is None else cost + alike)
        moved = 0.0 if alike is None else alike[torch.arange(len(s), device=s.device), s].mean().to(q.dtype)
    return (q - p[s]).abs().sum(-1).mean() + moved


def published(q: Tensor, p: Tensor, epsilon: float) -> Tensor:
    """The loss of the paper's code, whose marginals are ones, so that the value grows with the batch."""
    cost = torch.cdist(q, p, p=1.0)
    plan = torch.exp(-cost / epsilon)
    for _ in range(PUBLISHED_NORMALISATIONS):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return PUBLISHED_SCALE * (plan * cost).sum()


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

    def gradient(self, across: Optimum, within: Optimum | None) -> Tensor:
        """The gradient dS/dq, (N, K)."""
        ...


class _OnLine:
    """Two classes: |q_i - p_j|_1 = 2 |q_i1 - p_j1|, a distance on a line, where a product takes O(N)."""

    def __init__(self, q: Tensor, p: Tensor) -> None:
        x, y = (z[None, :, 0].to(compute_dtype(z.device)) for z in (q, p))
        self.across = LineGeometry(x, y, 2.0)
        both = torch.cat([x, y])
        self.within = LineGeometry(both, both, 2.0)

    def gradient(self, across: Optimum, within: Optimum | None) -> Tensor:
        """dS/dq, (N, 2): half of the derivative in q_i1 for each class, since both probabilities move."""
        slope = self._slope(self.across, across)[0]
        if within is not None:
            slope = slope - self._slope(self.within, within)[0]
        return torch.stack([slope, -slope], -1) / 2

    @staticmethod
    def _slope(geometry: LineGeometry, optimum: Optimum) -> Tensor:
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

    def gradient(self, across: Optimum, within: Optimum | None) -> Tensor:
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
        across = optimum(uniform(samples.across, epsilon, q), tol)
        within = optimum(uniform(samples.within, epsilon, q), tol, symmetric=True) if debiased else None
        warn_if_short(max(solved.error for solved in (across, within) if solved is not None), tol)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(samples.gradient(across, within).to(q.dtype))
        value = across.value.sum() - (0.0 if within is None else 0.5 * within.value.sum())
        return value.to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *bars: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return bars[0] * ctx.saved_tensors[0], None, None, None, None, None
