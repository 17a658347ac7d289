"""What a cost is, and the costs of displacements: c(x, y) = h(x - y).

symbol    meaning                                       shape
x, y      two sets of points                            (n, d), (m, d)
z         displacements                                 (..., d)
h         the cost of a displacement, convex and even   (...,)

The derivatives of the matrix h(x_i - y_j) come from grad h: with G the derivative of a loss in the matrix,

    d loss / d x_i = sum_j G_ij grad h(x_i - y_j),     d loss / d y_j = -sum_i G_ij grad h(x_i - y_j),

in blocks of rows, so that the (n, m, d) displacements are never held together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from pushforward._checks import check_pair
from pushforward._typed import typed

__all__ = ["Cost", "StructuredCost", "TranslationCost"]

# Numbers that a block of rows of displacements x_i - y_j may hold: 2 MB in float64, which caches keep.
BLOCK = 2**18


@runtime_checkable
class Cost(Protocol):
    """What every cost does; `pushforward.ot` takes it wherever it takes a function."""

    def __call__(self, x: Tensor, y: Tensor, /) -> Tensor:
        """The costs c(x_i, y_j) between two sets of points (n, d) and (m, d), as (n, m); differentiable."""
        ...

    def paired(self, x: Tensor, y: Tensor, /) -> Tensor:
        """The costs c(x_i, y_i), without the matrix of all pairs.

        Args:
            x, y: Points, (n, d) each.

        Returns:
            (n,), differentiable.
        """
        ...


@runtime_checkable
class StructuredCost(Cost, Protocol):
    """A cost h(x - y) whose maps can be written T(x) = x - grad h*(F(x)); `isinstance` checks for the methods."""

    def h(self, z: Tensor, /) -> Tensor:
        """The cost of displacements.

        Args:
            z: Displacements x - y, (..., d).

        Returns:
            (...,).
        """
        ...

    def gradient(self, z: Tensor, /) -> Tensor:
        """The gradient of h.

        Args:
            z: Displacements x - y, (..., d).

        Returns:
            grad h(z), (..., d).
        """
        ...

    def conjugate_gradient(self, w: Tensor, /) -> Tensor:
        """The inverse of grad h, which is the gradient of the conjugate h*.

        Args:
            w: Values of grad h, (..., d).

        Returns:
            grad h*(w), (..., d).
        """
        ...


class TranslationCost(ABC):
    """A cost of the displacement alone, c(x, y) = h(x - y)."""

    @abstractmethod
    def h(self, z: Tensor) -> Tensor:
        """The cost of displacements.

        Args:
            z: Displacements x - y, (..., d).

        Returns:
            (...,).
        """

    @abstractmethod
    def gradient(self, z: Tensor) -> Tensor:
        """The gradient of h; where h has a kink, the subgradient nearest to 0.

        Args:
            z: Displacements x - y, (..., d).

        Returns:
            grad h(z), (..., d).
        """

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs h(x_i - y_i), without the matrix of all pairs.

        Args:
            x, y: Points, (n, d) each.

        Returns:
            (n,), differentiable.
        """
        return self.h(x - y)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, (n, m)."""
        return cast(Tensor, _AllPairs.apply(self, x, y))

    @typed
    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """The costs between all pairs, where no derivative is needed.

        Args:
            x, y: Points, (n, d) and (m, d).

        Returns:
            (n, m).

        Raises:
            ShapeError: x and y are no two sets of points of one dimension.
        """
        check_pair(x, y)
        return self._pairs(x, y)

    def _pairs(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([self.h(some[:, None] - y) for some in x.split(_rows(y))])

    def pull_back(self, weight: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of sum_ij weight_ij h(x_i - y_j) in x and y, themselves differentiable.

        Args:
            weight: (n, m).
            x, y: Points, (n, d) and (m, d).

        Returns:
            (n, d) and (m, d).
        """
        by_x, by_y = list[Tensor](), torch.zeros_like(y)
        for some, w in zip(x.split(_rows(y)), weight.split(_rows(y)), strict=True):
            gradient = self.gradient(some[:, None] - y)
            by_x.append(torch.einsum("ij,ijk->ik", w, gradient))
            by_y = by_y - torch.einsum("ij,ijk->jk", w, gradient)
        return torch.cat(by_x), by_y


class _AllPairs(torch.autograd.Function):
    """The matrix of a cost h(x - y). Its derivatives come from grad h, so that (n, m, d) numbers are never kept."""

    @staticmethod
    def forward(ctx: Any, cost: TranslationCost, x: Tensor, y: Tensor) -> Tensor:
        ctx.cost = cost
        ctx.save_for_backward(x, y)
        return cost.matrix(x.detach(), y.detach())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, Tensor]:
        return None, *ctx.cost.pull_back(grad_outputs[0], *ctx.saved_tensors)


def _rows(y: Tensor) -> int:
    """The number of points whose displacements from all of y (m, d) make up a block."""
    return max(1, BLOCK // max(1, y.numel()))
