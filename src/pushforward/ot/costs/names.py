"""The names of costs, and what a caller means by one.

name            c(x, y)                              unit
sqeuclidean     |x - y|^2                            length^2
euclidean       |x - y|                              length
manhattan       sum_k |x_k - y_k|                    length
cosine          1 - <x, y> / (|x| |y|)               1
geodesic        the angle between x and y            radian
a cost          of `pushforward.ot.costs`            its own
a function      (n, d), (m, d) -> (n, m)             its own
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from pushforward._checks import check_choice
from pushforward._typed import typed
from pushforward.ot.costs.classes import CallableCost, Cosine, Euclidean, Geodesic, Manhattan, SquaredEuclidean
from pushforward.ot.costs.displacements import Cost
from pushforward.ot.costs.functions import from_function

__all__ = ["GroundCost", "Named", "pairwise_cost", "resolve"]

Named = Literal["sqeuclidean", "euclidean", "manhattan", "cosine", "geodesic"]
GroundCost = Named | Callable[[Tensor, Tensor], Tensor]

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


@typed
def pairwise_cost(x: Tensor, y: Tensor, cost: GroundCost = "sqeuclidean") -> Tensor:
    """The matrix of costs between two sets of points, differentiable twice.

    Args:
        x, y: Points, (n, d) and (m, d).
        cost: One of the names in the module's table, or a callable that takes both sets and returns their (n, m) costs.

    Returns:
        (n, m) costs.

    Raises:
        InvalidArgument: `cost` is an unknown name.
        ShapeError: The sets are no two sets of points of one dimension, or a callable returned another shape.

    Example:
        >>> import torch
        >>> pairwise_cost(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), "euclidean")
        tensor([[5.]])
    """
    if callable(cost):
        return from_function(cost, x, y)
    return _NAMED[check_choice("cost", cost, get_args(Named))](x, y)
