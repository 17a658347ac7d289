"""What both benchmarks of f-divergences in the plane stand on: the divergences, and quadrature.

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

import torch
from torch import Tensor

from pushforward.divergences import CATALOGUE, FDivergence

# From the steadiest to the noisiest, as the paper's figure is read.
CLAIMED = ("softened_reverse_kl", "js", "squared_hellinger", "jeffreys", "kl")
SMOOTH: dict[str, FDivergence] = {name: CATALOGUE[name] for name in ("reverse_kl", *CLAIMED)}


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
