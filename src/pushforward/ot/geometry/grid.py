"""Plans on a pixel grid whose cost is a sum over axes: products in N (s_1 + ... + s_d) operations instead of N^2.

With C(x, y) = sum_k c_k[x_k, y_k] the plan at g, rows exact, is a chain of one conditional matrix an axis,

    P(x, y) = scale(x) prod_k M_k[x_k, y_k | y_1 .. y_{k-1}, x_{k+1} .. x_d],

each M_k row-stochastic: summing the axes out one after the other, last first, in the log domain,
t[.., x_k] = log sum_{y_k} exp(t[.., y_k] - c_k[x_k, y_k]/epsilon). Every number that is kept lies in [0, 1], so
nothing overflows where the usual kernel exp(-C/epsilon) is zero almost everywhere. On 128 x 128 pixels the factors
take 34 MB, the plan would take 2 GB.

symbol   meaning                                        shape
s_k      pixels along axis k; N = prod s_k
c_k      cost along axis k                              (s_k, s_k)
M_k      factor of axis k, axis k moved to the end      (B, other axes, s_k, s_k)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.ot.geometry.dense import DenseGeometry, DenseKernel
from pushforward.ot.geometry.protocol import (
    DENSE_SPEED,
    FARTHEST,
    LOWEST_COST,
    LOWEST_EXPONENT,
    Kernel,
    Measured,
    marginals_by_products,
)

__all__ = ["GridGeometry", "GridKernel", "SeparableKernel"]

# Exponents of the separable form are kept above minus this, so that a product of two of its numbers is not denormal.
REACH = 345.0


@dataclass(frozen=True, slots=True)
class GridKernel(Kernel):
    """A plan held as its factors.

    Args:
        factors: M_1 .. M_d.
        scale: Row masses, (B, N).
    """

    factors: tuple[Tensor, ...]
    scale: Tensor

    farthest: ClassVar[float] = FARTHEST

    @property
    def entries(self) -> int:
        """The number of entries that a product reads."""
        return sum(factor.numel() for factor in self.factors)

    def _grid(self, flat: Tensor) -> Tensor:
        return flat.view(flat.shape[0], *(factor.shape[-1] for factor in self.factors))

    def rows(self, v: Tensor) -> Tensor:
        """K v, shape (B, n)."""
        x = self._grid(v)
        for k in range(len(self.factors), 0, -1):
            x = torch.matmul(self.factors[k - 1], x.movedim(k, -1).contiguous()[..., None])[..., 0].movedim(-1, k)
        return x.reshape(v.shape) * self.scale

    def cols(self, u: Tensor) -> Tensor:
        """K^T u, shape (B, m)."""
        return self._cols(u, self.factors)

    def _cols(self, u: Tensor, factors: tuple[Tensor, ...]) -> Tensor:
        x = self._grid(u * self.scale)
        for k, factor in enumerate(factors, start=1):
            x = torch.matmul(x.movedim(k, -1).contiguous()[..., None, :], factor)[..., 0, :].movedim(-1, k)
        return x.reshape(u.shape)

    def cost_by_col(self, axis_costs: tuple[Tensor, ...]) -> Tensor:
        """sum_x P(x, y) C(x, y): the chain once for each axis, with that axis's cost inside its factor."""
        ones, total = torch.ones_like(self.scale), torch.zeros_like(self.scale)
        for k, cost in enumerate(axis_costs):
            total += self._cols(ones, (*self.factors[:k], self.factors[k] * cost, *self.factors[k + 1 :]))
        return total

    def dense(self) -> Tensor:
        """The plan as a matrix, (B, N, N): the outer product of its factors."""
        d, letters = len(self.factors), iter("cdefghijklmnopqrstuvwxyz")
        x, y = [next(letters) for _ in range(d)], [next(letters) for _ in range(d)]
        subscripts = ("b" + "".join(y[:k] + x[k + 1 :] + [x[k], y[k]]) for k in range(d))
        plan = torch.einsum(f"{','.join(subscripts)}->b{''.join(x + y)}", *self.factors)
        return plan.reshape(*self.scale.shape, -1) * self.scale[..., None]

    def normal(self, left: Tensor, right: Tensor) -> Tensor:
        """diag(right) K^T diag(left) K diag(right), shape (B, m, m)."""
        return DenseKernel(self.dense()).normal(left, right)

    @property
    def normal_seconds(self) -> float:
        """What `normal` takes on one core, within a factor of two."""
        return self.scale.numel() * self.scale.shape[-1] ** 2 / DENSE_SPEED


