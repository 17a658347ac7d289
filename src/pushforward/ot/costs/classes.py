"""The costs of moving a point, as objects: a matrix between two sets, or one number for each pair without the matrix.

class             c(x, y), z = x - y                      grad h(z)                 grad h*(w)
SquaredEuclidean  |z|^2                                   2 z                       w / 2
Euclidean         |z|                                     z / |z|
Manhattan         |z|_1                                   sign z
PNorm             |z|_p                                   (|z| / |z|_p)^(p-1)
PowerCost         sum_k |z_k|^p / p                       z^(p-1)                   w^(1/(p-1))
Cosine            1 - <x, y> / (|x| |y|)
Geodesic          the angle between x and y
CallableCost      a function (n, d), (m, d) -> (n, m)

Powers are of magnitudes and keep the sign. Costs with z have the form h(x - y), h convex and even; a c-optimal map is
then T(x) = x - grad h*(F(x)), F the gradient of a c-concave potential, wherever each gradient of h belongs to one
displacement. Those of norms do not, and norms have no `conjugate_gradient`. Elastic costs are in `elastic.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pushforward._checks import check_positive
from pushforward._typed import typed_fields
from pushforward.errors import InvalidArgument
from pushforward.ot.costs.displacements import TranslationCost
from pushforward.ot.costs.functions import from_function
from pushforward.ot.costs.matrices import cosine, euclidean, manhattan, sqeuclidean

__all__ = [
    "CallableCost",
    "Cosine",
    "Euclidean",
    "Geodesic",
    "Manhattan",
    "PNorm",
    "PowerCost",
    "SquaredEuclidean",
]

# A function that only gives matrices is asked for n of them, this wide, to read n diagonal entries.
DIAGONAL_BLOCK = 32


@dataclass(frozen=True)
class SquaredEuclidean(TranslationCost):
    """|x - y|^2, in units of length^2.

    Example:
        >>> SquaredEuclidean().paired(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([25.])
    """

    def h(self, z: Tensor) -> Tensor:
        """The squared lengths |z|^2 of the displacements."""
        return z.square().sum(-1)

    def gradient(self, z: Tensor) -> Tensor:
        """The gradient 2 z of h, like z."""
        return 2.0 * z

    def conjugate_gradient(self, w: Tensor) -> Tensor:
        """The gradient of h* = |w|^2 / 4.

        Args:
            w: Values of grad h, (..., d).

        Returns:
            w / 2, (..., d).
        """
        return 0.5 * w

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, (n, m)."""
        return sqeuclidean(x, y)


@dataclass(frozen=True)
class Euclidean(TranslationCost):
    """|x - y|, in units of length."""

    def h(self, z: Tensor) -> Tensor:
        """The lengths |z| of the displacements."""
        return torch.linalg.vector_norm(z, dim=-1)

    def gradient(self, z: Tensor) -> Tensor:
        """The directions z / |z|; 0 at 0."""
        size = self.h(z)[..., None]
        return z / torch.where(size > 0, size, 1.0)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances between all pairs, (n, m)."""
        return euclidean(x, y)


@dataclass(frozen=True)
class Manhattan(TranslationCost):
    """sum_k |x_k - y_k|, in units of length."""

    def h(self, z: Tensor) -> Tensor:
        """The sums of |z_k| over the coordinates."""
        return z.abs().sum(-1)

    def gradient(self, z: Tensor) -> Tensor:
        """The signs of z; 0 at 0."""
        return z.sign()

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances between all pairs, (n, m)."""
        return manhattan(x, y)


@dataclass(frozen=True, kw_only=True)
class PNorm(TranslationCost):
    """|x - y|_p = (sum_k |x_k - y_k|^p)^(1/p), in units of length.

    Args:
        p: At least 1.

    Raises:
        InvalidArgument: `p` is below 1 or not finite.
    """

    p: float

    def __post_init__(self) -> None:
        if check_positive("p", self.p) < 1:
            raise InvalidArgument(f"p must be at least 1, where |z|_p is a norm; got {self.p}")

    def h(self, z: Tensor) -> Tensor:
        """The norms |z|_p of the displacements."""
        return torch.linalg.vector_norm(z, self.p, dim=-1)

    def gradient(self, z: Tensor) -> Tensor:
        """(|z_k| / |z|_p)^(p-1) with the sign of z_k; 0 at 0."""
        size = self.h(z)[..., None]
        return _signed_power(z / torch.where(size > 0, size, 1.0), self.p - 1.0)

    def _pairs(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, p=self.p, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True, kw_only=True)
class PowerCost(TranslationCost):
    """sum_k |x_k - y_k|^p / p, in units of length^p; p = 2 is half the squared Euclidean cost.

    Args:
        p: Above 1.

    Raises:
        InvalidArgument: `p` is not above 1, or not finite.

    Example:
        >>> PowerCost(p=3.0).conjugate_gradient(torch.tensor([[4.0, -9.0]]))
        tensor([[ 2., -3.]])
    """

    p: float

    def __post_init__(self) -> None:
        if check_positive("p", self.p) <= 1:
            raise InvalidArgument(f"p must be above 1; got {self.p}. Manhattan() is the cost with p = 1")

    def h(self, z: Tensor) -> Tensor:
        """The sums of |z_k|^p, over p."""
        return (z * self.gradient(z)).sum(-1) / self.p

    def gradient(self, z: Tensor) -> Tensor:
        """|z_k|^(p-1) with the sign of z_k."""
        return _signed_power(z, self.p - 1.0)

    def conjugate_gradient(self, w: Tensor) -> Tensor:
        """The gradient of h*.

        Args:
            w: Values of grad h, (..., d).

        Returns:
            |w_k|^(1/(p-1)) with the sign of w_k, (..., d).
        """
        return _signed_power(w, 1.0 / (self.p - 1.0))

    def _pairs(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cdist(x, y, p=self.p, compute_mode="donot_use_mm_for_euclid_dist") ** self.p / self.p


@dataclass(frozen=True)
class Cosine:
    """1 - <x, y> / (|x| |y|), without unit, from 0 to 2; a zero vector costs 1 to everywhere."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, (n, m)."""
        return cosine(x, y)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs of the pairs (x_i, y_i).

        Args:
            x, y: Points, (n, d) each.

        Returns:
            (n,), from 0 to 2.
        """
        return 1.0 - (normalize(x, dim=-1) * normalize(y, dim=-1)).sum(-1)


@dataclass(frozen=True)
class Geodesic:
    """The angle between x and y in radians, from 0 to pi: the length of the shortest way on the unit sphere.

    Points off the sphere count as their directions. The angle is 2 atan2(|u - v|, |u + v|) of the unit vectors: the
    arc cosine of <u, v> loses half the digits near 0 and pi, where its derivative is infinite. At 0 and pi, where there
    is none, it is taken as 0.

    Example:
        >>> Geodesic().paired(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]))
        tensor([1.5708])
    """

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, (n, m)."""
        u, v = normalize(x, dim=-1), normalize(y, dim=-1)
        return 2.0 * torch.atan2(euclidean(u, v), euclidean(u, -v))

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """The angles between the pairs (x_i, y_i).

        Args:
            x, y: Points, (n, d) each.

        Returns:
            (n,), in radians.
        """
        u, v = normalize(x, dim=-1), normalize(y, dim=-1)
        lengths = (torch.linalg.vector_norm(w, dim=-1) for w in (u - v, u + v))
        return 2.0 * torch.atan2(*lengths)


@typed_fields
@dataclass(frozen=True)
class CallableCost:
    """A function of two sets of points as a cost.

    Args:
        function: (n, d), (m, d) -> (n, m), differentiable, each entry from its two points alone.
    """

    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, (n, m)."""
        return from_function(self.function, x, y)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs of the pairs (x_i, y_i), from the diagonals of small blocks.

        Args:
            x, y: Points, (n, d) each.

        Returns:
            (n,), in the function's unit.
        """
        blocks = zip(x.split(DIAGONAL_BLOCK), y.split(DIAGONAL_BLOCK), strict=True)
        return torch.cat([self(some_x, some_y).diagonal() for some_x, some_y in blocks])


def _signed_power(z: Tensor, power: float) -> Tensor:
    """|z|^power with the sign of z; at 0 with its derivative there, or 0 where that is infinite."""
    apart = z != 0
    return z * torch.where(apart, torch.where(apart, z, 1.0).abs() ** (power - 1.0), 1.0 if power == 1 else 0.0)
