"""What transport costs: a matrix as it is, points with a ground cost, or a pixel grid.

name            c(x, y)                              unit
sqeuclidean     |x - y|^2                            length^2
euclidean       |x - y|                              length
manhattan       sum_k |x_k - y_k|                    length
cosine          1 - <x, y> / (|x| |y|)               1
a callable      (n, d), (m, d) -> (n, m)             its own
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pushforward._checks import (
    check_choice,
    check_exponent,
    check_grid_shape,
    check_points,
    check_positive,
    check_returned,
    check_same_device,
)
from pushforward.errors import ShapeError

__all__ = ["GridCost", "GroundCost", "PointCost", "pairwise_cost"]

Named = Literal["sqeuclidean", "euclidean", "manhattan", "cosine"]
GroundCost = Named | Callable[[Tensor, Tensor], Tensor]


def pairwise_cost(x: Tensor, y: Tensor, cost: GroundCost = "sqeuclidean") -> Tensor:
    """The matrix of costs between two sets of points, differentiable twice.

    Args:
        x, y: Points, (n, d) and (m, d).
        cost: One of the names in the module's table, or a callable that takes both sets and returns their (n, m) costs.

    Returns:
        (n, m) costs.

    Raises:
        InvalidArgument: `cost` is an unknown name.
        ShapeError: A callable returned another shape.

    Example:
        >>> pairwise_cost(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), "euclidean")
        tensor([[5.]])
    """
    if callable(cost):
        return check_returned("cost(x, y)", cost(x, y), (len(x), len(y)))
    check_choice("cost", cost, get_args(Named))
    if cost == "cosine":
        return 1.0 - torch.nn.functional.normalize(x, dim=-1) @ torch.nn.functional.normalize(y, dim=-1).T
    if cost == "sqeuclidean":
        # Centring first takes the cancellation out of |x|^2 + |y|^2 - 2 <x, y> for clouds far from the origin.
        centre = x.detach().mean(0)
        x, y = x - centre, y - centre
        squares = x.square().sum(-1)[:, None] + y.square().sum(-1)
        return torch.addmm(squares, x, y.T, alpha=-2.0).clamp_min(0.0)
    p = 2.0 if cost == "euclidean" else 1.0
    if not (x.requires_grad or y.requires_grad):
        return torch.cdist(x, y, p=p, compute_mode="donot_use_mm_for_euclid_dist")
    differences = x[:, None] - y[None]
    if cost == "manhattan":
        return differences.abs().sum(-1)
    squares = differences.square().sum(-1)
    apart = squares > 0  # the root has no derivative at 0; there we take 0, a subgradient
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


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
        """Both sets, checked, in computing precision."""
        x = check_points("x", self.x)
        y = check_points("y", self.y, x.device)
        check_same_device(("x", x), ("y", y))
        if x.shape[1] != y.shape[1]:
            raise ShapeError(f"x has points of dimension {x.shape[1]} but y of dimension {y.shape[1]}")
        return x, y

    def matrix(self) -> Tensor:
        """The (n, m) costs."""
        return pairwise_cost(*self.tensors(), self.cost)


@dataclass(frozen=True, slots=True)
class GridCost:
    """The cost between the pixels of one grid: scale * sum_k |i_k - j_k|^p, indices in pixels.

    Rows and columns are pixels in row-major order, so that an image's weights are `image.reshape(-1)`. Its plans are
    never
    held: a product takes N (s_1 + ... + s_d) operations for N pixels.

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
        """One (s_k, s_k) matrix an axis, whose sum over axes is the cost."""
        axes = (torch.arange(s, device=device, dtype=dtype) for s in self.shape)
        return tuple(self.scale * (i[:, None] - i).abs() ** self.p for i in axes)
