"""Costs between points that are too many for a matrix: computed block by block of rows, whenever they are needed.

A pass over all pairs takes O((n + m) d) memory. Where the plan is nearly sparse the solver makes few such passes: it
finds the pairs that matter (`sparse.py`) and works on those. Where to look for them is known from a sample of the
points, solved first: with the potentials f of sampled rows x_i,

    g_j = -epsilon log sum_i a_i exp((f_i - c(x_i, y_j))/epsilon)

is defined at every y_j and nearly right. Where the plan is not sparse it is held, if memory is free for it
(`memory.py`); else its products are computed from the points each time (`StreamedKernel`): slow, and within the same
memory.

symbol   meaning                     shape
x, y     points                      (n, d), (m, d)
others   as in protocol.py, with B = 1
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pushforward.errors import NonFiniteError
from pushforward.ot.costs import GroundCost, pairwise_cost
from pushforward.ot.geometry.dense import DenseGeometry, DenseKernel
from pushforward.ot.geometry.protocol import FARTHEST, Kernel, Measured
from pushforward.ot.memory import HELD_SHARE, available_memory, fits

__all__ = ["PointGeometry", "StreamedKernel"]

# Costs of one block: 8 MB.
BLOCK = 1 << 20
# Bytes for a pair where a plan is held: its own, and those of compiled CG's copy in floats.
PLAN_BYTES = 12
# Pairs of a sparse plan where the whole could not be held, and bytes of one: 12 for the pair, twice while patterns are
# joined, and 8 for the plan.
MOST_PAIRS, PAIR_BYTES = 4e7, 32


@dataclass(frozen=True)  # no slots: what takes a pass over all pairs is kept once computed
class PointGeometry:
    """The cost between two sets of points, never held.

    Args:
        x, y: Points, (n, d) and (m, d).
        cost: A ground cost, finite everywhere.

    Raises:
        NonFiniteError: When its statistics are asked for and a cost is not finite.
    """

    x: Tensor
    y: Tensor
    cost: GroundCost

    forbidden = False
    streamed: ClassVar[bool] = True
    batch_pays = True
    selects_alike: ClassVar[bool] = True
    lossy: ClassVar[bool] = False
    plan_copies: ClassVar[float] = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the costs, (1, n, m)."""
        return 1, len(self.x), len(self.y)

    @property
    def sparse_rows(self) -> PointGeometry | None:
        """On a CPU, as for a matrix."""
        return self if self.x.device.type == "cpu" else None

    def most_sparse(self, below: float) -> float:
        """The share of pairs that a sparse plan may hold: `below`, or as many as memory is free for.

        Args:
            below: From which share on a plan is better held whole, if it can be.
        """
        pairs = len(self.x) * len(self.y)
        if not fits(PLAN_BYTES * pairs, self.x.device):  # it cannot be held whole in any case: stay modest
            below = min(below, MOST_PAIRS / pairs)
        room = HELD_SHARE * available_memory(self.x.device)
        return min(below, room / (PAIR_BYTES * pairs))

    def parts(self) -> Iterator[tuple[slice, DenseGeometry]]:
        """Blocks of rows, with their costs as a matrix."""
        step = max(1, BLOCK // len(self.y))
        for i in range(0, len(self.x), step):
            rows = slice(i, min(len(self.x), i + step))
            yield rows, DenseGeometry(self.rows(self.x[rows])[None], forbidden=False, mean=math.nan)

    def rows(self, x: Tensor) -> Tensor:
        """Costs between some points and all of y, (k, m)."""
        return pairwise_cost(x, self.y, self.cost)

    def some_rows(self, which: Tensor) -> Tensor:
        """The costs of a few rows, (k, m)."""
        return self.rows(self.x[which])

    @functools.cached_property
    def _statistics(self) -> tuple[float, float, float]:
        total, least, most = 0.0, math.inf, -math.inf
        for rows, part in self.parts():
            total += float(torch.linalg.vector_norm(part.cost, 1))
            low, high = (float(end) for end in part.cost.aminmax())
            least, most = min(least, low), max(most, high)
            if not math.isfinite(total):
                raise NonFiniteError(
                    f"cost is not finite on a pair of x[{rows.start}:{rows.stop}] and y; "
                    "pass a matrix with +inf to forbid pairs"
                )
        return total / (len(self.x) * len(self.y)), least, most

    @property
    def mean(self) -> float:
        """The mean absolute value of the costs."""
        return self._statistics[0]

    @property
    def least(self) -> float:
        """The smallest of the costs."""
        return self._statistics[1]

    @property
    def peak(self) -> float:
        """The largest of the costs."""
        return self._statistics[2]

    def matrix(self) -> Tensor:
        """The costs, (1, n, m), for those who need them and have the memory."""
        return self.rows(self.x)[None]

    def dense(self) -> PointGeometry:
        """These costs, which are never held."""
        return self

    def only(self, k: int) -> PointGeometry:
        """The one problem that there is."""
        del k
        return self

    def transposed(self) -> PointGeometry:
        """The same cost read from the columns' side."""
        cost = self.cost
        turned: GroundCost = (lambda y, x: cost(x, y).mT) if callable(cost) else cost
        return PointGeometry(self.y, self.x, turned)

    def select(self, rows: Tensor, cols: Tensor) -> PointGeometry:
        """The sub-problem on some rows and columns (masks or indices)."""
        return PointGeometry(self.x[rows], self.y[cols], self.cost)

    def kernel(
        self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0, out: Tensor | None = None
    ) -> tuple[StreamedKernel | DenseKernel, Tensor, Tensor]:
        """The plan at g with exact rows, held where memory is free."""
        if out is None and not fits(PLAN_BYTES * len(self.x) * len(self.y), self.x.device):
            measured = self.measure(g, epsilon, a, b, damping=damping)
            return StreamedKernel(self, measured.f, g, epsilon, a, b), measured.f, measured.cols
        plan = self.x.new_empty(self.shape) if out is None else out
        f, cols = torch.empty_like(a), torch.zeros_like(b)
        for i, part in self.parts():
            _, f[:, i], more = part.kernel(g, epsilon, a[:, i], b, damping=damping, out=plan[:, i])
            cols += more
        return DenseKernel(plan), f, cols

    def measure(self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0) -> Measured:
        """The same contract as `Geometry.measure`."""
        f, cols, cost_by_col = torch.empty_like(a), torch.zeros_like(b), torch.zeros_like(b)
        for i, part in self.parts():
            measured = part.measure(g, epsilon, a[:, i], b, damping=damping)
            f[:, i] = measured.f
            cols += measured.cols
            cost_by_col += measured.cost_by_col
        return Measured(f, cols, cost_by_col)

    def marginals(self, f: Tensor, g: Tensor, epsilon: float, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The same contract as `Geometry.marginals`."""
        rows, cols = torch.empty_like(a), torch.zeros_like(b)
        for i, part in self.parts():
            rows[:, i], more = part.marginals(f[:, i], g, epsilon, a[:, i], b)
            cols += more
        return rows, cols

    def plan(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The same contract as `Geometry.plan`."""
        return DenseGeometry(self.matrix(), forbidden=False, mean=math.nan).plan(f, g, epsilon, a, b)

    def product(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """P v for v of shape (1, m, k); the same contract as `Geometry.product`."""
        parts = [part.product(f[:, i], g, epsilon, a[:, i], b, v) for i, part in self.parts()]
        return torch.cat(parts, dim=1)

    def c_transform(self, g: Tensor) -> Tensor:
        """f_i = min_j C_ij - g_j, (1, n)."""
        return torch.cat([part.c_transform(g) for _, part in self.parts()], dim=1)

    def bilinear(self, x: Tensor, y: Tensor) -> Tensor:
        """sum_ij x_i C_ij y_j for x (1, n), y (1, m); shape (1,)."""
        total = x.new_zeros(1)
        for i, part in self.parts():
            total += part.bilinear(x[:, i], y)
        return total


@dataclass(frozen=True, slots=True)
class StreamedKernel(Kernel):
    """A plan whose entries are computed anew for every product.

    Args:
        geometry: The cost.
        f, g: The plan's potentials, (1, n) and (1, m).
        epsilon: Regularisation, in units of the cost.
        a, b: Weights, (1, n) and (1, m).
    """

    geometry: PointGeometry
    f: Tensor
    g: Tensor
    epsilon: float
    a: Tensor
    b: Tensor

    farthest: ClassVar[float] = FARTHEST

    @property
    def entries(self) -> int:
        """How many numbers a product computes."""
        return len(self.geometry.x) * len(self.geometry.y)

    def rows(self, v: Tensor) -> Tensor:
        """K v, shape (1, n)."""
        return self.geometry.product(self.f, self.g, self.epsilon, self.a, self.b, v[..., None])[..., 0]

    def cols(self, u: Tensor) -> Tensor:
        """K^T u, shape (1, m)."""
        total = torch.zeros_like(self.b)
        for i, part in self.geometry.parts():
            total += u[:, i] @ part.plan(self.f[:, i], self.g, self.epsilon, self.a[:, i], self.b)[0]
        return total

    def normal(self, left: Tensor, right: Tensor) -> Tensor:
        """diag(right) K^T diag(left) K diag(right), shape (1, m, m)."""
        total = self.b.new_zeros(1, self.b.shape[-1], self.b.shape[-1])
        for i, part in self.geometry.parts():
            plan = part.plan(self.f[:, i], self.g, self.epsilon, self.a[:, i], self.b)
            half = plan * left[:, i, None].sqrt() * right[:, None]
            total += half.mT @ half
        return total

    @property
    def normal_seconds(self) -> float:
        """Infinite: whoever streams has no room for a factor."""
        return math.inf
