"""Derivatives of a solution by the envelope and implicit-function theorems; the solver's steps are never unrolled.

At the optimum P 1 = t_a = a exp(-f/rho_a) and P^T 1 = t_b = b exp(-g/rho_b). Differentiated, times epsilon, the
conditions read

    A (df, dg) = ((P o dC) 1 - epsilon P (db/b), (P o dC)^T 1 - epsilon P^T (da/a)),
    A = [[diag((1 + epsilon/rho_a) t_a), P], [P^T, diag((1 + epsilon/rho_b) t_b)]].

A is symmetric: with (x, y) = A^-1 (f_bar, g_bar) the cotangents are

    C_bar = P o (x_i + y_j),  a_bar = -epsilon (P y)/a,  b_bar = -epsilon (P^T x)/b.

The value's own derivative needs no system: it is P in the cost and f, up to constants, in a. Each function below is
written with operations that have derivatives themselves, A^-1 with its own, so derivatives of any order exist.

A change of epsilon acts on the conditions as the change dC = S d epsilon/epsilon of the cost does, S = f_i + g_j - C,
so that epsilon_bar = <C_bar, S>/epsilon for the potentials; for the value it is KL(P | a b^T), where KL includes the
masses. This serves an epsilon that is a tensor with a graph, and the default, 0.05 of the mean cost.

symbol      meaning                                     shape
C, P        cost, plan                                  (B, n, m)
f, a, x     potential, weight, cotangent of the rows    (B, n)
g, b, y     the same of the columns                     (B, m)
epsilon     regularisation, one for the whole batch     ()
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import torch
from torch import Tensor

from pushforward.ot.geometry.dense import DenseGeometry, DenseKernel
from pushforward.ot.geometry.protocol import HIGHEST_EXPONENT, LOWEST_EXPONENT, Geometry
from pushforward.ot.solution import Internals, Solution
from pushforward.ot.solvers.preconditioner import LinearSolver, System

__all__ = ["attach", "mean_size"]

# L1 residual of the implicit systems, over the right-hand side's: below what a finite difference could see.
ACCURACY = 1e-13


@dataclasses.dataclass(frozen=True, slots=True)
class _Constants:
    """What has no derivative: rho_a and rho_b, and whether some pair is forbidden."""

    rho_a: float
    rho_b: float
    forbidden: bool

    @property
    def balanced(self) -> bool:
        return self.rho_a == self.rho_b == math.inf


def attach(solution: Solution[Any], cost: Tensor, epsilon: Tensor) -> Solution[Any]:
    """The same solution with its value, potentials and transport cost connected to the caller's tensors.

    Args:
        solution: A solution without a graph.
        cost: The (B, n, m) costs with their graph; the weights with theirs are in the solution's problem.
        epsilon: The regularisation used, with its graph if it has one, ().

    Returns:
        The solution with derivatives.
    """
    inside = solution.internals
    problem = inside.problem
    fixed = _Constants(problem.rho_a, problem.rho_b, problem.geometry.forbidden)
    a, b = problem.a, problem.b
    f, g = _Potentials.apply(cost, a, b, epsilon, inside.f, inside.g, fixed)
    value = _Value.apply(cost, a, b, epsilon, f, g, fixed)
    if fixed.balanced:  # derivatives, too, are those of the potentials with <f, a> = <g, b>
        shift = 0.5 * ((b * g).sum(-1) - (a * f).sum(-1)) / a.sum(-1)
        f, g = f + shift[:, None], g - shift[:, None]
    output = inside.output

    def transport_cost() -> Tensor:
        return (_plan(cost, a, b, epsilon, f, g, fixed) * _finite(cost, fixed)).sum((-2, -1))

    geometry = DenseGeometry(cost, problem.geometry.forbidden, problem.geometry.mean)
    attached = Internals(
        problem=dataclasses.replace(problem, geometry=geometry),
        f=f,
        g=g,
        epsilon=epsilon,
        output=output,
        transport_cost=transport_cost,
        duality_gap=inside.duality_gap,
        bounds=inside.bounds,
    )
    return dataclasses.replace(solution, value=output(value), f=output(f), g=output(g), internals=attached)


class _MeanSize(torch.autograd.Function):
    """The mean |C| over finite entries, already known."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, forbidden: bool, mean: float) -> Tensor:
        ctx.save_for_backward(cost)
        ctx.forbidden = forbidden
        return cost.new_tensor(mean)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        (cost,) = ctx.saved_tensors
        sign = cost.detach().sign()
        if not ctx.forbidden:
            return sign * (bars[0] / cost.numel()), None, None
        allowed = cost != torch.inf
        return torch.where(allowed, sign, 0.0) * (bars[0] / allowed.sum()), None, None


