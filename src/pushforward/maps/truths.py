"""Problems whose optimal map is known, for tests, benchmarks and pictures.

class            T(x)                                              optimal for                     because
GaussianPair     m1 + A (x - m0)                                   sqeuclidean                     A is symmetric, > 0
LogSumExp        x + grad h*(grad l(x))                            any h(x - y), h convex, even    -l is concave
NearestOffer     the y_j of least c(x, y_j) - g_j                  any c                           f_i + g_j <= c_ij
Radial           R(|x|) x / |x|                                    euclidean, and |x - y|^p        moves along rays
Meridians        the angle from the pole, moved monotonically      geodesic                        moves along meridians

symbol   meaning                                                      shape     unit
A        S0^(-1/2) (S0^(1/2) S1 S0^(1/2))^(1/2) S0^(-1/2)             (d, d)    1
S0, S1   covariances of source and target; m0, m1 their means         (d, d)    length^2
l        tau log sum_k exp((<a_k, x> + b_k) / tau)                    (n,)      that of h
kappa    concentration of a von Mises-Fisher law                      scalar    1

Why each is optimal. A potential f is c-concave if f(x) = min_y c(x, y) - g(y) for some g, and then the y that attain
the minimum are an optimal map: f and g are feasible prices that are met with equality.
LogSumExp: h(x - y) >= <a, x - y> - h*(a), with equality where x - y = grad h*(a); so the affine function <a, x> is
c-concave for c = h(x - y), and so is an infimum of such, -l. Its map is x - grad h*(grad(-l)), and h is even.
Radial, Meridians: with |x| (the angle from the pole) as potential, which is 1-Lipschitz, c(x, T(x)) is its difference
wherever T moves outwards; so T is optimal if it moves nothing inwards, and likewise the other way round. If R is
non-decreasing it may do both: it keeps every interval between two fixed radii, on each of which it moves one way, and
the potential takes slope 1 or -1 there. A non-decreasing R is also optimal for |x - y|^p, p >= 1.

`FiveToFour` has no known map, and is here since much of the literature draws it. `w2_benchmark` reads a pair whose map
is known from files.

Sources: Dowson and Landau 1982 for A; Gangbo and McCann 1996 for h(x - y); Korotin et al. 2021 (arXiv 2106.01954) for
the benchmark; Ulrich 1984 for drawing from von Mises-Fisher.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from pushforward._checks import check_count, check_instance, check_points, check_positive, check_weight
from pushforward._typed import typed, typed_fields
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.maps.costs import Geodesic, SquaredEuclidean, StructuredCost
from pushforward.ot.costs import GroundCost, pairwise_cost

__all__ = [
    "FiveToFour",
    "GaussianPair",
    "KnownMap",
    "LogSumExp",
    "Meridians",
    "NearestOffer",
    "Radial",
    "W2Benchmark",
    "w2_benchmark",
]


class KnownMap(ABC):
    """A source distribution and the optimal map from it to its target; float64 throughout.

    Args:
        cost: The cost for which the map is optimal.
    """

    cost: Any

    def _points(self, x: Tensor, dim: int) -> Tensor:
        """`x`, which must be points of the source's dimension, (n, dim)."""
        if x.ndim != 2 or x.shape[1] != dim:
            raise ShapeError(f"x has shape {tuple(x.shape)}; points of the source are needed, (n, {dim})")
        return x

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent points of the source.

        Args:
            n: The number of points.
            generator: Draws them; None for torch's global one.

        Returns:
            (n, d), float64.
        """

    @abstractmethod
    def map(self, x: Tensor) -> Tensor:
        """The optimal map.

        Args:
            x: Points of the source, (n, d).

        Returns:
            The mapped points, (n, d).
        """

    @typed
    def target(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent points of the target: mapped points of a new sample of the source.

        Args:
            n: The number of points.
            generator: Draws them; None for torch's global one.

        Returns:
            (n, d), float64, unpaired with earlier samples of the same generator.
        """
        return self.map(self.sample(n, generator))


