"""Metamorphic laws: what must happen to the answer when the question is rewritten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import pushforward as pf


@dataclass(frozen=True)
class Drawn:
    """A problem, and random numbers for the rewriting."""

    cost: np.ndarray
    a: np.ndarray
    b: np.ndarray
    epsilon: float
    rng: np.random.Generator

    @property
    def scale(self) -> float:
        return float(np.abs(self.cost).max())


@st.composite
def problems(draw: st.DrawFn) -> Drawn:
    n, m = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cost = rng.random((n, m)) - draw(st.sampled_from([0.0, 0.5]))
    orders = draw(st.sampled_from([0, 2, 8]))
    a, b = (10.0 ** -(orders * rng.random(k)) for k in (n, m))
    return Drawn(cost, a / a.sum(), b / b.sum(), 10.0 ** draw(st.floats(-2, 2)), rng)


def solve(cost, a, b, epsilon):
    return pf.solve(cost, a, b, epsilon=epsilon, tol=1e-12)


def assert_same(one, two, p: Drawn, *, plan: np.ndarray | None = None, value: float | None = None) -> None:
    assert abs(one.value - (two.value if value is None else value)) <= 1e-10 * (p.scale + p.epsilon)
    np.testing.assert_allclose(one.plan.to_dense(), two.plan.to_dense() if plan is None else plan, atol=1e-9)


def assert_same_potentials(one: np.ndarray, two: np.ndarray, weights: np.ndarray, p: Drawn) -> None:
    """On average over the mass, where the plan ties them: pieces that it falls into have constants of their own."""
    if p.epsilon >= 0.1:
        assert weights @ np.abs(one - two) <= 1e-7 * max(1.0, p.epsilon)


@given(problems())
def test_transposition(p: Drawn):
    one, two = solve(p.cost, p.a, p.b, p.epsilon), solve(p.cost.T, p.b, p.a, p.epsilon)
    assert_same(one, two, p, plan=two.plan.to_dense().T)
    assert_same_potentials(one.f, two.g, p.a, p)


@given(problems())
def test_permutation(p: Drawn):
    rows, cols = (p.rng.permutation(n) for n in p.cost.shape)
    one, two = solve(p.cost, p.a, p.b, p.epsilon), solve(p.cost[rows][:, cols], p.a[rows], p.b[cols], p.epsilon)
    assert_same(two, one, p, plan=one.plan.to_dense()[rows][:, cols])
    assert_same_potentials(two.f, one.f[rows], p.a[rows], p)


@given(problems(), st.sampled_from([1e-3, 1.0, 10.0]))
def test_shifts_of_rows_and_columns_move_no_mass(p: Drawn, size: float):
    u, v = (size * p.rng.normal(size=n) for n in p.cost.shape)
    shifted = p.cost + u[:, None] + v
    # Rounding of the shifted cost, over epsilon, is an error that no solver can take out: hence the wider tolerance.
    one, two = (pf.solve(c, p.a, p.b, epsilon=p.epsilon, tol=1e-11) for c in (p.cost, shifted))
    np.testing.assert_allclose(two.plan.to_dense(), one.plan.to_dense(), atol=1e-9)
    moved = one.value + u @ p.a + v @ p.b
    assert abs(two.value - moved) <= 1e-10 * (1 + size + p.epsilon)
    ground = (two.f - two.f @ p.a) - (one.f + u - (one.f + u) @ p.a)  # up to the constant between f and g
    assert_same_potentials(ground, np.zeros_like(ground), p.a, p)


@given(problems(), st.integers(-12, 12))
def test_units_of_the_cost(p: Drawn, exponent: int):
    s = 10.0**exponent
    one, two = solve(p.cost, p.a, p.b, p.epsilon), solve(s * p.cost, p.a, p.b, s * p.epsilon)
    assert_same(one, two, p, value=two.value / s)
    assert abs(one.transport_cost - two.transport_cost / s) <= 1e-9 * p.scale
    assert_same_potentials(one.f, two.f / s, p.a, p)


@given(problems(), st.integers(-9, 9))
def test_units_of_the_mass(p: Drawn, exponent: int):
    t = 10.0**exponent
    one, two = solve(p.cost, p.a, p.b, p.epsilon), solve(p.cost, t * p.a, t * p.b, p.epsilon)
    np.testing.assert_allclose(two.plan.to_dense() / t, one.plan.to_dense(), atol=1e-9)
    assert abs(one.transport_cost - two.transport_cost / t) <= 1e-9 * p.scale


@given(problems(), st.floats(0.05, 0.95))
def test_a_point_split_in_two(p: Drawn, share: float):
    """Twice the same row, its weight divided: the plan divides in the same way and the optimum stays."""
    k = int(p.rng.integers(len(p.a)))
    a = np.append(p.a, (1 - share) * p.a[k])
    a[k] *= share
    one, two = solve(p.cost, p.a, p.b, p.epsilon), solve(np.vstack([p.cost, p.cost[k]]), a, p.b, p.epsilon)
    halves = two.plan.to_dense()
    merged = halves[:-1].copy()
    merged[k] += halves[-1]
    assert_same(one, two, p, plan=merged)
    np.testing.assert_allclose(halves[-1] * share, halves[k] * (1 - share), atol=1e-10)


@given(problems())
def test_points_without_weight_can_be_taken_out(p: Drawn):
    more = np.insert(p.cost, 0, p.rng.random(len(p.b)), axis=0)
    more = np.insert(more, more.shape[1], p.rng.random(len(p.a) + 1), axis=1)
    one, two = solve(p.cost, p.a, p.b, p.epsilon), solve(more, np.insert(p.a, 0, 0.0), np.append(p.b, 0.0), p.epsilon)
    plan = two.plan.to_dense()
    assert_same(one, two, p, plan=plan[1:, :-1])
    assert not plan[0].any()
    assert not plan[:, -1].any()
    assert_same_potentials(two.f[1:], one.f, p.a, p)


@given(problems(), st.floats(1.1, 10))
def test_a_larger_epsilon_costs_more(p: Drawn, factor: float):
    one, two = solve(p.cost, p.a, p.b, p.epsilon), solve(p.cost, p.a, p.b, factor * p.epsilon)
    slack = 1e-10 * (p.scale + p.epsilon)
    assert two.transport_cost >= one.transport_cost - slack
    assert two.value >= one.value - slack
    assert one.value >= one.transport_cost - slack  # KL(P | a b^T) is at least 0
    assert one.transport_cost <= p.a @ p.cost @ p.b + slack  # and no plan is worse than the independent one


@given(problems())
def test_a_dearer_cost_costs_more(p: Drawn):
    one, two = (solve(c, p.a, p.b, p.epsilon) for c in (p.cost, p.cost + p.rng.random(p.cost.shape)))
    assert two.value >= one.value - 1e-10 * (p.scale + p.epsilon)


@given(problems())
def test_problems_side_by_side_are_solved_as_alone(p: Drawn):
    other = p.rng.random(p.cost.shape)
    batch = solve(np.stack([p.cost, other, p.cost]), p.a, p.b, p.epsilon)
    for k, cost in enumerate((p.cost, other, p.cost)):
        one = solve(cost, p.a, p.b, p.epsilon)
        assert abs(batch.value[k] - one.value) <= 1e-10 * (1 + p.epsilon)
        np.testing.assert_allclose(batch.plan.to_dense()[k], one.plan.to_dense(), atol=1e-9)


@given(problems())
def test_exact_obeys_the_same_laws(p: Drawn):
    one = pf.exact(p.cost, p.a, p.b)
    rows, cols = (p.rng.permutation(n) for n in p.cost.shape)
    rewritten = pf.exact(1e-7 * p.cost[rows][:, cols].T, 1e5 * p.b[cols], 1e5 * p.a[rows])
    assert abs(rewritten.cost / 1e-2 - one.cost) <= 1e-9 * p.scale
    lower, upper = solve(p.cost, p.a, p.b, p.epsilon).bounds()
    assert lower <= one.cost + 1e-9 * p.scale
    assert upper >= one.cost - 1e-9 * p.scale
