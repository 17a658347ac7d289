"""Plans whose entries matter on few pairs: which pairs those are, and the plan on them.

symbol          meaning                                                        shape
C               cost                                                           (n, m)
f, g            potentials at which the pairs were found                       (n,), (m,)
radius          slack kept: pairs with f_i + g_j - C_ij >= -radius             scalar, in units of the cost
starts, col     the pairs, row by row, as CSR: those of row i are              (n + 1,), (entries,)
                col[starts[i] : starts[i + 1]]

For one problem on the CPU: a GPU streams the whole plan faster than it gathers.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from pushforward.ot._native import kernels
from pushforward.ot.geometry.dense import BLOCK, DenseGeometry
from pushforward.ot.geometry.protocol import (
    DENSE_SPEED,
    FARTHEST,
    HIGHEST_EXPONENT,
    LOWEST_EXPONENT,
    NEGLIGIBLE,
    Kernel,
    RowGeometry,
    threads_for,
)

__all__ = ["MARGIN", "SparseKernel", "SparsePattern"]

# In units of epsilon: a pattern is made for potentials that move nearly this far.
MARGIN = 10.0
# Multiply-adds a second of one core in a product of two sparse matrices.
SPARSE_SPEED = 1e8


class SparsePattern:
    """The pairs whose plan entries can matter near given potentials: those with f_i + g_j - C_ij >= -radius.

    Entries outside are below exp(-radius/epsilon) there, and stay below a bound as long as the potentials have not
    moved far (`covers`), so one pattern, found in one pass over the cost, serves several epsilons and many steps.

    Args:
        geometry: One problem's costs, (1, n, m).
        f, g: Potentials, (n,) and (m,), in units of the cost.
        radius: Slack kept, in units of the cost.
    """

    def __init__(self, geometry: RowGeometry, f: Tensor, g: Tensor, radius: float) -> None:
        self.shape = geometry.shape[1:]
        self._native = kernels() if f.dtype == torch.float64 else None
        counts, columns, costs = zip(*(_near(part, f[i], g, radius) for i, part in geometry.parts()), strict=True)
        self.starts = np.concatenate([[0], np.cumsum(np.concatenate(counts), dtype=np.int64)]).astype(np.int32)
        self.col, self.cost = np.concatenate(columns), np.concatenate(costs)
        self._f, self._g, self.radius = f.clone(), g.clone(), radius

    @property
    def row(self) -> np.ndarray:
        """The row of each pair."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.starts))

    @staticmethod
    def density(geometry: RowGeometry, f: Tensor, g: Tensor, radius: float) -> float:
        """The share of pairs that a pattern would keep, estimated on 32 rows."""
        some = torch.linspace(0, geometry.shape[1] - 1, 32, dtype=torch.float64).long()
        return float((f[some, None] + g - geometry.some_rows(some) >= -radius).to(torch.float64).mean())

    def covers(self, f: Tensor, g: Tensor, radius: float) -> bool:
        """Whether every pair with f_i + g_j - C_ij >= -radius is among those kept."""
        return self.radius - float((f - self._f).max() + (g - self._g).max()) >= radius

    def shrink(self, f: Tensor, g: Tensor, radius: float) -> None:
        """Drop the pairs that a smaller radius does not need."""
        if self._native is not None:
            given = self.starts, self.col, self.cost, f.numpy(), g.numpy(), radius, threads_for(len(self.col))
            self.starts, self.col, self.cost = self._native.narrow(*given)
        else:
            self._shrink(f, g, radius)
        self._f, self._g, self.radius = f.clone(), g.clone(), radius

    def _shrink(self, f: Tensor, g: Tensor, radius: float) -> None:
        keep = f.numpy()[self.row] + g.numpy()[self.col] - self.cost >= -radius
        self.starts = np.concatenate([[0], np.cumsum(keep)]).astype(np.int32)[self.starts]
        self.col, self.cost = self.col[keep], self.cost[keep]

    def kernel(self, f: Tensor, g: Tensor, epsilon: float, a: Tensor, b: Tensor) -> tuple[SparseKernel, Tensor, Tensor]:
        """The plan on these pairs at g, rows made exact from f on; the contract of `Geometry.kernel`, (1, n)."""
        log_row, log_col = f[0] / epsilon + a[0].log(), g[0] / epsilon + b[0].log()
        values, f, cols = np.empty_like(self.cost), f.clone(), torch.empty_like(b)
        if self._native is not None:
            pattern = self.starts, self.col, self.cost
            given = (x.contiguous().numpy() for x in (log_row, log_col, a[0]))
            out = values, f[0].numpy(), cols[0].numpy()
            self._native.fill(*pattern, *given, epsilon, *out, threads_for(len(self.col)))
            return SparseKernel(values, self.col, self.starts, self.shape), f, cols
        np.take(log_row.numpy(), self.row, out=values)
        values += log_col.numpy()[self.col]
        values -= self.cost / epsilon
        np.exp(np.clip(values, LOWEST_EXPONENT, HIGHEST_EXPONENT, out=values), out=values)
        sums = np.bincount(self.row, values, self.shape[0]).astype(np.float64)  # of no pairs at all it counts
        scale = np.divide(a[0].numpy(), sums, out=np.ones_like(sums), where=(sums > 0) & (a[0].numpy() > 0))
        values *= scale[self.row]
        cols[0] = torch.from_numpy(np.bincount(self.col, values, self.shape[1]).astype(np.float64))
        return (
            SparseKernel(values, self.col, self.starts, self.shape),
            f + epsilon * torch.from_numpy(np.log(scale)),
            cols,
        )


