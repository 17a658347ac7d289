"""The operations of every geometry: build a plan around potentials, multiply by it, measure it.

    P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon)

A *kernel* is such a plan K, built at some potentials and then kept: the algorithms move the potentials by epsilon log
u and epsilon log v and work with P = diag(u) K diag(v), so that a step costs products with K and no exponential.

symbol   meaning                                              shape
C        cost                                                 (B, n, m)
g, f     potentials of the columns and of the rows            (B, m), (B, n)
a, b     weights, all positive here (zeros were taken out)    (B, n), (B, m)
u, v     scalings relative to the kernel's own potentials     (B, n), (B, m)

Every pass starts from g alone: f is the row update that makes the rows exact,
f_i = -lambda epsilon log sum_j b_j exp((g_j - C_ij)/epsilon), lambda = 1, or rho/(rho + epsilon) where the row
marginal is relaxed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pushforward.ot.geometry.dense import DenseGeometry

__all__ = [
    "Geometry",
    "Kernel",
    "Measured",
    "RowGeometry",
    "marginals_by_products",
    "small_matrix_share",
    "threads_for",
]

# exp() of anything under -708 is denormal, and so are products of two factors under e^-354: library kernels are 3 to
# 50 times slower on those. e^-300 is 1e-130, nothing to any sum, and leaves room for weights and scalings.
LOWEST_EXPONENT = -300.0
# Only pairs without weight get exponents above about 70; they must not overflow before they meet their zero.
HIGHEST_EXPONENT = 300.0
LOWEST_COST = -1e300
# Multiply-adds a second of one core in a matrix product.
DENSE_SPEED = 2.5e10
# Entries of a column below this share of its largest change no eigenvalue that a preconditioner can see.
NEGLIGIBLE = 1e-12
# Pairs from which on a second thread made solves faster: below, it waits for the threads of torch to fall asleep.
WORTH_THREADS = 1 << 20
# How far log u and log v may go before a kernel must be rebuilt: what it holds as e^-300 is then still nothing.
FARTHEST = 100.0


def threads_for(pairs: int) -> int:
    """Threads for compiled code to work on that many pairs with: torch's setting, where waking them is worth it."""
    return torch.get_num_threads() if pairs >= WORTH_THREADS else 1


def small_matrix_share(m: int) -> float:
    """The share of their full speed at which library products and factorisations run on m x m matrices."""
    return min(1.0, m / 500)


class Kernel(Protocol):
    """The operations of an n x m plan that the algorithms use."""

    farthest: ClassVar[float]
    """The largest |log u| and |log v| before the kernel has to be rebuilt."""
    together: ClassVar[float] = math.inf
    """The largest log u + log v before the kernel has to be rebuilt."""

    @property
    def entries(self) -> int:
        """The number of entries that a product reads."""
        ...

    def rows(self, v: Tensor) -> Tensor:
        """K v, shape (B, n)."""
        ...

    def cols(self, u: Tensor) -> Tensor:
        """K^T u, shape (B, m)."""
        ...

    def normal(self, left: Tensor, right: Tensor) -> Tensor:
        """diag(right) K^T diag(left) K diag(right), shape (B, m, m)."""
        ...

    @property
    def normal_seconds(self) -> float:
        """The seconds of `normal` on one core of a current CPU, within a factor of two."""
        ...

    def normal_product(self, left: Tensor, right: Tensor) -> Callable[[Tensor], Tensor]:
        """The product with `normal(left, right)`, without forming it; (B, m) to (B, m)."""
        return lambda x: right * self.cols(left * self.rows(right * x))


@dataclass(frozen=True, slots=True)
class Measured:
    """A plan measured exactly, in one pass over the cost: its row potentials, column sums and cost by column."""

    f: Tensor
    cols: Tensor
    cost_by_col: Tensor


class RowGeometry(Protocol):
    """What a sparse pattern is found from: the costs of one problem, row by row."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the costs, (1, n, m)."""
        ...

    def parts(self) -> Iterator[tuple[slice, DenseGeometry]]:
        """Blocks of rows, with their costs as a matrix."""
        ...

    def some_rows(self, which: Tensor) -> Tensor:
        """The costs of a few rows, (k, m)."""
        ...

    def most_sparse(self, below: float) -> float:
        """The share of pairs that a sparse plan may hold; a plan with a share above `below` is better held whole."""
        ...


