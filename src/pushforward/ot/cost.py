"""The costs of transport: a given matrix, points with a ground cost, or a pixel grid.

name            c(x, y)                              unit
sqeuclidean     |x - y|^2                            length^2
euclidean       |x - y|                              length
manhattan       sum_k |x_k - y_k|                    length
cosine          1 - <x, y> / (|x| |y|)               1
a callable      (n, d), (m, d) -> (n, m)             its own

With a graph, too, a named cost holds O(n m + (n + m) d) numbers and no (n, m, d) differences, in derivatives of any
order. For W the derivative of a loss in the costs,

    euclidean    d loss/d x_i = sum_j V_ij (x_i - y_j),   V = W/C
    manhattan    d loss/d x_ik = sum_j W_ij sign(x_ik - y_jk)

and the mirror image for y. At 0, where distances have no derivative, it is taken as 0, a subgradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from pushforward._checks import (
    check_exponent,
    check_grid_shape,
    check_pair,
    check_points,
    check_positive,
    check_returned,
    check_same_device,
)
from pushforward._typed import typed
from pushforward.errors import InvalidArgument, ShapeError

__all__ = ["GridCost", "GroundCost", "PointCost", "check_pair_by_pair", "pairwise_cost"]

# Numbers (n, m, d) up to which a caller's function with a graph is called once: 128 MB.
HELD_DIFFERENCES = 1 << 24

Named = Literal["sqeuclidean", "euclidean", "manhattan", "cosine"]
GroundCost = Named | Callable[[Tensor, Tensor], Tensor]


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
        >>> pairwise_cost(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), "euclidean")
        tensor([[5.]])
    """
    check_pair(x, y)
    if callable(cost):
        return _called(cost, x, y)
    if cost == "cosine":
        return 1.0 - torch.nn.functional.normalize(x, dim=-1) @ torch.nn.functional.normalize(y, dim=-1).T
    if cost == "sqeuclidean":
        # Centring first takes the cancellation out of |x|^2 + |y|^2 - 2 <x, y> for clouds far from the origin.
        centre = x.detach().mean(0)
        x, y = x - centre, y - centre
        squares = x.square().sum(-1)[:, None] + y.square().sum(-1)
        return torch.addmm(squares, x, y.T, alpha=-2.0).clamp_min(0.0)
    return cast(Tensor, _Euclidean.apply(x, y) if cost == "euclidean" else _Manhattan.apply(x, y))


class _Euclidean(torch.autograd.Function):
    """The distances |x_i - y_j|, (n, m)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        ctx.save_for_backward(x, y, distance)
        return distance

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor, Tensor]:
        x, y, distance = ctx.saved_tensors
        apart = distance > 0
        pull = torch.where(apart, bars[0] / torch.where(apart, distance, 1.0), 0.0)
        centre = x.detach().mean(0)  # x_i - y_j is a difference of two products here: far from 0 it would cancel
        x, y = x - centre, y - centre
        return pull.sum(1)[:, None] * x - pull @ y, pull.sum(0)[:, None] * y - pull.mT @ x


class _Manhattan(torch.autograd.Function):
    """The distances sum_k |x_ik - y_jk|, (n, m)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return torch.cdist(x, y, p=1.0)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        return _SignSums.apply(bars[0], *ctx.saved_tensors)


class _SignSums(torch.autograd.Function):
    """sum_j W_ij sign(x_ik - y_jk), (n, d), and -sum_i of the same, (m, d), one coordinate after the other."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, y)
        by_x, by_y = torch.empty_like(x), torch.empty_like(y)
        for k in range(x.shape[1]):
            signed = weight * _signs(x, y, k)
            by_x[:, k], by_y[:, k] = signed.sum(1), -signed.sum(0)
        return by_x, by_y

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:  # signs have no derivative of their own
        return _SignDifferences.apply(*bars, *ctx.saved_tensors), None, None


class _SignDifferences(torch.autograd.Function):
    """sum_k sign(x_ik - y_jk) (p_ik - q_jk), (n, m): the adjoint of `_SignSums`."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        total = p.new_zeros(len(x), len(y))
        for k in range(x.shape[1]):
            total.addcmul_(_signs(x, y, k), p[:, k, None] - q[:, k])
        return total

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        return *_SignSums.apply(bars[0], *ctx.saved_tensors), None, None


