"""Plans between points on a line whose cost is the distance: products in O(n + m) operations instead of n m.

With C_ij = s |x_i - y_j| the kernel splits at y_j = x_i into two that have rank one,

    exp(-C_ij/epsilon) = e^(-s x_i/epsilon) e^(s y_j/epsilon) for y_j <= x_i,   the mirror image for y_j > x_i,

so that K v is two running sums over the sorted y, from the left and from the right, read off where x_i falls among
them. All terms have one sign: nothing cancels. Exponentials of single coordinates must be representable, which is
what `LineGeometry.fits` tells.

A *branch* is one side of the split: 0 for y_j <= x_i, 1 for y_j > x_i.

symbol         meaning                                                            shape
x, y           points of the rows and of the columns                              (B, n), (B, m)
rise           s x, -s x: what C_ij grows by with x_i, branch by branch; of y too  (B, 2, n), (B, 2, m)
left, right    factors of a plan: P_ij = left_ki right_kj, k the pair's branch    (B, 2, n), (B, 2, m)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.ot.geometry.dense import DenseGeometry, DenseKernel
from pushforward.ot.geometry.protocol import Kernel, Measured, marginals_by_products

__all__ = ["LineGeometry", "LineKernel"]

# s (range of the points)/epsilon at most. Potentials that a row update leaves are s-Lipschitz, so that the factors'
# exponents span twice this and lie in [-500, 500]: room for weights and scalings down to e^-708, the last normal float.
REACH = 500.0
# Where the largest factor of the columns is put. A column whose factor then underflows lies 1200 below the largest one,
# which no row sees by less than 1200 - 2 REACH = 200 above it.
TOP = 500.0
# Exponents above this belong to pairs that are not there; times a zero they must not be NaN.
HIGHEST = 690.0


@dataclass(frozen=True, slots=True)
class _Runs:
    """Sums over the points on one side of each of some other points.

    Args:
        order: Both orders in which m points are summed, each behind a place for the empty sum, (B, 2, m + 1).
        at: How many of them each of n other points sums, branch by branch, (B, 2, n).
    """

    order: Tensor
    at: Tensor

    def sort(self, v: Tensor) -> Tensor:
        """(B, m) in both orders, (B, 2, m + 1); the first place holds anything."""
        return v.gather(-1, self.order.flatten(1)).view_as(self.order)

    def sort_branches(self, v: Tensor, *, first: float = 0.0) -> Tensor:
        """(B, 2, m), each branch in its order, behind the empty sum: (B, 2, m + 1)."""
        in_order = v.gather(-1, self.order)
        in_order[..., 0] = first
        return in_order

    def sums(self, in_order: Tensor) -> Tensor:
        """Running sums of (B, 2, m + 1) where the other points read them, (B, 2, n)."""
        return in_order.cumsum(-1).gather(-1, self.at)


@dataclass(frozen=True, slots=True)
class LineKernel(Kernel):
    """A plan held as its factors.

    Args:
        over_y, over_x: The running sums of products with the plan and with its transpose.
        left, right: The plan's factors, (B, 2, n) and (B, 2, m).
        left_in_order, right_in_order: The same as the running sums take them, (B, 2, n + 1) and (B, 2, m + 1).
    """

    over_y: _Runs
    over_x: _Runs
    left: Tensor
    right: Tensor
    left_in_order: Tensor
    right_in_order: Tensor

    # Kept this small, what underflowed below e^-200 of its row stays below e^-140.
    farthest: ClassVar[float] = 30.0

    @property
    def entries(self) -> int:
        """How many numbers a product reads: some five passes over its factors."""
        return 5 * (self.left.numel() + self.right.numel())

    def rows(self, v: Tensor) -> Tensor:
        """K v, shape (B, n)."""
        return torch.linalg.vecdot(self.over_y.sums(self.right_in_order * self.over_y.sort(v)), self.left, dim=1)

    def cols(self, u: Tensor) -> Tensor:
        """K^T u, shape (B, m)."""
        return torch.linalg.vecdot(self.over_x.sums(self.left_in_order * self.over_x.sort(u)), self.right, dim=1)

    def dense(self) -> Tensor:
        """The plan as a matrix, (B, n, m)."""
        rank = self.over_y.order[:, 0, 1:].argsort(-1)
        first = rank[:, None] < self.over_y.at[:, 0, :, None]
        branches = self.left[..., None] * self.right[:, :, None]
        return torch.where(first, branches[:, 0], branches[:, 1])

    def normal(self, left: Tensor, right: Tensor) -> Tensor:
        """diag(right) K^T diag(left) K diag(right), shape (B, m, m)."""
        return DenseKernel(self.dense()).normal(left, right)

    @property
    def normal_seconds(self) -> float:
        """Infinite: a product costs so little that no factor paid, from 32 points to 2048, epsilon 0.1 to 0.005."""
        return math.inf


class LineGeometry:
    """The cost s |x_i - y_j| between points on a line.

    Args:
        x, y: Points in any order, repeated or not, (B, n) and (B, m).
        scale: s, in units of the cost over those of the points.
    """

    forbidden = False
    sparse_rows = None
    streamed: ClassVar[bool] = False
    batch_pays = True
    selects_alike: ClassVar[bool] = True
    lossy: ClassVar[bool] = False
    plan_copies: ClassVar[float] = 3.0

    def __init__(self, x: Tensor, y: Tensor, scale: float) -> None:
        low, high = (torch.maximum(end(x), end(y)) for end in (lambda t: -t.amin(-1), lambda t: t.amax(-1)))
        centre = 0.5 * (high - low)[:, None]
        self._x, self._y, self.scale = x - centre, y - centre, scale
        self._extent = scale * float((high + low).amax())
        self._rise_x, self._rise_y = (torch.stack([scale * z, -scale * z], 1) for z in (self._x, self._y))
        (self._sorted_x, order_x), (self._sorted_y, order_y) = self._x.sort(-1), self._y.sort(-1)
        below = torch.searchsorted(self._sorted_x, self._y)  # x_i < y_j: branch 1
        up_to = torch.searchsorted(self._sorted_y, self._x, right=True)  # y_j <= x_i: branch 0
        n, m = x.shape[-1], y.shape[-1]
        self._over_y = _Runs(_both_ways(order_y, order_y.flip(-1)), torch.stack([up_to, m - up_to], 1))
        self._over_x = _Runs(_both_ways(order_x.flip(-1), order_x), torch.stack([n - below, below], 1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the costs, (B, n, m)."""
        return len(self._x), self._x.shape[-1], self._y.shape[-1]

    def fits(self, epsilon: float) -> bool:
        """Whether plans at this epsilon can be held as factors; where not, `matrix` and `DenseGeometry` do."""
        return self._extent <= REACH * epsilon

    @property
    def mean(self) -> float:
        """Mean cost, over the whole batch."""
        uniform = (torch.full_like(z, 1 / z.shape[-1]) for z in (self._x, self._y))
        return float(self.bilinear(*uniform).mean())

    @property
    def peak(self) -> float:
        """The largest of the costs."""
        apart = torch.maximum(
            self._sorted_x[:, -1] - self._sorted_y[:, 0], self._sorted_y[:, -1] - self._sorted_x[:, 0]
        )
        return self.scale * float(apart.amax())

    @property
    def least(self) -> float:
        """The smallest of the costs."""
        return float(self.c_transform(torch.zeros_like(self._y)).amin())

    def transposed(self) -> LineGeometry:
        """The same cost read from the columns' side."""
        return LineGeometry(self._y, self._x, self.scale)

    def matrix(self) -> Tensor:
        """The costs, (B, n, m)."""
        return self.scale * (self._x[..., None] - self._y[:, None]).abs()

    def dense(self) -> DenseGeometry:
        """The same costs as a matrix."""
        return DenseGeometry(self.matrix(), forbidden=False, mean=self.mean)

    def only(self, k: int) -> DenseGeometry:
        """Problem k of the batch, as a matrix: the batch could not solve it along the line."""
        return self.dense().only(k)

    def parts(self) -> Iterator[tuple[slice, DenseGeometry]]:
        """All rows in one block, with their costs as a matrix."""
        yield slice(0, self.shape[1]), self.dense()

    def select(self, rows: Tensor, cols: Tensor) -> LineGeometry:
        """The sub-problem on some rows and columns (boolean masks)."""
        return LineGeometry(self._x[:, rows], self._y[:, cols], self.scale)

    def _right(self, g: Tensor, epsilon: float, b: Tensor) -> tuple[Tensor, Tensor]:
        """The columns' factors at g over e^top, and top, (B, 2, 1)."""
        exponent = (self._rise_y + g[:, None]).div_(epsilon).add_(b.log()[:, None])
        top = exponent.amax(-1, keepdim=True) - TOP
        return exponent.sub_(top).exp_(), top

    def _left(self, f: Tensor, epsilon: float, a: Tensor, top: Tensor) -> Tensor:
        """The rows' factors at f, times e^top."""
        exponent = (f[:, None] - self._rise_x).div_(epsilon).add_(a.log()[:, None]).add_(top)
        return exponent.clamp_(max=HIGHEST).exp_()

    def kernel(
        self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0, out: Tensor | None = None
    ) -> tuple[LineKernel, Tensor, Tensor]:
        """The plan at g with exact rows; the same contract as `Geometry.kernel`, where epsilon `fits`."""
        del out  # factors are small: there is nothing to reuse
        right, top = self._right(g, float(epsilon), b)
        right_in_order = self._over_y.sort_branches(right)
        logs = self._over_y.sums(right_in_order).log_().add_(top).sub_(self._rise_x / epsilon)
        f = -damping * epsilon * torch.logaddexp(logs[:, 0], logs[:, 1])
        left = self._left(f, epsilon, a, top)
        left_in_order = self._over_x.sort_branches(left)
        cols = torch.linalg.vecdot(self._over_x.sums(left_in_order), right, dim=1)
        return LineKernel(self._over_y, self._over_x, left, right, left_in_order, right_in_order), f, cols

    def measure(self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0) -> Measured:
        """The same contract as `Geometry.measure`; in each branch C_ij is the rise of x less that of y."""
        kernel, f, cols = self.kernel(g, epsilon, a, b, damping=damping)
        rises = self._over_x.sums(self._over_x.sort_branches(kernel.left * self._rise_x))
        rises -= self._rise_y * self._over_x.sums(kernel.left_in_order)
        return Measured(f, cols, torch.linalg.vecdot(rises, kernel.right, dim=1))

    def displacement(self, f: Tensor, g: Tensor, epsilon: float, a: Tensor, b: Tensor) -> Tensor:
        """sum_j P_ij s sign(x_i - y_j), sign(0) = 0: the derivative of <P, C> in x where P is fixed; (B, n)."""
        right, top = self._right(g, float(epsilon), b)
        below = torch.searchsorted(self._sorted_y, self._x)
        apart = _Runs(self._over_y.order, torch.stack([below, self._over_y.at[:, 1]], 1))
        branches = apart.sums(apart.sort_branches(right)) * self._left(f, epsilon, a, top)
        return self.scale * (branches[:, 0] - branches[:, 1])

    def marginals(self, f: Tensor, g: Tensor, epsilon: float, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The same contract as `Geometry.marginals`."""
        return marginals_by_products(self, f, g, epsilon, a, b)

    def plan(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The same contract as `Geometry.plan`."""
        return self.dense().plan(f, g, epsilon, a, b)

    def product(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """P v for v of shape (B, m, k); the same contract as `Geometry.product`."""
        right, top = self._right(g, float(epsilon), b)
        left, in_order = self._left(f, float(epsilon), a, top), self._over_y.sort_branches(right)
        sums = (self._over_y.sums(in_order * self._over_y.sort(column.contiguous())) for column in v.unbind(-1))
        return torch.stack([torch.linalg.vecdot(each, left, dim=1) for each in sums], dim=-1)

    def c_transform(self, g: Tensor) -> Tensor:
        """f_i = min_j C_ij - g_j, by running minima; shape (B, n)."""
        falls = self._over_y.sort_branches(-self._rise_y - g[:, None], first=torch.inf)
        return (self._rise_x + falls.cummin(-1).values.gather(-1, self._over_y.at)).amin(1)

    def bilinear(self, x: Tensor, y: Tensor) -> Tensor:
        """sum_ij x_i C_ij y_j for x (B, n), y (B, m); shape (B,)."""
        masses = self._over_y.sums(self._over_y.sort_branches(y[:, None].expand_as(self._rise_y)))
        rises = self._over_y.sums(self._over_y.sort_branches(y[:, None] * self._rise_y))
        return ((self._rise_x * masses - rises).sum(1) * x).sum(-1)


def _both_ways(first: Tensor, second: Tensor) -> Tensor:
    """Two orders of the same points, (B, 2, m + 1), each behind a place for the empty sum."""
    orders = torch.stack([first, second], 1)
    return torch.cat([torch.zeros_like(orders[..., :1]), orders], -1)
