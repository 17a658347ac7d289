"""Maps that are known to be optimal for costs other than the squared Euclidean one, and samples of them.

problem   cost       truth                                                            points, dimension
radial    Euclidean  outwards, as far as the radius says (`truths.Radial`)            standard normal, 2
petals    Euclidean  outwards, as far as radius and direction say (`Petals`)          standard normal, 2
sphere    geodesic   along meridians (`truths.Meridians`), kappa 20 to 5              von Mises-Fisher, 3
elastic   elastic    along the axes that are worth it (`truths.LogSumExp`), gamma 1   standard normal, 4
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pushforward.maps.costs import ElasticL1, resolve
from pushforward.maps.truths import KnownMap, LogSumExp, Meridians, Radial

JUDGED_ON, EXACT = 4096, 1024


@dataclass(frozen=True, kw_only=True)
class Petals(KnownMap):
    """Standard normal points of the plane, each moved outwards along its ray, the farther the nearer to a petal.

    Optimal for the Euclidean cost since no point moves inwards, whatever else the displacement depends on: |x| is a
    potential. Not for the squared one, as the displacement is no gradient.

    Args:
        petals: Directions of the longest moves.
        reach: Length of the longest, far from the centre.
    """

    petals: int = 3
    reach: float = 3.0
    cost: str = field(default="euclidean", init=False)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal points, (n, 2)."""
        return torch.randn(n, 2, dtype=torch.float64, generator=generator)

    def map(self, x: Tensor) -> Tensor:
        """X (1 + move/|x|)."""
        radius = x.norm(dim=-1)
        towards = 0.5 + 0.5 * torch.cos(self.petals * torch.atan2(x[:, 1], x[:, 0]))
        return x * (1.0 + self.reach * towards * radius / (1.0 + radius.square()))[:, None]


def outwards(radius: Tensor) -> Tensor:
    """R of the radial problem: smooth at the centre, and far from it 2 farther out."""
    return radius + 2.0 * radius.square() / (1.0 + radius.square())


PROBLEMS: dict[str, KnownMap] = {
    "radial": Radial(dim=2, profile=outwards),
    "petals": Petals(),
    "sphere": Meridians(source_kappa=20.0, target_kappa=5.0),
    "elastic": LogSumExp(dim=4, cost=ElasticL1(gamma=1.0)),
}
# Points of each side. Of 4000 the mean radius alone, and with it what the least costly map pays, is only known to 2 %.
# The elastic cost's maps are distilled from plans, whose price grows with the square.
FITTED_ON = {"radial": 2**15, "petals": 2**15, "sphere": 2**15, "elastic": 2**13}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What maps are fitted and judged on: x and y, unpaired, then points that no map has seen."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    y_other: Tensor


def drawn(problem: str, seed: int) -> Sample:
    """The sample of this seed, in float32, in which maps are trained."""
    truth, random, fitted_on = PROBLEMS[problem], torch.Generator().manual_seed(seed), FITTED_ON[problem]
    sizes = {"x": fitted_on, "y": fitted_on, "x_test": JUDGED_ON, "y_test": EXACT, "y_other": EXACT}
    return Sample(**{
        name: (truth.sample if name.startswith("x") else truth.target)(size, random).float()
        for name, size in sizes.items()
    })  # fmt: skip


def potential(truth: KnownMap, x: Tensor) -> Tensor:
    """A potential f of the source whose optimal map is the truth (`truths`)."""
    if isinstance(truth, LogSumExp):
        directions, offsets = truth._pieces  # pyright: ignore[reportPrivateUsage]
        return -truth.temperature * ((x @ directions.T + offsets) / truth.temperature).logsumexp(-1)
    return -(x[:, 2].clamp(-1.0, 1.0).acos() if isinstance(truth, Meridians) else x.norm(dim=1))


def of_the_sample(problem: str, seed: int) -> float:
    """What the optimum between the two samples pays over the truth's cost, in percent, to first order.

    An optimum's derivatives are its potentials: moving the target's sample pays the mean of g there less that over the
    images of the source's sample, g(T x) = c(x, T x) - f(x).
    """
    truth, random = PROBLEMS[problem], torch.Generator().manual_seed(seed)
    x, before_y = (truth.sample(FITTED_ON[problem], random) for _ in range(2))
    paid = [resolve(truth.cost).paired(points, truth.map(points)) for points in (x, before_y)]
    g_x, g_y = (cost - potential(truth, points) for cost, points in zip(paid, (x, before_y), strict=True))
    return 100.0 * float((g_y.mean() - g_x.mean()) / torch.cat(paid).mean())
