"""`exact` checked without rounding: floats are rational numbers, and so are their sums and products."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import pushforward as pf
from pushforward.ot.rationals import finest, proved_gap, whole
from pushforward.ot.solvers import start
from pushforward.ot.solvers.pairs import DenseCosts, SparseCosts

ROUNDING = Fraction(1, 2**52)


def bell(n: int, middle: float, width: float) -> np.ndarray:
    weights = np.exp(-((np.arange(n) - middle) ** 2) / (2 * width**2))
    return weights / weights.sum()


def line(n: int, power: int) -> np.ndarray:
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(float) ** power


def rational(values) -> list[Fraction]:
    return [Fraction(float(v)) for v in values]


def dot(x: list[Fraction], y: list[Fraction]) -> Fraction:
    return sum((p * q for p, q in zip(x, y, strict=True)), Fraction(0))


def monotone(cost: np.ndarray, a: list[Fraction], b: list[Fraction]) -> Fraction:
    """The optimum on a line."""
    left, right, total, i, j = list(a), list(b), Fraction(0), 0, 0
    while i < len(left) and j < len(right):
        sent = min(left[i], right[j])
        total += sent * Fraction(float(cost[i, j]))
        left[i], right[j] = left[i] - sent, right[j] - sent
        i, j = i + (left[i] == 0), j + (right[j] == 0)
    return total


def assert_true(cost: np.ndarray, a: np.ndarray, b: np.ndarray, sol) -> Fraction:
    """Marginals to one rounding an entry, and a certificate that holds; the lower bound that it proves."""
    exact_a, exact_b = rational(a), rational(b)
    exact_b = [v * sum(exact_a) / sum(exact_b) for v in exact_b]
    for axis, weights in ((0, exact_a), (1, exact_b)):
        sums = [Fraction(0)] * len(weights)
        for k, mass in zip((sol.plan.row, sol.plan.col)[axis].tolist(), sol.plan.data.tolist(), strict=True):
            sums[k] += Fraction(mass)
        assert all(abs(s - w) <= ROUNDING * w for s, w in zip(sums, weights, strict=True))
    f, g = rational(sol.f), rational(sol.g)
    assert all(f[i] + g[j] <= Fraction(float(cost[i, j])) for i, j in zip(*np.nonzero(np.isfinite(cost)), strict=True))
    bound = Fraction(sol.cost) - Fraction(sol.gap)
    assert bound <= dot(f, exact_a) + dot(g, exact_b)
    assert sol.status is pf.Status.CONVERGED
    return bound


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    ("n", "first", "second"),
    [(41, (10, 1.5), (30, 0.7)), (120, (40, 10), (80, 1)), (120, (20, 2), (90, 3)), (150, (30, 8), (75, 11))],
)
def test_bells_have_their_optimum_and_its_proof(n: int, power: int, first, second):
    cost, a, b = line(n, power), bell(n, *first), bell(n, *second)
    sol = pf.exact(cost, a, b)
    bound = assert_true(cost, a, b, sol)
    exact_a, exact_b = rational(a), rational(b)
    optimum = monotone(cost, exact_a, [v * sum(exact_a) / sum(exact_b) for v in exact_b])
    assert bound <= optimum
    assert abs(Fraction(sol.cost) - optimum) <= ROUNDING * optimum
    assert sol.gap <= 1e-13 * sol.cost


@pytest.mark.parametrize("light", [1e-10, 1e-20, 1e-100, 1e-300])
def test_a_light_weight_is_sent(light: float):
    a, b = np.array([0.5, 0.5 - light, light]), np.array([0.25, 0.25, 0.5])
    cost = (np.array([0.0, 1.0, 1e5])[:, None] - np.array([0.0, 1.0, 2.0])) ** 2
    sol = pf.exact(cost, a, b)
    assert_true(cost, a, b, sol)
    assert sol.plan.toarray()[2].sum() == light
    assert sol.plan.toarray()[2, 2] == light  # where it is cheapest


@pytest.mark.parametrize("big", [1e6, 1e12, 1e16, 1e20, 1e32, 1e200])
def test_a_large_cost_that_can_be_avoided_is(big: float):
    a = b = np.array([0.125] * 4 + [0.5])
    cost = np.array(
        [
            [3, 5, 9, big, 0.1],
            [2, 4, 8, big, 0.3],
            [1, 3, 7, big, 2],
            [big, big, big, 5, big / 4],
            [0.5, 0.8, 3, big / 4, 0],
        ]
    )
    sol = pf.exact(cost, a, b)
    assert sol.cost == pytest.approx(1.275, rel=1e-15)
    assert sol.gap <= 1e-15
    assert_true(cost, a, b, sol)


@pytest.mark.parametrize("n", [6, 30])
def test_a_large_cost_is_paid_where_it_must_be(rng, n: int):
    cost = np.where(rng.random((n, n)) < 0.7, 1e25, rng.random((n, n)))
    cost[0] = 1e25 * (1 + rng.random(n))
    for a in (np.full(n, 1 / n), rng.dirichlet(np.ones(n))):
        sol = pf.exact(cost, a, np.full(n, 1 / n))
        assert_true(cost, a, np.full(n, 1 / n), sol)
        assert sol.cost >= 1e25 * a[0]
        assert sol.gap <= 1e-14 * sol.cost


@pytest.mark.parametrize("scale", [1e-12, 1.0])
def test_weights_over_thirty_orders(rng, scale: float):
    for n, m in ((9, 12), (30, 20)):
        a, b = (scale * w / w.sum() for w in (10.0 ** -rng.uniform(0, 30, k) for k in (n, m)))
        cost = rng.random((n, m))
        sol = pf.exact(cost, a, b)
        assert_true(cost, a, b, sol)
        assert sol.gap <= 1e-13 * sol.cost


def test_without_the_linear_program_the_answer_is_the_same(rng, monkeypatch):
    """Nothing depends on what HiGHS says: here it gives up, and the simplex begins with nothing but prices."""
    cost, a, b = rng.random((25, 18)), rng.dirichlet(np.ones(25)), rng.dirichlet(np.ones(18))
    expected = pf.exact(cost, a, b)
    monkeypatch.setattr(start, "linprog", lambda *_, **__: type("Nothing", (), {"x": None}))
    monkeypatch.setattr(start, "solve_detached", lambda problem, tol: problem.b * 0)
    sol = pf.exact(cost, a, b)
    assert_true(cost, a, b, sol)
    assert sol.cost == expected.cost


def test_the_gap_says_what_prices_do_not_prove(rng):
    """Prices that are too low by 0.1 on each side leave a gap of 0.2, and never a hair less."""
    cost, a, b = rng.random((7, 8)), rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(8))
    sol = pf.exact(cost, a, b)
    gap = proved_gap(sol.cost, sol.f - 0.1, sol.g - 0.1, a, b)
    assert gap == pytest.approx(sol.gap + 0.2, rel=1e-12)
    exact_a, exact_b = rational(a), rational(b)
    lower = dot(rational(sol.f - 0.1), exact_a) + dot(rational(sol.g - 0.1), exact_b) * sum(exact_a) / sum(exact_b)
    assert Fraction(sol.cost) - Fraction(gap) <= lower


def test_floats_are_whole_numbers_of_their_unit():
    values = np.array([1.0, -0.1, 5e-324, 1.7e308, 0.0, 3.0])
    assert [Fraction(v, 2**1074) for v in whole(values)] == rational(values)
    positive = np.array([0.1, 3.0, 1e-20])
    assert [Fraction(v, 2 ** finest(positive)) for v in whole(positive, finest(positive))] == rational(positive)


def test_row_prices_are_rounded_down(rng):
    cost, g = rng.normal(size=(40, 30)), rng.normal(size=30) * 10.0 ** rng.uniform(-9, 3, 30)
    row, col = (x.reshape(-1) for x in np.indices(cost.shape))
    rounded = 0
    for f in (DenseCosts(cost).row_prices(g), SparseCosts(row, col, cost.reshape(-1), cost.shape).row_prices(g)):
        for i in range(40):
            highest = min(x - y for x, y in zip(rational(cost[i]), rational(g), strict=True))
            assert Fraction(float(f[i])) <= highest
            assert Fraction(float(np.nextafter(np.nextafter(f[i], np.inf), np.inf))) > highest
            rounded += Fraction(float(f[i])) < highest
    assert rounded > 0
