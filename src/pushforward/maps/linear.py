"""The best linear map: optimal transport between the Gaussians with the two samples' means and covariances.

    T(x) = m_y + A (x - m_x),   A = S_x^(-1/2) (S_x^(1/2) S_y S_x^(1/2))^(1/2) S_x^(-1/2)

symbol      meaning                                    shape
m_x, m_y    means of source and target                 (d,)
S_x, S_y    covariances, shrunk (below)                (d, d)
A           symmetric, positive: T is a gradient       (d, d)

A covariance S from n points is replaced by (1 - s) S + s tr(S)/d I. With the s that Ledoit and Wolf chose (zero in the
limit of many points), fewer points than dimensions and constant coordinates are no trouble. Where s = 0 the inverse
is a pseudo-inverse, and what T does across the source's own subspace is to send it to m_y.

Sources: Dowson and Landau 1982, Takatsu 2011 for the map; Ledoit and Wolf 2004, "A well-conditioned estimator for
large-dimensional covariance matrices", for s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pushforward._checks import check_points, check_same_device
from pushforward._typed import typed
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.maps.base import TransportMap

__all__ = ["Affine", "LinearMap", "bures_map"]

Shrinkage = float | Literal["auto"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Affine:
    """The affine map x -> A x + shift of the rows of an array.

    Args:
        matrix: A, (d, d).
        shift: (d,).
    """

    matrix: Tensor
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The mapped points, for points (n, d), in their dtype."""
        return x @ self.matrix.T.to(x) + self.shift.to(x)


@typed
def bures_map(x: Any, y: Any, *, shrinkage: Shrinkage = "auto") -> Affine:
    """The map of the module's equation between two samples, computed in float64.

    Args:
        x, y: Points, (n, d) and (m, d), at least two of each: tensors or arrays.
        shrinkage: s of both covariances, in [0, 1]; "auto" is Ledoit and Wolf's, one for each.

    Returns:
        The map, in float64 on the points' device.

    Example:
        >>> x = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
        >>> bures_map(x, 3 * x + 1).matrix.round(decimals=6).tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """
    check_shrinkage(shrinkage)
    x, y = check_points("x", x).double(), check_points("y", y).double()
    if x.shape[1] != y.shape[1]:
        raise ShapeError(f"x has points of dimension {x.shape[1]} but y of dimension {y.shape[1]}")
    check_same_device(("x", x), ("y", y))
    mean_x, mean_y = x.mean(0), y.mean(0)
    cov_x, cov_y = (_covariance(points, shrinkage) for points in (x - mean_x, y - mean_y))
    values, axes = torch.linalg.eigh(cov_x)
    # Below this an eigenvalue is rounding, and its inverse would be noise.
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    roots = torch.where(kept, values, 0.0).sqrt()
    inverse_roots = torch.where(kept, values, 1.0).rsqrt() * kept
    # In the axes of S_x the square roots are diagonal.
    middle = _root(roots[:, None] * (axes.T @ cov_y @ axes) * roots)
    matrix = axes @ (inverse_roots[:, None] * middle * inverse_roots) @ axes.T
    matrix = 0.5 * (matrix + matrix.T)
    return Affine(matrix=matrix, shift=mean_y - matrix @ mean_x)


def check_shrinkage(value: Any) -> None:
    """Raise unless a shrinkage is "auto" or a number from 0 to 1.

    Raises:
        InvalidArgument: It is neither.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (value == "auto" if isinstance(value, str) else number and 0 <= value <= 1):
        raise InvalidArgument(f"shrinkage must be 'auto' or a number from 0 to 1, got {value!r}")


def _covariance(centred: Tensor, shrinkage: Shrinkage) -> Tensor:
    n, d = centred.shape
    sample = centred.T @ centred / n
    size = sample.diagonal().mean()
    target = size * torch.eye(d, dtype=sample.dtype, device=sample.device)
    if shrinkage == "auto":
        apart = (sample - target).square().sum()
        noise = (centred.square().sum(1).square().mean() - sample.square().sum()) / n
        # Sample and target agree exactly in one dimension, and for a single repeated point: nothing to mix.
        share = float((noise / apart).clamp(0.0, 1.0)) if apart > 0 else 0.0
    else:
        share = float(shrinkage)
    return torch.lerp(sample, target, share)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix."""
    values, axes = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    return (axes * values.clamp_min(0.0).sqrt()) @ axes.T


class LinearMap(TransportMap):
    """The best linear map (module docstring), for the squared Euclidean cost.

    Args:
        shrinkage: Share of each covariance that is replaced by a multiple of the identity, in [0, 1]; "auto" is
            Ledoit and Wolf's.

    Attributes:
        affine_: The map, an `Affine` in float64.

    Example:
        >>> import numpy as np
        >>> x = np.array([[-1.0], [1.0]])
        >>> LinearMap().fit(x, 3 * x + 1).transform(np.array([[2.0]]))
        array([[7.]])
    """

    affine_: Affine

    def __init__(self, shrinkage: Shrinkage = "auto") -> None:
        self.shrinkage: Shrinkage = shrinkage

    def _fit(self, x: Tensor, y: Tensor) -> None:
        self.affine_ = bures_map(x, y, shrinkage=self.shrinkage)

    def _transform(self, x: Tensor) -> Tensor:
        return self.affine_(x.to(torch.float64))  # far from the origin A x and the shift cancel

    def _state(self) -> dict[str, Any]:
        return {"matrix": self.affine_.matrix, "shift": self.affine_.shift}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.affine_ = Affine(matrix=state["matrix"], shift=state["shift"])
