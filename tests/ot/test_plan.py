"""The plan as an operator, and the kernels behind it."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import scipy.sparse
import torch

import pushforward as pf
from pushforward.errors import InvalidArgument
from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.geometry.grid import GridGeometry, GridKernel, SeparableKernel
from pushforward.ot.geometry.sparse import SparsePattern


@pytest.fixture
def sol(rng):
    return pf.solve(rng.random((9, 6)), rng.dirichlet(np.ones(9)), rng.dirichlet(np.ones(6)), epsilon=0.02)


def test_products_are_the_matrix_products(sol, rng):
    plan, v, u = sol.plan.to_dense(), rng.normal(size=6), rng.normal(size=(9, 3))
    np.testing.assert_allclose(sol.plan @ v, plan @ v, atol=1e-15)
    np.testing.assert_allclose(sol.plan.T @ u, plan.T @ u, atol=1e-15)
    np.testing.assert_allclose(sol.plan @ np.ones((6, 1)), plan.sum(1, keepdims=True), atol=1e-15)
    np.testing.assert_allclose(sol.plan.T.to_dense(), plan.T, atol=1e-16)
    np.testing.assert_allclose(sol.plan.T.T @ v, plan @ v, atol=1e-15)
    assert sol.plan.T.shape == (6, 9)


def test_products_of_many_rows_go_by_blocks(rng, monkeypatch):
    monkeypatch.setattr("pushforward.ot.geometry.dense.BLOCK", 50)
    cost, v = rng.random((33, 21)), rng.normal(size=(21, 2))
    sol = pf.solve(cost, epsilon=0.05)
    monkeypatch.undo()
    whole = pf.solve(cost, epsilon=0.05)
    np.testing.assert_allclose(sol.f, whole.f, atol=1e-11)
    monkeypatch.setattr("pushforward.ot.geometry.dense.BLOCK", 50)
    np.testing.assert_allclose(sol.plan @ v, sol.plan.to_dense() @ v, atol=1e-15)
    np.testing.assert_allclose(sol.bounds(), whole.bounds(), atol=1e-11)


def test_barycentres(sol, rng):
    plan, y = sol.plan.to_dense(), rng.normal(size=(6, 2))
    np.testing.assert_allclose(sol.plan.barycentric(y), plan @ y / plan.sum(1, keepdims=True), atol=1e-13)


def test_a_row_without_mass_has_no_barycentre(rng):
    sol = pf.solve(rng.random((3, 4)), [0.5, 0.0, 0.5], epsilon=0.1)
    where = sol.plan.barycentric(rng.normal(size=(4, 2)))
    assert np.isnan(where[1]).all()
    assert np.isfinite(where[[0, 2]]).all()


def test_batched_products(rng):
    sol = pf.solve(rng.random((3, 5, 4)), epsilon=0.1)
    plan, v, y = sol.plan.to_dense(), rng.normal(size=(3, 4)), rng.normal(size=(3, 4, 2))
    np.testing.assert_allclose(sol.plan @ v, np.einsum("bij,bj->bi", plan, v), atol=1e-15)
    np.testing.assert_allclose(sol.plan @ y, plan @ y, atol=1e-15)
    np.testing.assert_allclose(sol.plan.T @ np.ones((3, 5)), plan.sum(1), atol=1e-15)
    expected = plan @ y / plan.sum(-1, keepdims=True)
    np.testing.assert_allclose(sol.plan.barycentric(y), expected, atol=1e-13)
    np.testing.assert_allclose(sol.plan.barycentric(y[0]), plan @ y[0] / plan.sum(-1, keepdims=True), atol=1e-13)


def test_sparse_keeps_what_is_over_the_threshold(sol):
    plan = sol.plan.to_dense()
    for threshold in (1e-12, 1e-3):
        kept = sol.plan.to_sparse(threshold)
        assert isinstance(kept, scipy.sparse.coo_array)
        np.testing.assert_array_equal(kept.toarray(), np.where(plan >= threshold, plan, 0))
    assert sol.plan.to_sparse(1e-3).nnz < plan.size


def test_the_threshold_is_a_share_of_the_mass(rng):
    cost = rng.random((6, 5))
    light, heavy = (pf.solve(cost, np.full(6, s / 6), np.full(5, s / 5), epsilon=0.02).plan for s in (1.0, 1e6))
    assert heavy.to_sparse(1e-2).nnz == light.to_sparse(1e-2).nnz


def test_sparse_for_torch(rng):
    sol = pf.solve(torch.from_numpy(rng.random((9, 6))), epsilon=0.02)
    kept = sol.plan.to_sparse(1e-9)
    assert kept.layout == torch.sparse_coo
    dense = sol.plan.to_dense()
    assert torch.equal(kept.to_dense(), torch.where(dense >= 1e-9, dense, 0))


def test_a_plan_that_does_not_fit_is_refused_before_it_is_made(sol, rng, monkeypatch):
    monkeypatch.setattr("pushforward.ot.memory.available_memory", lambda device: 9 * 6 * 8 - 1)
    with pytest.raises(pf.errors.TooLargeError, match=r"\(1, 9, 6\).*432 bytes and 431 are free.*plan @ v") as caught:
        sol.plan.to_dense()
    assert isinstance(caught.value, MemoryError)
    with pytest.raises(pf.errors.TooLargeError):
        sol.plan.to_sparse()
    assert (sol.plan @ np.ones(6)).shape == (9,)  # what needs no matrix still works
    monkeypatch.setattr("pushforward.ot.memory.available_memory", lambda device: 9 * 6 * 8)
    assert sol.plan.to_dense().shape == (9, 6)


def test_a_grid_too_large_for_its_matrix_is_refused_where_it_is_needed(monkeypatch):
    monkeypatch.setattr("pushforward.ot.memory.available_memory", lambda device: 1000)
    with pytest.raises(pf.errors.TooLargeError, match="cost matrix of the grid"):
        pf.exact(pf.GridCost((4, 4)))
    weights = torch.full((16,), 1 / 16, dtype=torch.float64, requires_grad=True)
    with pytest.raises(pf.errors.TooLargeError, match="derivative"):
        pf.solve(pf.GridCost((4, 4)), weights)


# The kernels that the solvers work on.


@pytest.fixture
def kernels(rng):
    """A dense and a sparse kernel of one plan at some potentials, and what they were made from."""
    n, m, epsilon = 40, 30, 0.05
    cost = torch.from_numpy(rng.random((n, m)))
    a, b = torch.from_numpy(rng.dirichlet(np.ones(n))), torch.from_numpy(rng.dirichlet(np.ones(m)))
    g = 0.1 * torch.from_numpy(rng.normal(size=m))
    geometry = DenseGeometry(cost[None], forbidden=False, mean=float(cost.mean()))
    dense, f, cols = geometry.kernel(g[None], epsilon, a[None], b[None])
    radius = 40 * epsilon
    pattern = SparsePattern(geometry, f[0], g, radius)
    sparse, _, _ = pattern.kernel(f, g[None], epsilon, a[None], b[None])
    return dense, sparse, f, cols, g, geometry, a, b, epsilon


def test_a_kernel_is_the_plan_with_exact_rows(kernels):
    dense, _, f, cols, g, geometry, a, b, epsilon = kernels
    plan = a[:, None] * b * torch.exp((f[0, :, None] + g - geometry.cost[0]) / epsilon)
    torch.testing.assert_close(dense.matrix[0], plan, rtol=1e-12, atol=0)
    torch.testing.assert_close(plan.sum(1), a, rtol=1e-12, atol=0)
    torch.testing.assert_close(cols[0], plan.sum(0), rtol=1e-12, atol=0)
    measured = geometry.measure(g[None], epsilon, a[None], b[None])
    torch.testing.assert_close(measured.f, f, rtol=0, atol=1e-14)
    torch.testing.assert_close(measured.cols, cols, rtol=1e-12, atol=0)
    torch.testing.assert_close(measured.cost_by_col[0], (plan * geometry.cost[0]).sum(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(geometry.plan(f, g[None], epsilon, a[None], b[None])[0], plan, rtol=1e-12, atol=0)


def test_dense_and_sparse_kernels_agree(kernels, rng):
    dense, sparse, *_ = kernels
    assert 0 < sparse.entries < dense.entries + 1
    for _ in range(3):
        u, v = (torch.from_numpy(rng.random((1, k)) + 0.5) for k in (40, 30))
        torch.testing.assert_close(sparse.rows(v), dense.rows(v), rtol=1e-11, atol=1e-15)
        torch.testing.assert_close(sparse.cols(u), dense.cols(u), rtol=1e-11, atol=1e-15)
        torch.testing.assert_close(sparse.normal(u, v), dense.normal(u, v), rtol=1e-6, atol=1e-10)
        half = dense.matrix[0] * u[0].sqrt()[:, None] * v[0]
        torch.testing.assert_close(dense.normal(u, v)[0], half.T @ half, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("form", [SeparableKernel, GridKernel])
@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_a_grid_kernel_agrees_with_the_dense_one(rng, monkeypatch, form: type, spread: float):
    if form is GridKernel:
        monkeypatch.setattr("pushforward.ot.geometry.grid.REACH", -1.0)
    axes = [torch.from_numpy(rng.random((s, s))) for s in (3, 4, 2)]
    axes = tuple(axis + axis.T for axis in axes)  # any symmetric costs, not those of pixels alone
    grid = GridGeometry(axes, batch=2)
    dense = DenseGeometry(grid.matrix().contiguous(), forbidden=False, mean=grid.mean)
    a, b = (torch.from_numpy(rng.dirichlet(np.ones(24), 2)) for _ in range(2))
    g, u, v = (torch.from_numpy(rng.normal(size=(2, 24))) for _ in range(3))
    g *= spread
    for damping in (1.0, 0.6):
        one, f_one, cols_one = grid.kernel(g, 0.1, a, b, damping=damping)
        two, f_two, cols_two = dense.kernel(g, 0.1, a, b, damping=damping)
        assert isinstance(one, form) or spread == 10.0  # potentials too far apart go by factors in any case
        torch.testing.assert_close(f_one, f_two, rtol=0, atol=1e-11)
        torch.testing.assert_close(cols_one, cols_two, rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(one.rows(v), two.rows(v), rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(one.cols(u), two.cols(u), rtol=1e-9, atol=1e-14)
        torch.testing.assert_close(one.normal(u.abs(), v), two.normal(u.abs(), v), rtol=1e-8, atol=1e-13)
        measured_one, measured_two = (k.measure(g, 0.1, a, b, damping=damping) for k in (grid, dense))
        torch.testing.assert_close(measured_one.f, measured_two.f, rtol=0, atol=1e-11)
        torch.testing.assert_close(measured_one.cost_by_col, measured_two.cost_by_col, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(grid.c_transform(g), dense.c_transform(g), rtol=0, atol=1e-13)
    torch.testing.assert_close(grid.bilinear(a, b), dense.bilinear(a, b), rtol=1e-12, atol=0)
    assert grid.mean == pytest.approx(float(dense.cost.mean()))
    assert grid.peak == pytest.approx(dense.peak)
    assert grid.least == pytest.approx(dense.least)


def test_the_separable_form_is_chosen_only_where_it_loses_nothing(rng):
    """Up to the seam: wherever a grid takes the cheap form, its sums have the digits of the dense ones."""
    chosen = 0
    for spread in np.linspace(50, 345, 60):
        shape, p = [(24,), (5, 6), (3, 4, 2)][chosen % 3], 1 + chosen % 2
        lines = [torch.arange(s, dtype=torch.float64) for s in shape]
        grid = GridGeometry(tuple((i[:, None] - i).abs() ** p for i in lines), batch=1)
        dense = DenseGeometry(grid.matrix().contiguous(), forbidden=False, mean=grid.mean)
        n, epsilon = int(np.prod(shape)), 10 ** rng.uniform(-2, 1)
        a, b = (torch.from_numpy(rng.dirichlet(np.full(n, 0.1), 1)) for _ in range(2))
        g = torch.from_numpy(spread * epsilon * rng.random((1, n)))
        one, f_one, cols_one = grid.kernel(g, epsilon, a, b)
        two, f_two, cols_two = dense.kernel(g, epsilon, a, b)
        chosen += isinstance(one, SeparableKernel)
        torch.testing.assert_close(f_one / epsilon, f_two / epsilon, rtol=0, atol=1e-9)
        torch.testing.assert_close(cols_one, cols_two, rtol=0, atol=1e-12)
        v = torch.from_numpy(rng.random((1, n)))
        torch.testing.assert_close(one.rows(v), two.rows(v), rtol=1e-9, atol=1e-14)
    assert 10 < chosen < 60


def test_a_pattern_knows_what_it_covers(kernels):
    _, _, f, _, g, geometry, a, b, epsilon = kernels
    pattern = SparsePattern(geometry, f[0], g, 1.0)
    slack = f[0, :, None] + g - geometry.cost[0]
    assert len(pattern.row) == int((slack >= -1.0).sum())
    assert pattern.covers(f[0] + 0.1, g, 0.8)
    assert not pattern.covers(f[0] + 0.1, g, 0.95)
    pattern.shrink(f[0], g, 0.3)
    assert len(pattern.row) == int((slack >= -0.3).sum())
    assert not pattern.covers(f[0], g, 0.5)
    assert pattern.kernel(f, g[None], epsilon, a[None], b[None])[0].entries == len(pattern.row)


@pytest.mark.parametrize("cost", ["dense", "points", "grid"])
def test_a_part_of_a_plan_is_that_part_of_its_matrix(cost, monkeypatch):
    monkeypatch.setattr(importlib.import_module("pushforward.ot.question"), "MATRIX", 0)  # points stay points
    rng = np.random.default_rng(0)
    costs = {
        "dense": rng.random((6, 9)),
        "points": pf.PointCost(rng.random((6, 2)), rng.random((9, 2))),
        "grid": pf.GridCost((2, 3)),
    }
    plan = pf.solve(costs[cost], epsilon=0.1).plan
    whole = plan.to_dense()
    for key in (
        slice(None), ..., 2, -1, slice(1, 4), slice(None, None, -2), [3, 0], whole.sum(1) > 0, (1, 2), (slice(3), -1),
        (slice(None), slice(2, 5)), (3, slice(None)), np.array([5, 5]),
    ):  # fmt: skip
        np.testing.assert_allclose(plan[key], whole[key], atol=1e-16)
    np.testing.assert_allclose(plan[[0, 2], [1, 3]], whole[[0, 2]][:, [1, 3]], atol=1e-16)  # all pairs of both lists
    with pytest.raises(IndexError):
        plan[6]
    with pytest.raises(InvalidArgument, match="plan\\[rows, columns\\] is for one problem's"):
        plan[0, 0, 0]


def test_a_part_of_a_batchs_plan_is_refused():
    plan = pf.solve(np.random.default_rng(0).random((2, 4, 3)), epsilon=0.1).plan
    with pytest.raises(InvalidArgument, match="the plan has shape"):
        plan[0]


def test_a_part_of_a_plan_has_its_derivatives():
    cost = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    part = lambda cost: pf.solve(cost, epsilon=0.3, tol=1e-13).plan[1:3, :2]  # noqa: E731
    assert torch.autograd.gradcheck(part, (cost,))