class Geometry(Protocol):
    """The operations on the costs of a problem, or of a batch, that solvers and results use."""

    streamed: ClassVar[bool]
    """Whether costs are computed anew in every pass, so that passes are dear."""
    selects_alike: ClassVar[bool]
    """Whether `select` gives as fast a geometry; some pixels of a grid are no grid."""
    lossy: ClassVar[bool]
    """Whether a kernel may lose entries unseen, so that its errors have to be measured once more at the end."""
    plan_copies: ClassVar[float]
    """How many matrices (B, n, m) are held while the plan is written out."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the costs, (B, n, m)."""
        ...

    @property
    def forbidden(self) -> bool:
        """Whether any pair is forbidden (costs +inf)."""
        ...

    @property
    def mean(self) -> float:
        """Mean absolute value of the finite costs, over the whole batch."""
        ...

    @property
    def peak(self) -> float:
        """The largest finite cost."""
        ...

    @property
    def least(self) -> float:
        """The smallest of the costs."""
        ...

    @property
    def sparse_rows(self) -> RowGeometry | None:
        """The costs by rows, where sparse plans pay; else None."""
        ...

    @property
    def batch_pays(self) -> bool:
        """Whether the problems of a batch are solved faster together than one after the other."""
        ...

    def transposed(self) -> Geometry:
        """The same cost read from the columns' side."""
        ...

    def matrix(self) -> Tensor:
        """The costs, (B, n, m), for those who need them and have the memory."""
        ...

    def dense(self) -> Geometry:
        """The geometry whose plans are held as matrices in any case; those that are computed block by block stay so."""
        ...

    def parts(self) -> Iterator[tuple[slice, DenseGeometry]]:
        """Blocks of rows, with their costs as a matrix."""
        ...

    def only(self, k: int) -> Geometry:
        """Problem k of the batch, as a batch of one."""
        ...

    def select(self, rows: Tensor, cols: Tensor) -> Geometry:
        """The sub-problem on some rows and columns (masks or indices)."""
        ...

    def kernel(
        self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0, out: Tensor | None = None
    ) -> tuple[Kernel, Tensor, Tensor]:
        """The plan at g with exact rows, as a kernel; also its f (B, n) and its column sums (B, m).

        Args:
            g: Column potentials, (B, m), in units of the cost.
            epsilon: Regularisation, in units of the cost.
            a, b: Weights, (B, n) and (B, m), positive.
            damping: lambda of the row update (module docstring).
            out: Memory for the plan, reused from the last call, if any.
        """
        ...

    def measure(self, g: Tensor, epsilon: float, a: Tensor, b: Tensor, *, damping: float = 1.0) -> Measured:
        """The measures of the plan at g with exact rows; the plan itself is never held."""
        ...

    def marginals(self, f: Tensor, g: Tensor, epsilon: float, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """P 1 and P^T 1 of the plan at (f, g); shapes (B, n) and (B, m)."""
        ...

    def plan(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The plan at (f, g), dense, shape (B, n, m); exactly zero on forbidden pairs and where a weight is zero."""
        ...

    def product(self, f: Tensor, g: Tensor, epsilon: float | Tensor, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """P v for v of shape (B, m, k): the plan is never held. Returns (B, n, k)."""
        ...

    def c_transform(self, g: Tensor) -> Tensor:
        """f_i = min_j C_ij - g_j, the largest row potentials that g allows without regularisation; shape (B, n)."""
        ...

    def bilinear(self, x: Tensor, y: Tensor) -> Tensor:
        """sum_ij x_i C_ij y_j for x (B, n), y (B, m) non-negative; infinite where mass sits on a forbidden pair."""
        ...


def marginals_by_products(
    geometry: Geometry, f: Tensor, g: Tensor, epsilon: float, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """P 1 and P^T 1 of the plan at (f, g), (B, n) and (B, m), for geometries whose products are cheap."""
    rows = geometry.product(f, g, epsilon, a, b, torch.ones_like(g)[..., None])
    cols = geometry.transposed().product(g, f, epsilon, b, a, torch.ones_like(f)[..., None])
    return rows[..., 0], cols[..., 0]
