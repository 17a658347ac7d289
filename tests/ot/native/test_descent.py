"""One step of the compiled descent against the semi-dual in torch, on every kind of kernel; and why a descent ends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pushforward.ot.costs import GridCost
from pushforward.ot.geometry import grid
from pushforward.ot.geometry.dense import DenseGeometry, DenseKernel
from pushforward.ot.geometry.grid import GridGeometry, GridKernel, SeparableKernel
from pushforward.ot.geometry.sparse import SparseKernel
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solvers.native import Reason
from pushforward.ot.solvers.semidual import Point, SemiDual

# Batch and sizes; a grid's have the form to use in front. The large ones are for the threads.
KERNELS = [
    *[("dense", 1, n, m) for n, m in ((1, 1), (3, 2), (9, 17), (33, 8), (150, 151))],
    ("dense", 4, 7, 9),
    *[("sparse", 1, n, m) for n, m in ((3, 2), (9, 17), (33, 8), (170, 160))],
    *[(form, 1, *sizes) for form in ("separable", "factors") for sizes in ((2,), (17,), (3, 5), (9, 16), (5, 2, 4))],
    *[(form, 3, *sizes) for form in ("separable", "factors") for sizes in ((5,), (4, 7), (2, 3, 4), (1, 9))],
    *[(form, 1, 33, 31) for form in ("separable", "factors")],
]


def kernel_near(kind: str, batch: int, sizes: tuple[int, ...], monkeypatch) -> tuple[SemiDual, Point]:
    """A semi-dual and its first point at random potentials."""
    draw = torch.Generator().manual_seed(sum(sizes) + batch)
    if kind in ("separable", "factors"):
        monkeypatch.setattr(grid, "REACH", 345.0 if kind == "separable" else -1.0)
        axes = GridCost(sizes, p=2, scale=0.1).axis_costs(torch.device("cpu"), torch.float64)
        geometry, n, m = GridGeometry(axes, batch), math.prod(sizes), math.prod(sizes)
    else:
        n, m = sizes
        geometry = DenseGeometry.of(torch.rand(batch, n, m, generator=draw, dtype=torch.float64))
    a, b = (0.1 + torch.rand(batch, size, generator=draw, dtype=torch.float64) for size in (n, m))
    problem = Problem(geometry=geometry, a=a / a.sum(-1, keepdim=True), b=b / b.sum(-1, keepdim=True), epsilon=0.3)
    g = 0.2 * torch.randn(batch, m, generator=draw, dtype=torch.float64)
    kernel, f, cols = geometry.kernel(g, problem.epsilon, problem.a, problem.b)
    if kind == "sparse":
        matrix = kernel.matrix[0].numpy() * (np.arange(n)[:, None] % 7 != np.arange(m) % 5)
        matrix *= problem.a[0].numpy()[:, None] / matrix.sum(1, keepdims=True)
        kept = matrix > 0
        starts = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
        kernel = SparseKernel(matrix[kept], np.nonzero(kept)[1].astype(np.int32), starts, (n, m))
        cols = torch.from_numpy(matrix.sum(0))[None]
    right = {"dense": DenseKernel, "sparse": SparseKernel, "separable": SeparableKernel, "factors": GridKernel}
    assert isinstance(kernel, right[kind])
    dual = SemiDual(problem, kernel, f, g, Recorder(1))
    return dual, dual.start(cols)


def plans_of(native: Any, kernel: Any) -> Any:
    """The kernel as the compiled code takes it."""
    if isinstance(kernel, DenseKernel):
        return native.Plans.dense(kernel.matrix.numpy())
    if isinstance(kernel, SparseKernel):
        return native.Plans.sparse(kernel.values, kernel.starts, kernel.col, kernel.shape[1])
    if isinstance(kernel, SeparableKernel):
        return native.Plans.grid([axis.numpy() for axis in kernel.axes], kernel.left.numpy(), kernel.right.numpy())
    return native.Plans.grid([factor.numpy() for factor in kernel.factors], kernel.scale.numpy(), None)


def descend(  # noqa: PLR0913 - what a test varies
    native: Any,
    dual: SemiDual,
    point: Point,
    *,
    error: float | None = None,
    sinkhorn_left: int = 0,
    waited: int = 0,
    tol: float = 0.0,
    forcing: float = 1e-12,
    farthest: float = math.inf,
    cg_left: int = 1 << 40,
    steps: int = 1,
    seconds: float = 10.0,
    threads: int = 1,
) -> dict[str, Any]:
    batch = len(point.v)
    state = np.tile([0.0, 0.0, np.inf, sinkhorn_left, waited], (batch, 1))
    state[:, 0] = point.error[:, 0].numpy() if error is None else error
    v, u, cols = (x.numpy().copy() for x in (point.v, point.u, point.cols))
    notes, counts = np.zeros((batch, steps, 4)), np.zeros((batch, 5), dtype=np.int64)
    marginals = [x.numpy() for x in (dual.target_a, dual.target_b, dual.problem.mass[:, 0])]
    settings = [tol, forcing, 0.03, farthest, math.inf]
    plans = plans_of(native, dual.kernel)
    plans.descend(*marginals, v, u, cols, state, settings, 500, cg_left, notes, counts, seconds, threads)
    return {
        "v": v,
        "u": u,
        "cols": cols,
        "error": state[:, 0],
        "reason": counts[:, 0],
        "counts": counts,
        "notes": notes,
    }


def assert_at(did: dict[str, Any], point: Point, rtol: float) -> None:
    for name in ("v", "u", "cols"):
        np.testing.assert_allclose(did[name], getattr(point, name).numpy(), rtol=rtol, err_msg=name)
    np.testing.assert_allclose(did["error"], point.error[:, 0].numpy(), rtol=rtol, atol=1e-14)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("which", KERNELS, ids=str)
def test_a_sinkhorn_step(native, monkeypatch, which, threads):
    kind, batch, *sizes = which
    dual, point = kernel_near(kind, batch, tuple(sizes), monkeypatch)
    did = descend(native, dual, point, sinkhorn_left=2, threads=threads, tol=-1.0)
    assert_at(did, dual.sinkhorn(point), 1e-12)
    np.testing.assert_array_equal(did["counts"], [[Reason.LIMIT, 1, 0, 0, 2]] * batch)
    np.testing.assert_allclose(did["notes"][:, 0, 1], point.error[:, 0].numpy(), rtol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("which", [k for k in KERNELS if math.prod(k[2:]) > 1], ids=str)
def test_a_newton_step(native, monkeypatch, which, threads):
    kind, batch, *sizes = which
    dual, point = kernel_near(kind, batch, tuple(sizes), monkeypatch)
    did = descend(native, dual, point, threads=threads)
    left, right = dual.coupling(point)
    hessian = torch.diag_embed(point.cols * (1 + 0.03 * point.error)) - dual.kernel.normal(left, right)
    move = torch.linalg.solve(hessian, point.residual)
    slope, length = (point.residual * move).sum(-1, keepdim=True), torch.ones(batch, 1, dtype=torch.float64)
    length = torch.clamp(10 / move.abs().amax(-1, keepdim=True), max=1.0)
    for _ in range(10):
        u = dual.row_scaling(point.v * torch.exp(length * move))[0]
        length = torch.where(dual.gain(point, length * move, u) >= 1e-4 * length * slope, length, 0.5 * length)
    assert_at(did, dual.at(point.v * torch.exp(length * move)), 1e-6)
    np.testing.assert_array_equal(did["counts"][:, :3], [[Reason.LIMIT, 0, 1]] * batch)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"tol": 10.0}, Reason.DONE),
        ({"steps": 0}, Reason.LIMIT),
        ({"steps": 3}, Reason.LIMIT),
        ({"farthest": 1e-9}, Reason.DRIFTED),
        ({"waited": 101}, Reason.STALLED),
        ({"error": math.nan}, Reason.NOT_FINITE),
        ({"error": math.inf}, Reason.NOT_FINITE),
        ({"cg_left": 0}, Reason.FACTOR),
        ({"seconds": -1.0, "steps": 3}, Reason.LATER),
    ],
    ids=str,
)
def test_why_a_descent_ends(native, monkeypatch, asked, reason):
    dual, point = kernel_near("dense", 1, (9, 17), monkeypatch)
    did = descend(native, dual, point, **{"tol": -1.0, "forcing": 0.3, **asked})
    assert did["reason"] == [reason]
    if reason in (Reason.DONE, Reason.STALLED, Reason.NOT_FINITE, Reason.FACTOR) or asked.get("steps") == 0:
        np.testing.assert_array_equal(did["v"], point.v.numpy())
        np.testing.assert_array_equal(did["u"], point.u.numpy())


def test_a_large_kernel_rounded_for_cg_leads_to_the_same_point(native, monkeypatch):
    dual, point = kernel_near("dense", 1, (513, 512), monkeypatch)  # large enough to be rounded to floats
    did = descend(native, dual, point, forcing=0.3, tol=1e-13, steps=64)
    assert did["reason"] == [Reason.DONE]
    plan = did["u"][0][:, None] * dual.kernel.matrix[0].numpy() * did["v"][0]
    np.testing.assert_allclose(plan.sum(1), dual.problem.a[0].numpy(), rtol=1e-12)
    assert np.abs(plan.sum(0) - dual.problem.b[0].numpy()).sum() <= 2e-13
