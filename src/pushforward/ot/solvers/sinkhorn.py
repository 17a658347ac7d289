"""Sinkhorn's algorithm: make the columns exact, then the rows, until both are.

    v <- (t / K^T u)^lambda_b,   u <- (a / K v)^lambda_a

With relaxed marginals the shift between the two sides is put right at every step (`semidual.py`).

In scaling form on a kernel that is rebuilt before the scalings overflow, so that it is as safe as the log-domain form
at the price of two products a step. Source: Cuturi 2013 (arXiv 1306.0895); stabilised as in Schmitzer 2019 (arXiv
1610.06519).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solvers.semidual import Point, SemiDual

__all__ = ["Sinkhorn", "sinkhorn"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sinkhorn:
    """The settings of `sinkhorn`, of which there are none."""


def sinkhorn(
    problem: Problem, g: Tensor | None, tol: float, recorder: Recorder, settings: Sinkhorn | None = None
) -> tuple[Tensor, bool]:
    """Column potentials (B, m) at which the plan's marginal error is at most `tol`, and whether it got there."""
    del settings
    g = torch.zeros_like(problem.b) if g is None else g
    dual, point = _around(problem, g, recorder)
    done = False
    while not done:
        error = float(point.error.max())
        done = error <= tol
        if done or recorder.exhausted or not math.isfinite(error):
            break
        recorder.record("sinkhorn", problem.epsilon, error)
        point = dual.sinkhorn(point)
        if dual.farthest(point)[0] > dual.kernel.farthest:
            dual, point = _around(problem, dual.potentials(point)[1], recorder)
    return dual.potentials(point)[1], done


def _around(problem: Problem, g: Tensor, recorder: Recorder) -> tuple[SemiDual, Point]:
    recorder.plan_evaluations += 1
    kernel, f, cols = problem.geometry.kernel(g, problem.epsilon, problem.a, problem.b, damping=problem.damping("a"))
    dual = SemiDual(problem, kernel, f, g, recorder)
    return dual, dual.start(cols)
