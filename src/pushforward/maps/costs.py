"""The costs of moving a point, as objects: a matrix between two sets, or one number for each pair without the matrix.

class             c(x, y), z = x - y                      grad h(z)                 grad h*(w)
SquaredEuclidean  |z|^2                                   2 z                       w / 2
Euclidean         |z|                                     z / |z|
Manhattan         |z|_1                                   sign z
PNorm             |z|_p                                   (|z| / |z|_p)^(p-1)
PowerCost         sum_k |z_k|^p / p                       z^(p-1)                   w^(1/(p-1))
ElasticL1         |z|^2 / 2 + gamma |z|_1                 z + gamma sign z          w moved to 0 by gamma
ElasticKOverlap   |z|^2 / 2 + gamma/2 |z|_(k)^2           z (1 + gamma/theta)       w theta / (theta + gamma)
ElasticSubspace   |z|^2 / 2 + gamma/2 |(I - A A^T) z|^2   z + gamma (I - A A^T) z   w - gamma/(1+gamma) (I - A A^T) w
Cosine            1 - <x, y> / (|x| |y|)
Geodesic          the angle between x and y
CallableCost      a function (n, d), (m, d) -> (n, m)

Powers are of magnitudes and keep the sign. Costs with z have the form h(x - y), h convex and even; a c-optimal map is
then T(x) = x - grad h*(F(x)), F the gradient of a c-concave potential, wherever each gradient of h belongs to one
displacement. Those of norms do not, and norms have no `conjugate_gradient`. For h = |z|^2 / 2 + gamma tau(z), grad h*
is the proximal map of gamma tau: displacements are sparse (L1, k-overlap), or stay near a subspace. |z|_(k) is the
k-support norm, whose unit ball is the hull of vectors of length 1 with at most k entries: L1 for k = 1, Euclidean for
k = d. It is

    |z|_(k)^2 = min sum_i z_i^2 / theta_i   s.t.  0 <= theta_i <= 1, sum_i theta_i <= k.

Sources: Cuturi, Klein and Ablin 2023 (arXiv 2302.04065) for elastic costs and their maps; Klein et al. 2023 (arXiv
2306.11895) for the subspace; Argyriou, Foygel and Srebro 2012 (arXiv 1204.5043) for the k-support norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, softshrink

from pushforward._checks import check_choice, check_count, check_finite, check_positive
from pushforward._interop import to_tensor
from pushforward._typed import typed_fields
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.maps.k_support import norm_level, prox_level
from pushforward.maps.translation import Cost, StructuredCost, TranslationCost
from pushforward.ot.cost import pairwise_cost

__all__ = [
    "CallableCost",
    "Cosine",
    "Cost",
    "ElasticKOverlap",
    "ElasticL1",
    "ElasticSubspace",
    "Euclidean",
    "Geodesic",
    "Manhattan",
    "PNorm",
    "PowerCost",
    "SquaredEuclidean",
    "StructuredCost",
    "TranslationCost",
    "resolve",
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
        """The squares |z|^2."""
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
        return pairwise_cost(x, y, "sqeuclidean")


@dataclass(frozen=True)
class Euclidean(TranslationCost):
    """|x - y|, in units of length."""

    def h(self, z: Tensor) -> Tensor:
        """The lengths |z|."""
        return torch.linalg.vector_norm(z, dim=-1)

    def gradient(self, z: Tensor) -> Tensor:
        """The directions z / |z|; 0 at 0."""
        size = self.h(z)[..., None]
        return z / torch.where(size > 0, size, 1.0)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances between all pairs, (n, m)."""
        return pairwise_cost(x, y, "euclidean")


