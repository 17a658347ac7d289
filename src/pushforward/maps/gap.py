"""The Monge gap, which says how far a map is from optimal, from n points and their mapped points.

    M(T) = 1/n sum_i c(x_i, T x_i) - W,    W = min over permutations s of 1/n sum_i c(x_i, T x_s(i))

M >= 0, and M = 0 just where T pairs its points optimally; where the images should be is not asked. Three estimators,
by what they put in place of W:

exact       W itself, an assignment. Its gradient is that of the pairs found, a subgradient.
entropic    min_P <P, C> - epsilon H(P),  H(P) = -sum P log P, as published. It lies in
                exact + epsilon log n  <=  entropic  <=  exact + 2 epsilon log n:
            an offset that hides small gaps. epsilon -> 0 leads to the left end; where the plan is blurred over all
            pairs it is 2 epsilon log n, less what blurring costs.
debiased    the Sinkhorn divergence between the points and their images (`sinkhorn_divergence`). No offset: 0 for the
            identity, and for translations at the squared Euclidean cost; at the optimal linear maps tried within 0.2 %
            of the mean cost, for epsilon up to 10 % of it (n = 64 to 256, d = 2 and 16). It also takes the costs within
            the points and within the images, and is no bound of anything: small negative values are possible. At
            *nonlinear* optimal maps it reads more (14 % of the variance in 16 dimensions of the W2 benchmark at 0.1 of
            the mean cost, 2 % at 0.03, nothing at 0.01), and at optimal maps for the Euclidean and the geodesic cost
            about 2 epsilon.

symbol    meaning                               shape     unit
x, tx     points and their images               (n, d)    length
C         costs c(x_i, T x_j)                   (n, n)    cost
epsilon   regularisation                        1         cost

`solve` regularises by KL(P | 1/n^2) = 2 log n - H(P): its optimum is 2 epsilon log n above the entropic estimator's.

Source: Uscidda and Cuturi 2023 (arXiv 2302.04953), equations 4 and 8; the debiased estimator is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import Tensor

from pushforward._checks import check_choice, check_cost, check_points, check_positive, check_same_device
from pushforward._interop import like_input, not_compiled, result_dtype, to_tensor
from pushforward._typed import typed
from pushforward.errors import ShapeError
from pushforward.maps.costs import Cost, SquaredEuclidean, resolve
from pushforward.ot.costs import PointCost
from pushforward.ot.divergence import sinkhorn_divergence
from pushforward.ot.small import best_permutation
from pushforward.ot.solve import solve

__all__ = ["Estimator", "gap_estimator", "monge_gap"]

Estimator = Literal["debiased", "entropic", "exact"]


def gap_estimator(cost: Cost) -> Estimator:
    """The estimator for a cost: "exact" where the debiased one is not about 0 at optimal maps, else "debiased".

    For the elastic L1 cost it is not, either: trained with it at 0.05 of the mean cost, displacements of the true map
    came out a seventh too cheap.
    """
    return "debiased" if isinstance(cost, SquaredEuclidean) else "exact"


@not_compiled
@typed
def monge_gap(
    x: Any,
    tx: Any,
    *,
    cost: str | Cost | Callable[[Tensor, Tensor], Tensor] = "sqeuclidean",
    estimator: Estimator = "debiased",
    epsilon: float | Tensor | None = None,
    tol: float = 1e-9,
) -> Any:
    """The cost of the map minus the cost of the cheapest way to reach the same mapped points.

    Args:
        x: Points, (n, d).
        tx: The mapped points in the same order, (n, d).
        cost: The cost of moving a point (`pushforward.maps.costs.resolve`).
        estimator: "debiased", "entropic" or "exact": the module's table.
        epsilon: Regularisation, in units of the cost; None is 0.05 of the mean cost between x and tx, and derivatives
            pass through it. "exact" has none.
        tol: Marginal error to which each regularised problem is solved.

    Returns:
        A scalar in units of the cost, differentiable in x and tx: a tensor for tensors, a number for numpy.

    Raises:
        InvalidArgument: An argument cannot be used; the message names it.
        NotConverged: `tol` was not reached.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> float(monge_gap(x, x + 3.0, estimator="exact"))
        0.0
        >>> float(monge_gap(x, 1.0 - x, estimator="exact"))  # swapped: staying would cost nothing
        1.0
    """
    check_choice("estimator", estimator, get_args(Estimator))
    tol = check_positive("tol", tol)
    if epsilon is not None and not isinstance(epsilon, Tensor):  # `solve` checks a tensor, which may have a graph
        epsilon = check_positive("epsilon", epsilon)
    ground = resolve(cost)
    points, images = _pairs(x, tx)
    paid = ground.paired(points, images).mean()
    if estimator == "exact":
        gap = paid - _assignment(points, images, ground)
    elif estimator == "entropic":
        best = solve(PointCost(points, images, ground), epsilon=epsilon, tol=tol)
        gap = paid - best.value + 2.0 * best.internals.epsilon * math.log(len(points))
    else:
        gap = paid - sinkhorn_divergence(points, images, cost=ground, epsilon=epsilon, tol=tol)
    return like_input(gap.to(result_dtype(to_tensor("x", x))), not isinstance(x, Tensor))


def _pairs(x: Any, tx: Any) -> tuple[Tensor, Tensor]:
    points = check_points("x", x)
    images = check_points("tx", tx, points.device)
    check_same_device(("x", points), ("tx", images))
    if points.shape != images.shape:
        raise ShapeError(
            f"x has shape {tuple(points.shape)} but tx {tuple(images.shape)}; "
            "tx holds the image of each point of x, in their order"
        )
    return points, images


def _assignment(x: Tensor, tx: Tensor, cost: Cost) -> Tensor:
    """The mean cost of the cheapest assignment of points to mapped points, with the derivatives of its pairs."""
    matrix = check_cost(cost(x.detach(), tx.detach()))
    return cost.paired(x, tx[best_permutation(matrix)]).mean()
