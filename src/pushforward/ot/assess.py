"""How good an answer is: the plan at column potentials measured, what has no weight filled in, the status."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch
from torch import Tensor

from pushforward.ot.certificates import certified_bounds, dual_value, duality_gap, is_infeasible, rounding_error
from pushforward.ot.geometry.protocol import Measured
from pushforward.ot.history import Recorder
from pushforward.ot.problem import NOBODY, Problem
from pushforward.ot.question import Question
from pushforward.ot.solution import Internals, Solution, Status

__all__ = ["assess"]

# Potential, over rho, of a row or column that may send its mass nowhere: rho (1 - exp(-FAR)) is all of rho to rounding.
FAR = 40.0


def assess(question: Question, g: Tensor, tol: float, recorder: Recorder, name: str) -> Solution[Any]:
    """Measure the plan at g, fill in rows and columns without weight, and compute the answer's errors."""
    problem = question.problem.detached()
    recorder.plan_evaluations += 1
    g = g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    lonely_rows, lonely_cols = problem.lonely()
    lonely = lonely_rows is not NOBODY
    if lonely:
        measured = dataclasses.replace(problem, a=torch.where(lonely_rows, 0.0, problem.a)).measure(g)
        f = torch.where(lonely_rows, 0.0, measured.f)
    else:
        measured = problem.measure(g)
        f = measured.f
    idle = problem.b <= 0
    if bool(idle.any()):
        turned = problem.transposed()
        g = torch.where(idle, turned.measure(f).f, g)
    if lonely:
        far_a, far_b = (FAR * rho if rho < math.inf else 0.0 for rho in (problem.rho_a, problem.rho_b))
        f, g = torch.where(lonely_rows, far_a, f), torch.where(lonely_cols, far_b, g)
        measured = dataclasses.replace(measured, f=f)
    value = dual_value(problem, f, g, measured.cols.sum(-1))
    gap = functools.partial(duality_gap, problem, measured, g)
    if problem.balanced:
        shift = 0.5 * ((problem.b * g).sum(-1) - (problem.a * f).sum(-1)) / problem.mass[:, 0]
        f, g = f + shift[:, None], g - shift[:, None]
    error = _returned_error(problem, measured, f, g, tol, recorder)
    if lonely and problem.rho_a == math.inf:  # what a row without partners keeps, no column misses that is relaxed
        error = error + torch.where(lonely_rows, problem.a, 0.0).sum(-1) / problem.mass[:, 0]
    finite = bool(torch.isfinite(error + value + measured.cost_by_col.sum(-1)).all())
    status = _status(problem, f, error, finite, tol, recorder)
    output = question.output
    return Solution(
        status=status,
        value=output(value),
        f=output(f),
        g=output(g),
        marginal_error=output.number(error),
        iterations=recorder.counts(),
        history=tuple(recorder.steps),
        epsilon=problem.epsilon,
        method=name,
        internals=Internals(
            problem=question.problem,
            f=f,
            g=g,
            epsilon=problem.epsilon,
            output=output,
            transport_cost=lambda: measured.cost_by_col.sum(-1),
            duality_gap=gap,
            bounds=functools.partial(certified_bounds, problem, g),
        ),
    )


def _returned_error(
    problem: Problem, measured: Measured, f: Tensor, g: Tensor, tol: float, recorder: Recorder
) -> Tensor:
    """L1 error over the mass of the plan that f and g, rounded as they are, give back; (B,)."""
    f, g = torch.where(problem.a > 0, f, 0.0), torch.where(problem.b > 0, g, 0.0)
    target_a, target_b = problem.targets(f, g)
    error = (measured.cols - target_b).abs().sum(-1)
    # Rounding f, g and C moves the exponents by a few ulp of the potentials over epsilon, and the plan by that share
    # of itself.
    rounding = 8 * rounding_error(problem, measured.f, g)
    if bool((rounding > 0.05 * tol * problem.mass[:, 0]).any()):
        recorder.plan_evaluations += 2
        rows, cols = problem.marginals(f, g)
        return ((rows - target_a).abs().sum(-1) + (cols - target_b).abs().sum(-1)) / problem.mass[:, 0]
    return (error + rounding) / problem.mass[:, 0]


def _status(problem: Problem, f: Tensor, error: Tensor, finite: bool, tol: float, recorder: Recorder) -> Status:
    if finite and bool((error <= tol).all()):
        return Status.CONVERGED
    if problem.geometry.forbidden and is_infeasible(problem, f):
        return Status.INFEASIBLE
    if not finite:
        return Status.NON_FINITE
    return Status.ITERATION_LIMIT if recorder.exhausted else Status.STALLED
