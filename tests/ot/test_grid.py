"""Pixel grids: the separable plan against the dense one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pushforward as pf

SHAPES = [(17,), (5, 4), (1, 6), (3, 4, 2)]
GRIDS = pytest.mark.parametrize(("shape", "p"), [(shape, p) for shape in SHAPES for p in (1, 2)], ids=str)


def dense_cost(shape: tuple[int, ...], p: int, scale: float) -> np.ndarray:
    i = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
    return scale * (np.abs(i[:, None] - i) ** p).sum(-1).astype(float)


def images(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = rng.random(n) ** 3, rng.random(n) ** 3
    return a / a.sum(), b / b.sum()


def assert_same(one, two, v: np.ndarray, accuracy: float = 1e-8) -> None:
    assert one.value == pytest.approx(two.value, abs=accuracy)
    assert one.transport_cost == pytest.approx(two.transport_cost, abs=accuracy)
    np.testing.assert_allclose(one.plan.to_dense(), two.plan.to_dense(), atol=accuracy)
    np.testing.assert_allclose(one.plan @ v, two.plan @ v, atol=accuracy)
    np.testing.assert_allclose(one.plan.T @ v, two.plan.T @ v, atol=accuracy)
    np.testing.assert_allclose(one.plan.barycentric(v[:, None]), two.plan.barycentric(v[:, None]), atol=1e3 * accuracy)
    np.testing.assert_allclose(one.bounds(), two.bounds(), atol=accuracy)
    assert one.duality_gap == pytest.approx(two.duality_gap, abs=accuracy)


@pytest.mark.parametrize("form", ["usual", "factors"])
@pytest.mark.parametrize("method", ["auto", "sinkhorn"])
@GRIDS
def test_a_grid_is_its_matrix(rng, monkeypatch, shape, p, method, form):
    if form == "factors":  # the plan as a chain of conditional factors, which else serves only far-apart potentials
        monkeypatch.setattr("pushforward.ot.geometry.grid.REACH", -1.0)
    n = int(np.prod(shape))
    a, b = images(rng, n)
    one = pf.solve(pf.GridCost(shape, p=p, scale=0.3), a, b, epsilon=0.2, tol=1e-12, method=method)
    two = pf.solve(dense_cost(shape, p, 0.3), a, b, epsilon=0.2, tol=1e-12, method=method)
    assert one.plan.shape == (n, n)
    assert_same(one, two, rng.random(n))
    np.testing.assert_allclose(one.f, two.f, atol=1e-8)
    np.testing.assert_allclose(one.g, two.g, atol=1e-8)


@GRIDS
def test_pixels_without_weight(rng, shape, p):
    n = int(np.prod(shape))
    a, b = images(rng, n)
    a[rng.random(n) < 0.4], b[rng.random(n) < 0.4] = 0.0, 0.0
    a[0], b[-1] = 0.5, 0.5
    a, b = a / a.sum(), b / b.sum()
    one = pf.solve(pf.GridCost(shape, p=p), a, b, epsilon=0.3, tol=1e-12)
    two = pf.solve(dense_cost(shape, p, 1.0), a, b, epsilon=0.3, tol=1e-12)
    assert one.value == pytest.approx(two.value, abs=1e-9)
    assert not one.plan.to_dense()[a == 0].any()
    np.testing.assert_allclose(one.plan.to_dense(), two.plan.to_dense(), atol=1e-9)
    np.testing.assert_allclose(one.plan @ np.ones(n), a, atol=1e-9)
    np.testing.assert_allclose(one.bounds(), two.bounds(), atol=1e-7)
    np.testing.assert_allclose(one.f, two.f, atol=1e-7)


@pytest.mark.parametrize("background", [1e-3, 1e-8])
@pytest.mark.parametrize("p", [1, 2])
def test_faint_backgrounds_at_a_small_epsilon(p: int, background: float):
    a, b = np.full((8, 8), background), np.full((8, 8), background)
    a[1:3, 1:4] += 1.0
    b[5:8, 4:6] += 1.0
    a, b = (w.reshape(-1) / w.sum() for w in (a, b))
    scale, epsilon = (1 / 8) ** p, 1 / 1200
    one = pf.solve(pf.GridCost((8, 8), p=p, scale=scale), a, b, epsilon=epsilon)
    two = pf.solve(dense_cost((8, 8), p, scale), a, b, epsilon=epsilon)
    plan = one.plan.to_dense()
    assert np.abs(plan.sum(0) - b).sum() + np.abs(plan.sum(1) - a).sum() <= 1e-9 + 1e-13
    assert one.value == pytest.approx(two.value, abs=1e-8)
    np.testing.assert_allclose(plan, two.plan.to_dense(), atol=1e-7)
    truth = pf.exact(pf.GridCost((8, 8), p=p, scale=scale), a, b).cost
    assert one.bounds()[0] - 1e-12 <= truth <= one.bounds()[1] + 1e-12


def test_the_far_tail_of_a_kernel_is_not_lost():
    """exp(-C/epsilon) is zero between these pixels; the plan between them is not."""
    a, b = np.zeros(64), np.zeros(64)
    a[0] = b[63] = 1.0
    sol = pf.solve(pf.GridCost((64,), p=2), a, b, epsilon=1e-3)
    assert sol.value == pytest.approx(63.0**2, rel=1e-12)
    assert sol.plan.to_dense()[0, 63] == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("method", ["auto", "newton"])
def test_a_start_far_off_is_no_trap(method: str):
    """Columns that underflow at the start's potentials come back as the potentials move."""
    rng = np.random.default_rng(48)
    epsilon = 10 ** rng.uniform(-3, 1)
    a, b = (rng.dirichlet(np.full(24, 10 ** rng.uniform(-1.5, 1))) for _ in range(2))
    a[rng.random(24) < 0.2] = 0.0
    a /= a.sum()
    init = rng.uniform(0, 1, 24) * epsilon * rng.uniform(0, 600)
    sol = pf.solve(pf.GridCost((24,), p=1), a, b, epsilon=epsilon, init=init, method=method)
    plan = sol.plan.to_dense()
    assert np.abs(plan.sum(0) - b).sum() + np.abs(plan.sum(1) - a).sum() <= 1e-9 + 1e-13


