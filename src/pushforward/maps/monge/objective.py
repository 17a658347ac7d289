"""The training loss of a map on one batch: its distance from the target, and its Monge gap.

    fit(T)  =  OT(T x, y) - OT(T x, T x)/2                                         at fit_epsilon
            or mean_kl OT(t_k, y_l) - OT(t_1, t_2)/2                               crossed, at fit_epsilon
    gap(T)  =  mean_i c(x_i, T x_i) - OT(x, T x) + (OT(x, x) + OT(T x, T x))/2     debiased, at gap_epsilon
    loss    =  fit + weight max(gap, 0)

The first fit is the Sinkhorn divergence but for OT(y, y)/2, which no map changes. A batch is nearer to itself than to
another of the same distribution, so that the fit is least for a map whose mapped points are drawn together: of
displacements s (T x - x) of true maps for the Euclidean, the geodesic and an elastic cost, for s between 0.90 and 0.96,
with batches of 256, at any epsilon from 0.01 to 0.2 of the mean cost. The crossed fit compares halves of the batch,
which are independent of one another. In the mean it has the derivative of what it estimates (as energy distances of
batches do), and was least for s between 0.96 and 1.02, noise included.

A debiased gap below 0 says nothing of the map, and can be had by drawing its images together: descended without the
bound, with weight 3 at 0.1 of the mean cost, it took nine tenths of the variance from the images of a 32-dimensional
Gaussian.

OT is the optimum with epsilon KL(P | a b^T). Derivatives are the plans (envelope theorem), so a problem's accuracy is
its plan's, and three digits are more than a batch's own noise leaves. OT(T x, T x) serves the gap and the first fit
where their epsilon agree.

symbol    meaning                      shape
x, T x    points and their images      (n, d)
y         target points                (m, d)
t_k, y_l  halves of T x and of y       (n/2, d), (m/2, d)
P         a plan                       (n, m)

Source: Uscidda and Cuturi 2023 (arXiv 2302.04953), equation 7 with a debiased gap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.maps.costs import Cost
from pushforward.maps.gap import Estimator, monge_gap
from pushforward.ot.small import optimal_value

__all__ = ["Objective", "crossed_cost", "transport_cost"]

# Marginal error of a training step's plans.
STEP_TOL = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """The module's two terms.

    Args:
        cost: c.
        fit_epsilon, gap_epsilon: Regularisation, in units of the cost.
        weight: The weight of the gap; 0 leaves it out.
        estimator: The estimator of the gap, as in `monge_gap`.
        crossed: Whether the fit is the crossed one.
    """

    cost: Cost
    fit_epsilon: float
    gap_epsilon: float
    weight: float
    estimator: Estimator
    crossed: bool = False

    def __call__(self, x: Tensor, images: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fit and gap, differentiable once in the images; the gap is 0 where it has no weight.

        Args:
            x: Points, (n, d).
            images: T x, (n, d).
            y: Target points, (m, d).
        """
        x, images, y = x.to(torch.float64), images.to(torch.float64), y.to(torch.float64)
        if self.crossed:
            within = None
            fit = crossed_cost(images, y, lambda t, u: transport_cost(self.cost(t, u), self.fit_epsilon))
        else:
            within = self._within(images, self.fit_epsilon)
            fit = transport_cost(self.cost(images, y), self.fit_epsilon) - 0.5 * within
        return fit, self._gap(x, images, within) if self.weight else torch.zeros_like(fit)

    def _gap(self, x: Tensor, images: Tensor, within: Tensor | None) -> Tensor:
        if self.estimator == "exact":
            return monge_gap(x, images, cost=self.cost, estimator="exact")
        epsilon = self.gap_epsilon
        gap = self.cost.paired(x, images).mean() - transport_cost(self.cost(x, images), epsilon)
        if self.estimator == "entropic":
            return gap + 2.0 * epsilon * torch.tensor(float(len(x))).log()
        if within is None or epsilon != self.fit_epsilon:
            within = self._within(images, epsilon)
        return gap + 0.5 * (within + self._within(x, epsilon))

    def _within(self, points: Tensor, epsilon: float) -> Tensor:
        return transport_cost(self.cost(points, points), epsilon, symmetric=True)


def crossed_cost(t: Tensor, y: Tensor, optimum: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean optimum between halves of t and of y, less half of that between the halves of t.

    Args:
        t, y: Points, (n, d) and (m, d), at least two of each, in random order.
        optimum: OT between two samples.
    """
    (one, other), targets = t.tensor_split(2), y.tensor_split(2)
    across = [optimum(images, points) for images in (one, other) for points in targets]
    return torch.stack(across).mean() - 0.5 * optimum(one, other)


def transport_cost(cost: Tensor, epsilon: float, *, symmetric: bool = False) -> Tensor:
    """OT between uniform weights to a training step's accuracy, differentiable once in the costs.

    Args:
        cost: (n, m), float64.
        epsilon: In units of the cost.
        symmetric: Whether these are the costs within one cloud.
    """
    return optimal_value(cost, epsilon, STEP_TOL, symmetric=symmetric)
