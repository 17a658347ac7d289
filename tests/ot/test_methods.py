"""Every way to the answer leads to the same answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.ot import SNS, Newton
from pushforward.ot.geometry.dense import DenseKernel
from pushforward.ot.geometry.sparse import SparsePattern
from pushforward.ot.solvers import native
from pushforward.ot.solvers.preconditioner import LinearSolver, System, _factorise


def weights(rng: np.random.Generator, n: int) -> np.ndarray:
    w = rng.random(n) + 0.05
    return w / w.sum()


def assert_same(one, two, epsilon: float) -> None:
    assert one.value == pytest.approx(two.value, abs=1e-9 * epsilon + 1e-13)
    assert one.transport_cost == pytest.approx(two.transport_cost, abs=1e-9)
    np.testing.assert_allclose(one.f, two.f, atol=1e-7 * epsilon)
    np.testing.assert_allclose(one.g, two.g, atol=1e-7 * epsilon)
    np.testing.assert_allclose(one.plan.to_dense(), two.plan.to_dense(), atol=1e-9)


@pytest.mark.parametrize("shape", [(20, 20), (8, 45), (45, 8)], ids=str)
@pytest.mark.parametrize("epsilon", [0.02, 0.1, 3.0])
def test_methods_agree(rng, shape: tuple[int, int], epsilon: float):
    cost, a, b = rng.random(shape), weights(rng, shape[0]), weights(rng, shape[1])
    reference = pf.solve(cost, a, b, epsilon=epsilon, tol=1e-12)
    for method in ("newton", SNS(density=0.5), "sinkhorn"):
        # What stops at an error of exactly the tolerance may miss it by a rounding; half of it leaves room.
        sol = pf.solve(cost, a, b, epsilon=epsilon, tol=5e-12, method=method)
        assert_same(sol, reference, epsilon)


def test_published_newton_takes_fewer_steps_than_sinkhorn(rng):
    cost = rng.random((60, 60))
    published = pf.solve(cost, epsilon=1 / 200, method=SNS(density=15 / 60))
    assert 0 < published.iterations.newton
    assert len(published.history) < 50
    plain = pf.solve(cost, epsilon=1 / 200, method="sinkhorn", max_iterations=1000, throw=False)
    assert plain.marginal_error > 1e3 * published.marginal_error


@pytest.mark.parametrize("epsilon", [1e-3, 1e-4])
@pytest.mark.parametrize("shape", [(80, 70), (70, 80)], ids=str)
def test_sparse_and_dense_paths_agree(rng, epsilon: float, shape: tuple[int, int], monkeypatch):
    patterns = []
    whole = SparsePattern.__init__

    def spy(self, *args) -> None:
        patterns.append(args)
        whole(self, *args)

    monkeypatch.setattr(SparsePattern, "__init__", spy)
    cost, a, b = rng.random(shape), weights(rng, shape[0]), weights(rng, shape[1])
    dense = pf.solve(cost, a, b, epsilon=epsilon, method=Newton(sparse_below=1e-6))
    assert not patterns
    sparse = pf.solve(cost, a, b, epsilon=epsilon, method=Newton(sparse_below=1.0))
    assert patterns
    assert sparse.value == pytest.approx(dense.value, abs=1e-9)
    np.testing.assert_allclose(sparse.plan.to_dense(), dense.plan.to_dense(), atol=1e-8)


@pytest.mark.parametrize("tol", [1e-3, 1e-9, 1e-12])
@pytest.mark.parametrize("mass", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("orders", [0, 8])
def test_what_a_pattern_leaves_out_is_within_the_tolerance(rng, tol: float, mass: float, orders: int):
    """Pairs are dropped by what they could carry, whatever the weights' sizes; the error is that of the whole plan."""
    cost = rng.random((70, 80))
    a, b = (10.0 ** -(orders * rng.random(n)) for n in (70, 80))
    a, b = mass * a / a.sum(), mass * b / b.sum()
    sol = pf.solve(cost, a, b, epsilon=2e-3, tol=tol, method=Newton(sparse_below=1.0))
    plan = sol.plan.to_dense()
    assert np.abs(plan.sum(0) - b).sum() + np.abs(plan.sum(1) - a).sum() <= mass * (tol + 5e-13)


BOTH = pytest.mark.parametrize("bought", [True, False], ids=["factor", "plain"])


def buy(monkeypatch: pytest.MonkeyPatch, bought: bool) -> None:
    """Every linear system gets its factor at once, or none ever does; with torch, which is where factors are."""
    monkeypatch.setattr(native, "_compiled", lambda kernel: None)
    whole = LinearSolver.solve

    def solve(self, system, *args, **options):
        if bought and not self.has_factor:
            self._factor = _factorise(system, system.diagonal.rsqrt())
        return whole(self, system, *args, **options)

    monkeypatch.setattr(LinearSolver, "price", staticmethod(lambda system: float("inf")))
    monkeypatch.setattr(LinearSolver, "solve", solve)