def test_batches_of_images(rng):
    a, b = rng.dirichlet(np.ones(12), 3), rng.dirichlet(np.ones(12), 3)
    a[0, :4] = 0.0
    a[0] /= a[0].sum()
    grid = pf.GridCost((3, 4), p=1, scale=0.5)
    batch = pf.solve(grid, a, b, epsilon=0.1, tol=1e-12)
    against_one = pf.solve(grid, a, b[0], epsilon=0.1, tol=1e-12)
    assert batch.plan.shape == (3, 12, 12)
    for k in range(3):
        one = pf.solve(grid, a[k], b[k], epsilon=0.1, tol=1e-12)
        assert batch.value[k] == pytest.approx(one.value, abs=1e-10)
        np.testing.assert_allclose(batch.plan.to_dense()[k], one.plan.to_dense(), atol=1e-10)
        np.testing.assert_allclose(batch.f[k], one.f, atol=1e-7)
        alone = pf.solve(grid, a[k], b[0], epsilon=0.1, tol=1e-12)
        assert against_one.value[k] == pytest.approx(alone.value, abs=1e-10)


def test_a_grid_gives_back_what_came():
    a = torch.rand(6, dtype=torch.float32)
    sol = pf.solve(pf.GridCost((2, 3)), a / a.sum())
    assert sol.f.dtype == sol.value.dtype == torch.float32
    assert isinstance(pf.solve(pf.GridCost((2, 3))).f, np.ndarray)


def test_uniform_images_need_no_transport():
    sol = pf.solve(pf.GridCost((4, 4), p=2), epsilon=0.01)
    assert sol.transport_cost == pytest.approx(0.0, abs=1e-9)
    assert sol.bounds()[0] <= 0 <= sol.bounds()[1] + 1e-12


def test_a_grid_never_holds_its_plan(rng, monkeypatch):
    """Solving, products and bounds do without anything of the plan's size."""

    def refuse(*_: object) -> None:
        raise AssertionError("a matrix of the plan's size was asked for")

    monkeypatch.setattr("pushforward.ot.geometry.grid.GridGeometry.matrix", refuse)
    a, b = images(rng, 100)
    sol = pf.solve(pf.GridCost((10, 10), scale=0.01), a, b, epsilon=0.01)
    np.testing.assert_allclose(sol.plan @ np.ones(100), a, atol=1e-9)
    np.testing.assert_allclose(sol.plan.T @ np.ones(100), b, atol=1e-9)
    assert sol.bounds()[0] <= sol.transport_cost + 1e-9
    with pytest.raises(AssertionError, match="plan's size"):
        sol.plan.to_dense()
