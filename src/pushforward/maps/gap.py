"""How far a map is from optimal, from n points and their images: the Monge gap.

    M(T) = sum_i w_i c(x_i, T x_i) - W(w, T),    W the least cost of sending the x_i to the T x_i, both with weights w

M >= 0, and M = 0 just where T pairs its points optimally; where the images should be is not asked. Three estimators,
by what they put in place of W:

exact       W itself, a linear program. Its gradient is that of the pairs found, a subgradient.
entropic    min_P <P, C> - epsilon H(P),  H(P) = -sum P log P, as published. It lies in
                exact + epsilon H(w)  <=  entropic  <=  exact + 2 epsilon H(w),
            H(w) = log n for uniform weights: an offset that hides small gaps. epsilon -> 0 leads to the left end,
            epsilon -> inf to the right one (with the mean of C in place of W).
debiased    the Sinkhorn divergence between the points and their images (`sinkhorn_divergence`). No offset: 0 for
            translations and the identity, about 0 at optimal maps. It also takes the costs within the points and within
            the images, and is no bound of anything: small negative values are possible.

symbol    meaning                               shape     unit
x, tx     points and their images               (n, d)    length
w         weights, of mass 1                    (n,)      1
C         costs c(x_i, T x_j)                   (n, n)    cost
epsilon   regularisation                        1         cost

`solve` regularises by KL(P | w w^T) = 2 H(w) - H(P), so that its optimum is larger by 2 epsilon H(w) than the one of
the entropic estimator.

Source: Uscidda and Cuturi 2023 (arXiv 2302.04953), equations 4 and 8; the debiased estimator is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pushforward._checks import check_choice, check_positive, check_weights
from pushforward._interop import like_input, result_dtype, to_tensor
from pushforward.errors import ShapeError
from pushforward.maps.costs import Cost, resolve
from pushforward.ot.cost import PointCost
from pushforward.ot.divergence import sinkhorn_divergence
from pushforward.ot.solve import solve
from pushforward.ot.solvers.exact import exact

__all__ = ["Estimator", "monge_gap"]

Estimator = Literal["debiased", "entropic", "exact"]


def monge_gap(
    x: Any,
    tx: Any,
    *,
    cost: str | Cost | Callable[[Tensor, Tensor], Tensor] = "sqeuclidean",
    estimator: Estimator = "debiased",
    epsilon: float | None = None,
    weights: Any = None,
    tol: float = 1e-9,
) -> Any:
    """The cost of sending each point to its image, over that of the best way to reach the same images.

    Args:
        x: Points, (n, d).
        tx: Their images in the same order, (n, d).
        cost: What moving a point costs (`pushforward.maps.costs.resolve`).
        estimator: "debiased", "entropic" or "exact": the module's table.
        epsilon: Regularisation, in units of the cost; None is 0.05 of the mean cost between x and tx. "exact" has
        none.
        weights: Weights of the points, (n,); uniform if None. Their mass does not matter.
        tol: Marginal error to which each regularised problem is solved; for "exact", gap over cost of the program.

    Returns:
        A scalar in units of the cost, differentiable in points, images and weights: a tensor for tensors, a number for
        numpy.

    Raises:
        InvalidArgument: An argument cannot be used; the message names it.
        NotConverged: `tol` was not reached.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> float(monge_gap(x, x + 3.0, estimator="exact"))
        0.0
        >>> float(monge_gap(x, 1.0 - x, estimator="exact"))  # swapped: staying would cost nothing
        1.0
    """
    check_choice("estimator", estimator, get_args(Estimator))
    tol = check_positive("tol", tol)
    epsilon = None if epsilon is None else check_positive("epsilon", epsilon)
    ground = resolve(cost)
    points, images = _pairs(x, tx)
    w = check_weights("weights", weights, len(points), None, points, "point")[0]
    w = w / w.sum()
    paid = (w * ground.paired(points, images)).sum()
    if estimator == "exact":
        gap = paid - _assignment(points, images, w, ground, tol)
    elif estimator == "entropic":
        best = solve(PointCost(points, images, ground), w, w, epsilon=epsilon, tol=tol)
        gap = paid - best.value + 2.0 * best.epsilon * torch.special.entr(w).sum()
    else:
        gap = paid - sinkhorn_divergence(points, images, w, w, cost=ground, epsilon=epsilon, tol=tol)
    return like_input(gap.to(result_dtype(to_tensor("x", x))), not isinstance(x, Tensor))


def _pairs(x: Any, tx: Any) -> tuple[Tensor, Tensor]:
    given = to_tensor("tx", tx)
    points, images = PointCost(x, given).tensors()
    if len(points) != len(images):
        raise ShapeError(f"x has {len(points)} points but tx {len(images)}; tx holds the image of each, in their order")
    return points, images


def _assignment(x: Tensor, tx: Tensor, w: Tensor, cost: Cost, tol: float) -> Tensor:
    """The least cost, with the derivatives of the pairs that reach it."""
    with torch.no_grad():
        best = exact(PointCost(x, tx, cost), w, w, tol=tol)
    plan = best.plan.coalesce()
    row, col = plan.indices()
    prices = (w - w.detach()) * (best.f + best.g)  # 0, with the weights' derivatives
    return (plan.values() * cost.paired(x[row], tx[col])).sum() + prices.sum()
