"""How a solver's answer is judged: its error and value are recomputed from what it returned."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from lib import Row
from numpy.typing import NDArray

Array = NDArray[np.float64]
TOLERANCE = 1e-9  # L1 error of both marginals together
TIGHTENINGS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a solver returned: potentials u, v with P = exp(u_i + v_j - C_ij / epsilon), or, from exact solvers, a plan.

    u (..., n) and v (..., m) carry the weights: u = f / epsilon + log a. A plan P of this form with the right marginals
    is the optimum, so its marginal error certifies it; a bare plan is only known to be feasible.
    """

    u: Array | None = None
    v: Array | None = None
    plan: Array | None = None
    counts: dict[str, int] | None = None
    claim: str | None = None  # what the package itself says of its result, where it says anything


def from_duals(problem: Any, f: Any, g: Any, **more: Any) -> Answer:
    """The answer of dual potentials f (n,), g (m,), or of a batch of them, where P = a exp((f + g - C) / epsilon) b."""
    u, v = (np.asarray(dual) / problem.epsilon for dual in (f, g))
    return Answer(u=u + np.log(problem.a), v=v + np.log(problem.b), **more)


def plan_of(answer: Answer, cost: Array, epsilon: float) -> Array:
    if answer.plan is not None:
        return np.asarray(answer.plan, dtype=np.float64)
    u, v = np.asarray(answer.u, dtype=np.float64), np.asarray(answer.v, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(u[..., :, None] + v[..., None, :] - cost / epsilon)


def marginal_error(plan: Array, a: Array, b: Array) -> float:
    """L1 error of both marginals together, in float64; the largest over a batch. NaN counts as infinite."""
    with np.errstate(invalid="ignore"):
        errors = np.abs(plan.sum(-1) - a).sum(-1) + np.abs(plan.sum(-2) - b).sum(-1)
    worst = float(np.max(errors))
    return worst if np.isfinite(worst) else float("inf")


def value_of(answer: Answer, plan: Array, problem: Any) -> float:
    """The dual value <f, a> + <g, b> - epsilon (sum P - 1) of potentials, else <P, C>; of a batch the sum."""
    if answer.plan is not None:
        return float((plan * problem.cost).sum())
    f = problem.epsilon * (answer.u - np.log(problem.a))
    g = problem.epsilon * (answer.v - np.log(problem.b))
    return float(np.sum(f @ problem.a + g @ problem.b - problem.epsilon * (plan.sum((-1, -2)) - 1)))


def tightened(attempt: Callable[[float], Row], tolerance: float) -> Row:
    """A row of the loosest threshold of the solver's own that is enough, seen from `tolerance` downwards."""
    row: Row = {}
    for _ in range(TIGHTENINGS):
        row = attempt(tolerance)
        if row["status"] == "ok" or row["error"] is None or row["error"] > 1.0:
            break
        tolerance *= max(0.7 * TOLERANCE / row["error"], 1e-3)
    return row


def judged(problem: Any, answer: Answer, seconds: list[float]) -> dict[str, Any]:
    """A row of results: the median time, and the error and value recomputed from what was returned."""
    plan = plan_of(answer, problem.cost, problem.epsilon)
    error = marginal_error(plan, problem.a, problem.b)
    row: dict[str, Any] = {
        "status": "ok" if error <= TOLERANCE else "not at the tolerance",
        "seconds": statistics.median(seconds),
        "runs": seconds,
        "error": error if np.isfinite(error) else None,
        "value": value_of(answer, plan, problem) if np.isfinite(error) else None,
    }
    return row | {key: value for key in ("counts", "claim") if (value := getattr(answer, key)) is not None}
