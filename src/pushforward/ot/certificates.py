"""What can be proved about an answer from its potentials: the dual value, the gap above it, bounds, infeasibility.

All of it starts from column potentials g; the rows of the plan measured there are exact, its column sums c may be off.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import InvalidArgument
from pushforward.ot.geometry.protocol import Measured
from pushforward.ot.problem import Problem

__all__ = ["certified_bounds", "dual_value", "duality_gap", "is_infeasible", "rounding_error"]


def dual_value(problem: Problem, f: Tensor, g: Tensor, mass: Tensor) -> Tensor:
    """The dual <f, a> + <g, b> - epsilon (sum P - sum a sum b), with -rho <a, exp(-f/rho) - 1> for a relaxed side.

    Args:
        problem: The problem.
        f, g: Potentials, (B, n) and (B, m).
        mass: sum P, (B,).

    Returns:
        (B,), in units of the cost times mass.
    """

    def side(weights: Tensor, potential: Tensor, rho: float) -> Tensor:
        linear = potential if rho == math.inf else -rho * torch.expm1(-potential / rho)
        return (weights * linear).sum(-1)

    a, b = problem.a, problem.b
    free = a.sum(-1) * b.sum(-1)
    return side(a, f, problem.rho_a) + side(b, g, problem.rho_b) - problem.epsilon * (mass - free)


def duality_gap(problem: Problem, measured: Measured, g: Tensor) -> Tensor:
    """An upper bound of optimum - dual value, (B,).

    Balanced: P' = P diag(w), w = min(1, b/c), lacks row masses d and column masses e = (b - c)^+, each of total s;
    P' + d e^T / s is a plan. By convexity of the objective J,

        J((1-t) Q1 + t Q2) <= (1-t) J(Q1) + t J(Q2)    with t = s/M, Q1 = P'/(1-t), Q2 = d e^T/(s t),

    and with d <= a, e <= b,

        gap <= s max(-f) - <g, e> + epsilon sum w c log w - epsilon (M - s) log(1 - s/M)
               + s max C + epsilon s log(M/s^2).

    Relaxed: P itself is feasible, and the gap is its price minus the dual value. Infinite where s > 0 and a pair is
    forbidden: the missing mass might only fit there.
    """
    if problem.rho_a != math.inf and problem.rho_b == math.inf:
        turned = problem.transposed()
        exact = turned.measure(measured.f)
        ahead = dual_value(turned, exact.f, measured.f, exact.cols.sum(-1))  # of one column update further
        here = dual_value(problem, measured.f, g, measured.cols.sum(-1))
        return duality_gap(turned, exact, measured.f) + ahead - here
    epsilon, b, c = problem.epsilon, problem.b, measured.cols
    if problem.rho_b != math.inf:
        return _relaxed_gap(problem, measured, g)
    mass = problem.a.sum(-1)
    short = (b - c).clamp_min(0.0)
    s = short.sum(-1)
    kept = torch.minimum(b, c)
    log_keep = torch.where(kept > 0, torch.log(kept / c), 0.0)
    tiny = torch.finfo(b.dtype).tiny
    f_low = torch.where(problem.a > 0, measured.f, torch.inf).amin(-1)
    gap = (
        s * (-f_low + problem.geometry.peak)
        - (torch.where(b > 0, g, 0.0) * short).sum(-1)
        + epsilon * (kept * log_keep).sum(-1)
        - epsilon * (mass - s) * torch.log1p(-(s / mass).clamp_max(1 - 1e-16))
        + epsilon * s * torch.log(mass / s.clamp_min(tiny) / s.clamp_min(tiny))
    )
    if problem.geometry.forbidden:
        return torch.where(s > 0, torch.inf, 0.0)
    return torch.where(s > 0, gap, 0.0).clamp_min(0.0)


def _relaxed_gap(problem: Problem, measured: Measured, g: Tensor) -> Tensor:
    def divergence(x: Tensor, y: Tensor) -> Tensor:
        return (torch.special.xlogy(x, x / y.clamp_min(torch.finfo(y.dtype).tiny)) - x + y).sum(-1)

    rows, _ = problem.targets(measured.f, g)
    c, f = measured.cols, measured.f
    free = problem.a.sum(-1) * problem.b.sum(-1)
    plan_part = (f * rows).sum(-1) + (g * c).sum(-1) + problem.epsilon * (free - c.sum(-1))
    primal = plan_part + problem.rho_b * divergence(c, problem.b)
    if problem.rho_a != math.inf:
        primal = primal + problem.rho_a * divergence(rows, problem.a)
    return (primal - dual_value(problem, f, g, c.sum(-1))).clamp_min(0.0)


def certified_bounds(problem: Problem, g: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of the unregularised cost, (B,) each; see `Solution.bounds`."""
    if not problem.balanced:
        raise InvalidArgument(
            "bounds() are those of balanced transport; this problem relaxes its marginals (unbalanced=)"
        )
    geometry, a, b = problem.geometry, problem.a, problem.b
    # Columns without mass do not bind: they are put out of the minimum's reach.
    f = geometry.c_transform(torch.where(b > 0, g, -torch.inf))
    tight = geometry.transposed().c_transform(torch.where(a > 0, f, -torch.inf))
    f, tight = torch.where(a > 0, f, 0.0), torch.where(b > 0, tight, 0.0)
    # Sums of rounded products, and potentials that are rounded themselves: a few ulp of the largest potential on all
    # of the mass.
    slack = 16 * torch.finfo(a.dtype).eps * a.sum(-1) * (f.abs().amax(-1) + tight.abs().amax(-1))
    lower = (f * a).sum(-1) + (tight * b).sum(-1) - slack

    measured = problem.measure(g)
    keep = torch.where(measured.cols > b, b / measured.cols, 1.0)
    rows = geometry.product(measured.f, g, problem.epsilon, a, b, keep[..., None])[..., 0]
    short_a, short_b = (a - rows).clamp_min(0.0), (b - keep * measured.cols).clamp_min(0.0)
    short, missing = short_a.sum(-1), short_b.sum(-1)
    spread = geometry.bilinear(short_a, short_b) / short.clamp_min(torch.finfo(a.dtype).tiny)
    filled = torch.where(short > 0, spread, missing * geometry.peak)
    upper = (keep * measured.cost_by_col).sum(-1) + filled
    # That plan has the columns' masses. Its rows are off where they were too heavy, where the fill was stretched to
    # the mass that is missing, and by the rounding of the exponents, of which `rows` has another than the measured
    # plan. To put a unit of mass right within its column costs no more than the whole range.
    exponents = f.abs().amax(-1) + tight.abs().amax(-1) + max(abs(geometry.peak), abs(geometry.least))
    rounding = 4 * torch.finfo(a.dtype).eps * exponents / problem.epsilon * a.sum(-1)
    off = (rows - a).clamp_min(0.0).sum(-1) + (short - missing).abs() + rounding
    upper = upper + slack + off * (geometry.peak - geometry.least)
    return lower.nan_to_num(nan=-math.inf), upper.nan_to_num(nan=math.inf, posinf=math.inf)


