"""The Sinkhorn divergence between point clouds: optimal transport with its entropic bias taken out.

    S(x, y) = OT(x, y) - OT(x, x)/2 - OT(y, y)/2,     OT the regularised optimum of `solve`

S >= 0 with S = 0 only for equal measures, for the costs of this library's first three names. The two terms within a
measure have one potential each and are found by a method of their own (`solvers/symmetric.py`). Source: Feydy et al.
2019 (arXiv 1810.08278).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pushforward._checks import check_choice, check_positive
from pushforward._interop import like_input, not_compiled, result_dtype, to_tensor
from pushforward._typed import check_flag, typed
from pushforward.errors import NotConverged, NotConvergedWarning, ShapeError
from pushforward.ot.costs import GroundCost, PointCost
from pushforward.ot.question import read_problem, too_many
from pushforward.ot.small import self_potential
from pushforward.ot.solution import Solution
from pushforward.ot.solve import solve

__all__ = ["SinkhornLoss", "sinkhorn_divergence"]


@not_compiled
def sinkhorn_divergence(  # noqa: PLR0913 - four of data, four of settings
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    cost: GroundCost = "sqeuclidean",
    epsilon: float | Tensor | None = None,
    tol: float = 1e-9,
    throw: bool = True,
) -> Any:
    """S(x, y) between weighted point clouds, differentiable in the points and the weights.

    Args:
        x, y: Points, (n, d) and (m, d).
        a, b: Weights, (n,) and (m,), of equal mass; uniform if None.
        cost: Ground cost (`pushforward.ot.costs`).
        epsilon: Regularisation, in units of the cost; None is 0.05 of the mean cost between x and y. Derivatives pass
            through the default, and through a tensor that has a graph.
        tol: Marginal error to which each of the three problems is solved. The value's own error is of the order of its
            square, that of the gradient of its size.
        throw: Whether not reaching `tol` raises; else it gives a `NotConvergedWarning`, and the value as it was found.

    Returns:
        A scalar in units of the cost: a tensor for tensors, a number for numpy.

    Raises:
        InvalidArgument: As `solve`; the argument is named.
        NotConverged: `tol` was not reached and `throw` is set, or no finite value was found.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> round(float(sinkhorn_divergence(x, x + 3.0, epsilon=0.1)), 6)  # a translation costs its square
        9.0
    """
    check_flag("throw", throw)
    value, error = _divergence(x, y, a, b, _Settings(cost, epsilon, check_positive("tol", tol), throw))
    if error > tol:
        _warn("sinkhorn_divergence", error, tol, stacklevel=3)
    return like_input(value, not isinstance(x, Tensor))


@dataclass(frozen=True, slots=True)
class _Settings:
    """The settings that `sinkhorn_divergence` and `SinkhornLoss` solve each of their problems with."""

    cost: GroundCost
    epsilon: float | Tensor | None
    tol: float
    throw: bool

    def solve(self, points: Any, weights: tuple[Any, Any], epsilon: Any, init: Tensor | None = None) -> Solution[Any]:
        solution = solve(points, *weights, epsilon=epsilon, tol=self.tol, throw=self.throw, init=init)
        if not bool(torch.as_tensor(solution.value).detach().isfinite().all()):
            raise NotConverged(f"{solution.status.message}; no finite value was found", solution)
        return solution


def _divergence(x: Any, y: Any, a: Any, b: Any, ask: _Settings) -> tuple[Tensor, float]:
    """S(x, y) in the dtype of x, and the largest marginal error of its three problems."""
    x_points, y_points = PointCost(x, y, ask.cost).tensors()
    for name, weights, points in (("a", a, x_points), ("b", b, y_points)):
        if weights is not None and (shape := tuple(to_tensor(name, weights).shape)) != (len(points),):
            raise ShapeError(
                f"{name} has shape {shape} but there are {len(points)} points: a weight for each is needed"
            )
    across = ask.solve(PointCost(x_points, y_points, ask.cost), (a, b), ask.epsilon)
    epsilon = across.internals.epsilon  # with its graph: the default depends on the points
    within_x, within_y = _within(x_points, a, epsilon, ask), _within(y_points, b, epsilon, ask)
    value = across.value - 0.5 * (within_x.value + within_y.value)
    return value.to(result_dtype(to_tensor("x", x))), max(s.marginal_error for s in (across, within_x, within_y))


def _within(x: Tensor, a: Any, epsilon: float | Tensor, ask: _Settings) -> Solution[Tensor]:
    """OT(x, x): the self-transport's potential, measured and given its derivatives by the front door.

    Where the kernel is not positive definite (other costs than the first three names), that may find nothing, and the
    general solver starts from nothing, as it does for any problem.
    """
    points = PointCost(x, x, ask.cost)
    cost = points if too_many(points, a, epsilon) else points.matrix().to(x.dtype)
    fixed = epsilon.detach() if isinstance(epsilon, Tensor) else epsilon
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        problem = read_problem(cost, a, a, epsilon=fixed, unbalanced=None).problem
        start = self_potential(problem, ask.tol)
    return ask.solve(cost, (a, a), epsilon, start)


def _warn(who: str, error: float, tol: float, *, stacklevel: int, once: str = "") -> None:
    warnings.warn(
        f"{who} reached a marginal error of {error:.0e}, asked {tol:.0e}; its gradient is as accurate as the error, "
        f"its value better. Raise tol or epsilon, or pass throw=True to stop here{once}",
        NotConvergedWarning,
        stacklevel=stacklevel,
    )


class SinkhornLoss(nn.Module):
    """`sinkhorn_divergence`, or the biased regularised cost, as a module for training loops.

    Args:
        cost: Ground cost (`pushforward.ot.costs`).
        epsilon: Regularisation, in units of the cost; None is 0.05 of the mean cost of each pair of clouds, and
            derivatives pass through it. geomloss's `blur` with p = 2 is the root of epsilon/2 on its cost
            |x - y|^2 / 2: there epsilon = 2 blur^2 here, and this loss is twice as large.
        debias: Whether to take out the entropic bias.
        reduction: "mean" or "sum" over a batch of clouds, or "none".
        tol: Marginal error to which each problem is solved. The gradient's relative error was below it wherever
            measured; 1e-6 is what float32 resolves, takes hardly longer than 1e-3, and is above the rounding of
            float64 down to an epsilon of 1e-8 of the cost.
        throw: Whether not reaching `tol` raises `NotConverged`. By default a training loop goes on with what was
            reached, and the module gives one `NotConvergedWarning`.

    Attributes:
        marginal_error: The largest marginal error of the last call.

    Example:
        >>> loss = SinkhornLoss(epsilon=0.05)
        >>> x = torch.zeros(4, 2, requires_grad=True)
        >>> loss(x, torch.ones(4, 2)).backward()
        >>> x.grad[0]
        tensor([-0.5000, -0.5000])
    """

    @typed
    def __init__(
        self,
        *,
        cost: GroundCost = "sqeuclidean",
        epsilon: float | Tensor | None = None,
        debias: bool = True,
        reduction: str = "mean",
        tol: float = 1e-6,
        throw: bool = False,
    ) -> None:
        super().__init__()
        self.cost: GroundCost = cost
        if epsilon is not None:
            number = check_positive("epsilon", epsilon)
            epsilon = epsilon if isinstance(epsilon, Tensor) else number  # a tensor keeps its graph
        self.epsilon = epsilon
        self.debias = debias
        self.reduction = check_choice("reduction", reduction, ("mean", "sum", "none"))
        self.tol = check_positive("tol", tol)
        self.throw = throw
        self.marginal_error = 0.0
        self._warned = False

    @not_compiled
    @typed
    def forward(self, x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        """The loss between clouds x (n, d) and y (m, d), or batches (B, n, d) and (B, m, d) of them.

        Args:
            x, y: The clouds.
            a, b: Weights, (n,) and (m,), or (B, n) and (B, m); uniform if None.

        Returns:
            A scalar in units of the cost; (B,) for a batch with reduction "none".
        """
        if x.ndim != y.ndim or x.ndim not in (2, 3) or (x.ndim == 3 and (len(x) != len(y) or len(x) == 0)):
            raise ShapeError(
                f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; two clouds (n, d), (m, d) "
                "or as many of them on both sides are needed"
            )
        ask = _Settings(self.cost, self.epsilon, self.tol, self.throw)
        if x.ndim == 2:
            loss, self.marginal_error = self._one(x, y, a, b, ask)
        else:
            weights_a, weights_b = _per_cloud("a", a, len(x)), _per_cloud("b", b, len(x))
            each = [self._one(x[k], y[k], weights_a[k], weights_b[k], ask) for k in range(len(x))]
            losses, self.marginal_error = torch.stack([loss for loss, _ in each]), max(error for _, error in each)
            loss = {"mean": losses.mean, "sum": losses.sum, "none": losses.clone}[self.reduction]()
        if self.marginal_error > self.tol and not self._warned:
            self._warned = True
            _warn("SinkhornLoss", self.marginal_error, self.tol, stacklevel=5, once="; each module warns once")
        return loss

    def _one(self, x: Tensor, y: Tensor, a: Any, b: Any, ask: _Settings) -> tuple[Tensor, float]:
        if self.debias:
            return _divergence(x, y, a, b, ask)
        solution = ask.solve(PointCost(x, y, self.cost), (a, b), self.epsilon)
        return solution.value, solution.marginal_error


def _per_cloud(name: str, given: Any, batch: int) -> list[Tensor | None]:
    if given is None:
        return [None] * batch
    weights = to_tensor(name, given)
    if weights.ndim not in (1, 2) or (weights.ndim == 2 and len(weights) != batch):
        raise ShapeError(
            f"{name} has shape {tuple(weights.shape)} but there are {batch} clouds; "
            f"weights for each, ({batch}, points), or for all of them, (points,), are needed"
        )
    return list(weights) if weights.ndim == 2 else [weights] * batch