@dataclass(frozen=True)
class Manhattan(TranslationCost):
    """sum_k |x_k - y_k|, in units of length."""

    def h(self, z: Tensor) -> Tensor:
        """The sums of |z_k|."""
        return z.abs().sum(-1)

    def gradient(self, z: Tensor) -> Tensor:
        """The signs of z; 0 at 0."""
        return z.sign()

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances between all pairs, (n, m)."""
        return pairwise_cost(x, y, "manhattan")


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
        """The norms |z|_p."""
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


@dataclass(frozen=True, kw_only=True)
class ElasticL1(TranslationCost):
    """|z|^2 / 2 + gamma |z|_1: displacements whose entries are exactly 0 where little would be gained.

    Args:
        gamma: Positive, in units of length: entries of grad h*(w) are 0 where |w_k| is below it.

    Example:
        >>> ElasticL1(gamma=1.0).conjugate_gradient(torch.tensor([[3.0, 0.5]]))
        tensor([[2., 0.]])
    """

    gamma: float

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)

    def h(self, z: Tensor) -> Tensor:
        """|z|^2 / 2 + gamma |z|_1."""
        return 0.5 * z.square().sum(-1) + self.gamma * z.abs().sum(-1)

    def gradient(self, z: Tensor) -> Tensor:
        """The sum z + gamma sign z."""
        return z + self.gamma * z.sign()

    def conjugate_gradient(self, w: Tensor) -> Tensor:
        """The gradient of h*.

        Args:
            w: Values of grad h, (..., d).

        Returns:
            Each entry of w moved towards 0 by gamma, (..., d).
        """
        return softshrink(w, self.gamma)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, (n, m)."""
        return 0.5 * pairwise_cost(x, y, "sqeuclidean") + self.gamma * Manhattan()(x, y)


@dataclass(frozen=True, kw_only=True)
class ElasticKOverlap(TranslationCost):
    """|z|^2 / 2 + gamma/2 |z|_(k)^2: displacements of about k entries, which do not shrink as those of L1 do.

    |z|_(k)^2 = sum_i |z_i| max(|z_i|, r), r the level above which an entry counts in full (`k_support.py`).

    Args:
        gamma: Positive, without unit.
        k: Entries that a displacement may have at the price of its length.

    Example:
        >>> ElasticKOverlap(gamma=1.0, k=1).conjugate_gradient(torch.tensor([[3.0, 0.5]]))
        tensor([[1.5000, 0.0000]])
    """

    gamma: float
    k: int

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)
        check_count("k", self.k)

    def h(self, z: Tensor) -> Tensor:
        """|z|^2 / 2 + gamma/2 |z|_(k)^2: half of <z, grad h>, as it is homogeneous of degree 2."""
        return 0.5 * (z * self.gradient(z)).sum(-1)

    def gradient(self, z: Tensor) -> Tensor:
        """The sum z + gamma sign(z) max(|z|, r)."""
        size = z.abs()
        return z + self.gamma * z.sign() * torch.maximum(size, norm_level(size, self.k))

    def conjugate_gradient(self, w: Tensor) -> Tensor:
        """The gradient of h*, which is the proximal map of gamma/2 |.|_(k)^2.

        Args:
            w: Values of grad h, (..., d).

        Returns:
            grad h*(w), (..., d).
        """
        size = w.abs()
        shared = size - self.gamma * prox_level(size, self.k, self.gamma)
        return w.sign() * torch.minimum(shared, size / (1.0 + self.gamma)).clamp_min(0.0)


