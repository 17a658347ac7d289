"""The steps of `newton` between two rebuilds of a kernel, in one call of compiled code.

The same mathematics as `semidual.py`, `newton.py` and the conjugate gradients of `preconditioner.py`, for balanced
problems in float64 on the CPU; those are the reference, and what runs elsewhere. What it spares: both products of a
Hessian are one pass over the plan, since a row's scaling needs nothing but that row, and a step on a small problem
costs microseconds instead of the calls. Problems of a batch go on by themselves, one to a thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pushforward.ot._native import kernels
from pushforward.ot.geometry.dense import DenseKernel
from pushforward.ot.geometry.grid import GridKernel, SeparableKernel
from pushforward.ot.geometry.protocol import threads_for
from pushforward.ot.geometry.sparse import SparseKernel
from pushforward.ot.solvers.preconditioner import LinearSolver, System
from pushforward.ot.solvers.semidual import Point, SemiDual

if TYPE_CHECKING:
    from pushforward.ot.solvers.newton import Newton

__all__ = ["HAND_OVER", "PATIENCE", "SHARPENING", "Reason", "Rebuild", "descend"]

Rebuild = Callable[[Tensor | None, Tensor], tuple[SemiDual, Point]]

# Steps without the error falling by a third: for each SHARPENING of them, Newton's systems are solved ten times more
# accurately; after HAND_OVER the factor is bought, whatever CG has cost; after PATIENCE a level has stalled.
SHARPENING, HAND_OVER, PATIENCE = 8, 24, 100
# What a CG iteration of compiled code takes on one core: seconds for an entry, by kind of kernel, and besides; and what
# changing over to torch takes.
DENSE_ENTRY, SPARSE_ENTRY, CALL, CHANGE = 3e-10, 1.4e-9, 5e-6, 5e-3
# Wall-clock seconds after which a descent reports to its caller, who hears the progress and the keyboard.
PATIENCE_SECONDS = 0.1
# Steps of one call at most: between calls it is decided how to go on. CG iterations of one system at most, as in
# preconditioner.py.
MOST_STEPS, MOST_CG = HAND_OVER, 500
UNLIMITED = 1 << 62
# The columns of what a descent keeps between calls, of what it did, and of what it notes before each step (module.cpp).
STATE = np.dtype([(name, np.float64) for name in ("error", "before", "best", "sinkhorn_left", "waited")])
COUNTS = np.dtype([(name, np.int64) for name in ("reason", "sinkhorn", "newton", "cg", "products")])
NOTE = np.dtype([(name, np.float64) for name in ("newton", "error", "products", "seconds")])
MOST_AXES, LONGEST_AXIS = 6, 4096


class Reason(IntEnum):
    """Why a descent ended, in the order of `Descent::Reason` in kernels.h; UNFIT where it is not for compiled code."""

    DONE = 0
    DRIFTED = 1
    STALLED = 2
    LIMIT = 3
    NOT_FINITE = 4
    FACTOR = 5
    LATER = 6
    UNFIT = 7


def _compiled(kernel: Any) -> Any:
    """The kernel as compiled code takes it; None where it does not."""
    native = kernels()
    if native is None:
        return None
    if isinstance(kernel, SparseKernel):
        return native.Plans.sparse(kernel.values, kernel.starts, kernel.col, kernel.shape[1])
    if isinstance(kernel, DenseKernel):
        return native.Plans.dense(kernel.matrix.numpy()) if _fits(kernel.matrix) else None
    if isinstance(kernel, GridKernel | SeparableKernel):
        factors = kernel.axes if isinstance(kernel, SeparableKernel) else kernel.factors
        if len(factors) > MOST_AXES or any(len(axis.mT) > LONGEST_AXIS or not _fits(axis) for axis in factors):
            return None
        axes = [axis.contiguous().numpy() for axis in factors]
        if isinstance(kernel, SeparableKernel):
            return native.Plans.grid(axes, kernel.left.contiguous().numpy(), kernel.right.contiguous().numpy())
        return native.Plans.grid(axes, kernel.scale.contiguous().numpy(), None)
    return None


def _fits(matrix: Tensor) -> bool:
    return matrix.device.type == "cpu" and matrix.dtype == torch.float64 and matrix.is_contiguous()


def descend(
    rebuild: Rebuild, f: Tensor | None, g: Tensor, tol: float, settings: Newton
) -> tuple[SemiDual, Point, Reason]:
    """Sinkhorn and Newton steps from potentials on, until the error is at most `tol` or something is in the way.

    Args:
        rebuild: Makes a kernel at potentials (B, n) or None and (B, m): at these, and again once the scalings have
            drifted too far from the last one, which is let go first: it may be most of the memory.
        f, g: Where to start.
        tol: L1 error of the marginals over the mass.
        settings: The settings of `newton`.

    Returns:
        Where it ended and why; after `FACTOR`, `STALLED` and `UNFIT` `newton` has to go on with torch.
    """
    dual, point = rebuild(f, g)
    problem, recorder, compiled = dual.problem, dual.recorder, _compiled(dual.kernel)
    if not problem.balanced or compiled is None:
        return dual, point, Reason.UNFIT
    batch = len(problem.a)
    marginals = [x.contiguous().numpy() for x in (dual.target_a, dual.target_b, problem.mass[:, 0])]
    state = np.zeros(batch, STATE)  # "before" is the error before the last Sinkhorn step
    state["best"], state["sinkhorn_left"] = np.inf, 2
    cg_left, cg_before = _worth(dual, point), 0
    patience = HAND_OVER if LinearSolver.price(_system(dual, point)) < math.inf else PATIENCE
    while compiled is not None:
        state["error"] = point.error[:, 0].numpy()
        v, u, cols = (x.clone(memory_format=torch.contiguous_format) for x in (point.v, point.u, point.cols))
        steps = min(MOST_STEPS, recorder.left)
        notes, counts = np.zeros((batch, steps), NOTE), np.zeros(batch, COUNTS)
        drift = [dual.kernel.farthest, dual.kernel.together]
        forcing = settings.forcing * 0.1 ** (int(state["waited"].max()) // SHARPENING)
        bounds = [tol, forcing, settings.shift, *drift]
        began = time.perf_counter()
        compiled.descend(
            *marginals,
            v.numpy(),
            u.numpy(),
            cols.numpy(),
            _columns(state),
            bounds,
            MOST_CG,
            cg_left,
            _columns(notes),
            _columns(counts),
            PATIENCE_SECONDS,
            threads_for(dual.kernel.entries),
            cg_before,
        )
        _record(dual, notes, counts, began)
        used = int(counts["cg"].max())
        cg_left, cg_before = cg_left - used, cg_before + used
        residual = dual.target_b - cols
        error = torch.from_numpy(state["error"][:, None].copy())
        point = Point(v, u, torch.zeros_like(error), dual.target_a, cols, dual.target_b, residual, error)
        reasons = counts["reason"]
        going_on = (reasons == Reason.LATER) | ((reasons == Reason.LIMIT) & (not recorder.exhausted))
        drifted = (reasons == Reason.DRIFTED).any()
        if recorder.exhausted or not (drifted or going_on.any()):
            return dual, point, Reason(int(reasons.max()))
        if state["waited"].max() >= patience:
            return dual, point, Reason.STALLED
        if not drifted:
            continue
        cg_before = 0
        f, g = dual.potentials(point)
        del dual, compiled
        dual, point = rebuild(f, g)
        compiled = _compiled(dual.kernel)
    return dual, point, Reason.UNFIT


def _columns(fields: np.ndarray) -> np.ndarray:
    """The same memory with one column a field, as compiled code takes it."""
    names = fields.dtype.names
    assert names is not None
    return fields.view(fields.dtype[names[0]]).reshape(*fields.shape, len(names))


def _worth(dual: SemiDual, point: Point) -> int:
    """CG iterations that cost as much as a factor; a batch never buys one."""
    if len(point.v) > 1:
        return UNLIMITED
    entry = SPARSE_ENTRY if isinstance(dual.kernel, SparseKernel) else DENSE_ENTRY
    return int(
        min(UNLIMITED, (CHANGE + LinearSolver.price(_system(dual, point))) / (CALL + entry * dual.kernel.entries))
    )


def _system(dual: SemiDual, point: Point) -> System:
    return System(dual.kernel, point.cols, point.u, point.v, singular=True)


def _record(dual: SemiDual, notes: np.ndarray, counts: np.ndarray, began: float) -> None:
    """Count what was done; a step of a batch is that of all its problems that still made one."""
    recorder = dual.recorder
    done = counts["sinkhorn"] + counts["newton"]
    before = recorder.products
    for k in range(int(done.max(initial=0))):
        newton, error, products, seconds = _columns(notes)[done > k, k].max(0)
        recorder.products = before + int(products)
        kind = "newton" if newton else "sinkhorn"
        recorder.record(kind, dual.problem.epsilon, float(error), at=began + float(seconds))
    recorder.products = before + int(counts["products"].max())
    recorder.cg += int(counts["cg"].max())