def _near(geometry: DenseGeometry, f: Tensor, g: Tensor, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the pairs with f_i + g_j - C_ij >= -radius: how many are in each row, their columns, their costs."""
    if geometry.native is not None:
        given = (x.contiguous().numpy() for x in (geometry.cost, f, g))
        starts, col, cost = geometry.native.find_near(*given, radius, threads_for(geometry.cost.numel()))
        return np.diff(starts), col, cost
    counts, columns, costs = [], [], []
    step = max(1, BLOCK // geometry.cost.shape[-1])
    for part, part_f in zip(geometry.cost[0].split(step), f.split(step), strict=True):
        near = (g - part).add_(part_f[:, None]) >= -radius
        counts.append(near.sum(1).numpy())
        columns.append(near.nonzero()[:, 1].numpy().astype(np.int32))
        costs.append(part[near].numpy())
    return np.concatenate(counts), np.concatenate(columns), np.concatenate(costs)


class SparseKernel(Kernel):
    """A plan held on a sparse pattern, for one problem on the CPU; scipy's products beat torch's sparse ones there."""

    farthest: ClassVar[float] = FARTHEST
    together: ClassVar[float] = MARGIN - 2

    def __init__(self, values: np.ndarray, col: np.ndarray, starts: np.ndarray, shape: tuple[int, int]) -> None:
        self.values, self.col, self.starts, self.shape = values, col, starts, shape

    @functools.cached_property
    def matrix(self) -> sparse.csr_matrix:
        """The plan, (n, m)."""
        return sparse.csr_matrix((self.values, self.col, self.starts), shape=self.shape)

    @functools.cached_property
    def _transposed(self) -> sparse.csc_matrix:
        return self.matrix.T

    @property
    def entries(self) -> int:
        """The number of entries that a product reads."""
        return len(self.values)

    def rows(self, v: Tensor) -> Tensor:
        """K v, shape (B, n)."""
        return torch.from_numpy(self.matrix @ v[0].numpy())[None]

    def cols(self, u: Tensor) -> Tensor:
        """K^T u, shape (B, m)."""
        return torch.from_numpy(self._transposed @ u[0].numpy())[None]

    def normal(self, left: Tensor, right: Tensor) -> Tensor:
        """diag(right) K^T diag(left) K diag(right), shape (B, m, m)."""
        n, m = self.shape
        half = self.matrix.copy()
        half.data *= np.repeat(left[0].sqrt().numpy(), np.diff(half.indptr)) * right[0].numpy()[half.indices]
        keep = half.data > NEGLIGIBLE * half.max(axis=0).toarray()[0][half.indices]
        starts = np.concatenate([[0], np.cumsum(keep)]).astype(np.int32)[half.indptr]
        half = sparse.csr_matrix((half.data[keep], half.indices[keep], starts), shape=(n, m))
        if half.nnz < 0.04 * n * m:
            return torch.from_numpy((half.T @ half).toarray())[None]
        dense = torch.from_numpy(half.toarray())
        return (dense.T @ dense)[None]

    @property
    def normal_seconds(self) -> float:
        """What `normal` takes on one core, within a factor of two."""
        n, m = self.shape
        return min(n * m * m / DENSE_SPEED, self.entries**2 / n / SPARSE_SPEED)
