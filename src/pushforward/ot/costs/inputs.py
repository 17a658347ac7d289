"""What `solve` takes in place of a matrix: two sets of points with a ground cost, or a pixel grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pushforward._checks import check_exponent, check_grid_shape, check_points, check_positive, check_same_device
from pushforward.errors import ShapeError
from pushforward.ot.costs.names import GroundCost, pairwise_cost

__all__ = ["GridCost", "PointCost"]


@dataclass(frozen=True, slots=True)
class PointCost:
    """The cost between two sets of points.

    Args:
        x, y: Points, (n, d) and (m, d): tensors or arrays.
        cost: A name of the module's table, or a callable (n, d), (m, d) -> (n, m).

    Example:
        >>> import pushforward as pf
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> round(float(pf.solve(pf.PointCost(x, x + 2), epsilon=0.01).transport_cost), 6)
        4.0
    """

    x: Any
    y: Any
    cost: GroundCost = "sqeuclidean"

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Both sets of points, checked, in computing precision, (n, d) and (m, d)."""
        x = check_points("x", self.x)
        y = check_points("y", self.y, x.device)
        check_same_device(("x", x), ("y", y))
        if x.shape[1] != y.shape[1]:
            raise ShapeError(f"x has points of dimension {x.shape[1]} but y of dimension {y.shape[1]}")
        return x, y

    def matrix(self) -> Tensor:
        """The costs between all pairs of points, (n, m)."""
        return pairwise_cost(*self.tensors(), self.cost)


@dataclass(frozen=True, slots=True)
class GridCost:
    """The cost between the pixels of one grid: scale * sum_k |i_k - j_k|^p, indices in pixels.

    Rows and columns are pixels in row-major order, so that an image's weights are `image.reshape(-1)`. Its plans are
    never held: a product takes N (s_1 + ... + s_d) operations for N pixels.

    Args:
        shape: Pixels along each axis, (s_1, ..., s_d).
        p: 1 for l1 distances, 2 for squared l2 distances.
        scale: Cost of one pixel's step; (1/s)^p for a grid of side s on the unit square.

    Example:
        >>> import pushforward as pf
        >>> a, b = torch.zeros(9, dtype=torch.float64), torch.zeros(9, dtype=torch.float64)
        >>> a[0] = b[8] = 1.0  # from one corner of 3 x 3 pixels to the other
        >>> float(pf.solve(pf.GridCost((3, 3), p=1), a, b, epsilon=0.1).transport_cost)
        4.0
    """

    shape: tuple[int, ...]
    p: Literal[1, 2] = 2
    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_grid_shape("shape", self.shape))
        check_exponent("p", self.p)
        object.__setattr__(self, "scale", check_positive("scale", self.scale))

    def axis_costs(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The costs along each axis, whose sum over axes is the cost.

        Args:
            device, dtype: Those of the result.

        Returns:
            One matrix (s_k, s_k) for each axis.
        """
        axes = (torch.arange(s, device=device, dtype=dtype) for s in self.shape)
        return tuple(self.scale * (i[:, None] - i).abs() ** self.p for i in axes)
