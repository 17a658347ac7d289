"""`bounds()` and `duality_gap` hold at every stage of a solve, not only at its end."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import pushforward as pf
from pushforward.ot.certificates import certified_bounds, dual_value, duality_gap
from pushforward.ot.question import read_problem


def linear_program(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    n, m = cost.shape
    equations = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])[:-1]
    return linprog(cost.reshape(-1), A_eq=equations, b_eq=np.concatenate([a, b])[:-1], method="highs").fun


def problem(rng: np.random.Generator, n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rng.random((n, m)) - 0.2, rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.1, 3.0])
@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("rho", [(math.inf, math.inf), (0.5, 0.5), (math.inf, 0.5), (0.5, math.inf)], ids=str)
def test_the_gap_bounds_the_optimum_at_any_potentials(rng, spread: float, scale: float, rho: tuple[float, float]):
    """Not only where a solver would stop; and it is no larger than it has to be by much."""
    cost, a, b = problem(rng, 6, 5)
    cost *= scale
    optimum = pf.solve(cost, a, b, epsilon=0.1, unbalanced=rho, tol=1e-13).value
    asked = read_problem(cost, a, b, epsilon=0.1, unbalanced=rho).problem
    for shift in (0.0, 50.0) if rho == (math.inf, math.inf) else (0.0,):
        g = torch.from_numpy(spread * rng.normal(size=(1, 5)) + shift)
        measured = asked.measure(g)
        value, gap = dual_value(asked, measured.f, g, measured.cols.sum(-1)), duality_gap(asked, measured, g)
        assert float(value) <= optimum + 1e-12
        assert float(value + gap) >= optimum - 1e-12
        error = float(asked.error(measured, g))
        assert float(gap) <= 10 * (scale + 0.1 + spread) * error * max(1.0, -math.log(error)) + 1e-12


@pytest.mark.parametrize("method", ["newton", "sns", "sinkhorn"])
@pytest.mark.parametrize("limit", [1, 3, 10, 500])
def test_certificates_hold_before_convergence(rng, method: str, limit: int):
    for n, m in ((7, 7), (5, 12), (12, 5)):
        cost, a, b = problem(rng, n, m)
        truth, optimum = linear_program(cost, a, b), pf.solve(cost, a, b, epsilon=0.02, tol=1e-12).value
        sol = pf.solve(cost, a, b, epsilon=0.02, method=method, max_iterations=limit, throw=False)
        lower, upper = sol.bounds()
        assert lower <= truth + 1e-9
        assert upper >= truth - 1e-9
        assert sol.value <= optimum + 1e-12
        assert sol.value + sol.duality_gap >= optimum - 1e-12
        if sol.converged:
            assert sol.duality_gap < 1e-6


def test_bounds_close_as_epsilon_falls(rng):
    cost, a, b = problem(rng, 20, 15)
    truth = linear_program(cost, a, b)
    widths = []
    for epsilon in (0.1, 0.01, 1e-3, 1e-4):
        lower, upper = pf.solve(cost, a, b, epsilon=epsilon).bounds()
        assert lower <= truth + 1e-9
        assert upper >= truth - 1e-9
        widths.append(upper - lower)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1e-3


def test_bounds_of_weights_with_zeros(rng):
    cost, a, b = problem(rng, 12, 9)
    a[:4], b[7] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    for limit in (1, 500):
        lower, upper = pf.solve(cost, a, b, epsilon=0.01, max_iterations=limit, throw=False).bounds()
        assert lower <= linear_program(cost, a, b) + 1e-9 <= upper + 2e-9


@pytest.mark.parametrize("p", [1, 2])
def test_bounds_on_a_grid(rng, p: int):
    a, b = rng.dirichlet(np.ones(20)), rng.dirichlet(np.ones(20))
    grid = pf.GridCost((5, 4), p=p)
    truth = pf.exact(grid, a, b).cost
    for limit in (1, 500):
        lower, upper = pf.solve(grid, a, b, epsilon=0.05, max_iterations=limit, throw=False).bounds()
        assert lower <= truth + 1e-10
        assert upper >= truth - 1e-10


def test_the_gap_where_pairs_are_forbidden(rng):
    cost = rng.random((8, 8))
    cost[np.abs(np.arange(8)[:, None] - np.arange(8)) > 3] = np.inf
    optimum = pf.solve(cost, epsilon=0.05, tol=1e-12).value
    sol = pf.solve(cost, epsilon=0.05, method="sinkhorn", max_iterations=2, throw=False)
    assert sol.value <= optimum
    assert sol.value + sol.duality_gap >= optimum


def test_relaxed_problems_have_no_such_bounds(rng):
    sol = pf.solve(rng.random((4, 3)), epsilon=0.1, unbalanced=1.0)
    with pytest.raises(pf.errors.InvalidArgument, match="unbalanced"):
        sol.bounds()


@pytest.mark.parametrize("uniform", [True, False])
def test_bounds_hold_in_rational_arithmetic(uniform: bool):
    """Large costs and a small epsilon: rounding moves masses by 1e-11 and potentials by more than the bounds' width.

    Without the allowance for rounding some lower bounds of the uniform problems are above the optimum; where the
    mass that is missing is priced at the range of the costs, some upper bounds of the others are below it.
    """
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cost = 10.0 ** rng.integers(0, 4) + rng.random((12, 12))
        a, b = (np.full(12, 1 / 12) if uniform else rng.dirichlet(np.ones(12)) for _ in range(2))
        lower, upper = pf.solve(cost, a, b, epsilon=1e-3).bounds()
        sol = pf.exact(cost, a, b)  # its cost is the optimum rounded once, and itself above cost - gap
        assert Fraction(lower) <= Fraction(sol.cost) * (1 + Fraction(1, 2**53))
        assert Fraction(upper) >= Fraction(sol.cost) - Fraction(sol.gap)


def test_the_upper_bound_allows_for_the_rounding_of_a_tiny_epsilon():
    """Exponents of 1e8 move masses by 1e-8: without an allowance for it some five of these bounds are too low."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        cost, a, b = 10.0 + rng.random((3, 3)), rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3))
        sol = pf.exact(cost, a, b)
        asked = read_problem(cost, a, b, epsilon=1e-7, unbalanced=None).problem
        for k in range(20):
            g = sol.g + 1e-7 * (0.1, 1.0, 5.0)[k % 3] * rng.normal(size=3)
            _, upper = certified_bounds(asked, torch.from_numpy(g)[None])
            assert Fraction(float(upper)) >= Fraction(sol.cost) - Fraction(sol.gap)


def test_bounds_of_a_solution_with_a_graph_are_those_without(rng):
    cost, a, b = problem(rng, 9, 7)
    plain = pf.solve(torch.from_numpy(cost), a, b, epsilon=0.05)
    attached = pf.solve(torch.from_numpy(cost).requires_grad_(), a, b, epsilon=0.05)
    assert attached.bounds() == plain.bounds()