def is_infeasible(problem: Problem, f: Tensor) -> bool:
    """Whether it is proved that some rows have more mass than all their partners can take (Hall's condition).

    Where a side is relaxed, it takes and gives any mass: then only rows or columns without a partner are such a proof.

    Where no plan avoids the forbidden pairs, the dual is unbounded and the potentials of a violating set of rows grow
    without limit. So it is enough to test the sets {i : f_i >= threshold}: mass(rows) > mass(columns that any of them
    may reach) is a proof.
    """
    if not problem.balanced:
        rows, cols = problem.lonely()
        return bool((rows.any() and problem.rho_a == math.inf) or (cols.any() and problem.rho_b == math.inf))
    cost = problem.geometry.matrix()
    for k in range(len(cost)):
        order = f[k].argsort(descending=True)
        allowed = torch.isfinite(cost[k, order]) & (problem.a[k, order] > 0)[:, None]
        # Rank at which each column is first reached by the rows, taken in order.
        reached = torch.where(allowed.any(0), allowed.to(torch.uint8).argmax(0), cost.shape[1])
        supply = problem.a[k, order].cumsum(0)
        demand = torch.zeros_like(supply).scatter_add_(
            0, reached.clamp_max(cost.shape[1] - 1), problem.b[k] * (reached < cost.shape[1])
        )
        if bool((supply > demand.cumsum(0) + 1e-9 * supply[-1]).any()):
            return True
    return False


def rounding_error(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """L1 error, (B,), that one ulp in every potential makes."""
    target_a, target_b = problem.targets(f, g)
    sizes = (f.abs() * target_a).sum(-1) + (g.abs() * target_b).sum(-1)
    return torch.finfo(f.dtype).eps * sizes / problem.epsilon
