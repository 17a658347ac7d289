"""What a map is trained on, stage by stage: the images of an entropic map, then fit and Monge gap.

    Regression    mean_i |T x_i - t_i|^2 / unit       t_i the targets that `entropic_targets` gives
    MongeGap      (fit + weight max(gap, 0)) / unit   `Objective`, on a batch of one condition
                  + symmetry |J - J^T|^2              for structured maps with a free F

A stage's batches follow from seed and step alone, so that a run can go on in its middle. With several processes each
takes its share of a batch through the network; images are gathered, and every process computes the loss of the whole.

symbol    meaning                                               unit
unit      variance of the targets; mean cost between x and y    of what it divides
J         Jacobian of F (`networks.asymmetry`)                  of the cost over length^2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pushforward.errors import InvalidArgument
from pushforward.maps.costs import Cost, SquaredEuclidean
from pushforward.maps.entropic import EntropicMap
from pushforward.maps.linear import bures_map
from pushforward.maps.monge.conditions import Group
from pushforward.maps.monge.networks import MapNetwork, asymmetry
from pushforward.maps.monge.objective import Objective
from pushforward.training.distributed import gather, rank, world_size
from pushforward.training.random import generator

__all__ = ["MongeGap", "Regression", "Stage", "entropic_targets", "images_of"]


# Of more batches' points than this, a batch is drawn with replacement.
MANY = 32
# At most so many points of a condition are given images to regress on, each of which costs a pass over two plans.
TARGETS = 2**15


class Stage(Protocol):
    """One stage of the training: a loss for a number of steps."""

    @property
    def name(self) -> str:
        """The stage's name in `validation_`."""
        ...

    @property
    def steps(self) -> int:
        """The largest number of steps."""
        ...

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate at the stage's start; it falls to 0 along a cosine."""
        ...

    @property
    def patience(self) -> int:
        """Checks in a row without improvement after which the stage ends."""
        ...

    @property
    def rising(self) -> int:
        """Checks in a row, each worse than the one before, after which the stage ends; 0 for never."""
        ...

    @property
    def tolerance(self) -> float:
        """How much worse than the best a later check may be and still be kept (`fitting`)."""
        ...

    def loss(self, network: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, the same on every process, and its parts by name."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """Train on given images.

    Args:
        points, targets: x and t, (n, d).
        unit: Variance of the targets.
        conditions: (n, k) or None.
        batch_size, seed: The size of a batch, and the seed of the draws.
        steps, learning_rate, patience, rising, tolerance: As in every `Stage`.
    """

    points: Tensor
    targets: Tensor
    unit: float
    conditions: Tensor | None
    batch_size: int
    seed: int
    steps: int
    learning_rate: float
    patience: int
    rising: int = 3
    tolerance: float = 0.0
    name: str = "entropic"

    def loss(self, network: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """The module's first loss."""
        i = _draw(len(self.points), self.batch_size, self.seed, f"regression {step}", self.points.device)
        images = images_of(network, self.points[i], None if self.conditions is None else self.conditions[i])
        loss = (images - self.targets[i]).square().sum(1).mean() / self.unit
        return loss, {"regression": float(loss.detach())}


@dataclass(frozen=True, kw_only=True, slots=True)
class MongeGap:
    """Train on fit and gap, one condition a step, in turn.

    Args:
        groups: Points by condition.
        objectives: One a group.
        units: Mean cost of each group.
        symmetry: Weight of the asymmetry of F's Jacobian; 0 leaves it out.
        batch_size, seed: The size of a batch, and the seed of the draws.
        steps, learning_rate, patience, rising, tolerance: As in every `Stage`.
    """

    groups: Sequence[Group]
    objectives: Sequence[Objective]
    units: Sequence[float]
    symmetry: float
    batch_size: int
    seed: int
    steps: int
    learning_rate: float
    patience: int
    rising: int = 0
    tolerance: float = 0.0
    name: str = "gap"

    def loss(self, network: nn.Module, step: int) -> tuple[Tensor, dict[str, float]]:
        """The module's second loss."""
        k = step % len(self.groups)
        group, objective, unit = self.groups[k], self.objectives[k], self.units[k]
        x = group.x[_draw(len(group.x), self.batch_size, self.seed, f"source {step}", group.x.device)]
        y = group.y[_draw(len(group.y), self.batch_size, self.seed, f"target {step}", group.x.device)]
        c = group.conditions(len(x))
        fit, gap = objective(x, images_of(network, x, c), y)
        loss = (fit + objective.weight * gap.clamp_min(0.0)) / unit
        parts = {"fit": float(fit.detach()) / unit, "gap": float(gap.detach()) / unit}
        if self.symmetry and isinstance(network, MapNetwork):
            random = generator(self.seed, f"signs {step}")
            signs = (2 * torch.randint(2, x.shape, generator=random) - 1).to(x)
            share = _share(len(x))
            # Each process has the mean over its own points, of which gradients, later on, are averaged.
            own = asymmetry(network, x[share], None if c is None else c[share], signs[share])
            parts["asymmetry"] = float(own.detach())
            loss = loss + self.symmetry * own
        return loss, parts


def images_of(network: nn.Module, x: Tensor, c: Tensor | None) -> Tensor:
    """Images of a batch, (n, d), each process having computed its share of them."""
    share = _share(len(x))
    return gather(network(x[share]) if c is None else network(x[share], c[share]))


def entropic_targets(group: Group, *, cost: Cost, seed: int) -> tuple[Tensor, Tensor]:
    """Source points of the group, and their images under the mean of two entropic maps.

    The maps are those of disjoint halves of the points. Each is only as good as its sample; their errors are
    independent, and the mean halves their variance. For the squared Euclidean cost the images' first two moments are
    then moved to the target's, from which entropic maps fall short.

    Args:
        group: Points of one condition, in random order.
        cost: One with a grad h*.
        seed: The seed of the maps' own draws.

    Returns:
        x and t, (n, d).
    """
    points, share = group.x[:TARGETS], None
    total = torch.zeros_like(points)
    for half in range(2):
        x, y = group.x[half::2], group.y[half::2]
        fitted = EntropicMap("auto" if share is None else share, cost=cost, random_state=seed)
        # The public `fit` would look for outliers in each half anew.
        fitted._fit(x, y)  # pyright: ignore[reportPrivateUsage]
        share = fitted.share_
        total += 0.5 * fitted._in_blocks(points)  # pyright: ignore[reportPrivateUsage]
    if isinstance(cost, SquaredEuclidean):
        total = bures_map(total, group.y)(total)
    return points, total


def _draw(count: int, batch: int, seed: int, purpose: str, device: torch.device) -> Tensor:
    """Points at random: which, depends on the arguments alone. Of few all are different, of many nearly all."""
    random = generator(seed, purpose)
    if count > MANY * batch:  # permuting half a million points would take longer than a step
        return torch.randint(count, (batch,), generator=random).to(device)
    return torch.randperm(count, generator=random)[:batch].to(device)


def _share(count: int) -> slice:
    """The rows of a batch that this process takes."""
    processes = world_size()
    if count % processes:
        raise InvalidArgument(
            f"a batch of {count} points cannot be shared evenly by {processes} processes; set batch_size to a multiple "
            "of their number, at most the points of each condition"
        )
    each = count // processes
    return slice(rank() * each, (rank() + 1) * each)
