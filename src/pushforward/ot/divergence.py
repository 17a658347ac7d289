"""The Sinkhorn divergence between point clouds: optimal transport with its entropic bias taken out.

    S(x, y) = OT(x, y) - OT(x, x)/2 - OT(y, y)/2,     OT the regularised optimum of `solve`

S >= 0 with S = 0 only for equal measures, for the costs of this library's first three names. The two terms within a
measure have one potential each and are found by a method of their own (`solvers/symmetric.py`). Source: Feydy et al.
2019 (arXiv 1810.08278).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pushforward._checks import check_choice, check_positive
from pushforward._interop import like_input, result_dtype, to_tensor
from pushforward.errors import ShapeError
from pushforward.ot.cost import GroundCost, PointCost, pairwise_cost
from pushforward.ot.history import Recorder
from pushforward.ot.solution import Solution
from pushforward.ot.solve import read_problem, solve
from pushforward.ot.solvers.symmetric import MOST_STEPS, self_transport

__all__ = ["SinkhornLoss", "sinkhorn_divergence"]


def sinkhorn_divergence(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    cost: GroundCost = "sqeuclidean",
    epsilon: float | None = None,
    tol: float = 1e-9,
) -> Any:
    """S(x, y) between weighted point clouds, differentiable in the points and the weights.

    Args:
        x, y: Points, (n, d) and (m, d).
        a, b: Weights, (n,) and (m,), of equal mass; uniform if None.
        cost: Ground cost (`pushforward.ot.cost`).
        epsilon: Regularisation, in units of the cost; None is 0.05 of the mean cost between x and y.
        tol: Marginal error to which each of the three problems is solved.

    Returns:
        A scalar in units of the cost: a tensor for tensors, a number for numpy.

    Raises:
        InvalidArgument: As `solve`; the argument is named.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> round(float(sinkhorn_divergence(x, x + 3.0, epsilon=0.1)), 6)  # a translation costs its square
        9.0
    """
    as_numpy = not isinstance(x, Tensor)
    points = PointCost(x, y, cost)
    x_points, y_points = points.tensors()
    dtype = result_dtype(to_tensor("x", x))
    across = solve(PointCost(x_points, y_points, cost), a, b, epsilon=epsilon, tol=tol)
    within_x = _within(x_points, a, cost, across.epsilon, tol)
    within_y = _within(y_points, b, cost, across.epsilon, tol)
    value = across.value - 0.5 * (within_x.value + within_y.value)
    return like_input(value.to(dtype), as_numpy)


def _within(x: Tensor, a: Any, cost: GroundCost, epsilon: float, tol: float) -> Solution[Tensor]:
    """OT(x, x): the self-transport's potential, measured and given its derivatives by the front door.

    Where the kernel is not positive definite (other costs than the first three names), that may find nothing, and the
    general solver starts from nothing, as it does for any problem.
    """
    matrix = pairwise_cost(x, x, cost).to(x.dtype)
    problem = read_problem(matrix.detach(), a, a, epsilon=epsilon, unbalanced=None).problem
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        f, done = self_transport(problem, tol, Recorder(MOST_STEPS))
    return solve(matrix, a, a, epsilon=epsilon, tol=tol, init=f if done else None)


class SinkhornLoss(nn.Module):
    """`sinkhorn_divergence`, or the biased regularised cost, as a module.

    Args:
        cost: Ground cost (`pushforward.ot.cost`).
        epsilon: Regularisation, in units of the cost; None is 0.05 of the mean cost. geomloss's `blur` with p = 2 is
        the root of epsilon/2
            on its cost |x - y|^2 / 2: there epsilon = 2 blur^2 here, and this loss is twice as large.
        debias: Whether to take out the entropic bias.
        reduction: "mean" or "sum" over a batch of clouds, or "none".

    Example:
        >>> loss = SinkhornLoss(epsilon=0.05)
        >>> x = torch.zeros(4, 2, requires_grad=True)
        >>> loss(x, torch.ones(4, 2)).backward()
        >>> x.grad[0]
        tensor([-0.5000, -0.5000])
    """

    def __init__(
        self,
        *,
        cost: GroundCost = "sqeuclidean",
        epsilon: float | None = None,
        debias: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.cost: GroundCost = cost
        self.epsilon = None if epsilon is None else check_positive("epsilon", epsilon)
        self.debias = debias
        self.reduction = check_choice("reduction", reduction, ("mean", "sum", "none"))

    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        """The loss between clouds x (n, d) and y (m, d), or batches (B, n, d) and (B, m, d) of them."""
        if x.ndim != y.ndim or x.ndim not in (2, 3) or (x.ndim == 3 and (len(x) != len(y) or len(x) == 0)):
            raise ShapeError(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; two clouds (n, d), (m, d) "
                "or as many of them on both sides are needed"
            )
        if x.ndim == 2:
            return self._one(x, y, a, b)
        weights_a, weights_b = _per_cloud("a", a, len(x)), _per_cloud("b", b, len(x))
        losses = torch.stack([self._one(x[k], y[k], weights_a[k], weights_b[k]) for k in range(len(x))])
        return {"mean": losses.mean, "sum": losses.sum, "none": losses.clone}[self.reduction]()

    def _one(self, x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
        if self.debias:
            return sinkhorn_divergence(x, y, a, b, cost=self.cost, epsilon=self.epsilon)
        return solve(PointCost(x, y, self.cost), a, b, epsilon=self.epsilon).value


def _per_cloud(name: str, weights: Tensor | None, batch: int) -> list[Tensor | None]:
    if weights is None:
        return [None] * batch
    if weights.ndim == 2 and len(weights) != batch:
        raise ShapeError(f"{name} has shape {tuple(weights.shape)} but there are {batch} clouds")
    return list(weights) if weights.ndim == 2 else [weights] * batch