@dataclass(frozen=True, slots=True)
class SeparableKernel(Kernel):
    """A plan as diag(left) (E_1 x ... x E_d) diag(right), E_k = exp(-c_k/epsilon): the cheapest form, where it fits.

    It fits while the potentials spread over less than what a product of two floats can hold (`REACH`): squared l2 costs
    at any epsilon that one would use, l1 costs at larger ones. `GridKernel` holds the rest.

    Args:
        axes: E_1 .. E_d.
        left, right: a exp(f/epsilon) and b exp(g/epsilon), (B, N), up to a factor that moves from one to the other.
    """

    axes: tuple[Tensor, ...]
    left: Tensor
    right: Tensor

    # Entries lost are below e^(-0.3 REACH) = e^-103 of the plan (`_separable`); they stay below e^-43.
    farthest: ClassVar[float] = 30.0

    @property
    def entries(self) -> int:
        """How many numbers a product reads: E_k stays in cache, so it is the passes over the images."""
        return self.left.numel() * 2 * len(self.axes)

    def rows(self, v: Tensor) -> Tensor:
        """K v, shape (B, N)."""
        return self.left * separable_product(self.axes, self.right * v)

    def cols(self, u: Tensor) -> Tensor:
        """K^T u, shape (B, N); the E_k are symmetric."""
        return self.right * separable_product(self.axes, self.left * u)

    def normal(self, left: Tensor, right: Tensor) -> Tensor:
        """diag(right) K^T diag(left) K diag(right), shape (B, N, N)."""
        matrix = functools.reduce(torch.kron, self.axes)
        return DenseKernel(self.left[..., None] * matrix * self.right[:, None]).normal(left, right)

    @property
    def normal_seconds(self) -> float:
        """What `normal` takes on one core, within a factor of two."""
        return self.left.numel() * self.left.shape[-1] ** 2 / DENSE_SPEED

    def normal_product(self, left: Tensor, right: Tensor) -> Callable[[Tensor], Tensor]:
        """The product with `normal(left, right)`, both scalings of each side in one."""
        middle, outer = left * self.left.square(), right * self.right

        def product(x: Tensor) -> Tensor:
            return outer * separable_product(self.axes, middle * separable_product(self.axes, outer * x))

        return product


def separable_product(axes: tuple[Tensor, ...], flat: Tensor) -> Tensor:
    """(E_1 x ... x E_d) applied to images of shape (B, N), E_k symmetric."""
    (before, after), x = flat.shape, flat
    for axis in axes:
        size = axis.shape[0]  # len() of a tensor takes as long as a product here
        after //= size
        if after == 1:
            x = torch.mm(x.view(before, size), axis)
        elif before == 1:
            x = torch.mm(axis, x.view(size, after))
        else:
            x = torch.matmul(axis, x.view(before, size, after))
        before *= size
    return x.view(flat.shape)


