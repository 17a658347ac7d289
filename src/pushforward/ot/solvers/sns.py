"""Sinkhorn-Newton-Sparse as published: Tang et al., ICLR 2024, arXiv 2401.12253, algorithm 1.

A few Sinkhorn steps; then Newton's method on the dual in (f, g) together,

    D(f, g) = <f, a> + <g, b> - epsilon sum_ij P_ij,      grad = (a - P 1, b - P^T 1),
    -epsilon Hess = [[diag(P 1), P], [P^T, diag(P^T 1)]],

whose off-diagonal P is thinned to its largest entries, a share rho of them; the system is solved by conjugate
gradients and the step found by backtracking on D. Kept in the published form, exponentials and all, as the reference
that `newton` is measured against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward._checks import check_count, check_positive
from pushforward._typed import typed_fields
from pushforward.errors import InvalidArgument
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solvers.sinkhorn import sinkhorn

__all__ = ["SNS", "sns"]


@typed_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class SNS:
    """Settings of `sns`; the defaults are the paper's for random costs and squared-l2 images.

    Args:
        sinkhorn_steps: Sinkhorn steps before the first Newton step (the paper: 20; 700 for l1 images).
        density: Share of the entries of P that the Hessian keeps; None is 2/n (the paper: 15/n for l1 images).
        cg_tol: Residual over right-hand side at which CG stops.
        cg_steps: CG iterations at most.
    """

    sinkhorn_steps: int = 20
    density: float | None = None
    cg_tol: float = 1e-6
    cg_steps: int = 500

    def __post_init__(self) -> None:
        check_count("sinkhorn_steps", self.sinkhorn_steps, least=0)
        check_count("cg_steps", self.cg_steps)
        check_positive("cg_tol", self.cg_tol)
        if self.density is not None and check_positive("density", self.density) > 1:
            raise InvalidArgument(f"density must be a share of the plan's entries, at most 1, got {self.density}")


def sns(
    problem: Problem, g: Tensor | None, tol: float, recorder: Recorder, settings: SNS | None = None
) -> tuple[Tensor, bool]:
    """Column potentials (1, m) at which the plan's marginal error is at most `tol`, and whether it got there.

    Raises:
        InvalidArgument: The problem relaxes a marginal; the published method is for balanced transport.
    """
    settings = SNS() if settings is None else settings
    if not problem.balanced:
        raise InvalidArgument('method "sns" is for balanced transport; use "newton" or "auto" with unbalanced=')
    warm = Recorder(min(settings.sinkhorn_steps, recorder.limit), recorder.hook)
    g, done = sinkhorn(problem, g, tol, warm)
    recorder.sinkhorn, recorder.plan_evaluations = warm.sinkhorn, warm.plan_evaluations
    recorder.products, recorder.steps = warm.products, warm.steps
    if done:
        return g, True
    _, n, m = problem.geometry.shape
    kept = min(n * m, max(1, int((2 / n if settings.density is None else settings.density) * n * m)))
    f = problem.measure(g).f
    state = _State.at(problem, f[0], g[0], recorder)
    while state.error > tol and not recorder.exhausted and math.isfinite(state.error):
        recorder.record("newton", problem.epsilon, state.error)
        step_f, step_g = _direction(state, kept, settings, recorder)
        moved = _line_search(problem, state, step_f, step_g, recorder)
        if moved is None:
            break
        state = moved
    return state.g[None], state.error <= tol


@dataclass(frozen=True, slots=True)
class _State:
    f: Tensor
    g: Tensor
    plan: Tensor
    grad_f: Tensor
    grad_g: Tensor
    dual: float
    error: float

    @classmethod
    def at(cls, problem: Problem, f: Tensor, g: Tensor, recorder: Recorder) -> _State:
        recorder.plan_evaluations += 1
        plan = problem.geometry.plan(f[None], g[None], problem.epsilon, problem.a, problem.b)[0]
        a, b = problem.a[0], problem.b[0]
        grad_f, grad_g = a - plan.sum(1), b - plan.sum(0)
        dual = float(f @ a + g @ b - problem.epsilon * plan.sum())
        error = float(grad_f.abs().sum() + grad_g.abs().sum()) / float(problem.mass)
        return cls(f, g, plan, grad_f, grad_g, dual, error)


def _direction(state: _State, kept: int, settings: SNS, recorder: Recorder) -> tuple[Tensor, Tensor]:
    """Solve the thinned Newton system by conjugate gradients, in units of epsilon."""
    n, m = state.plan.shape
    values, where = state.plan.reshape(-1).topk(kept, sorted=False)
    indices = torch.stack([where // m, where % m])
    thin = torch.sparse_coo_tensor(indices, values, (n, m), check_invariants=False).coalesce()
    thin_t = thin.T.coalesce()
    diagonal = torch.cat([state.plan.sum(1), state.plan.sum(0)])
    residual = torch.cat([state.grad_f, state.grad_g])
    goal = settings.cg_tol * float(torch.linalg.vector_norm(residual))
    x, direction, power = torch.zeros_like(residual), None, residual
    for _ in range(settings.cg_steps):
        z = residual / diagonal
        new_power = residual @ z
        direction = z if direction is None else z + (new_power / power) * direction
        power = new_power
        top, bottom = direction[:n, None], direction[n:, None]
        image = diagonal * direction + torch.cat([(thin @ bottom)[:, 0], (thin_t @ top)[:, 0]])
        length = power / (direction @ image)
        x, residual = x + length * direction, residual - length * image
        recorder.cg += 1
        if float(torch.linalg.vector_norm(residual)) <= goal:
            break
    return x[:n], x[n:]


def _line_search(problem: Problem, state: _State, step_f: Tensor, step_g: Tensor, recorder: Recorder) -> _State | None:
    """Backtrack until the dual rises by a ten-thousandth of what its slope promises; None if no step does."""
    epsilon, length = problem.epsilon, 1.0
    slope = epsilon * float(state.grad_f @ step_f + state.grad_g @ step_g)
    rounding = 1e-15 * (abs(state.dual) + epsilon)
    for _ in range(40):
        moved = _State.at(problem, state.f + length * epsilon * step_f, state.g + length * epsilon * step_g, recorder)
        if moved.dual >= state.dual + 1e-4 * length * slope - rounding and math.isfinite(moved.error):
            return moved
        length *= 0.5
    return None