def mean_size(cost: Tensor, geometry: Geometry) -> Tensor:
    """The mean absolute value of the finite costs, (), with its derivative in them.

    Args:
        cost: (B, n, m) costs with their graph.
        geometry: The same without it, its mean computed.
    """
    return cast(Tensor, _MeanSize.apply(cost, geometry.forbidden, geometry.mean))


def _finite(cost: Tensor, fixed: _Constants) -> Tensor:
    return torch.where(cost == torch.inf, 0.0, cost) if fixed.forbidden else cost


def _density(cost: Tensor, epsilon: Tensor, f: Tensor, g: Tensor, fixed: _Constants) -> Tensor:
    """P / (a b^T); zero on forbidden pairs."""
    exponent = f[..., None] + g[:, None]
    if torch.is_grad_enabled():
        exponent = (exponent - _finite(cost, fixed)) / epsilon  # a derivative in epsilon of infinity is none
        density = exponent.clamp(LOWEST_EXPONENT, HIGHEST_EXPONENT).exp()
    else:  # the same in one matrix
        density = exponent.sub_(cost).div_(epsilon).clamp_(LOWEST_EXPONENT, HIGHEST_EXPONENT).exp_()
    return torch.where(cost == torch.inf, 0.0, density) if fixed.forbidden else density


def _plan(cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, f: Tensor, g: Tensor, fixed: _Constants) -> Tensor:
    density = _density(cost, epsilon, f, g, fixed)
    if torch.is_grad_enabled():
        return a[..., None] * density * b[:, None]
    return density.mul_(a[..., None]).mul_(b[:, None])


def _slack_sum(pull: Tensor, cost: Tensor, f: Tensor, g: Tensor, fixed: _Constants) -> Tensor:
    """The sum of pull o (f_i + g_j - C_ij), (), for a pull that is zero on forbidden pairs."""
    linear = (f * pull.sum(-1)).sum() + (g * pull.sum(-2)).sum()
    return linear - torch.dot(pull.flatten(), _finite(cost, fixed).flatten())


def _value(a: Tensor, b: Tensor, epsilon: Tensor, f: Tensor, g: Tensor, fixed: _Constants) -> Tensor:
    """The dual at converged potentials, whose plan has the mass of its target rows."""

    def side(weights: Tensor, potential: Tensor, rho: float) -> Tensor:
        return (weights * (potential if rho == math.inf else -rho * torch.expm1(-potential / rho))).sum(-1)

    mass = (a * torch.exp(-f / fixed.rho_a)).sum(-1)
    return side(a, f, fixed.rho_a) + side(b, g, fixed.rho_b) - epsilon * (mass - a.sum(-1) * b.sum(-1))


class _Value(torch.autograd.Function):
    """The optimum; by the envelope theorem the potentials count as constants in its derivative."""

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, f: Tensor, g: Tensor, fixed: _Constants
    ) -> Tensor:
        ctx.save_for_backward(cost, a, b, epsilon, f, g)
        ctx.fixed = fixed
        return _value(a, b, epsilon, f, g, fixed)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        cost, a, b, epsilon, f, g = ctx.saved_tensors
        fixed: _Constants = ctx.fixed
        bar = bars[0][:, None]

        def side(potential: Tensor, rho: float, others: Tensor) -> Tensor:
            linear = potential if rho == math.inf else -rho * torch.expm1(-potential / rho)
            return linear + epsilon * (others.sum(-1, keepdim=True) - torch.exp(-potential / rho))

        cost_bar = epsilon_bar = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[3]:
            cost_bar = bar[..., None] * _plan(cost, a, b, epsilon, f, g, fixed)
        if cost_bar is not None and ctx.needs_input_grad[3]:
            mass = (a * torch.exp(-f / fixed.rho_a)).sum(-1)
            free = (bar[:, 0] * (a.sum(-1) * b.sum(-1) - mass)).sum()
            epsilon_bar = _slack_sum(cost_bar, cost, f, g, fixed) / epsilon + free
        a_bar = bar * side(f, fixed.rho_a, b) if ctx.needs_input_grad[1] else None
        b_bar = bar * side(g, fixed.rho_b, a) if ctx.needs_input_grad[2] else None
        return cost_bar, a_bar, b_bar, epsilon_bar, None, None, None


