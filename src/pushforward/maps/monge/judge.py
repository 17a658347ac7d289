"""Metrics of a map on held-out points; each shows one way in which a map can fail.

    divergence       D(T x, y) at 0.1 of the mean cost, over it: are the images where they should be
    gap              the debiased Monge gap at 0.01 of the mean cost, over it, or the exact one (`gap_estimator`): are
                     they reached without detours
    variance_ratio   tr Cov(T x)/tr Cov(y): below 1 where images are drawn together, above where they are flung apart
    mean_shift       |mean T x - mean y| over the root of tr Cov(y)
    criterion        divergence + max(gap, 0): what maps are chosen by

    D(t, y) = mean_ij OT(t_i, y_j) - OT(t_1, t_2)/2 - OT(y_1, y_2)/2,      t_i, y_j halves of the images and of y

D is an entropic optimum between samples less what it is between two samples of one measure. Where T x and y have the
same law all four halves do, and its expectation is 0, whatever epsilon and however few the points. The Sinkhorn
divergence, which takes OT(t, t) of a sample with itself in place of OT(t_1, t_2), is not 0 there, but larger the more
the images spread: with 1024 points at 0.05 of the mean cost it preferred images shrunk by a tenth to the true ones, in
16 and in 64 dimensions of the W2 benchmark, and a shrunk map of Gaussians to the true one. D prefers the true ones.

The gap's epsilon is small because at a larger one the debiased gap of the *true* map is not 0: on that benchmark, in 16
dimensions, it is 14 % of the variance at 0.1, 2 % at 0.03, and none at 0.01. Criteria share the noise of the held-out
points: their differences mean more than their values, which may be negative.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pushforward import metrics
from pushforward.maps.costs import Cost
from pushforward.maps.gap import gap_estimator, monge_gap
from pushforward.maps.monge.conditions import Group
from pushforward.maps.monge.objective import crossed_cost
from pushforward.ot.costs import PointCost
from pushforward.ot.solve import solve

__all__ = ["MapMetrics", "crossed_divergence"]

# At most so many points of a side are judged: a check then takes some tenths of a second.
JUDGED = 1024
DIVERGENCE_EPSILON, GAP_EPSILON = 0.1, 0.01
TOL = 1e-5
FIGURES = ("divergence", "gap", "variance_ratio", "mean_shift", "criterion")


@dataclass(frozen=True, kw_only=True, slots=True)
class MapMetrics:
    """The metrics of the module on fixed points.

    Args:
        cost: c.
        groups: Points held out, by condition.
        units: The mean cost between source and target of each group.
    """

    cost: Cost
    groups: Sequence[Group]
    units: Sequence[float]

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """The metrics by name, means over the groups; all infinite where mapped points are not finite."""
        each = [self.one(network, group, unit) for group, unit in zip(self.groups, self.units, strict=True)]
        return {name: sum(figures[name] for figures in each) / len(each) for name in each[0]}

    def one(self, network: nn.Module, group: Group, unit: float) -> dict[str, float]:
        """The metrics of one group, by name."""
        x, y = group.x[:JUDGED], group.y[:JUDGED]
        with torch.no_grad():
            images = network(x) if group.c is None else network(x, group.conditions(len(x)))
            return self._figures(x.double(), images.double(), y.double(), unit)

    def simple(self, training: Sequence[Group]) -> dict[str, float]:
        """The criteria of the maps that need no training, by name: the identity and the mean shift.

        Args:
            training: Points by condition, from which the shift is taken: each condition's own where a map knows it.
        """
        x, y = (torch.cat(side).double() for side in zip(*((group.x, group.y) for group in training), strict=True))
        shifts = [
            y.mean(0) - x.mean(0) if group.c is None else group.y.double().mean(0) - group.x.double().mean(0)
            for group in training
        ]
        each: dict[str, list[float]] = {"identity": [], "mean shift": []}
        for group, unit, shift in zip(self.groups, self.units, shifts, strict=True):
            points, targets = group.x[:JUDGED].double(), group.y[:JUDGED].double()
            each["identity"].append(self._figures(points, points, targets, unit)["criterion"])
            each["mean shift"].append(self._figures(points, points + shift, targets, unit)["criterion"])
        return {name: sum(found) / len(found) for name, found in each.items()}

    def stranded(self, network: nn.Module, training: Sequence[Group]) -> float:
        """The share of mapped points far from every target (`metrics.stranded`), over all groups."""
        lost, count = 0.0, 0
        for group, seen in zip(self.groups, training, strict=True):
            x, y = group.x[:JUDGED], group.y[:JUDGED]
            with torch.no_grad():
                images = network(x) if group.c is None else network(x, group.conditions(len(x)))
            one, other = y.tensor_split(2) if seen.y is group.y else (seen.y[:JUDGED], y)
            lost += len(x) * metrics.stranded(images.double(), one.double(), other.double())
            count += len(x)
        return lost / count

    def warn(self, criterion: float, simple: Mapping[str, float], lost: float, margin: float) -> None:
        """Warn of a map that is no good, with the metrics that show it.

        Args:
            criterion: The map's criterion.
            simple: The criteria of simpler maps, by name.
            lost: Share of its images that are stranded.
            margin: By how much a criterion must be lower to be better.
        """
        count = sum(min(len(group.x), JUDGED) for group in self.groups)
        name = min(simple, key=lambda name: simple[name])
        if simple[name] < criterion - margin:
            warnings.warn(
                f"the {name} is judged better than this map on {count} points held out: criterion {simple[name]:.3g} "
                f"against {criterion:.3g} (`simpler_`, `validation_`). More points, or fewer coordinates (principal "
                "components, say), may mend it",
                stacklevel=4,
            )
        if lost > metrics.STRANDED and lost * count >= metrics.FEWEST_STRANDED:
            warnings.warn(
                f"{100 * lost:.0f} % of the images of {count} points held out lie where no target is: the map does not "
                "tear its points apart where it should, or groups of source and target differ in size (cells that have "
                "died, say), and mass is kept by this map",
                stacklevel=4,
            )

    def _figures(self, x: Tensor, images: Tensor, y: Tensor, unit: float) -> dict[str, float]:
        if not bool(torch.isfinite(images).all()):
            return dict.fromkeys(FIGURES, math.inf)
        divergence = crossed_divergence(images, y, self.cost, DIVERGENCE_EPSILON * unit)
        estimator = gap_estimator(self.cost)
        gap = monge_gap(x, images, cost=self.cost, estimator=estimator, epsilon=GAP_EPSILON * unit, tol=TOL)
        divergence, gap = divergence / unit, float(gap) / unit
        spread, shift = metrics.variance_ratio(images, y), metrics.mean_shift(images, y)
        figures = (divergence, gap, spread, shift, divergence + max(gap, 0.0))
        return dict(zip(FIGURES, figures, strict=True))


def crossed_divergence(t: Tensor, y: Tensor, cost: Cost, epsilon: float) -> float:
    """The divergence D of the module between samples (n, d) and (m, d), two points at least of each.

    `epsilon` is in units of the cost.
    """

    def optimum(one: Tensor, other: Tensor) -> Tensor:
        return torch.as_tensor(solve(PointCost(one, other, cost), epsilon=epsilon, tol=TOL).value)

    return float(crossed_cost(t, y, optimum) - 0.5 * optimum(*y.tensor_split(2)))
