"""Small problems that are part of a loss: the optimum, the plan, and the derivative that the envelope theorem gives.

A loss asks for many of them, to a few digits, and differentiates once: nothing is unrolled, and no `Solution` is made.
The term of a measure with itself is found by its own method (`solvers/symmetric.py`), and by the general one where that
finds nothing: where the kernel exp(-C/epsilon) is not positive definite.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pushforward._interop import compute_dtype
from pushforward.ot.certificates import dual_value
from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.geometry.protocol import Geometry
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solvers.auto import solve_detached
from pushforward.ot.solvers.start import permutation
from pushforward.ot.solvers.symmetric import MOST_STEPS, self_transport

__all__ = ["Optimum", "best_permutation", "optimal_value", "optimum", "self_potential", "uniform", "warn_if_short"]


@dataclass(frozen=True, slots=True)
class Optimum:
    """Solved problems of a batch.

    Args:
        problem: What was solved.
        f, g: Potentials, (B, n) and (B, m), whose plan has exact rows.
        value: The regularised optimum, (B,).
        error: The largest L1 marginal error over the mass.
    """

    problem: Problem
    f: Tensor
    g: Tensor
    value: Tensor
    error: float

    def plan(self) -> Tensor:
        """The plans, (B, n, m): the derivative of the value in the costs."""
        p = self.problem
        return p.geometry.plan(self.f, self.g, p.epsilon, p.a, p.b)


def optimum(problem: Problem, tol: float, *, symmetric: bool = False) -> Optimum:
    """Each problem of a batch solved.

    Args:
        problem: In computing form, without a graph.
        tol: L1 marginal error over the mass to reach.
        symmetric: Whether each moves a measure to itself, at symmetric costs.
    """
    g = _column_potentials(problem, tol, symmetric)
    measured = problem.measure(g)
    error = float(problem.error(measured, g).max())
    return Optimum(problem, measured.f, g, dual_value(problem, measured.f, g, measured.cols.sum(-1)), error)


def warn_if_short(error: float, tol: float) -> None:
    """Warn that a plan is not as exact as was asked; NaN comes from NaN logits, which the loss itself names."""
    if error > 2 * tol:
        warnings.warn(
            f"a plan of the Sinkhorn distance has a marginal error of {error:.2g}, asked {tol:.2g}; "
            "raise epsilon or tol",
            RuntimeWarning,
            stacklevel=2,
        )


def uniform(geometry: Geometry, epsilon: float, like: Tensor) -> Problem:
    """The problem between points of equal weight.

    Args:
        geometry: The costs, (B, n, m).
        epsilon: In units of the cost.
        like: A tensor on the device of the costs.
    """
    batch, n, m = geometry.shape
    dtype = compute_dtype(like.device)
    a, b = (torch.full((batch, size), 1 / size, dtype=dtype, device=like.device) for size in (n, m))
    return Problem(geometry=geometry, a=a, b=b, epsilon=epsilon)


def self_potential(problem: Problem, tol: float) -> Tensor | None:
    """The potential f = g of a measure's transport to itself, (B, n), by its own method; None where that finds none."""
    f, done = self_transport(problem, tol, Recorder(MOST_STEPS))
    return f if done else None


def _column_potentials(problem: Problem, tol: float, symmetric: bool) -> Tensor:
    g = self_potential(problem, tol) if symmetric else None
    return solve_detached(problem, tol) if g is None else g


def optimal_value(cost: Tensor, epsilon: float, tol: float, *, symmetric: bool = False) -> Tensor:
    """The regularised optimum between points of equal weight, (), differentiable once in the costs.

    Args:
        cost: (n, m), in computing precision.
        epsilon: In units of the cost.
        tol: L1 marginal error to reach: about the relative error of the derivative.
        symmetric: Whether these are the costs within one set of points.
    """
    return _OptimalValue.apply(cost, epsilon, tol, symmetric)


class _OptimalValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cost: Tensor, epsilon: float, tol: float, symmetric: bool) -> Tensor:
        geometry = DenseGeometry.of(cost.detach()[None])
        problem = uniform(geometry, epsilon, cost)
        g = _column_potentials(problem, tol, symmetric)
        kernel, f, _ = geometry.kernel(g, epsilon, problem.a, problem.b)
        # As the plan's rows are exact its mass is 1, and the dual's last term 0.
        ctx.save_for_backward(kernel.matrix[0])
        return (problem.a * f).sum() + (problem.b * g).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (plan,) = ctx.saved_tensors
        return grad * plan, None, None, None


def best_permutation(cost: Tensor) -> Tensor:
    """The column of each row in the cheapest permutation, (n,), on the costs' device.

    Args:
        cost: (n, n).
    """
    return torch.from_numpy(permutation(cost.detach().cpu().numpy())).to(cost.device)