@BOTH
@pytest.mark.parametrize("kind", ["dense", "grid", "batch", "sparse", "relaxed"])
def test_conjugate_gradients_with_and_without_a_factor(rng, monkeypatch, kind: str, bought: bool):
    shape = {"grid": (30, 30), "batch": (3, 12, 10), "sparse": (70, 70)}.get(kind, (30, 25))
    cost = pf.GridCost((6, 5), scale=0.1) if kind == "grid" else rng.random(shape)
    a, b = weights(rng, shape[-2]), weights(rng, shape[-1])
    settings, rho = Newton(sparse_below=1.0 if kind == "sparse" else 0.3), 0.3 if kind == "relaxed" else None
    usual = pf.solve(cost, a, b, epsilon=5e-3, unbalanced=rho)
    buy(monkeypatch, bought)
    sol = pf.solve(cost, a, b, epsilon=5e-3, unbalanced=rho, method=settings)
    np.testing.assert_allclose(sol.value, usual.value, atol=1e-9)
    np.testing.assert_allclose(sol.plan.to_dense(), usual.plan.to_dense(), atol=1e-8)
    assert sol.iterations.newton > 0
    if bought:  # the factor of the system itself leaves CG an iteration or two
        assert sol.iterations.cg <= 6 * sol.iterations.newton


@BOTH
@pytest.mark.parametrize("singular", [True, False])
def test_the_linear_solver_solves(rng, monkeypatch, bought: bool, singular: bool):
    buy(monkeypatch, bought)
    plan = torch.from_numpy(rng.random((2, 9, 7)) ** 8 + 1e-6)
    rows, cols = plan.sum(2), plan.sum(1)
    diagonal = cols if singular else 1.1 * cols
    system = System(DenseKernel(plan), diagonal, 1 / rows, torch.ones_like(cols), singular=singular)
    rhs = torch.from_numpy(rng.normal(size=(2, 7)))
    rhs -= rhs.mean(-1, keepdim=True) if singular else 0.0
    solver = LinearSolver()
    x = solver.solve(system, rhs, torch.full((2, 1), 1e-12, dtype=torch.float64))
    assert (solver.iterations <= 4) == bought
    for k in range(2):
        matrix = torch.diag(diagonal[k]) - plan[k].T @ (plan[k] / rows[k, :, None])
        torch.testing.assert_close(matrix @ x[k], rhs[k], rtol=0, atol=1e-10)
        truth = torch.linalg.pinv(matrix, hermitian=True, rtol=1e-12) @ rhs[k]
        moved = x[k] - x[k].mean() + truth.mean() if singular else x[k]
        torch.testing.assert_close(moved, truth, rtol=1e-6, atol=1e-8)


def test_a_factor_is_bought_when_iterations_have_cost_as_much(rng, monkeypatch):
    plan = torch.from_numpy(rng.random((1, 40, 40)) ** 30 + 1e-9)
    rows, cols = plan.sum(2), plan.sum(1)
    system = System(DenseKernel(plan), cols, 1 / rows, torch.ones_like(cols), singular=True)
    rhs = torch.from_numpy(rng.normal(size=(1, 40)))
    rhs -= rhs.mean()
    monkeypatch.setattr(LinearSolver, "_iteration_cost", lambda self, system: 1.0)
    for price, buys in ((8.0, True), (1e6, False)):
        monkeypatch.setattr(LinearSolver, "price", staticmethod(lambda system, price=price: price))
        solver = LinearSolver()
        solver.solve(system, rhs, torch.full((1, 1), 1e-9, dtype=torch.float64))
        assert solver.has_factor == buys
        assert (solver.iterations > 12) != buys


def test_larger_epsilons_cost_more_transport_and_less_value_regularised(rng):
    """As epsilon grows the plan spreads: transport cost rises; and the optimum rises with the price of its entropy."""
    cost = rng.random((15, 12))
    solutions = [pf.solve(cost, epsilon=epsilon) for epsilon in (1e-3, 1e-2, 0.1, 1.0, 10.0)]
    for name in ("transport_cost", "value"):
        numbers = [getattr(sol, name) for sol in solutions]
        assert numbers == sorted(numbers)
        assert numbers[-1] > numbers[0] + 0.1


@pytest.mark.parametrize("epsilon", [1e-4, 1e-5])
def test_hard_geometry_converges_by_default(rng, epsilon: float):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(35, 3)) + 1
    cost = ((x[:, None] - y) ** 2).sum(-1)
    sol = pf.solve(cost / cost.max(), epsilon=epsilon)
    assert sol.marginal_error <= 1e-9
    lower, upper = sol.bounds()
    assert 0 <= upper - lower < 20 * epsilon


def test_thin_and_long(rng):
    cost, b = rng.random((2, 3000)), weights(rng, 3000)
    for c, w in ((cost, (None, b)), (cost.T, (b, None))):
        assert pf.solve(c, *w, epsilon=0.01).marginal_error <= 1e-9
