"""Costs as a matrix, and plans held as one. Symbols: `protocol.py`; plans of few entries: `sparse.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pushforward.ot._native import kernels
from pushforward.ot.geometry.protocol import (
    DENSE_SPEED,
    FARTHEST,
    HIGHEST_EXPONENT,
    LOWEST_COST,
    LOWEST_EXPONENT,
    NEGLIGIBLE,
    Kernel,
    Measured,
    small_matrix_share,
    threads_for,
)

__all__ = ["DenseGeometry", "DenseKernel"]

# Numbers of one block of rows: 1 MB of float64 stays in a core's L2 between the five operations of a pass.
BLOCK = 1 << 17
# A batch is solved in one go while its problems have at most this many pairs; above, one after the other is as fast.
SMALL = 256 * 256


def _weighted_sum(u: Tensor, matrix: Tensor) -> Tensor:
    """u^T M, shape (B, m); for one problem a plain product, which takes half the calls of a batched one."""
    if u.shape[0] == 1:
        return torch.mm(u, matrix[0])
    return torch.bmm(u[:, None], matrix)[:, 0]


@dataclass(frozen=True, slots=True)
class DenseKernel(Kernel):
    """A plan held as a matrix, shape (B, n, m)."""

    matrix: Tensor

    farthest: ClassVar[float] = FARTHEST

    @property
    def entries(self) -> int:
        """The number of entries that a product reads."""
        return self.matrix.numel()

    def rows(self, v: Tensor) -> Tensor:
        """K v, shape (B, n)."""
        if v.shape[0] == 1:
            return torch.mm(v, self.matrix[0].T)
        return torch.bmm(self.matrix, v[..., None])[..., 0]

    def cols(self, u: Tensor) -> Tensor:
        """K^T u, shape (B, m)."""
        return _weighted_sum(u, self.matrix)

    def normal(self, left: Tensor, right: Tensor) -> Tensor:
        """diag(right) K^T diag(left) K diag(right), shape (B, m, m)."""
        half = self.matrix * left.sqrt()[..., None] * right[:, None]
        # Products of tiny entries are denormal, and a matrix product over those takes 50 times as long.
        half.masked_fill_(half < NEGLIGIBLE * half.amax(-2, keepdim=True), 0.0)
        return torch.bmm(half.mT, half)

    @property
    def normal_seconds(self) -> float:
        """What `normal` takes on one core, within a factor of two."""
        return self.matrix.numel() * self.matrix.shape[-1] / (DENSE_SPEED * small_matrix_share(self.matrix.shape[-1]))


@dataclass(frozen=True, slots=True)
class DenseGeometry:
    """A cost matrix, batched: shape (B, n, m), with +inf where a pair is forbidden.

    Args:
        cost: (B, n, m).
        forbidden: Whether any entry is infinite.
        mean: Mean absolute value of the finite entries, over the whole batch.
    """

    cost: Tensor
    forbidden: bool
    mean: float

    streamed: ClassVar[bool] = False
    selects_alike: ClassVar[bool] = True
    lossy: ClassVar[bool] = False
    plan_copies: ClassVar[float] = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the costs, (B, n, m)."""
        b, n, m = self.cost.shape
        return b, n, m

    @property
    def sparse_rows(self) -> DenseGeometry | None:
        """Active sets are for one problem on the CPU; a GPU streams the dense plan faster than it gathers."""
        b, n, m = self.cost.shape
        return self if b == 1 and self.cost.device.type == "cpu" and n * m >= 64 * 64 else None

    @property
    def batch_pays(self) -> bool:
        """Whether the problems of a batch are solved faster together."""
        return self.cost.shape[1] * self.cost.shape[2] <= SMALL

    @property
    def native(self) -> Any:
        """The module of compiled kernels, where they serve this cost."""
        fits = self.cost.device.type == "cpu" and self.cost.dtype == torch.float64 and self.cost.is_contiguous()
        return kernels() if fits else None

    @classmethod
    def of(cls, cost: Tensor) -> DenseGeometry:
        """The geometry of a (B, n, m) cost without NaN."""
        mean = float(torch.linalg.vector_norm(cost, 1)) / cost.numel()  # one pass and no temporary, unlike abs().mean()
        if math.isfinite(mean):
            return cls(cost, False, mean)
        finite = cost[torch.isfinite(cost)]
        return cls(cost, len(finite) < cost.numel(), float(finite.abs().mean()) if len(finite) else 1.0)

    @property
    def peak(self) -> float:
        """The largest finite cost."""
        return float(
            torch.where(self.cost == torch.inf, -torch.inf, self.cost).amax() if self.forbidden else self.cost.amax()
        )

    @property
    def least(self) -> float:
        """The smallest of the costs."""
        return float(self.cost.amin())

    def transposed(self) -> DenseGeometry:
        """The same cost read from the columns' side."""
        return DenseGeometry(self.cost.mT, self.forbidden, self.mean)

    def matrix(self) -> Tensor:
        """The costs, (B, n, m)."""
        return self.cost

    def select(self, rows: Tensor, cols: Tensor) -> DenseGeometry:
        """The sub-problem on some rows and columns (boolean masks)."""
        return DenseGeometry(self.cost[:, rows][:, :, cols], self.forbidden, self.mean)

    def dense(self) -> DenseGeometry:
        """These costs are a matrix already."""
        return self

    def only(self, k: int) -> DenseGeometry:
        """Problem k of the batch, as a batch of one."""
        return DenseGeometry(self.cost[k : k + 1], self.forbidden, self.mean)

    def parts(self) -> Iterator[tuple[slice, DenseGeometry]]:
        """Blocks of rows, with their costs as a matrix: this one alone."""
        yield slice(0, self.cost.shape[1]), self

    def most_sparse(self, below: float) -> float:
        """The share of pairs that a sparse plan may hold: the costs are held, so that its memory is no matter."""
        return below

    def row_blocks(self) -> Iterator[tuple[slice, DenseGeometry]]:
        """Blocks of rows of all problems, so small that a core's cache holds one."""
        batch, n, m = self.cost.shape
        step = max(1, BLOCK // (batch * m))
        for i in range(0, n, step):
            rows = slice(i, min(n, i + step))
            yield rows, DenseGeometry(self.cost[:, rows], self.forbidden, self.mean)

    def some_rows(self, which: Tensor) -> Tensor:
        """The costs of a few rows of the first problem, (k, m)."""
        return self.cost[0, which]

    def _blocks(self) -> Iterator[tuple[slice, slice]]:
        b, n, m = self.cost.shape
        if self.cost.device.type != "cpu":
            yield slice(0, b), slice(0, n)
        elif n * m <= BLOCK:
            step = max(1, BLOCK // (n * m))
            yield from ((slice(k, k + step), slice(0, n)) for k in range(0, b, step))
        else:
            step = max(1, BLOCK // m)
            yield from ((slice(k, k + 1), slice(i, i + step)) for k in range(b) for i in range(0, n, step))

    def kernel(
        self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0, out: Tensor | None = None
    ) -> tuple[DenseKernel, Tensor, Tensor]:
        """The plan at g with exact rows, as a kernel."""
        stored = torch.empty_like(self.cost, memory_format=torch.contiguous_format) if out is None else out
        measured = self._pass(g, epsilon, a, b, damping, stored, with_cost=False)
        return DenseKernel(stored), measured.f, measured.cols

    def measure(self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0) -> Measured:
        """The measures of the plan at g with exact rows; the plan itself is never held."""
        return self._pass(g, epsilon, a, b, damping, None, with_cost=True)

    def _pass(
        self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, damping: float, out: Tensor | None, *, with_cost: bool
    ) -> Measured:
        # Where marginals are relaxed g may be of the size of rho: what all of it shares would round the costs away.
        centre = g.amax(-1, keepdim=True)
        log_col = (g - centre) / epsilon + b.log()
        a, b = a.contiguous(), b.contiguous()  # so that what is made like them is, too: compiled code writes there
        f, cols, cost_by_col = torch.empty_like(a), torch.zeros_like(b), torch.zeros_like(b)
        native = self.native
        if native is not None:
            native.build(
                self.cost.numpy(),
                log_col.numpy(),
                a.numpy(),
                epsilon,
                damping,
                centre[:, 0].numpy(),
                f.numpy(),
                cols.numpy(),
                None if out is None else out.numpy(),
                cost_by_col.numpy() if with_cost else None,
                threads_for(self.cost.numel()),
            )
            return Measured(f, cols, cost_by_col)
        for k, i in self._blocks():
            part = self.cost[k, i]
            plan = torch.add(
                log_col[k, None], part, alpha=-1 / epsilon, out=None if out is None else out[k, i]
            )  # (g_j - C_ij)/epsilon + log b_j
            top = plan.amax(-1, keepdim=True).clamp_(min=LOWEST_COST)  # -inf - -inf on a row without partners
            plan.sub_(top).clamp_(min=LOWEST_EXPONENT).exp_()
            if self.forbidden:
                plan.masked_fill_(part == torch.inf, 0.0)
            sums = plan.sum(-1)
            lse = sums.log().add_(top[..., 0])
            scale = a[k, i] / sums
            row = torch.add(centre[k], lse, alpha=epsilon).mul_(-damping)
            if self.forbidden:  # rows without partners
                row, scale = (torch.where(sums > 0, x, 0.0) for x in (row, scale))
            f[k, i] = row
            if damping < 1:
                scale *= torch.exp(lse + (row + centre[k]) / epsilon)
            cols[k] += _weighted_sum(scale, plan)
            if with_cost:
                weighted = plan.mul_(part.nan_to_num(posinf=0.0) if self.forbidden else part)
                cost_by_col[k] += _weighted_sum(scale, weighted)
            elif out is not None:
                plan.mul_(scale[..., None])
        return Measured(f, cols, cost_by_col)

    def plan(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The plan at (f, g), dense, shape (B, n, m); exactly zero on forbidden pairs and where a weight is zero."""
        exponent = torch.add(f[..., None], g[:, None]).sub_(self.cost).div_(epsilon)  # f + g first: both may be large
        density = exponent.clamp_(LOWEST_EXPONENT, HIGHEST_EXPONENT).exp_()
        plan = (
            density * (a[..., None] * b[:, None])
            if density.requires_grad
            else density.mul_(a[..., None]).mul_(b[:, None])
        )
        return plan.masked_fill(self.cost == torch.inf, 0.0) if self.forbidden else plan

    def product(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """P v for v of shape (B, m, k), in blocks of rows: the plan is never held. Returns (B, n, k)."""
        out = v.new_empty(*a.shape, v.shape[-1])
        for k, i in self._blocks():
            part = DenseGeometry(self.cost[k, i], self.forbidden, self.mean)
            out[k, i] = part.plan(f[k, i], g[k], epsilon, a[k, i], b[k]) @ v[k]
        return out

    def marginals(self, f: Tensor, g: Tensor, epsilon: float, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """P 1 and P^T 1 of the plan at (f, g), in one pass; shapes (B, n) and (B, m)."""
        a, b = a.contiguous(), b.contiguous()
        rows, cols = torch.empty_like(a), torch.zeros_like(b)
        native = self.native
        if native is not None:
            given = (x.contiguous().numpy() for x in (f, g, a, b))
            native.marginals(
                self.cost.numpy(), *given, epsilon, rows.numpy(), cols.numpy(), threads_for(self.cost.numel())
            )
            return rows, cols
        for k, i in self._blocks():
            plan = DenseGeometry(self.cost[k, i], self.forbidden, self.mean).plan(f[k, i], g[k], epsilon, a[k, i], b[k])
            rows[k, i] = plan.sum(-1)
            cols[k] += plan.sum(-2)
        return rows, cols

    def c_transform(self, g: Tensor) -> Tensor:
        """f_i = min_j C_ij - g_j, the largest row potentials that g allows without regularisation; shape (B, n)."""
        f = g.new_empty(self.cost.shape[:2])
        for k, i in self._blocks():
            f[k, i] = (self.cost[k, i] - g[k, None]).amin(-1)
        return f

    def bilinear(self, x: Tensor, y: Tensor) -> Tensor:
        """sum_ij x_i C_ij y_j for x (B, n), y (B, m) non-negative; infinite where mass sits on a forbidden pair."""
        total = x.new_zeros(x.shape[0])
        for k, i in self._blocks():
            part = self.cost[k, i]
            if self.forbidden:
                part = torch.where((x[k, i, None] > 0) & (y[k, None] > 0), part, 0.0)
            total[k] += (x[k, i] * (part @ y[k, :, None])[..., 0]).sum(-1)
        return total