class _Potentials(torch.autograd.Function):
    """(f, g) as functions of cost, weights and epsilon, by the implicit-function theorem."""

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, f: Tensor, g: Tensor, fixed: _Constants
    ) -> tuple[Tensor, Tensor]:
        f, g = f.clone(), g.clone()
        ctx.save_for_backward(cost, a, b, epsilon, f, g)
        ctx.fixed = fixed
        return f, g

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        cost, a, b, epsilon, f, g = ctx.saved_tensors
        fixed: _Constants = ctx.fixed
        density = _density(cost, epsilon, f, g, fixed)
        plan = a[..., None] * density * b[:, None]
        rows = (1 + epsilon / fixed.rho_a) * a * torch.exp(-f / fixed.rho_a)
        cols = (1 + epsilon / fixed.rho_b) * b * torch.exp(-g / fixed.rho_b)
        x, y = _Inverse.apply(plan, rows, cols, bars[0], bars[1], fixed.balanced)
        cost_bar = epsilon_bar = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[3]:
            cost_bar = plan * (x[..., None] + y[:, None])
        if cost_bar is not None and ctx.needs_input_grad[3]:
            epsilon_bar = _slack_sum(cost_bar, cost, f, g, fixed) / epsilon
        a_bar = -epsilon * (density @ (b * y)[..., None])[..., 0] if ctx.needs_input_grad[1] else None
        b_bar = -epsilon * ((a * x)[:, None] @ density)[:, 0] if ctx.needs_input_grad[2] else None
        return cost_bar, a_bar, b_bar, epsilon_bar, None, None, None


class _Inverse(torch.autograd.Function):
    """(x, y) = A^-1 (p, q) for A = [[diag(rows), P], [P^T, diag(cols)]].

    A balanced A has the null vector (1, -1), which is left out.

    With (x', y') = A^-1 (x_bar, y_bar):

        p_bar = x', q_bar = y', rows_bar = -x x', cols_bar = -y y', P_bar = -(x y'^T + x' y^T).
    """

    @staticmethod
    def forward(
        ctx: Any, plan: Tensor, rows: Tensor, cols: Tensor, p: Tensor, q: Tensor, balanced: bool
    ) -> tuple[Tensor, Tensor]:
        p = torch.where(rows > 0, p, 0.0)  # atoms without weight count as constants
        q = torch.where(cols > 0, q, 0.0)
        inverse = torch.where(rows > 0, 1 / rows, 0.0)
        kernel = DenseKernel(plan)
        right = q - kernel.cols(inverse * p)
        if balanced:
            # The plan's own column sums, so that constants are exactly in the null space; the right side leaves it
            # exactly.
            diagonal = kernel.cols(inverse * kernel.rows(torch.ones_like(cols)))
            right = right - cols * (right.sum(-1, keepdim=True) / cols.sum(-1, keepdim=True))
        else:
            diagonal = cols
        diagonal = torch.where(diagonal > 0, diagonal, 1.0)
        system = System(kernel, diagonal, inverse, torch.ones_like(cols), singular=balanced)
        y = LinearSolver().solve(system, right, ACCURACY * right.abs().sum(-1, keepdim=True), most=5000)
        x = inverse * (p - kernel.rows(y))
        ctx.save_for_backward(plan, rows, cols, x, y)
        ctx.balanced = balanced
        return x, y

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        plan, rows, cols, x, y = ctx.saved_tensors
        p_bar, q_bar = _Inverse.apply(plan, rows, cols, bars[0], bars[1], ctx.balanced)
        plan_bar = -(x[..., None] * q_bar[:, None] + p_bar[..., None] * y[:, None])
        return plan_bar, -x * p_bar, -y * q_bar, p_bar, q_bar, None
