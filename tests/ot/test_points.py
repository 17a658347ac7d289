"""Points that are too many for a matrix: the same answers as from the matrix, within bounded memory."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.errors import InvalidArgument, NonFiniteError
from pushforward.ot.geometry.dense import DenseGeometry, DenseKernel
from pushforward.ot.geometry.points import PointGeometry
from pushforward.ot.geometry.sparse import SparsePattern
from pushforward.ot.solvers.preconditioner import LinearSolver, System


@pytest.fixture
def streamed(monkeypatch):
    """Every set of points counts as too large for its matrix, and is solved from a sample of 30 first."""
    monkeypatch.setattr(importlib.import_module("pushforward.ot.question"), "MATRIX", 0)
    monkeypatch.setattr(importlib.import_module("pushforward.ot.solvers.newton"), "SAMPLE", 30)


def cloud(rng, n: int, d: int = 2) -> np.ndarray:
    return rng.standard_normal((n, d))


@pytest.mark.parametrize(
    "cost", ["sqeuclidean", "euclidean", "manhattan", "cosine", lambda x, y: torch.cdist(x, y) ** 1.5]
)
def test_a_geometry_of_points_is_that_of_its_matrix(rng, cost, monkeypatch):
    monkeypatch.setattr("pushforward.ot.geometry.points.BLOCK", 200)  # several blocks
    x, y = (torch.from_numpy(cloud(rng, n, 3)) for n in (70, 50))
    points = PointGeometry(x, y, cost)
    dense = DenseGeometry.of(points.matrix())
    a, b = (torch.from_numpy(rng.dirichlet(np.ones(n)))[None] for n in (70, 50))
    f, g = (0.1 * torch.from_numpy(rng.standard_normal((1, n))) for n in (70, 50))
    v = torch.from_numpy(rng.random((1, 50, 2)))
    assert points.shape == dense.shape
    for name in ("mean", "least", "peak"):
        assert getattr(points, name) == pytest.approx(getattr(dense, name), rel=1e-12)
    for one, two in zip(
        (
            *points.marginals(f, g, 0.3, a, b),
            points.product(f, g, 0.3, a, b, v),
            points.c_transform(g),
            points.bilinear(a, b),
        ),
        (
            *dense.marginals(f, g, 0.3, a, b),
            dense.product(f, g, 0.3, a, b, v),
            dense.c_transform(g),
            dense.bilinear(a, b),
        ),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-14)
    streamed, f_one, cols_one = points.kernel(g, 0.3, a, b)
    held, f_two, cols_two = dense.kernel(g, 0.3, a, b)
    torch.testing.assert_close(f_one, f_two, rtol=0, atol=1e-12)
    torch.testing.assert_close(cols_one, cols_two, rtol=1e-11, atol=0)
    torch.testing.assert_close(streamed.rows(b), held.rows(b), rtol=1e-11, atol=0)
    torch.testing.assert_close(streamed.cols(a), held.cols(a), rtol=1e-11, atol=0)
    torch.testing.assert_close(streamed.normal(a, b), held.normal(a, b), rtol=1e-9, atol=1e-15)
    turned = points.transposed()
    torch.testing.assert_close(turned.matrix(), dense.cost.mT, rtol=1e-12, atol=1e-14)
    pattern, known = SparsePattern(points, f[0], g[0], 0.7), SparsePattern(dense, f[0], g[0], 0.7)
    np.testing.assert_array_equal(pattern.starts, known.starts)
    np.testing.assert_array_equal(pattern.col, known.col)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("shape", [(120, 90), (60, 130)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_answer_is_that_of_the_matrix(rng, streamed, epsilon: float, shape: tuple[int, int], weighted: bool):
    x, y = cloud(rng, shape[0]), 0.5 + cloud(rng, shape[1])
    a, b = (rng.dirichlet(np.ones(n)) for n in shape) if weighted else (None, None)
    if weighted:
        a[3] = 0.0
        a /= a.sum()
    matrix = ((x[:, None] - y) ** 2).sum(-1)
    one, two = pf.solve(pf.PointCost(x, y), a, b, epsilon=epsilon), pf.solve(matrix, a, b, epsilon=epsilon)
    assert one.value == pytest.approx(two.value, abs=1e-8)
    assert one.transport_cost == pytest.approx(two.transport_cost, abs=1e-7)
    np.testing.assert_allclose(one.plan.to_dense(), two.plan.to_dense(), atol=1e-8)
    np.testing.assert_allclose(one.bounds(), two.bounds(), rtol=1e-6)


@pytest.mark.parametrize("method", ["sinkhorn", "newton"])
def test_relaxed_marginals_and_other_methods(rng, streamed, method: str):
    x, y = cloud(rng, 50), 0.5 + cloud(rng, 40)
    matrix = ((x[:, None] - y) ** 2).sum(-1)
    one = pf.solve(pf.PointCost(x, y), epsilon=0.3, method=method, unbalanced=1.0)
    two = pf.solve(matrix, epsilon=0.3, method=method, unbalanced=1.0)
    assert one.value == pytest.approx(two.value, rel=1e-9)


def test_a_cost_that_is_not_finite_is_named(streamed):
    x = np.zeros((4, 2))
    with pytest.raises(NonFiniteError, match="cost is not finite on a pair of"):
        pf.solve(pf.PointCost(x, x, cost=lambda x, y: torch.cdist(x, y) / 0.0), epsilon=0.1)


def test_a_cost_that_depends_on_all_points_is_refused(rng, streamed):
    """It would be another cost in every block."""
    x, y = cloud(rng, 50), cloud(rng, 40)
    with pytest.raises(InvalidArgument, match="pass a matrix"):
        pf.solve(pf.PointCost(x, y, cost=lambda x, y: torch.cdist(x, y) / torch.cdist(x, y).max()), epsilon=0.1)


def test_the_sparse_factor_solves_as_the_dense_one_does(rng, monkeypatch):
    """Entries that thinning takes away leave a preconditioner; CG still reaches the same solution."""
    n, m, epsilon = 90, 80, 2e-3
    geometry = DenseGeometry.of(torch.from_numpy(rng.random((1, n, m))))
    a, b = (torch.full((1, size), 1 / size, dtype=torch.float64) for size in (n, m))
    _, f, _ = geometry.kernel(torch.zeros_like(b), epsilon, a, b)
    kernel, _, cols = SparsePattern(geometry, f[0], torch.zeros(m, dtype=torch.float64), 1.0).kernel(
        f, torch.zeros_like(b), epsilon, a, b
    )
    system = System(kernel, cols * (1 + 1e-3), 1 / a, torch.ones_like(b), singular=True)
    rhs = b - cols
    tolerance = torch.full((1, 1), 1e-10, dtype=torch.float64)
    plain = LinearSolver(rent=float("inf"))
    dense = plain.solve(system, rhs, tolerance)
    monkeypatch.setattr("pushforward.ot.solvers.preconditioner.LARGEST_FACTOR", 10)
    thinned = LinearSolver(rent=float("inf"))
    sparse = thinned.solve(system, rhs, tolerance)
    torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-7 * float(dense.abs().max()))
    assert 0 < thinned.iterations < 100


def test_what_has_no_price_is_not_bought(rng, monkeypatch):
    """Rent paid on one kernel buys no factor of another that is too large for one: CG goes on."""
    monkeypatch.setattr("pushforward.ot.solvers.preconditioner.LARGEST_FACTOR", 10)
    plan = torch.from_numpy(rng.random((1, 30, 20)))
    rows, cols = plan.sum(-1), plan.sum(-2)
    system = System(DenseKernel(plan), cols, 1 / rows, torch.ones_like(cols), singular=True)
    rhs = torch.from_numpy(rng.standard_normal((1, 20)))
    rhs -= cols * (rhs.sum() / cols.sum())
    solver = LinearSolver(rent=float("inf"))
    x = solver.solve(system, rhs, torch.full((1, 1), 1e-10, dtype=torch.float64))
    assert not solver.has_factor
    matrix = torch.diag(cols[0]) - plan[0].T @ (plan[0] / rows[0, :, None])
    torch.testing.assert_close(x @ matrix, rhs, rtol=0, atol=1e-10)


def test_memory_stays_bounded():
    """5,000 x 5,000 costs would be 200 MB a copy; points, pattern and blocks are not."""
    code = """
import importlib, resource
import numpy as np
import pushforward as pf
importlib.import_module("pushforward.ot.question").MATRIX = 0
path = importlib.import_module("pushforward.ot.solvers.newton")
path.SAMPLE = 1000
importlib.import_module("pushforward.ot.memory").available_memory = lambda device: 150 << 20
importlib.import_module("pushforward.ot.geometry.points").available_memory = lambda device: 150 << 20
importlib.import_module("pushforward.ot.solvers.preconditioner").LARGEST_FACTOR = 2000
x = np.random.default_rng(0).standard_normal((5000, 2))
pf.solve(pf.PointCost(x[:50], x[50:90]), epsilon=0.1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pf.solve(pf.PointCost(x, 0.5 + 1.2 * x[::-1]), epsilon=5e-3, tol=1e-4)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 180