def _signs(x: Tensor, y: Tensor, k: int) -> Tensor:
    return (x[:, k, None] - y[:, k]).sign_()


def _called(cost: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """A caller's function between all pairs; where a graph would hold many (n, m, d) numbers, by blocks of rows."""
    wants_graph = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    many = len(x) * len(y) * x.shape[1] > HELD_DIFFERENCES
    # A function with parameters of its own needs autograd's graph: nothing else knows them.
    if not (wants_graph and many) or cost(x[:1].detach(), y[:1].detach()).requires_grad:
        return check_returned("cost(x, y)", cost(x, y), (len(x), len(y)))
    check_pair_by_pair(cost, x.detach(), y.detach())
    return cast(Tensor, _Blocks.apply(cost, x, y))


class _Blocks(torch.autograd.Function):
    """A caller's function, computed again block by block for its derivatives; second ones hold what autograd holds."""

    @staticmethod
    def forward(ctx: Any, cost: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        ctx.cost = cost
        ctx.save_for_backward(x, y)
        costs = x.new_empty(len(x), len(y))
        for i in _rows(x, y):
            costs[i] = check_returned("cost(x, y)", cost(x[i], y), (len(x[i]), len(y)))
        return costs

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        x, y = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives are asked for, which autograd finds on its own
            two = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in (x, y)]  # x may be y
            costs = ctx.cost(*two)
            return None, *torch.autograd.grad(costs, two, bars[0], create_graph=True, materialize_grads=True)
        # Written in place: results of their own would break up the memory that the blocks leave behind.
        by_x, by_y = torch.empty_like(x), torch.zeros_like(y)
        for i in _rows(x, y):
            some, every = (t.detach().requires_grad_() for t in (x[i], y))
            with torch.enable_grad():
                costs = ctx.cost(some, every)
            found = torch.autograd.grad(costs, (some, every), bars[0][i], materialize_grads=True)
            by_x[i] = found[0]
            by_y += found[1]
        return None, by_x, by_y


def _rows(x: Tensor, y: Tensor) -> list[slice]:
    """Blocks of rows with a sixteenth of `HELD_DIFFERENCES` each."""
    step = max(1, HELD_DIFFERENCES // (16 * y.numel()))
    return [slice(i, i + step) for i in range(0, len(x), step)]


def check_pair_by_pair(cost: GroundCost, x: Tensor, y: Tensor) -> None:
    """Raise where a cost function cannot be computed by blocks, as a cost depends on more than its two points.

    Raises:
        InvalidArgument: A pair of points has one cost among few points and another among more.
    """
    if not callable(cost):
        return
    with torch.no_grad():
        some, ends = x[:: max(1, len(x) // 8)], torch.tensor([0, len(y) - 1], device=y.device)
        many = check_returned("cost(x, y)", cost(some, y), (len(some), len(y)))[:, ends]
        few = torch.cat([check_returned("cost(x, y)", cost(one, y[ends]), (1, 2)) for one in some.split(1)])
    off = (many - few).abs().nan_to_num(nan=0.0)
    if bool((off > 1e-6 * many.abs().amax()).any()):
        i, j = divmod(int(off.argmax()), 2)
        raise InvalidArgument(
            f"cost gives {float(many[i, j]):.6g} for a pair of points among many and {float(few[i, j]):.6g} for the "
            "same pair alone; so many points go block by block, where a cost must depend on its two points alone: "
            "pass a matrix, or a function without means or maxima over all points"
        )


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
