"""Problems whose answer is known without solving anything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pushforward as pf

METHODS = pytest.mark.parametrize("method", ["auto", "newton", "sns", "sinkhorn"])


def weights(rng: np.random.Generator, n: int) -> np.ndarray:
    w = rng.random(n) + 0.1
    return w / w.sum()


@METHODS
def test_dirac_to_dirac_costs_the_distance(method: str):
    sol = pf.solve([[3.25]], epsilon=0.1, method=method)
    assert sol.value == pytest.approx(3.25, abs=1e-14)
    assert sol.transport_cost == pytest.approx(3.25, abs=1e-14)
    assert sol.plan.to_dense().tolist() == [[pytest.approx(1.0, abs=1e-14)]]
    assert sol.bounds() == pytest.approx((3.25, 3.25), abs=1e-13)


@METHODS
@pytest.mark.parametrize("side", ["n", "m"])
def test_one_atom_against_many_has_one_plan(rng, method: str, side: str):
    cost, w = rng.random((1, 7)), weights(rng, 7)
    a, b = (np.ones(1), w) if side == "n" else (w, np.ones(1))
    sol = pf.solve(cost if side == "n" else cost.T, a, b, epsilon=0.01, method=method)
    np.testing.assert_allclose(sol.plan.to_dense(), a[:, None] * b, rtol=1e-12)
    # KL(P | a b^T) is zero there: the regularised optimum is the cost itself.
    assert sol.value == pytest.approx((cost @ w).item(), abs=1e-13)
    assert sol.transport_cost == pytest.approx((cost @ w).item(), abs=1e-13)


@METHODS
def test_a_huge_epsilon_gives_the_product(rng, method: str):
    cost, a, b = rng.random((9, 6)), weights(rng, 9), weights(rng, 6)
    sol = pf.solve(cost, a, b, epsilon=1e7, method=method)
    np.testing.assert_allclose(sol.plan.to_dense(), a[:, None] * b, rtol=1e-6)
    assert sol.value == pytest.approx(a @ cost @ b, rel=1e-6)


@pytest.mark.parametrize("method", ["auto", "newton"])
def test_a_small_epsilon_finds_the_permutation(rng, method: str):
    where = rng.permutation(12)
    cost = rng.random((12, 12)) + 1.0
    cost[np.arange(12), where] = rng.random(12) * 0.1
    sol = pf.solve(cost, epsilon=1e-3, method=method)
    expected = np.zeros((12, 12))
    expected[np.arange(12), where] = 1 / 12
    np.testing.assert_allclose(sol.plan.to_dense(), expected, atol=1e-9)
    assert sol.transport_cost == pytest.approx(cost[np.arange(12), where].mean(), abs=1e-9)


@METHODS
def test_two_by_two_by_hand(method: str):
    """P = [[t, 1/2 - t], [1/2 - t, t]] with t / (1/2 - t) = exp(1 / epsilon), as the cross ratio of a plan says."""
    sol = pf.solve([[0.0, 1.0], [1.0, 0.0]], epsilon=0.5, method=method, tol=1e-12)
    t = 0.5 / (1 + math.exp(-2.0))
    np.testing.assert_allclose(sol.plan.to_dense(), [[t, 0.5 - t], [0.5 - t, t]], atol=1e-12)
    entropy = 2 * t * math.log(4 * t) + 2 * (0.5 - t) * math.log(4 * (0.5 - t))
    assert sol.value == pytest.approx(2 * (0.5 - t) + 0.5 * entropy, abs=1e-12)


def quantile_cost(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The integral of |F_x^-1 - F_y^-1|^2 over masses, which is the optimum on the line."""
    cuts = np.sort(np.concatenate([np.cumsum(a), np.cumsum(b)]))
    widths = np.diff(np.concatenate([[0.0], cuts]))
    middles = cuts - widths / 2
    at_x = x[np.minimum(np.searchsorted(np.cumsum(a), middles), len(x) - 1)]
    at_y = y[np.minimum(np.searchsorted(np.cumsum(b), middles), len(y) - 1)]
    return float(widths @ (at_x - at_y) ** 2)


def test_points_on_a_line_follow_their_quantiles(rng):
    x, y = np.sort(rng.normal(size=25)), np.sort(rng.normal(size=40) + 1)
    a, b = weights(rng, 25), weights(rng, 40)
    cost = pf.PointCost(x[:, None], y[:, None])
    truth = quantile_cost(x, y, a, b)
    assert pf.exact(cost, a, b).cost == pytest.approx(truth, rel=1e-11)
    sol = pf.solve(cost, a, b, epsilon=1e-4)
    assert sol.transport_cost == pytest.approx(truth, abs=2e-3)
    assert sol.bounds()[0] <= truth + 1e-12
    assert sol.bounds()[1] >= truth - 1e-12


@pytest.mark.parametrize("epsilon", [0.05, 1.0, 20.0])
def test_gaussians(epsilon: float):
    """Entropic plans of Gaussians are Gaussian: Janati et al. 2020 (arXiv 2006.02572), sigma^2 = epsilon / 2."""
    m1, s1, m2, s2 = -0.5, 0.8, 1.0, 1.3
    x, y = m1 + s1 * np.linspace(-7, 7, 60), m2 + s2 * np.linspace(-7, 7, 60)
    a, b = (np.exp(-(((z - m) / s) ** 2) / 2) for z, m, s in ((x, m1, s1), (y, m2, s2)))
    sol = pf.solve(pf.PointCost(x[:, None], y[:, None]), a / a.sum(), b / b.sum(), epsilon=epsilon, tol=1e-11)
    half = epsilon / 2
    root = math.sqrt(4 * s1**2 * s2**2 + half**2)
    value = (m1 - m2) ** 2 + s1**2 + s2**2 - root + half * (1 - math.log(2 * half) + math.log(root + half))
    covariance = (root - half) / 2
    # Sums over 60 points are integrals to 1e-9 and better, unless the plan is nearly as thin as their spacing.
    accuracy = 1e-9 if epsilon >= 1 else 2e-4
    assert sol.value == pytest.approx(value, rel=accuracy)
    assert sol.transport_cost == pytest.approx((m1 - m2) ** 2 + s1**2 + s2**2 - 2 * covariance, rel=accuracy)
    # The conditional mean of a Gaussian plan is a straight line.
    line = m2 + covariance / s1**2 * (x - m1)
    np.testing.assert_allclose(sol.plan.barycentric(y[:, None])[15:45, 0], line[15:45], atol=10 * accuracy)


@pytest.mark.parametrize("epsilon", [0.01, 1.0])
def test_a_translation_has_its_square_as_divergence(rng, epsilon: float):
    x, t, a = rng.normal(size=(12, 3)), np.array([0.3, -2.0, 1.0]), weights(rng, 12)
    assert pf.sinkhorn_divergence(x, x + t, a, a, epsilon=epsilon) == pytest.approx(t @ t, rel=1e-9)


def test_equal_measures_have_divergence_zero(rng):
    x = torch.from_numpy(rng.normal(size=(15, 2)))
    turned = x[torch.from_numpy(rng.permutation(15))]
    assert float(pf.sinkhorn_divergence(x, turned, epsilon=0.1)) == pytest.approx(0.0, abs=1e-9)
    assert float(pf.sinkhorn_divergence(x, x + 0.1 * torch.randn(15, 2).double(), epsilon=0.1)) > 1e-4
