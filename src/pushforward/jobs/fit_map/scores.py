"""How a map is judged: points held out of both sides, its metrics on them, and the simple maps to compare it with.

symbol          meaning                                         shape
x, y            points that the map learns from                 (n, d), (m, d)
x_test, y_test  points held out, which judge it                 (k, d), (l, d)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import pushforward as pf
from pushforward import metrics
from pushforward.errors import NotConverged
from pushforward.maps.linear import LinearMap

if TYPE_CHECKING:
    from pushforward.jobs.inputs.arrays import Array

__all__ = ["COMPARED", "Split", "scores", "simple_maps", "split"]

# Exact transport and the divergence compare so many held-out points.
COMPARED = 1024
# Marginal error to which a divergence is solved: more digits than sampling leaves it.
_TOL = 1e-5


@dataclass(frozen=True, kw_only=True)
class Split:
    """Points of both sides, in random order, parted into those that are learned from and those that judge."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array


def split(x: Array, y: Array, *, share: float, seed: int, most: int | None = None) -> Split:
    """Part the points at random.

    Args:
        x, y: Points, (n, d) and (m, d).
        share: The share of either side that is held out; at least two points.
        seed: The same one parts in the same way.
        most: Take no more points of a side than this; None takes all.
    """
    rng = np.random.default_rng(seed)
    parts: list[Array] = []
    for points in (x, y):
        drawn = points[rng.permutation(len(points))[:most]]
        held_out = max(2, round(share * len(drawn)))
        parts += [drawn[held_out:], drawn[:held_out]]
    return Split(x=parts[0], x_test=parts[1], y=parts[2], y_test=parts[3])


def scores(parts: Split, mapped: Array, *, cost: Any = "sqeuclidean", true: Array | None = None) -> dict[str, float]:
    """What `metrics.judge_map` says of the images of `parts.x_test`, and their Sinkhorn divergence from the target.

    Its regularisation is 0.05 of the mean cost; where it cannot be solved, it is left out.

    Args:
        parts: The points.
        mapped: Images of `parts.x_test`, shape (k, d).
        cost: For which the map should be optimal.
        true: The images under the optimal map, where it is known.
    """
    found = metrics.judge_map(
        parts.x_test, mapped, parts.y_test, cost=cost, true=true, other=parts.y, points=COMPARED
    ).figures()
    try:
        near, far = mapped[:COMPARED], parts.y_test[:COMPARED]
        found["divergence"] = float(pf.sinkhorn_divergence(near, far, cost=cost, tol=_TOL))
    except NotConverged:
        pass
    return found


def simple_maps(x: Array, y: Array) -> dict[str, Callable[[Array], Array]]:
    """The maps that a better one must be compared with, learned from the same points."""
    shift = y.mean(axis=0) - x.mean(axis=0)
    linear = LinearMap().fit(x, y)
    return {"identity": lambda points: points, "mean shift": lambda points: points + shift, "linear": linear.transform}
