"""Derivatives of a solution by the envelope and implicit-function theorems; the solver's steps are never unrolled.

At the optimum P 1 = t_a = a exp(-f/rho_a) and P^T 1 = t_b = b exp(-g/rho_b). Differentiated, times epsilon, the
conditions read

    A (df, dg) = ((P o dC) 1 - epsilon P (db/b), (P o dC)^T 1 - epsilon P^T (da/a)),
    A = [[diag((1 + epsilon/rho_a) t_a), P], [P^T, diag((1 + epsilon/rho_b) t_b)]].

A is symmetric: with (x, y) = A^-1 (f_bar, g_bar) the cotangents are C_bar = P o (x_i + y_j), a_bar = -epsilon (P
y)/a, b_bar = -epsilon (P^T x)/b. The value's own derivative needs no system: it is P in the cost and f, up to
constants, in a. Each function below is written with operations that have derivatives themselves, A^-1 with its own,
so derivatives of any order exist.

symbol      meaning                                     shape
C, P        cost, plan                                  (B, n, m)
f, a, x     potential, weight, cotangent of the rows    (B, n)
g, b, y     the same of the columns                     (B, m)
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from pushforward.ot.plan import HIGHEST_EXPONENT, LOWEST_EXPONENT, DenseGeometry, DenseKernel
from pushforward.ot.solution import Internals, Solution
from pushforward.ot.solvers.preconditioner import LinearSolver, System

__all__ = ["attach"]

# L1 residual of the implicit systems, over the right-hand side's: below what a finite difference could see.
ACCURACY = 1e-13


@dataclasses.dataclass(frozen=True, slots=True)
class _Prices:
    """epsilon, rho_a and rho_b of the problem."""

    epsilon: float
    rho_a: float
    rho_b: float

    @property
    def balanced(self) -> bool:
        return self.rho_a == self.rho_b == math.inf


def attach(solution: Solution[Any], cost: Tensor) -> Solution[Any]:
    """The same solution with its value, potentials and transport cost connected to the caller's tensors.

    Args:
        solution: As computed, without a graph.
        cost: The (B, n, m) costs with their graph; the weights with theirs are in the solution's problem.
    """
    inside = solution.internals
    problem = inside.problem
    prices = _Prices(problem.epsilon, problem.rho_a, problem.rho_b)
    a, b = problem.a, problem.b
    f, g = _Potentials.apply(cost, a, b, inside.f, inside.g, prices)
    value = _Value.apply(
        cost, a, b, f, g, prices, _value(cost.detach(), a.detach(), b.detach(), f.detach(), g.detach(), prices)
    )
    if prices.balanced:  # derivatives, too, are those of the potentials with <f, a> = <g, b>
        shift = 0.5 * ((b * g).sum(-1) - (a * f).sum(-1)) / a.sum(-1)
        f, g = f + shift[:, None], g - shift[:, None]
    output = inside.output

    def transport_cost() -> Tensor:
        finite = torch.where(torch.isfinite(cost), cost, 0.0)
        return (_plan(cost, a, b, f, g, prices) * finite).sum((-2, -1))

    geometry = DenseGeometry(cost, problem.geometry.forbidden, problem.geometry.mean)
    attached = Internals(
        problem=dataclasses.replace(problem, geometry=geometry),
        f=f,
        g=g,
        output=output,
        transport_cost=transport_cost,
        duality_gap=inside.duality_gap,
    )
    return dataclasses.replace(solution, value=output(value), f=output(f), g=output(g), internals=attached)


def _density(cost: Tensor, f: Tensor, g: Tensor, prices: _Prices) -> Tensor:
    """P / (a b^T); zero on forbidden pairs."""
    exponent = (f[..., None] + g[:, None] - cost) / prices.epsilon
    return torch.where(cost == torch.inf, 0.0, exponent.clamp(LOWEST_EXPONENT, HIGHEST_EXPONENT).exp())


def _plan(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, prices: _Prices) -> Tensor:
    return a[..., None] * _density(cost, f, g, prices) * b[:, None]


def _value(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, prices: _Prices) -> Tensor:
    """The dual at converged potentials, whose plan has the mass of its target rows."""

    def side(weights: Tensor, potential: Tensor, rho: float) -> Tensor:
        return (weights * (potential if rho == math.inf else -rho * torch.expm1(-potential / rho))).sum(-1)

    mass = (a * torch.exp(-f / prices.rho_a)).sum(-1)
    return side(a, f, prices.rho_a) + side(b, g, prices.rho_b) - prices.epsilon * (mass - a.sum(-1) * b.sum(-1))


class _Value(torch.autograd.Function):
    """The optimum; by the envelope theorem the potentials count as constants in its derivative."""

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, prices: _Prices, value: Tensor
    ) -> Tensor:
        ctx.save_for_backward(cost, a, b, f, g)
        ctx.prices = prices
        return value

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        cost, a, b, f, g = ctx.saved_tensors
        prices: _Prices = ctx.prices
        bar = bars[0][:, None]

        def side(potential: Tensor, rho: float, others: Tensor) -> Tensor:
            linear = potential if rho == math.inf else -rho * torch.expm1(-potential / rho)
            return linear + prices.epsilon * (others.sum(-1, keepdim=True) - torch.exp(-potential / rho))

        cost_bar = bar[..., None] * _plan(cost, a, b, f, g, prices) if ctx.needs_input_grad[0] else None
        a_bar = bar * side(f, prices.rho_a, b) if ctx.needs_input_grad[1] else None
        b_bar = bar * side(g, prices.rho_b, a) if ctx.needs_input_grad[2] else None
        return cost_bar, a_bar, b_bar, None, None, None, None


class _Potentials(torch.autograd.Function):
    """(f, g) as functions of cost and weights, by the implicit-function theorem."""

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, prices: _Prices
    ) -> tuple[Tensor, Tensor]:
        f, g = f.clone(), g.clone()
        ctx.save_for_backward(cost, a, b, f, g)
        ctx.prices = prices
        return f, g

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        cost, a, b, f, g = ctx.saved_tensors
        prices: _Prices = ctx.prices
        density = _density(cost, f, g, prices)
        plan = a[..., None] * density * b[:, None]
        rows = (1 + prices.epsilon / prices.rho_a) * a * torch.exp(-f / prices.rho_a)
        cols = (1 + prices.epsilon / prices.rho_b) * b * torch.exp(-g / prices.rho_b)
        x, y = _Inverse.apply(plan, rows, cols, bars[0], bars[1], prices.balanced)
        cost_bar = plan * (x[..., None] + y[:, None]) if ctx.needs_input_grad[0] else None
        a_bar = -prices.epsilon * (density @ (b * y)[..., None])[..., 0] if ctx.needs_input_grad[1] else None
        b_bar = -prices.epsilon * ((a * x)[:, None] @ density)[:, 0] if ctx.needs_input_grad[2] else None
        return cost_bar, a_bar, b_bar, None, None, None


class _Inverse(torch.autograd.Function):
    """(x, y) = A^-1 (p, q) for A = [[diag(rows), P], [P^T, diag(cols)]].

    A balanced A has the null vector (1, -1), which is left out.

    With (x', y') = A^-1 (x_bar, y_bar): p_bar = x', q_bar = y', rows_bar = -x x', cols_bar = -y y', P_bar = -(x y'^T
    + x' y^T).
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
