"""The unregularised optimum, against two other programs for it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.optimize import linear_sum_assignment, linprog

import pushforward as pf


def linear_program(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    n, m = cost.shape
    equations = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])[:-1]
    tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    masses = np.concatenate([a, b])[:-1]
    return linprog(cost.reshape(-1), A_eq=equations, b_eq=masses, method="highs", options=tight).fun


def assert_certified(sol, cost, a, b) -> None:
    """What a caller can check without trusting anyone."""
    plan = sol.plan.toarray()
    scale = np.abs(cost[np.isfinite(cost)]).max() * a.sum()
    assert plan.min() >= 0
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-9 * a.sum())
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-9 * a.sum())
    assert sol.plan.nnz <= (a > 0).sum() + (b > 0).sum() - 1
    carried = plan > 0
    assert (plan[carried] * cost[carried]).sum() == pytest.approx(sol.cost, rel=1e-12, abs=1e-14 * scale)
    assert (sol.f[:, None] + sol.g <= cost + 1e-12 * scale / a.sum()).all()
    assert sol.cost - sol.f @ a - sol.g @ b == pytest.approx(sol.gap, abs=1e-12 * scale)
    assert abs(sol.gap) <= 1e-9 * scale
    assert sol.status is pf.Status.CONVERGED


PROBLEMS = {
    "square": lambda rng: (rng.random((15, 15)), rng.dirichlet(np.ones(15)), rng.dirichlet(np.ones(15))),
    "wide": lambda rng: (rng.random((4, 50)), rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(50))),
    "tall": lambda rng: (rng.random((50, 4)), rng.dirichlet(np.ones(50)), rng.dirichlet(np.ones(4))),
    "one row": lambda rng: (rng.random((1, 6)), np.ones(1), rng.dirichlet(np.ones(6))),
    "negative": lambda rng: (rng.random((9, 8)) - 2, rng.dirichlet(np.ones(9)), rng.dirichlet(np.ones(8))),
    "ties": lambda rng: (rng.integers(0, 2, (12, 12)).astype(float), np.full(12, 1 / 12), np.full(12, 1 / 12)),
    "all equal": lambda rng: (np.full((7, 5), 3.0), rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(5))),
    "all zero": lambda rng: (np.zeros((4, 4)), np.full(4, 0.25), np.full(4, 0.25)),
    "skewed": lambda rng: (rng.random((10, 9)), rng.dirichlet(np.full(10, 0.05)), rng.dirichlet(np.full(9, 0.05))),
    "heavy": lambda rng: (rng.random((8, 8)), np.full(8, 1e3), np.full(8, 1e3)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_against_two_programs(rng, name: str):
    cost, a, b = PROBLEMS[name](rng)
    b = b * (a.sum() / b.sum())
    sol = pf.exact(cost, a, b)
    assert sol.cost == pytest.approx(linear_program(cost, a, b), rel=1e-9, abs=1e-12)
    assert_certified(sol, cost, a, b)
    assert sol.cost == pytest.approx(float(pytest.importorskip("ot").emd2(a, b, cost)), rel=1e-9, abs=1e-12)


def test_zero_weights(rng):
    cost, a, b = PROBLEMS["square"](rng)
    a[3:8], b[[0, 14]] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    sol = pf.exact(cost, a, b)
    assert_certified(sol, cost, a, b)
    assert sol.cost == pytest.approx(pf.exact(cost[a > 0][:, b > 0], a[a > 0], b[b > 0]).cost, rel=1e-12)


def test_an_assignment_problem(rng):
    cost = rng.random((30, 30))
    rows, cols = linear_sum_assignment(cost)
    sol = pf.exact(cost)
    assert sol.cost == pytest.approx(cost[rows, cols].mean(), rel=1e-11)
    np.testing.assert_allclose(sol.plan.toarray()[rows, cols], 1 / 30, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e9])
@pytest.mark.parametrize("mass", [1e-12, 1.0, 1e9])
def test_units_do_not_matter(rng, scale: float, mass: float):
    cost, a, b = PROBLEMS["square"](rng)
    expected = pf.exact(cost, a, b).cost
    sol = pf.exact(scale * cost, mass * a, mass * b)
    assert sol.cost == pytest.approx(expected * scale * mass, rel=1e-9)
    np.testing.assert_allclose(sol.plan.toarray().sum(1), mass * a, atol=1e-9 * mass)


def test_forms(rng):
    cost = rng.random((6, 5))
    from_numpy, from_torch = pf.exact(cost), pf.exact(torch.from_numpy(cost).float())
    assert isinstance(from_numpy.plan, scipy.sparse.coo_array)
    assert isinstance(from_numpy.f, np.ndarray)
    assert from_torch.plan.layout == torch.sparse_coo
    assert from_torch.f.dtype == from_torch.plan.dtype == torch.float32
    assert from_torch.cost == pytest.approx(from_numpy.cost, rel=1e-6)
    np.testing.assert_allclose(from_torch.plan.to_dense().numpy(), from_numpy.plan.toarray(), atol=1e-6)


def test_points_and_grids(rng):
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(7, 2))
    matrix = ((x[:, None] - y) ** 2).sum(-1)
    assert pf.exact(pf.PointCost(x, y)).cost == pytest.approx(pf.exact(matrix).cost, rel=1e-10)
    a, b = np.zeros(12), np.zeros(12)
    a[0], b[11] = 1.0, 1.0
    assert pf.exact(pf.GridCost((3, 4), p=1), a, b).cost == pytest.approx(5.0)
    assert pf.exact(pf.GridCost((3, 4), p=2), a, b).cost == pytest.approx(13.0)


def test_columns_missed_by_the_guess_are_found(rng, monkeypatch):
    """Whatever pairs the first program starts from, the last one is optimal."""
    cost, a, b = PROBLEMS["square"](rng)
    expected = pf.exact(cost, a, b)

    monkeypatch.setattr("pushforward.ot.solvers.start.GUESS_EPSILON", 10.0)
    monkeypatch.setattr("pushforward.ot.solvers.start.GUESS_SHARE", 1e9)
    sol = pf.exact(cost, a, b)
    assert sol.rounds > 1
    assert sol.cost == pytest.approx(expected.cost, rel=1e-10)
    assert_certified(sol, cost, a, b)


@pytest.mark.parametrize("forbidden", [0.0, 0.3])
def test_an_assignment_comes_with_prices_that_prove_it(forbidden: float):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 32))
    cost = ((x[:, None] - (x @ rng.normal(size=(32, 32)) + 0.1 * rng.normal(size=(128, 32)))) ** 2).sum(-1)
    cost[(rng.random(cost.shape) < forbidden) & ~np.eye(128, dtype=bool)] = np.inf
    found = pf.exact(cost)
    row, col = linear_sum_assignment(cost)
    assert found.cost == pytest.approx(cost[row, col].mean(), rel=1e-13)
    assert (found.f[:, None] + found.g <= cost + 1e-9 * cost[row, col].max()).all()
    assert found.f.mean() + found.g.mean() == pytest.approx(found.cost, rel=1e-12)
    assert found.rounds == 1


def test_forbidden_pairs_that_no_permutation_avoids():
    cost = np.ones((4, 4))
    cost[:2, 1:] = np.inf  # two rows share one column
    with pytest.raises(pf.errors.InfeasibleError):
        pf.exact(cost)


def test_derivatives_of_the_cost(rng):
    """The plan, and the prices, where the optimum is unique; through points, too."""
    cost = torch.from_numpy(rng.random((6, 5))).requires_grad_()
    a, b = (torch.from_numpy(rng.dirichlet(np.full(k, 3.0))).requires_grad_() for k in (6, 5))

    def optimum(cost, a, b):
        return pf.exact(cost, a, b).cost

    assert torch.autograd.gradcheck(optimum, (cost, a, b), eps=1e-7, atol=1e-5, fast_mode=True)
    sol = pf.exact(cost, a, b)
    assert sol.cost.item() == pf.exact(cost.detach(), a.detach(), b.detach()).cost
    by_cost, by_a = torch.autograd.grad(sol.cost, (cost, a))
    torch.testing.assert_close(by_cost, sol.plan.to_dense())
    torch.testing.assert_close(by_a - by_a.mean(), sol.f - sol.f.mean())
    x = torch.from_numpy(rng.normal(size=(6, 2))).requires_grad_()
    y = torch.from_numpy(rng.normal(size=(5, 2)))
    fixed = a.detach(), b.detach()
    assert torch.autograd.gradcheck(lambda x: optimum(pf.PointCost(x, y), *fixed), x, eps=1e-6, atol=1e-6)


def test_weights_moved_along_with_their_mass(rng):
    """The derivative along a change of both masses is <f, da> + <g, db>: the constant of the prices drops out."""
    cost, a, b = (torch.from_numpy(rng.random(shape)) for shape in ((5, 4), 5, 4))
    b = b * (a.sum() / b.sum())
    a.requires_grad_()
    b.requires_grad_()
    sol = pf.exact(cost, a, b)
    by_a, by_b = torch.autograd.grad(sol.cost, (a, b))
    assert float((by_a @ a + by_b @ b).detach()) == pytest.approx(sol.cost.item(), rel=1e-12)


def test_no_graph_no_tensor(rng):
    cost = torch.from_numpy(rng.random((4, 4))).requires_grad_()
    with torch.no_grad():
        assert isinstance(pf.exact(cost).cost, float)