@dataclass(frozen=True, slots=True)
class GridGeometry:
    """The cost between the pixels of one grid, held by its axes.

    Args:
        axis_costs: c_k, one square matrix an axis.
        batch: How many pairs of images share the grid.
    """

    axis_costs: tuple[Tensor, ...]
    batch: int

    forbidden = False
    sparse_rows = None
    streamed: ClassVar[bool] = False
    batch_pays = True
    selects_alike: ClassVar[bool] = False
    # What a separable kernel lost is not seen from inside.
    lossy: ClassVar[bool] = True
    plan_copies: ClassVar[float] = 3.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the costs, (B, n, m)."""
        n = math.prod(len(cost) for cost in self.axis_costs)
        return self.batch, n, n

    @property
    def mean(self) -> float:
        """The mean of the costs over all pairs."""
        return float(sum(cost.mean() for cost in self.axis_costs))

    @property
    def peak(self) -> float:
        """The largest of the costs."""
        return float(sum(cost.amax() for cost in self.axis_costs))

    @property
    def least(self) -> float:
        """The smallest of the costs."""
        return float(sum(cost.amin() for cost in self.axis_costs))

    def transposed(self) -> GridGeometry:
        """The same cost read from the columns' side."""
        return GridGeometry(tuple(cost.T for cost in self.axis_costs), self.batch)

    def dense(self) -> DenseGeometry:
        """The same costs as a matrix."""
        return DenseGeometry(self.matrix(), forbidden=False, mean=self.mean)

    def only(self, k: int) -> GridGeometry:
        """One pair of images; all share the grid."""
        del k
        return GridGeometry(self.axis_costs, 1)

    def select(self, rows: Tensor, cols: Tensor) -> DenseGeometry:
        """The sub-problem on some pixels (boolean masks), which are no grid: a matrix."""
        return self.dense().select(rows, cols)

    def parts(self) -> Iterator[tuple[slice, DenseGeometry]]:
        """All rows in one block, with their costs as a matrix."""
        yield slice(0, self.shape[1]), self.dense()

    def _grid(self, flat: Tensor) -> Tensor:
        return flat.view(flat.shape[0], *(len(cost) for cost in self.axis_costs))

    def kernel(
        self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0, out: Tensor | None = None
    ) -> tuple[GridKernel | SeparableKernel, Tensor, Tensor]:
        """The plan at g with exact rows; the same contract as `Geometry.kernel`."""
        del out  # factors are small: there is nothing to reuse
        separable = self._separable(g, epsilon, a, b, damping)
        if separable is not None:
            return separable
        return self._factors(g, epsilon, a, b, damping)

    def _separable(
        self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, damping: float
    ) -> tuple[SeparableKernel, Tensor, Tensor] | None:
        """The plan in its separable form, or None where that would lose entries that matter."""
        top = g.amax(-1, keepdim=True)
        if float((top - g).amax()) > REACH * epsilon:
            return None
        axes = tuple(torch.where((cost / epsilon) < REACH, torch.exp(-cost / epsilon), 0.0) for cost in self.axis_costs)
        right = b * torch.exp((g - top) / epsilon)
        sums = separable_product(axes, right)
        # What underflowed is below e^-REACH in every sum: large sums, of rows and of columns, have lost nothing.
        if not float(sums.amin()) > math.exp(-0.7 * REACH):
            return None
        f = -damping * (epsilon * sums.log() + top)
        kernel = SeparableKernel(axes, a * torch.exp((f + top) / epsilon), right)
        cols = kernel.cols(torch.ones_like(a))
        if not bool((cols >= math.exp(-0.7 * REACH) * b).all()):
            return None
        return kernel, f, cols

    def _factors(
        self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, damping: float
    ) -> tuple[GridKernel, Tensor, Tensor]:
        centre = g.amax(-1, keepdim=True)  # as in `DenseGeometry`
        t = self._grid((g - centre) / epsilon + b.log())
        factors: list[Tensor] = []
        for k in range(len(self.axis_costs), 0, -1):
            # Contiguous, or every later product would first copy its factor.
            exponent = t.movedim(k, -1).contiguous()[..., None, :] - self.axis_costs[k - 1] / epsilon
            top = exponent.amax(-1, keepdim=True).clamp_(min=LOWEST_COST)
            factor = exponent.sub_(top).clamp_(min=LOWEST_EXPONENT).exp_()
            factor.masked_fill_((t == -torch.inf).movedim(k, -1)[..., None, :], 0.0)
            sums = factor.sum(-1, keepdim=True)
            t = (top + sums.log())[..., 0].movedim(-1, k)
            factors.insert(0, factor.div_(sums.clamp_min(torch.finfo(sums.dtype).tiny)))
        lse = t.reshape(g.shape)
        f = -damping * (epsilon * lse + centre)
        kernel = GridKernel(tuple(factors), a * torch.exp(lse + (f + centre) / epsilon))
        return kernel, f, kernel.cols(torch.ones_like(a))

    def measure(self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0) -> Measured:
        """The same contract as `Geometry.measure`."""
        kernel, f, cols = self._factors(g, epsilon, a, b, damping)
        return Measured(f, cols, kernel.cost_by_col(self.axis_costs))

    def matrix(self) -> Tensor:
        """The (B, N, N) cost matrix, for those who need it."""
        total, n = (
            torch.zeros((), dtype=self.axis_costs[0].dtype, device=self.axis_costs[0].device),
            len(self.axis_costs),
        )
        for k, cost in enumerate(self.axis_costs):
            total = total + cost.view(*(len(cost) if axis in (k, n + k) else 1 for axis in range(2 * n)))
        return total.reshape(1, *self.shape[1:]).expand(self.shape)

    def marginals(self, f: Tensor, g: Tensor, epsilon: float, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The same contract as `Geometry.marginals`."""
        return marginals_by_products(self, f, g, epsilon, a, b)

    def plan(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The same contract as `Geometry.plan`."""
        return self.dense().plan(f, g, epsilon, a, b)

    def product(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """P v for v of shape (B, N, k); the same contract as `Geometry.product`."""
        kernel, exact_f, _ = self._factors(g, float(epsilon), a, b, 1.0)
        moved = torch.where(a > 0, torch.exp((f - exact_f) / epsilon), 0.0)
        return torch.stack([kernel.rows(column.contiguous()) * moved for column in v.unbind(-1)], dim=-1)

    def c_transform(self, g: Tensor) -> Tensor:
        """min over y of C(x, y) - g(y), one axis at a time."""
        t = self._grid(-g)
        for k, cost in enumerate(self.axis_costs, start=1):
            t = (t.movedim(k, -1)[..., None, :] + cost).amin(-1).movedim(-1, k)
        return t.reshape(g.shape)

    def bilinear(self, x: Tensor, y: Tensor) -> Tensor:
        """sum x C y, through the marginals of x and y along each axis."""
        x_grid, y_grid, total = self._grid(x), self._grid(y), x.new_zeros(x.shape[0])
        axes = range(1, len(self.axis_costs) + 1)
        for k, cost in enumerate(self.axis_costs, start=1):
            others = [axis for axis in axes if axis != k]
            x_k = x_grid.sum(others) if others else x_grid
            y_k = y_grid.sum(others) if others else y_grid
            # C = sum_k c_k: each c_k meets the total mass of the other axes once.
            total += ((x_k @ cost) * y_k).sum(-1)
        return total
