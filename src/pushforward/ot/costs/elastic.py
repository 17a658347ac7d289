"""Elastic costs |z|^2 / 2 + gamma tau(z), whose maps have sparse displacements, or some that stay near a subspace.

class             tau(z)                      grad h(z)                 grad h*(w)
ElasticL1         |z|_1                       z + gamma sign z          w moved to 0 by gamma
ElasticKOverlap   |z|_(k)^2 / 2               z (1 + gamma/theta)       w theta / (theta + gamma)
ElasticSubspace   |(I - A A^T) z|^2 / 2       z + gamma (I - A A^T) z   w - gamma/(1+gamma) (I - A A^T) w

grad h* is the proximal map of gamma tau. |z|_(k) is the k-support norm, whose unit ball is the hull of vectors of
length 1 with at most k entries: L1 for k = 1, Euclidean for k = d. It is

    |z|_(k)^2 = min sum_i z_i^2 / theta_i   s.t.  0 <= theta_i <= 1, sum_i theta_i <= k.

Sources: Cuturi, Klein and Ablin 2023 (arXiv 2302.04065) for elastic costs and their maps; Klein et al. 2023 (arXiv
2306.11895) for the subspace; Argyriou, Foygel and Srebro 2012 (arXiv 1204.5043) for the k-support norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from pushforward._checks import check_count, check_finite, check_positive
from pushforward._interop import to_tensor
from pushforward._typed import typed_fields
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.ot.costs.displacements import TranslationCost
from pushforward.ot.costs.k_support import norm_level, prox_level
from pushforward.ot.costs.matrices import manhattan, sqeuclidean

__all__ = ["ElasticKOverlap", "ElasticL1", "ElasticSubspace"]


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
        return 0.5 * sqeuclidean(x, y) + self.gamma * manhattan(x, y)


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
        outside = sqeuclidean(self._outside(x), self._outside(y))
        return 0.5 * (sqeuclidean(x, y) + self.gamma * outside)

    def _outside(self, z: Tensor) -> Tensor:
        if z.shape[-1] != len(self.basis):
            raise ShapeError(f"points have dimension {z.shape[-1]} but the cost's basis has {len(self.basis)} rows")
        basis = self.basis.to(z)
        return z - (z @ basis) @ basis.T


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
