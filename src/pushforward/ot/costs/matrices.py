"""The matrices of the costs that have a name, differentiable twice.

With a graph, too, each holds O(n m + (n + m) d) numbers and no (n, m, d) differences, in derivatives of any order. For
W the derivative of a loss in the costs,

    euclidean    d loss/d x_i = sum_j V_ij (x_i - y_j),   V = W/C
    manhattan    d loss/d x_ik = sum_j W_ij sign(x_ik - y_jk)

and the mirror image for y. At 0, where distances have no derivative, it is taken as 0, a subgradient.

symbol    meaning                 shape
x, y      two sets of points      (n, d), (m, d)
C, W      costs, and derivative   (n, m)
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pushforward._checks import check_pair
from pushforward._typed import typed

__all__ = ["cosine", "euclidean", "manhattan", "sqeuclidean"]


@typed
def sqeuclidean(x: Tensor, y: Tensor) -> Tensor:
    """The squares |x_i - y_j|^2, (n, m)."""
    check_pair(x, y)
    # Centring first takes the cancellation out of |x|^2 + |y|^2 - 2 <x, y> for clouds far from the origin.
    centre = x.detach().mean(0)
    x, y = x - centre, y - centre
    squares = x.square().sum(-1)[:, None] + y.square().sum(-1)
    return torch.addmm(squares, x, y.T, alpha=-2.0).clamp_min(0.0)


@typed
def euclidean(x: Tensor, y: Tensor) -> Tensor:
    """The distances |x_i - y_j|, (n, m)."""
    check_pair(x, y)
    return cast(Tensor, _Euclidean.apply(x, y))


@typed
def manhattan(x: Tensor, y: Tensor) -> Tensor:
    """The distances sum_k |x_ik - y_jk|, (n, m)."""
    check_pair(x, y)
    return cast(Tensor, _Manhattan.apply(x, y))


@typed
def cosine(x: Tensor, y: Tensor) -> Tensor:
    """1 - <x_i, y_j> / (|x_i| |y_j|), (n, m)."""
    check_pair(x, y)
    return 1.0 - normalize(x, dim=-1) @ normalize(y, dim=-1).T


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
