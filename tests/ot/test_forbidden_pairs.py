"""+inf in the cost: pairs that no plan may use."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pushforward as pf

METHODS = pytest.mark.parametrize("method", ["auto", "newton", "sns", "sinkhorn"])


def banded(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    cost = rng.random((n, n))
    cost[np.abs(np.arange(n)[:, None] - np.arange(n)) > width] = np.inf
    return cost


@METHODS
def test_forbidden_pairs_carry_nothing(rng, method: str):
    cost = banded(rng, 12, 4)
    sol = pf.solve(cost, epsilon=0.1, method=method)
    plan = sol.plan.to_dense()
    assert not plan[np.isinf(cost)].any()
    assert np.abs(plan.sum(0) - 1 / 12).sum() + np.abs(plan.sum(1) - 1 / 12).sum() <= 1e-9 + 1e-13
    assert np.isfinite(sol.f).all()
    assert np.isfinite(sol.g).all()
    # A price that nobody pays is as good as a ban.
    dear = pf.solve(np.where(np.isinf(cost), 50.0, cost), epsilon=0.1)
    np.testing.assert_allclose(plan, dear.plan.to_dense(), atol=1e-9)
    assert sol.value == pytest.approx(dear.value, abs=1e-9)
    assert sol.transport_cost == pytest.approx(dear.transport_cost, abs=1e-9)


def test_a_single_allowed_permutation(rng):
    where = rng.permutation(6)
    cost = np.full((6, 6), np.inf)
    cost[np.arange(6), where] = rng.random(6)
    sol = pf.solve(cost, epsilon=0.1)
    np.testing.assert_allclose(sol.plan.to_dense()[np.arange(6), where], 1 / 6, rtol=1e-9)
    assert sol.bounds() == pytest.approx((sol.transport_cost,) * 2, abs=1e-9)


def infeasible_costs() -> list:
    lonely_row = np.ones((4, 4))
    lonely_row[1] = np.inf
    lonely_column = lonely_row.T.copy()
    crowd = np.ones((4, 4))
    crowd[:3, 1:] = np.inf  # three rows share one column
    nothing = np.full((3, 3), np.inf)
    return [
        pytest.param(lonely_row, id="a row without partners"),
        pytest.param(lonely_column, id="a column without partners"),
        pytest.param(crowd, id="three rows for one column"),
        pytest.param(nothing, id="nothing allowed"),
    ]


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn"])
@pytest.mark.parametrize("cost", infeasible_costs())
def test_an_impossible_problem_is_said_to_be_one(cost: np.ndarray, method: str):
    sol = pf.solve(cost, epsilon=0.1, method=method, max_iterations=500, throw=False)
    assert sol.status is pf.Status.INFEASIBLE
    assert sol.marginal_error > 0.1
    with pytest.raises(pf.errors.InfeasibleError, match="forbidden"):
        pf.solve(cost, epsilon=0.1, method=method, max_iterations=500)


def test_an_impossible_problem_in_a_batch(rng):
    costs = rng.random((3, 4, 4))
    costs[1, :3, 1:] = np.inf
    with pytest.raises(pf.errors.InfeasibleError) as caught:
        pf.solve(costs, epsilon=0.1)
    errors = caught.value.solution.marginal_error
    assert errors[1] > 0.1


def test_what_balance_forbids_relaxation_allows():
    cost = np.ones((4, 4))
    cost[:3, 1:] = np.inf
    sol = pf.solve(cost, epsilon=0.1, unbalanced=1.0)
    plan = sol.plan.to_dense()
    assert sol.converged
    assert not plan[np.isinf(cost)].any()
    assert plan.sum() > 0.1


def test_rows_without_weight_may_be_without_partners(rng):
    cost = rng.random((5, 4))
    cost[2] = np.inf
    a = np.array([0.25, 0.25, 0.0, 0.25, 0.25])
    sol = pf.solve(cost, a, epsilon=0.1)
    rest = pf.solve(cost[a > 0], a[a > 0], epsilon=0.1)
    np.testing.assert_allclose(sol.plan.to_dense()[a > 0], rest.plan.to_dense(), atol=1e-10)
    assert np.isfinite(sol.value)


def test_gradients_pass_by_forbidden_pairs(rng):
    cost = torch.from_numpy(banded(rng, 8, 3)).requires_grad_()
    sol = pf.solve(cost, epsilon=0.1)
    (sol.value + sol.transport_cost + sol.f.square().sum()).backward()
    assert torch.isfinite(cost.grad).all()
    assert not cost.grad[torch.isinf(cost)].any()
    assert cost.grad[torch.isfinite(cost)].abs().min() > 0


def test_exact_avoids_forbidden_pairs(rng):
    cost = banded(rng, 10, 3)
    found = pf.exact(cost)
    dear = pf.exact(np.where(np.isinf(cost), 1e3, cost))
    assert found.cost == pytest.approx(dear.cost, rel=1e-10)
    assert math.isfinite(found.cost)
    assert not found.plan.toarray()[np.isinf(cost)].any()
    assert (found.f[:, None] + found.g <= cost + 1e-12).all()


@pytest.mark.parametrize("cost", infeasible_costs()[:3])
def test_exact_knows_the_impossible(cost: np.ndarray):
    with pytest.raises(pf.errors.InfeasibleError):
        pf.exact(cost)
