"""What both benchmarks of f-divergences in the plane stand on: quadrature, intervals, names and colours.

symbol  meaning                                              shape
p, q    teacher and student, noised to time t                (...,)
r       p / q, and s = log r                                 (...,)
h       weight of the score difference, r^2 f''(r)           (...,)

Densities by quadrature are written anew here, from the normal density alone, so that they share nothing with
`GaussianMixture`, which the draws go through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pushforward.divergences import CATALOGUE, FDivergence

__all__ = ["CLAIMED", "LOOKS", "SMOOTH", "Grid", "bootstrap", "legend", "log_normal_mixture"]

# From the steadiest to the noisiest, as the paper's figure is read.
CLAIMED = ("softened_reverse_kl", "js", "squared_hellinger", "jeffreys", "kl")
SMOOTH: dict[str, FDivergence] = {name: CATALOGUE[name] for name in ("reverse_kl", *CLAIMED)}
# Colour and dashes of a divergence, the same in every picture: colour alone does not tell lines apart for everyone.
LOOKS: dict[str, tuple[str, str, Any]] = {
    "reverse_kl": ("reverse KL", "C5", "-"),
    "softened_reverse_kl": ("softened reverse KL", "C0", (0, (5, 1.5))),
    "js": ("Jensen-Shannon", "C1", "-"),
    "squared_hellinger": ("squared Hellinger", "C2", (0, (1.5, 1.2))),
    "jeffreys": ("Jeffreys", "C3", (0, (6, 1.5, 1.5, 1.5))),
    "kl": ("forward KL", "C4", "-"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Midpoints of the cells of a rectangle, for quadrature.

    Args:
        low, high: Corners of the rectangle, (2,).
        cells: How many a side.
    """

    low: Sequence[float]
    high: Sequence[float]
    cells: int = 240

    def points(self) -> Tensor:
        """(cells^2, 2), float64."""
        axes = []
        for low, high in zip(self.low, self.high, strict=True):
            edges = torch.linspace(low, high, self.cells + 1, dtype=torch.float64)
            axes.append((edges[1:] + edges[:-1]) / 2)
        return torch.cartesian_prod(*axes)

    @property
    def cell(self) -> float:
        """Area of a cell."""
        return math.prod((high - low) / self.cells for low, high in zip(self.low, self.high, strict=True))


def log_normal_mixture(x: Tensor, weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """Log density of a mixture in the plane, (n,), differentiable in everything.

    Args:
        x: Points, (n, 2).
        weights: Of the components, summing to 1, (K,).
        means: (K, 2).
        covariances: (K, 2, 2).
    """
    a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    determinant = a * c - b.square()
    dx, dy = (x[:, None] - means).unbind(-1)
    squared = (c * dx.square() - 2 * b * dx * dy + a * dy.square()) / determinant
    return (weights.log() - math.log(2 * math.pi) - 0.5 * determinant.log() - 0.5 * squared).logsumexp(-1)


def bootstrap(values: ArrayLike, *, resamples: int = 4000) -> dict[str, float]:
    """The mean of independent draws, and the middle 95 % of the means of their resamples."""
    drawn = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(0)
    means = drawn[random.integers(len(drawn), size=(resamples, len(drawn)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(drawn.mean()), "low": float(low), "high": float(high)}


def legend(figure: Any, ax: Any) -> None:
    """One legend above all panels, from the lines of one."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, columnspacing=1.4, handlelength=2.2)