@typed_fields
@dataclass(frozen=True, kw_only=True, eq=False)  # tensors have no one truth value for == to give
class ElasticSubspace(TranslationCost):
    """|z|^2 / 2 + gamma/2 |(I - A A^T) z|^2: displacements that stay near a subspace.

    Args:
        gamma: Positive, without unit: displacements out of the subspace are shortened by 1 + gamma.
        basis: (d, k) linearly independent columns that span the subspace; kept as orthonormal columns, A.

    Raises:
        InvalidArgument: `basis` is no (d, k) matrix of rank k.

    Example:
        >>> cost = ElasticSubspace(gamma=3.0, basis=torch.tensor([[1.0], [0.0]]))
        >>> cost.conjugate_gradient(torch.tensor([[4.0, 4.0]]))
        tensor([[4., 1.]])
    """

    gamma: float
    basis: Tensor

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)
        object.__setattr__(self, "basis", _orthonormal(self.basis))

    def h(self, z: Tensor) -> Tensor:
        """|z|^2 / 2 + gamma/2 |(I - A A^T) z|^2."""
        return 0.5 * z.square().sum(-1) + 0.5 * self.gamma * self._outside(z).square().sum(-1)

    def gradient(self, z: Tensor) -> Tensor:
        """The sum z + gamma (I - A A^T) z."""
        return z + self.gamma * self._outside(z)

    def conjugate_gradient(self, w: Tensor) -> Tensor:
        """The gradient of h*.

        Args:
            w: Values of grad h, (..., d).

        Returns:
            w - gamma/(1+gamma) (I - A A^T) w, (..., d).
        """
        return w - self.gamma / (1.0 + self.gamma) * self._outside(w)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, (n, m)."""
        outside = pairwise_cost(self._outside(x), self._outside(y), "sqeuclidean")
        return 0.5 * (pairwise_cost(x, y, "sqeuclidean") + self.gamma * outside)

    def _outside(self, z: Tensor) -> Tensor:
        if z.shape[-1] != len(self.basis):
            raise ShapeError(f"points have dimension {z.shape[-1]} but the cost's basis has {len(self.basis)} rows")
        basis = self.basis.to(z)
        return z - (z @ basis) @ basis.T


@dataclass(frozen=True)
class Cosine:
    """1 - <x, y> / (|x| |y|), without unit, from 0 to 2; a zero vector costs 1 to everywhere."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, (n, m)."""
        return pairwise_cost(x, y, "cosine")

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
        return 2.0 * torch.atan2(Euclidean()(u, v), Euclidean()(u, -v))

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
        return pairwise_cost(x, y, self.function)

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs of the pairs (x_i, y_i), from the diagonals of small blocks.

        Args:
            x, y: Points, (n, d) each.

        Returns:
            (n,), in the function's unit.
        """
        blocks = zip(x.split(DIAGONAL_BLOCK), y.split(DIAGONAL_BLOCK), strict=True)
        return torch.cat([self(some_x, some_y).diagonal() for some_x, some_y in blocks])


_NAMED: dict[str, Cost] = {
    "sqeuclidean": SquaredEuclidean(),
    "euclidean": Euclidean(),
    "manhattan": Manhattan(),
    "cosine": Cosine(),
    "geodesic": Geodesic(),
}


def resolve(cost: str | Cost | Callable[[Tensor, Tensor], Tensor]) -> Cost:
    """The cost object for a name, a cost or a function.

    Args:
        cost: "sqeuclidean", "euclidean", "manhattan", "cosine" or "geodesic"; a cost of this module, or any object with
            its two methods; or a function (n, d), (m, d) -> (n, m).

    Returns:
        The cost.

    Raises:
        InvalidArgument: It is none of these.

    Example:
        >>> resolve("euclidean")
        Euclidean()
    """
    if isinstance(cost, Cost) and not isinstance(cost, type):
        return cost
    if callable(cost) and not isinstance(cost, type):
        return CallableCost(cost)
    return _NAMED[check_choice("cost", cost, tuple(_NAMED))]


def _signed_power(z: Tensor, power: float) -> Tensor:
    """|z|^power with the sign of z; at 0 with its derivative there, or 0 where that is infinite."""
    apart = z != 0
    return z * torch.where(apart, torch.where(apart, z, 1.0).abs() ** (power - 1.0), 1.0 if power == 1 else 0.0)


def _orthonormal(value: Any) -> Tensor:
    given = to_tensor("basis", value)
    if given.ndim != 2 or not 0 < given.shape[1] <= given.shape[0]:
        raise ShapeError(f"basis has shape {tuple(given.shape)}; (d, k) is needed: k columns that span the subspace")
    basis, triangle = torch.linalg.qr(check_finite("basis", given.detach().double()))
    scale = triangle.diagonal().abs()
    if bool((scale <= 1e-10 * scale.max()).any()):
        raise InvalidArgument(
            f"basis has {given.shape[1]} columns that are linearly dependent; drop those that others span"
        )
    return basis
