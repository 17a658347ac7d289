"""Solve a problem, or a batch of them, by the method that was asked for; "auto" tries one after the other.

A batch of small problems is solved in one go, and what it leaves one by one. A single problem is solved without the
rows and columns whose weight cannot matter.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from pushforward.ot.certificates import is_infeasible, rounding_error
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solvers.newton import Newton, newton
from pushforward.ot.solvers.sinkhorn import sinkhorn
from pushforward.ot.solvers.sns import sns

__all__ = ["solve_all", "solve_detached"]

# Callers inside the library do without an answer, or with a rough one, rather than wait for Sinkhorn's iteration.
DETACHED_LIMIT = 2000
# Of those of "auto", what each of its Newton paths may take: half of what is left, between these.
FEW, MOST_NEWTON = 100, 1000
# A path with small steps, every level of which is solved to the end: slower than the usual one, and surer.
GENTLE = Newton(factor=2.0, level_tol=1e-300)
# All weights that are left out together hold less than this share of the tolerance.
NEGLIGIBLE = 1e-2


def solve_all(
    problem: Problem, start: Tensor | None, tol: float, recorder: Recorder, name: str, settings: Any
) -> Tensor:
    """Column potentials of every problem of the batch, (B, m)."""
    batch, problem = len(problem.a), problem.detached()
    if batch == 1:
        return _solve_some(problem, start, tol, recorder, name, settings)[0]
    together = problem.geometry.batch_pays and not _any_lonely(problem)
    found, left = torch.zeros_like(problem.b), range(batch)
    if together and name != "sns":
        found, done = _solve_some(problem, start, tol, recorder, name, settings)
        if done or name == "sinkhorn" or recorder.exhausted:
            return found
        error = problem.error(problem.measure(found), found)[:, 0]
        left = (~(error <= 0.5 * tol)).nonzero()[:, 0].tolist()  # each of them alone, with what is left of the limit
    for k in left:
        here = slice(k, k + 1)
        one = dataclasses.replace(problem, geometry=problem.geometry.only(k), a=problem.a[here], b=problem.b[here])
        own = Recorder(recorder.left, recorder.hook)
        found[here], _ = _solve_some(one, None if start is None else start[here], tol, own, name, settings)
        recorder.absorb(own)
    return found


def solve_detached(problem: Problem, tol: float) -> Tensor:
    """Column potentials of a problem already in computing form, for callers inside the library."""
    return solve_all(problem, None, tol, Recorder(DETACHED_LIMIT), "auto", None)


def _solve_some(
    problem: Problem, g: Tensor | None, tol: float, recorder: Recorder, name: str, settings: Any
) -> tuple[Tensor, bool]:
    """Potentials of problems solved together, and whether all are solved; one alone without what has no weight."""
    if problem.balanced:  # g does not depend on the unit of mass, and a mass of 1 keeps f of the size of the costs
        problem = dataclasses.replace(problem, a=problem.a / problem.mass, b=problem.b / problem.mass)
    if name == "sns":  # it holds the plan in any case
        problem = dataclasses.replace(problem, geometry=problem.geometry.dense())
    geometry = problem.geometry
    if len(problem.a) > 1 or not geometry.selects_alike:
        return _run(problem, g, tol, recorder, name, settings)
    rows, cols = _mattering(problem, tol)
    lonely_rows, lonely_cols = problem.lonely()
    rows, cols = rows & ~lonely_rows[0], cols & ~lonely_cols[0]
    if not bool(rows.any() and cols.any()):  # no pair may carry mass
        return torch.zeros_like(problem.b), True
    if bool(rows.all() and cols.all()):
        return _run(problem, g, tol, recorder, name, settings)
    a, b = problem.a[:, rows], problem.b[:, cols]
    if problem.balanced:
        b = b * (a.sum() / b.sum())
    inner = dataclasses.replace(problem, geometry=geometry.select(rows, cols), a=a, b=b)
    found = torch.zeros_like(problem.b)
    found[:, cols], done = _run(inner, None if g is None else g[:, cols], tol, recorder, name, settings)
    small = ~cols & (problem.b[0] > 0) & ~lonely_cols[0]
    if bool(small.any()):  # one update of their own makes these columns exact
        recorder.plan_evaluations += 1
        f = inner.measure(found[:, cols]).f
        beside = geometry.select(rows, small).transposed()
        found[:, small] = beside.measure(f, problem.epsilon, problem.b[:, small], a).f
    return found, done


def _any_lonely(problem: Problem) -> bool:
    return any(bool(side.any()) for side in problem.lonely())


def _mattering(problem: Problem, tol: float) -> tuple[Tensor, Tensor]:
    """The rows (n,) and columns (m,) that a solver must include: their weight is not 0, nor too small to make an error.

    Tails of bells reach 1e-300. Kernels hold no numbers of that size, and steps that are scaled to them go nowhere.
    """
    a, b = problem.a[0], problem.b[0]
    if not problem.balanced or problem.geometry.forbidden:
        return a > 0, b > 0
    share = 0.5 * NEGLIGIBLE * tol * float(problem.mass[0])
    return a > share / len(a), b > share / len(b)


def _run(
    problem: Problem, g: Tensor | None, tol: float, recorder: Recorder, name: str, settings: Any
) -> tuple[Tensor, bool]:
    """Column potentials, and whether the method says that they are at the tolerance."""
    if name == "sinkhorn":
        return sinkhorn(problem, g, 0.5 * tol, recorder, settings)
    if name == "sns":
        return sns(problem, g, 0.5 * tol, recorder, settings)
    if name == "newton":
        return newton(problem, g, tol, recorder, settings)
    return _auto(problem, g, tol, recorder)


def _auto(problem: Problem, g: Tensor | None, tol: float, recorder: Recorder) -> tuple[Tensor, bool]:
    """The first answer at the tolerance, of Newton's usual path, a slower one, and Sinkhorn's iteration; or the best.

    Each leaves steps for those that follow. Problems of a batch that fail are the caller's, to be solved alone.
    """
    best, least = torch.zeros_like(problem.b), math.inf
    for settings in (Newton(), GENTLE):
        with recorder.at_most(min(MOST_NEWTON, max(recorder.left // 2, FEW))):
            found, done = newton(problem, g, tol, recorder, settings)
        if done and problem.geometry.lossy:
            done = bool((problem.error(problem.measure(found), found) <= tol).all())
        if done or len(problem.a) > 1 or recorder.exhausted:
            return found, done
        measured = problem.measure(found)
        error = float(problem.error(measured, found).nan_to_num(nan=math.inf))
        best, least = (found, error) if error < least else (best, least)
        if problem.geometry.forbidden and is_infeasible(problem, measured.f):
            return best, False
        if error <= _least_rounding(problem, measured.f, found):  # no other method would do better
            return best, False
        g = None
    found, done = sinkhorn(problem, best, 0.5 * tol, recorder)
    error = float(problem.error(problem.measure(found), found).nan_to_num(nan=math.inf))
    return (found, done) if done or error < least else (best, False)


def _least_rounding(problem: Problem, f: Tensor, g: Tensor) -> float:
    """The error that rounding alone explains, for any method: of these potentials, unless they diverged."""
    spread = 2 * torch.finfo(f.dtype).eps * (problem.geometry.peak - problem.geometry.least) / problem.epsilon
    return min(2 * float(rounding_error(problem, f, g)) / float(problem.mass), spread)
