"""Against programs that share no line with this one: Sinkhorn in extended precision, and POT."""

from __future__ import annotations

import numpy as np
import pytest

import pushforward as pf

LONG = np.longdouble
METHODS = pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn"])


def log_sum_exp(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(x - top).sum(axis))


def reference(cost, a, b, epsilon, accuracy=1e-16):
    """Sinkhorn in the log domain, in numpy's longest floating type, until the columns are exact to `accuracy`."""
    cost, a, b, epsilon = (np.asarray(x, LONG) for x in (cost, a, b, epsilon))
    a, b = a / a.sum(), b / b.sum()
    f, g = np.zeros(len(a), LONG), np.zeros(len(b), LONG)
    for _ in range(200_000):
        f = -epsilon * log_sum_exp(np.log(b) + (g - cost) / epsilon, 1)
        plan = a[:, None] * b * np.exp((f[:, None] + g - cost) / epsilon)
        if np.abs(plan.sum(0) - b).sum() < accuracy:
            break
        g = -epsilon * log_sum_exp(np.log(a)[:, None] + (f[:, None] - cost) / epsilon, 0)
    else:
        raise AssertionError("the reference itself did not converge")
    shift = (b @ g - a @ f) / 2
    f, g = f + shift, g - shift
    return f, g, plan, (plan * cost).sum() + epsilon * (plan * np.log(plan / (a[:, None] * b))).sum()


PROBLEMS = {
    "random": lambda rng: (rng.random((7, 6)), rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(6)), 0.05),
    "long": lambda rng: (rng.random((3, 25)), rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(25)), 0.05),
    "tall": lambda rng: (rng.random((25, 3)), rng.dirichlet(np.ones(25)), rng.dirichlet(np.ones(3)), 0.05),
    "sharp": lambda rng: (rng.random((5, 5)), rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5)), 0.01),
    "smooth": lambda rng: (rng.random((9, 9)), np.full(9, 1 / 9), np.full(9, 1 / 9), 2.0),
    "skewed": lambda rng: (rng.random((6, 6)), 10.0 ** -np.arange(6), 10.0 ** -np.arange(6)[::-1], 0.1),
    "signed": lambda rng: (rng.normal(size=(6, 8)), rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(8)), 0.2),
}


@METHODS
@pytest.mark.parametrize("name", PROBLEMS)
def test_value_and_potentials_to_ten_digits(rng, name: str, method: str):
    cost, a, b, epsilon = PROBLEMS[name](rng)
    a, b = a / a.sum(), b / b.sum()
    f, g, plan, value = reference(cost, a, b, epsilon)
    sol = pf.solve(cost, a, b, epsilon=epsilon, method=method, tol=1e-13)
    assert sol.value == pytest.approx(float(value), abs=1e-12)
    np.testing.assert_allclose(sol.f, f.astype(float), atol=1e-10)
    np.testing.assert_allclose(sol.g, g.astype(float), atol=1e-10)
    np.testing.assert_allclose(sol.plan.to_dense(), plan.astype(float), atol=1e-12)
    assert sol.transport_cost == pytest.approx(float((plan * cost).sum()), abs=1e-12)


def test_weights_over_thirty_orders_of_magnitude(rng):
    a, b = 10.0 ** -np.linspace(0, 30, 8), 10.0 ** -np.linspace(0, 30, 7)[::-1]
    a, b = a / a.sum(), b / b.sum()
    cost = rng.random((8, 7))
    f, g, plan, value = reference(cost, a, b, 0.1, accuracy=1e-18)
    sol = pf.solve(cost, a, b, epsilon=0.1, tol=1e-13)
    assert sol.value == pytest.approx(float(value), abs=1e-12)
    np.testing.assert_allclose(sol.f[0] + sol.g, (f[0] + g).astype(float), atol=1e-9)
    np.testing.assert_allclose(sol.plan.to_dense(), plan.astype(float), rtol=1e-8, atol=1e-40)


def test_a_grid(rng):
    i = np.stack(np.unravel_index(np.arange(12), (4, 3)), axis=1)
    cost = 0.25 * ((i[:, None] - i) ** 2).sum(-1)
    a, b = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(12))
    f, g, _, value = reference(cost, a, b, 0.3)
    sol = pf.solve(pf.GridCost((4, 3), scale=0.25), a, b, epsilon=0.3, tol=1e-13)
    assert sol.value == pytest.approx(float(value), abs=1e-12)
    np.testing.assert_allclose(sol.f, f.astype(float), atol=1e-10)
    np.testing.assert_allclose(sol.g, g.astype(float), atol=1e-10)


def test_small_epsilons_approach_pots_exact_cost(rng):
    pot = pytest.importorskip("ot")
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(30, 2)) + 1
    a, b = rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(30))
    cost = ((x[:, None] - y) ** 2).sum(-1)
    cost /= cost.max()
    exact = pot.emd2(a, b, cost)
    distances = [pf.solve(cost, a, b, epsilon=epsilon).transport_cost - exact for epsilon in (1e-2, 1e-3, 1e-4)]
    assert distances == sorted(distances, reverse=True)
    assert -1e-9 <= distances[-1] < 1e-3 * exact


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 1e-2, 1e-3])
@pytest.mark.parametrize("family", ["random", "points", "grid"])
def test_bounds_contain_pots_exact_cost(rng, epsilon: float, family: str):
    pot = pytest.importorskip("ot")
    a, b = rng.dirichlet(np.ones(20)), rng.dirichlet(np.ones(20))
    grid, i = pf.GridCost((5, 4), p=1, scale=0.2), np.stack(np.unravel_index(np.arange(20), (5, 4)), axis=1)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    cost, matrix = {
        "random": lambda: (m := rng.random((20, 20)), m),
        "points": lambda: (pf.PointCost(x, y, "euclidean"), np.sqrt(((x[:, None] - y) ** 2).sum(-1))),
        "grid": lambda: (grid, 0.2 * np.abs(i[:, None] - i).sum(-1)),
    }[family]()
    exact = pot.emd2(a, b, matrix)
    for limit in (2, None):
        sol = pf.solve(cost, a, b, epsilon=epsilon, max_iterations=limit, throw=False)
        lower, upper = sol.bounds()
        assert lower <= exact + 1e-12
        assert upper >= exact - 1e-12
    assert pf.exact(cost, a, b).cost == pytest.approx(exact, rel=1e-9)


def test_pots_entropic_solvers_agree(rng):
    pot = pytest.importorskip("ot")
    cost, a, b = rng.random((12, 10)), rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(10))
    expected = pot.bregman.sinkhorn_log(a, b, cost, 0.05, stopThr=1e-14, numItermax=100_000)
    np.testing.assert_allclose(pf.solve(cost, a, b, epsilon=0.05, tol=1e-12).plan.to_dense(), expected, atol=1e-10)


@pytest.mark.parametrize("rho", [0.3, 5.0])
def test_pots_relaxed_solver_agrees(rng, rho: float):
    pot = pytest.importorskip("ot")
    cost, a, b = rng.random((9, 8)), rng.random(9), rng.random(8)
    expected = pot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, 0.1, rho, reg_type="kl", c=a[:, None] * b, stopThr=1e-15, numItermax=100_000
    )
    sol = pf.solve(cost, a, b, epsilon=0.1, unbalanced=rho, tol=1e-12)
    np.testing.assert_allclose(sol.plan.to_dense(), expected, atol=1e-9)
