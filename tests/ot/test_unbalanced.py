"""Relaxed marginals, against a Sinkhorn written here and the definition of what is minimised."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pushforward as pf


def log_sum_exp(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis))


def relaxed_sinkhorn(cost, a, b, epsilon, rho_a, rho_b, steps=4000):
    """The fixed point of f = -lambda epsilon log sum b exp((g - C)/epsilon) and its mirror (Chizat et al. 2018)."""
    damp_a, damp_b = (1.0 if rho == math.inf else rho / (rho + epsilon) for rho in (rho_a, rho_b))
    g = np.zeros(len(b))
    for _ in range(steps):
        f = -damp_a * epsilon * log_sum_exp((g - cost) / epsilon + np.log(b), 1)
        g = -damp_b * epsilon * log_sum_exp((f[:, None] - cost) / epsilon + np.log(a)[:, None], 0)
    return f, g, a[:, None] * b * np.exp((f[:, None] + g - cost) / epsilon)


def divergence(x: np.ndarray, y: np.ndarray) -> float:
    return float((np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0) / y), 0.0) - x + y).sum())


def objective(plan, cost, a, b, epsilon, rho_a, rho_b) -> float:
    total = (plan * cost).sum() + epsilon * divergence(plan, a[:, None] * b)
    for rho, marginal, weights in ((rho_a, plan.sum(1), a), (rho_b, plan.sum(0), b)):
        if rho != math.inf:
            total += rho * divergence(marginal, weights)
    return float(total)


PRICES = pytest.mark.parametrize(
    "rho", [(1.0, 1.0), (0.1, 0.1), (0.3, 2.0), (0.5, math.inf), (math.inf, 0.5), (1e-3, 1e-3)], ids=str
)


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn"])
@PRICES
def test_against_the_fixed_point(rng, method, rho):
    cost, a, b = rng.random((9, 7)), rng.random(9), 3 * rng.random(7)
    f, g, plan = relaxed_sinkhorn(cost, a, b, 0.1, *rho)
    sol = pf.solve(cost, a, b, epsilon=0.1, unbalanced=rho, tol=1e-12, method=method)
    np.testing.assert_allclose(sol.plan.to_dense(), plan, atol=1e-10)
    np.testing.assert_allclose(sol.f, f, atol=1e-8)
    np.testing.assert_allclose(sol.g, g, atol=1e-8)
    assert sol.transport_cost == pytest.approx((plan * cost).sum(), abs=1e-10)
    assert sol.value == pytest.approx(objective(plan, cost, a, b, 0.1, *rho), abs=1e-10)


@PRICES
def test_no_plan_is_cheaper(rng, rho):
    cost, a, b = rng.random((6, 5)), rng.random(6), rng.random(5)
    if math.inf in rho:  # a marginal that is exact has to stay so while the plan is disturbed
        b *= a.sum() / b.sum()
    sol = pf.solve(cost, a, b, epsilon=0.05, unbalanced=rho)
    best = objective(sol.plan.to_dense(), cost, a, b, 0.05, *rho)
    assert sol.value == pytest.approx(best, abs=1e-8)
    for _ in range(20):
        other = sol.plan.to_dense() * np.exp(0.1 * rng.normal(size=(6, 5)))
        if rho[0] == math.inf:
            other *= (a / other.sum(1))[:, None]
        if rho[1] == math.inf:
            other *= b / other.sum(0)
        assert objective(other, cost, a, b, 0.05, *rho) > best


def test_one_number_prices_both_sides(rng):
    cost, a, b = rng.random((5, 4)), rng.random(5), rng.random(4)
    one, two = (
        pf.solve(cost, a, b, epsilon=0.1, unbalanced=0.7),
        pf.solve(cost, a, b, epsilon=0.1, unbalanced=(0.7, 0.7)),
    )
    np.testing.assert_array_equal(one.f, two.f)


def test_a_high_price_approaches_balance(rng):
    cost = rng.random((8, 6))
    balanced = pf.solve(cost, epsilon=0.1).plan.to_dense()
    far, near = (
        np.abs(pf.solve(cost, epsilon=0.1, unbalanced=rho).plan.to_dense() - balanced).sum() for rho in (1e2, 1e4)
    )
    assert near < 1e-4
    assert near < 0.02 * far
    same = pf.solve(cost, epsilon=0.1, unbalanced=math.inf)
    np.testing.assert_allclose(same.plan.to_dense(), balanced, atol=1e-12)


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn"])
@pytest.mark.parametrize("rho", [1e-3, 1.0, 1e3, 1e6])
def test_the_mass_of_one_pair(rho, method):
    """One pair: epsilon log(P/ab) = -C - rho log(P/a) - rho log(P/b) in P alone: a compromise between both masses."""
    cost, a, b, epsilon = 0.637, 10.0, 1.0, 0.0637
    sol = pf.solve([[cost]], [a], [b], epsilon=epsilon, unbalanced=rho * epsilon, method=method, max_iterations=20)
    mass = math.exp(((1 + rho) * math.log(a * b) - cost / epsilon) / (1 + 2 * rho))
    assert float(sol.plan.to_dense()[0, 0]) == pytest.approx(mass, rel=1e-8)


@pytest.mark.parametrize("method", ["newton", "sinkhorn"])
def test_a_high_price_takes_no_more_steps(rng, method):
    cost, a, b = rng.random((20, 15)), 1e3 * rng.random(20), 1e-3 * rng.random(15)

    def steps(rho: float) -> int:
        done = pf.solve(cost, a, b, epsilon=0.1, unbalanced=rho, method=method).iterations
        return done.newton + done.sinkhorn

    assert steps(1e5) <= 2 * steps(1.0)


def test_transposition_swaps_the_prices(rng):
    cost, a, b = rng.random((8, 6)), rng.random(8), rng.random(6)
    sol = pf.solve(cost, a, b, epsilon=0.1, unbalanced=(0.2, 3.0), tol=1e-12)
    turned = pf.solve(cost.T, b, a, epsilon=0.1, unbalanced=(3.0, 0.2), tol=1e-12)
    np.testing.assert_allclose(turned.plan.to_dense(), sol.plan.to_dense().T, atol=1e-10)
    np.testing.assert_allclose(turned.f, sol.g, atol=1e-8)


@PRICES
def test_the_gap_bounds_what_is_missing(rng, rho):
    cost, a, b = rng.random((9, 7)), rng.random(9), rng.random(7)
    *_, plan = relaxed_sinkhorn(cost, a, b, 0.02, *rho)
    optimum = objective(plan, cost, a, b, 0.02, *rho)
    for limit in (1, 2, 4, 100):
        sol = pf.solve(cost, a, b, epsilon=0.02, unbalanced=rho, max_iterations=limit, method="newton", throw=False)
        assert sol.value <= optimum + 1e-10
        assert sol.value + sol.duality_gap >= optimum - 1e-10
    assert sol.converged
    assert sol.duality_gap < 1e-6


def test_the_plan_of_a_relaxed_grid_is_the_dense_one(rng):
    a, b = rng.random(12), 2 * rng.random(12)
    grid = pf.GridCost((4, 3), p=2, scale=0.1)
    i = np.stack(np.unravel_index(np.arange(12), (4, 3)), axis=1)
    cost = 0.1 * ((i[:, None] - i) ** 2).sum(-1)
    for rho in ((0.5, 0.5), (math.inf, 0.3), (0.3, math.inf)):
        one = pf.solve(grid, a, b, epsilon=0.05, unbalanced=rho, tol=1e-12)
        two = pf.solve(cost, a, b, epsilon=0.05, unbalanced=rho, tol=1e-12)
        assert one.value == pytest.approx(two.value, abs=1e-10)
        np.testing.assert_allclose(one.plan.to_dense(), two.plan.to_dense(), atol=1e-10)
        np.testing.assert_allclose(one.plan @ b, two.plan @ b, atol=1e-10)
        np.testing.assert_allclose(one.plan.T @ a, two.plan.T @ a, atol=1e-10)


def test_batches(rng):
    cost, a, b = rng.random((3, 6, 5)), rng.random((3, 6)), rng.random((3, 5))
    batch = pf.solve(cost, a, b, epsilon=0.1, unbalanced=(0.4, 1.0), tol=1e-12)
    for k in range(3):
        one = pf.solve(cost[k], a[k], b[k], epsilon=0.1, unbalanced=(0.4, 1.0), tol=1e-12)
        np.testing.assert_allclose(batch.f[k], one.f, atol=1e-8)
        assert batch.value[k] == pytest.approx(one.value, abs=1e-10)


def test_zero_weights(rng):
    cost, a, b = rng.random((6, 5)), rng.random(6), rng.random(5)
    a[2] = b[0] = 0.0
    sol = pf.solve(cost, a, b, epsilon=0.1, unbalanced=0.5, tol=1e-12)
    rest = pf.solve(cost[a > 0][:, b > 0], a[a > 0], b[b > 0], epsilon=0.1, unbalanced=0.5, tol=1e-12)
    np.testing.assert_allclose(sol.plan.to_dense()[a > 0][:, b > 0], rest.plan.to_dense(), atol=1e-10)
    assert sol.value == pytest.approx(rest.value, abs=1e-10)


FORBIDDEN = {
    "a row": np.array([[np.inf, np.inf], [0.0, 1.0]]),
    "a column": np.array([[np.inf, 0.0], [np.inf, 1.0]]),
    "both": np.array([[np.inf, np.inf], [np.inf, 1.0]]),
    "all": np.full((2, 2), np.inf),
}


@pytest.mark.parametrize("rho", [(1.0, 1.0), (0.3, 2.0), (20.0, 0.1)], ids=str)
@pytest.mark.parametrize("which", FORBIDDEN)
@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn"])
def test_what_has_no_partner_pays_for_staying(which: str, rho: tuple[float, float], method: str):
    cost, a, b = FORBIDDEN[which], np.array([0.5, 0.3]), np.array([0.2, 0.7])
    sol = pf.solve(cost, a, b, epsilon=0.1, unbalanced=rho, method=method, tol=1e-12)
    plan = sol.plan.to_dense()
    finite = np.where(np.isfinite(cost), cost, 0.0)
    assert sol.value == pytest.approx(objective(plan, finite, a, b, 0.1, *rho), abs=1e-11)
    assert 0 <= sol.duality_gap <= 1e-10
    for total, weights, potential, price in ((plan.sum(1), a, sol.f, rho[0]), (plan.sum(0), b, sol.g, rho[1])):
        assert np.isfinite(potential).all()
        np.testing.assert_allclose(total, weights * np.exp(-potential / price), atol=1e-12)
    # A cost that is too dear for any mass comes to the same.
    dear = pf.solve(np.where(np.isfinite(cost), cost, 1e4), a, b, epsilon=0.1, unbalanced=rho, tol=1e-12)
    assert sol.value == pytest.approx(dear.value, abs=1e-9)


def test_one_of_a_batch_without_a_partner(rng):
    costs = rng.random((3, 6, 5))
    costs[1, 2], costs[2, :, 4] = np.inf, np.inf
    batch = pf.solve(costs, epsilon=0.1, unbalanced=0.5)
    for k in range(3):
        one = pf.solve(costs[k], epsilon=0.1, unbalanced=0.5)
        assert batch.value[k] == pytest.approx(one.value, abs=1e-9)
        np.testing.assert_allclose(batch.plan.to_dense()[k], one.plan.to_dense(), atol=1e-9)


def test_a_partner_without_weight_is_none():
    cost = np.array([[0.1, np.inf, np.inf], [0.2, 0.3, 0.4]])
    a, b = np.array([0.5, 0.5]), np.array([0.0, 0.4, 0.6])
    sol = pf.solve(cost, a, b, epsilon=0.1, unbalanced=1.0)
    plan, some = sol.plan.to_dense(), slice(1, None)
    assert not plan[:, 0].any()
    left = objective(plan[:, some], np.where(cost < 9, cost, 0)[:, some], a, b[some], 0.1, 1, 1)
    assert sol.value == pytest.approx(left)


@pytest.mark.parametrize("side", [0, 1])
def test_an_exact_marginal_without_a_partner_is_infeasible(rng, side: int):
    cost = rng.random((4, 4))
    cost[(0, slice(None)) if side == 0 else (slice(None), 0)] = np.inf
    rho = (math.inf, 1.0) if side == 0 else (1.0, math.inf)
    with pytest.raises(pf.errors.InfeasibleError):
        pf.solve(cost, epsilon=0.1, unbalanced=rho)
    assert pf.solve(cost, epsilon=0.1, unbalanced=rho[::-1]).converged


def test_derivatives_beside_what_has_no_partner():
    cost = torch.tensor(FORBIDDEN["a row"])
    a, b = (torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in ([0.5, 0.3], [0.2, 0.7]))
    sol = pf.solve(cost, a, b, epsilon=0.1, unbalanced=1.0, tol=1e-12)
    assert float(sol.value.detach()) == pytest.approx(
        float(pf.solve(cost, a.detach(), b.detach(), epsilon=0.1, unbalanced=1.0).value)
    )
    sol.value.backward()
    assert float(a.grad[0]) == pytest.approx(1.0 + 0.1 * 0.9)  # rho, and epsilon times the mass of b
    assert torch.isfinite(b.grad).all()