@typed_fields
@dataclass(frozen=True, kw_only=True)
class GaussianPair(KnownMap):
    """Two Gaussians in general position and the affine map between them.

    Args:
        dim: d.
        condition: Largest over smallest variance, in both; the variances are log-spaced around 1, each with axes of its
            own.
        shift: Distance of the means, in length.
        seed: The seed of the axes and of the shift's direction.

    Example:
        >>> pair = GaussianPair(dim=2, condition=4.0)
        >>> x = pair.sample(3, torch.Generator().manual_seed(0))
        >>> pair.map(x).shape
        torch.Size([3, 2])
    """

    dim: int
    condition: float = 10.0
    shift: float = 1.0
    seed: int = 0
    cost: GroundCost = field(default="sqeuclidean", init=False)

    def __post_init__(self) -> None:
        check_count("dim", self.dim)
        if check_positive("condition", self.condition) < 1:
            raise InvalidArgument(f"condition must be at least 1, got {self.condition}")
        check_weight("shift", self.shift)
        check_count("seed", self.seed, least=0)

    @typed
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Points of N(0, S0), (n, d)."""
        return _normal(n, self.dim, generator) @ self._law.root

    @typed
    def map(self, x: Tensor) -> Tensor:
        """The mapped points m1 + A x, as m0 = 0."""
        return self._law.mean + self._points(x, self.dim) @ self._law.matrix

    @property
    def matrix(self) -> Tensor:
        """The matrix A of the map, (d, d)."""
        return self._law.matrix

    @property
    def target_variance(self) -> float:
        """Total variance of the target, tr S1, in length^2."""
        return float(self._law.target.trace())

    @property
    def wasserstein2(self) -> float:
        """The cost of the map, W2^2 = |m1|^2 + tr(S0 + S1 - 2 A S0), in length^2."""
        source = self._law.root @ self._law.root
        both = source + self._law.target - 2.0 * self._law.matrix @ source
        return float(self._law.mean.square().sum() + both.trace())

    @cached_property
    def _law(self) -> _Law:
        generator = torch.Generator().manual_seed(self.seed)
        variances = self.condition ** torch.linspace(-0.5, 0.5, self.dim, dtype=torch.float64)
        source, target = (_with_spectrum(variances, generator) for _ in range(2))
        root = _power(source, 0.5)
        inverse = _power(source, -0.5)
        mean = self.shift * normalize(_normal(1, self.dim, generator))[0]
        return _Law(root=root, target=target, mean=mean, matrix=inverse @ _power(root @ target @ root, 0.5) @ inverse)


@dataclass(frozen=True, kw_only=True)
class _Law:
    root: Tensor
    target: Tensor
    mean: Tensor
    matrix: Tensor


@typed_fields
@dataclass(frozen=True, kw_only=True)
class LogSumExp(KnownMap):
    """Standard normal points, moved along a soft maximum of directions by as much as the cost lets them.

    For the squared Euclidean cost this is the gradient of |x|^2/2 + l/2, near to piecewise constant displacements; for
    an elastic L1 or k-overlap cost the displacements are sparse.

    Args:
        dim: d.
        cost: A cost h(x - y) with an even h, whose `conjugate_gradient` is grad h*.
        pieces: The number of directions a_k.
        strength: Their length, in the unit of grad h.
        temperature: tau; the smaller, the sharper the borders between the pieces.
        seed: The seed of the directions and their offsets.

    Example:
        >>> from pushforward.maps.costs import ElasticL1
        >>> truth = LogSumExp(dim=8, cost=ElasticL1(gamma=1.0))
        >>> x = truth.sample(100, torch.Generator().manual_seed(0))
        >>> float((truth.map(x) == x).double().mean()) > 0.25  # entries that do not move
        True
    """

    dim: int
    cost: StructuredCost = field(default_factory=SquaredEuclidean)
    pieces: int = 8
    strength: float = 4.0
    temperature: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("dim", self.dim)
        check_count("pieces", self.pieces)
        check_positive("strength", self.strength)
        check_positive("temperature", self.temperature)
        check_count("seed", self.seed, least=0)
        check_instance("cost", self.cost, StructuredCost)

    @typed
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal points, (n, d)."""
        return _normal(n, self.dim, generator)

    @typed
    def map(self, x: Tensor) -> Tensor:
        """The mapped points x + grad h*(grad l(x)); grad l is the average of the directions under a softmax."""
        directions, offsets = self._pieces
        shares = ((self._points(x, self.dim) @ directions.T + offsets) / self.temperature).softmax(-1)
        return x + self.cost.conjugate_gradient(shares @ directions)

    @cached_property
    def _pieces(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        directions = self.strength * normalize(_normal(self.pieces, self.dim, generator))
        return directions, _normal(1, self.pieces, generator)[0]


@typed_fields
@dataclass(frozen=True, kw_only=True, eq=False)  # tensors have no one truth value for == to give
class NearestOffer(KnownMap):
    """Every point goes to the y_j with the least c(x, y_j) - g_j: optimal for any cost, onto finitely many points.

    Args:
        cost: A name of `pushforward.ot.costs`, or a callable (n, d), (m, d) -> (n, m).
        offers: The y_j, (m, d).
        prices: The g_j, (m,), in units of the cost; the higher, the more points go there.
        source: (n, generator) -> (n, d) points; None is the standard normal distribution.

    Example:
        >>> offers = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        >>> truth = NearestOffer(cost="manhattan", offers=offers, prices=torch.tensor([0.0, 0.2]))
        >>> truth.map(torch.tensor([[0.3], [0.45]], dtype=torch.float64)).squeeze(1)
        tensor([0., 1.], dtype=torch.float64)
    """

    cost: GroundCost
    offers: Tensor
    prices: Tensor
    source: Callable[[int, torch.Generator | None], Tensor] | None = None

    def __post_init__(self) -> None:
        offers = check_points("offers", self.offers)
        if tuple(self.prices.shape) != (len(offers),):
            raise InvalidArgument(f"prices has shape {tuple(self.prices.shape)} but there are {len(offers)} offers")

    @typed
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Points of the source, (n, d)."""
        return _normal(n, self.offers.shape[1], generator) if self.source is None else self.source(n, generator)

    @typed
    def map(self, x: Tensor) -> Tensor:
        """The y_j with the least c(x, y_j) - g_j for each point, (n, d)."""
        x = self._points(x, self.offers.shape[1])
        return self.offers[(pairwise_cost(x, self.offers, self.cost) - self.prices).argmin(1)]


@typed_fields
@dataclass(frozen=True, kw_only=True)
class Radial(KnownMap):
    """Standard normal points, each moved along its own ray.

    Args:
        dim: d.
        profile: R: radii (n,) -> new radii (n,), at least 0; either non-decreasing, or nowhere inwards, or nowhere
            outwards. It is not checked.

    Example:
        >>> outwards = Radial(dim=2, profile=lambda r: r + 1.0)
        >>> outwards.map(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
        tensor([[3.6000, 4.8000]], dtype=torch.float64)
    """

    dim: int
    profile: Callable[[Tensor], Tensor]
    cost: GroundCost = field(default="euclidean", init=False)

    def __post_init__(self) -> None:
        check_count("dim", self.dim)

    @typed
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal points, (n, d)."""
        return _normal(n, self.dim, generator)

    @typed
    def map(self, x: Tensor) -> Tensor:
        """The mapped points R(|x|) x / |x|; the origin stays, as it is on no ray."""
        x = self._points(x, self.dim)
        return normalize(x, dim=-1) * self.profile(x.norm(dim=-1))[:, None]


@dataclass(frozen=True, kw_only=True)
class Meridians(KnownMap):
    """One von Mises-Fisher distribution on the sphere in three dimensions, mapped to another with the same pole.

    With v = 1 - <pole, x> the law is P(v <= t) = (1 - exp(-kappa t)) / (1 - exp(-2 kappa)), which can be inverted; the
    map keeps the quantile of v and the meridian. The pole is (0, 0, 1).

    Args:
        source_kappa, target_kappa: Concentrations; a smaller one spreads the points from the pole.

    Example:
        >>> truth = Meridians(source_kappa=20.0, target_kappa=5.0)
        >>> x = truth.sample(2, torch.Generator().manual_seed(0))
        >>> [round(length, 6) for length in truth.map(x).norm(dim=1).tolist()]
        [1.0, 1.0]
    """

    source_kappa: float = 20.0
    target_kappa: float = 5.0
    cost: GroundCost = field(default_factory=Geodesic, init=False)

    def __post_init__(self) -> None:
        check_positive("source_kappa", self.source_kappa)
        check_positive("target_kappa", self.target_kappa)

    @typed
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Unit vectors of the source, (n, 3)."""
        check_count("n", n, least=0)
        uniform = torch.rand(n, dtype=torch.float64, generator=generator)
        around = 2.0 * math.pi * torch.rand(n, dtype=torch.float64, generator=generator)
        return _from_pole(_quantile(uniform, self.source_kappa), torch.stack([around.cos(), around.sin()], -1))

    @typed
    def map(self, x: Tensor) -> Tensor:
        """The points on the same meridian at the height of the same quantile, (n, 3)."""
        x = self._points(x, 3)
        # |x - pole|^2 / 2 keeps the digits that 1 - <pole, x> cancels near the pole.
        height = 0.5 * (x - x.new_tensor([0.0, 0.0, 1.0])).square().sum(-1)
        share = torch.expm1(-self.source_kappa * height) / math.expm1(-2.0 * self.source_kappa)
        return _from_pole(_quantile(share, self.target_kappa), normalize(x[:, :2], dim=-1))


@typed_fields
@dataclass(frozen=True, kw_only=True)
class FiveToFour:
    """Five Gaussians in the plane, the centre and corners of a square, into four at the middles of its sides.

    Args:
        scale: Half the square's side, in length.
        deviation: Standard deviation of every Gaussian along each axis, in length.

    Source: the defaults are those of OTT-JAX's `datasets` (its std of 0.5 enters as a square).

    Example:
        >>> FiveToFour().sample(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """

    scale: float = 5.0
    deviation: float = 0.25
    cost: GroundCost = field(default="sqeuclidean", init=False)

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)
        check_weight("deviation", self.deviation)

    @typed
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent points of the five Gaussians.

        Args:
            n: The number of points.
            generator: Draws them; None for torch's global one.

        Returns:
            (n, 2).
        """
        return self._mixture([[0, 0], [1, 1], [-1, 1], [-1, -1], [1, -1]], n, generator)

    @typed
    def target(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent points of the four Gaussians.

        Args:
            n: The number of points.
            generator: Draws them; None for torch's global one.

        Returns:
            (n, 2).
        """
        return self._mixture([[1, 0], [0, 1], [-1, 0], [0, -1]], n, generator)

    def _mixture(self, centres: list[list[int]], n: int, generator: torch.Generator | None) -> Tensor:
        which = torch.randint(len(centres), (check_count("n", n, least=0),), generator=generator)
        means = self.scale * torch.tensor(centres, dtype=torch.float64)
        return means[which] + self.deviation * _normal(n, 2, generator)


@dataclass(frozen=True, kw_only=True, eq=False)
class W2Benchmark:
    """One pair of the Wasserstein-2 benchmark: float32 arrays.

    Args:
        source: Points of the source for the fit, (n, d).
        target: Points of the target, (n, d), independent of `source`.
        source_test: Points of the source for the evaluation, (k, d).
        map_test: The optimal map at `source_test`, (k, d).
        target_variance: tr Cov of the target, in length^2.
    """

    source: NDArray[np.float32]
    target: NDArray[np.float32]
    source_test: NDArray[np.float32]
    map_test: NDArray[np.float32]
    target_variance: float
    cost: GroundCost = field(default="sqeuclidean", init=False)


def w2_benchmark(folder: str | Path, dim: int) -> W2Benchmark:
    """Read one pair of the Wasserstein-2 benchmark, three Gaussians into ten.

    Args:
        folder: The folder with the files `mix3_to_mix10_d{dim}.npz`.
        dim: d, for which there must be a file.

    Returns:
        The pair.

    Raises:
        InvalidArgument: There is no such file, or it does not hold the five arrays of `W2Benchmark`.

    Source: Korotin et al. 2021 (arXiv 2106.01954), sampled from the published potentials.
    """
    file = Path(folder) / f"mix3_to_mix10_d{check_count('dim', dim)}.npz"
    if not file.is_file():
        there = sorted(other.name for other in Path(folder).glob("mix3_to_mix10_d*.npz"))
        raise InvalidArgument(f"folder holds no {file.name}: {folder} has {', '.join(there) or 'no such files'}")
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
        variance = float(arrays.pop("target_variance"))
        return W2Benchmark(**arrays, target_variance=variance)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as reason:
        raise InvalidArgument(f"{file} is not a pair of the benchmark: {reason}") from reason


def _normal(n: int, dim: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(check_count("n", n, least=0), dim, dtype=torch.float64, generator=generator)


def _with_spectrum(values: Tensor, generator: torch.Generator) -> Tensor:
    """A symmetric matrix with these eigenvalues and random axes."""
    axes = torch.linalg.qr(_normal(len(values), len(values), generator))[0]
    return (axes * values) @ axes.T


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive definite matrix."""
    values, axes = torch.linalg.eigh(matrix)
    return (axes * values**exponent) @ axes.T


def _quantile(share: Tensor, kappa: float) -> Tensor:
    """The v = 1 - cos(angle) below which a von Mises-Fisher distribution on the sphere has this share of its mass."""
    return (-torch.log1p(share * math.expm1(-2.0 * kappa)) / kappa).clamp_max(2.0)


def _from_pole(height: Tensor, around: Tensor) -> Tensor:
    """Unit vectors at 1 - cos(angle) = height, on the meridians (n, 2)."""
    return torch.cat([around * (height * (2.0 - height)).clamp_min(0.0).sqrt()[:, None], 1.0 - height[:, None]], -1)
