"""Metrics of a generator: its samples compared with the data, both as features of a fixed network or as raw numbers.

symbol   meaning                                                            shape
x        features of the data: `real`                                       (n, d)
y        features of the samples: `generated`                               (m, d)
m, S     mean and covariance, unbiased                                      (d,), (d, d)
r_k(z)   distance from z to its k-th nearest neighbour in its own set       ()

    FD        = |m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))           feature^2
    precision = share of the y within r_k(x) of some x                      1
    recall    = share of the x within r_k(y) of some y                      1
    density   = mean over y of |{x : |y - x| <= r_k(x)}| / k                1; about 1 for y distributed as x
    coverage  = share of the x with some y within r_k(x)                    1

FD is the squared W2 distance of the two Gaussians. Estimated from samples it is too large, by an amount that falls with
their sizes and is not 0 between two samples of one distribution: compare generators at equal sizes, beside that floor.
Its standard error is the standard deviation over random halves of both samples: between halves without replacement the
variance is 2 / n - 1 / n times that of one row, which is the variance with all n rows. With fewer than about ten rows
for each feature FD mostly measures the error of the covariances, and noise may score at the floor.
Precision and density fall where samples look unlike the data, recall and coverage where kinds of data are missing; all
four depend on the sizes, too.

Sources: Heusel et al. 2017 (arXiv 1706.08500) for FD; Kynkaanniemi et al. 2019 (arXiv 1904.06991), equation 1, for
precision and recall, k = 3; Naeem et al. 2020 (arXiv 2002.09797), equations 3 and 4, for density and coverage, k = 5.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward._checks import check_count
from pushforward._interop import like_input, to_tensor
from pushforward._typed import typed
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.metrics.clouds import clouds
from pushforward.metrics.maps import halves
from pushforward.ot.costs import pairwise_cost

__all__ = [
    "SampleReport",
    "class_histogram",
    "density_coverage",
    "frechet_distance",
    "judge_samples",
    "modes",
    "precision_recall",
]

# The papers' own neighbours.
K_PRECISION, K_DENSITY = 3, 5
# So many distances are in memory at a time: 32 MB.
PAIRS = 4_000_000
# Halves over which the error of a Frechet distance is taken.
_HALVES = 16
# Rows for each feature, below which a Frechet distance is mostly the error of its covariances.
_LEAST_ROWS = 2
# Distances are known to rounding only; equal ones (copies of the data, coarse pixels) must count as within.
SLACK = 1e4


def frechet_distance(x: Any, y: Any) -> float:
    """The squared W2 distance between the Gaussians with the two samples' means and covariances; FID in its features.

    Args:
        x, y: Features, (n, d) and (m, d), two rows at least of each; there may be fewer rows than features.

    Returns:
        At least 0, in the features' unit squared.

    Source: Heusel et al. 2017; Dowson and Landau 1982.

    Example:
        >>> round(frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])), 6)  # 4^2 + (2^.5 - 8^.5)^2
        18.0
    """
    return _frechet(("x", x), ("y", y))


def _frechet(*named: tuple[str, Any]) -> float:
    """`frechet_distance` between two sets, for which errors have these names."""
    x, y = clouds(*named)
    shift = (x.mean(0) - y.mean(0)).square().sum()
    root_x, root_y = (_root(name, points) for (name, _), points in zip(named, (x, y), strict=True))
    # S = R^T R, so that tr (S_x S_y)^(1/2) is the sum of R_x R_y^T's singular values. No covariance is formed, and none
    # has a root taken: a singular one loses no digits.
    shared = torch.linalg.svdvals(root_x @ root_y.mT).sum()
    return max(0.0, float(shift + root_x.square().sum() + root_y.square().sum() - 2 * shared))


def precision_recall(real: Any, generated: Any, *, k: int = K_PRECISION) -> tuple[float, float]:
    """The share of samples that lie where data is, and the share of data that has samples near it.

    Args:
        real, generated: Features, (n, d) and (m, d), more than k of each. Equal numbers make the two comparable.
        k: The number of neighbours within a ball.

    Returns:
        (precision, recall), each in [0, 1].

    Raises:
        InvalidArgument: There are not k neighbours.

    Source: Kynkaanniemi et al. 2019, equations 1 and 2.

    Example:
        >>> real, generated = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([[0.5], [0.6]])
        >>> precision_recall(real, generated, k=1)
        (1.0, 0.0)
    """
    real, generated = clouds(("real", real), ("generated", generated))
    _, balls = _balls(real, _radii("real", real, (k,))[0], generated)
    _, back = _balls(generated, _radii("generated", generated, (k,))[0], real)
    return _share(balls), _share(back)


@typed
def density_coverage(real: Any, generated: Any, *, k: int = K_DENSITY) -> tuple[float, float]:
    """Precision that no outlier of the data inflates, and recall that no outlier of the samples does.

    Args:
        real: Features of the data, (n, d), more than k.
        generated: Features of the samples, (m, d).
        k: The number of neighbours within a ball.

    Returns:
        (density, coverage): the first at least 0, and over 1 where samples crowd in the midst of data; the second in
        [0, 1], and about 1 - 2^-k for samples of the data's own distribution, at equal sizes.

    Raises:
        InvalidArgument: There are not k neighbours.

    Source: Naeem et al. 2020, equations 3 and 4.

    Example:
        >>> real, generated = np.array([[0.0], [1.0], [10.0], [12.0]]), np.array([[0.5], [0.6]])
        >>> density_coverage(real, generated, k=1)
        (2.0, 0.5)
    """
    real, generated = clouds(("real", real), ("generated", generated))
    samples, balls = _balls(real, _radii("real", real, (k,))[0], generated)
    return float(balls.mean()) / k, _share(samples)


def class_histogram(labels: Any, classes: int) -> Any:
    """The number of samples that a classifier puts into each class.

    Args:
        labels: Integers in [0, classes), (m,).
        classes: The number of classes.

    Returns:
        Counts, (classes,): a tensor for a tensor, numpy for numpy.

    Raises:
        ShapeError: The labels have more than one axis, or there are none.
        InvalidArgument: One of them is no class.

    Example:
        >>> class_histogram(np.array([2, 0, 2]), 4)
        array([1, 0, 2, 0])
    """
    found = _labels(labels)
    if int(found.max()) >= check_count("classes", classes):
        raise InvalidArgument(
            f"labels holds {int(found.max())}, but classes is {classes}: 0 to {classes - 1} are known"
        )
    return like_input(torch.bincount(found, minlength=classes), not isinstance(labels, Tensor))


def modes(labels: Any) -> int:
    """The number of classes that occur among the samples.

    Args:
        labels: The class that a classifier assigns to each sample, integers of at least 0, (m,).

    Returns:
        The number of different labels.

    Example:
        >>> modes([7, 7, 2])
        2
    """
    return len(_labels(labels).unique())


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleReport:
    """The metrics of one generator, in the order of a table's columns.

    Args:
        frechet: Frechet distance from the data, in the features' unit squared.
        frechet_error: Its standard error, from halves of both samples.
        frechet_floor: The distance between two samples of the data.
        floor_error: The floor's standard error.
        precision, recall: Precision and recall with 3 neighbours.
        density, coverage: Density and coverage with 5 neighbours.
        modes: The number of classes among the samples; None where no labels were given.
    """

    frechet: float
    frechet_error: float
    frechet_floor: float
    floor_error: float
    precision: float
    recall: float
    density: float
    coverage: float
    modes: int | None = None

    def figures(self) -> dict[str, float]:
        """The known metrics by name, in the order above."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@typed
def judge_samples(
    real: Any, generated: Any, *, other: Any = None, labels: Any = None, points: int = 10_000
) -> SampleReport:
    """The metrics of a generator's samples.

    Frechet distances take all rows. Neighbours take the same number of both, `points` at most, drawn by a fixed seed.

    Args:
        real: Features of the data, (n, d), more than 5.
        generated: Features of the samples, (m, d), as many.
        other: Features of more data, (k, d), independent of `real`, for the floor; None takes the two halves of `real`,
            whose floor is higher than that of samples of full size.
        labels: The samples' classes, (m,), as a classifier sees them, to be counted.
        points: Most rows of either side among which neighbours are sought.

    Returns:
        The metrics.

    Raises:
        ShapeError: The sets differ in dimension, or the labels do not belong to the samples.
        InvalidArgument: Five neighbours are not there.

    Warns:
        UserWarning: There are fewer than two rows of `real` for each feature.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(400, 2))
        >>> report = judge_samples(x[:200], x[200:], other=x[200:], labels=[3] * 200)
        >>> report.frechet == report.frechet_floor, report.modes, report.coverage > 0.9
        (True, 1, True)
    """
    real, generated = clouds(("real", real), ("generated", generated))
    near, far = halves(real) if other is None else clouds(("real", real), ("other", other))
    if labels is not None and len(_labels(labels)) != len(generated):
        raise ShapeError(f"labels has {len(_labels(labels))} entries but there are {len(generated)} samples; one each")
    if len(real) < _LEAST_ROWS * real.shape[1]:
        warnings.warn(
            f"real has {len(real)} rows of {real.shape[1]} features: a Frechet distance from them is mostly the error "
            f"of their covariance, and noise may come as near as data; give {_LEAST_ROWS * real.shape[1]} rows or "
            "more, or fewer features",
            stacklevel=2,
        )
    for name, cloud in (("real", real), ("generated", generated)):
        _check_neighbours(name, cloud, K_DENSITY)
    distance, floor = frechet_distance(real, generated), _frechet(("real", near), ("other", far))
    size = min(check_count("points", points, least=K_DENSITY + 1), len(real), len(generated))
    rng = np.random.default_rng(0)
    x, y = (cloud[rng.permutation(len(cloud))[:size]] for cloud in (real, generated))
    r_precision, r_density = _radii("real", x, (K_PRECISION, K_DENSITY))
    (r_back,) = _radii("generated", y, (K_PRECISION,))
    samples, balls = _balls(x, r_density, y)
    return SampleReport(
        frechet=distance,
        frechet_error=_error(real, generated),
        frechet_floor=floor,
        floor_error=_error(near, far),
        precision=_share(_balls(x, r_precision, y)[1]),
        recall=_share(_balls(y, r_back, x)[1]),
        density=float(balls.mean()) / K_DENSITY,
        coverage=_share(samples),
        modes=None if labels is None else modes(labels),
    )


def _error(x: Tensor, y: Tensor) -> float:
    """The standard error of `frechet_distance`; infinite where a half would have less than two rows."""
    if min(len(x), len(y)) < 4:
        return math.inf
    rng = np.random.default_rng(0)
    found = [
        frechet_distance(*(cloud[rng.permutation(len(cloud))[: len(cloud) // 2]] for cloud in (x, y)))
        for _ in range(_HALVES)
    ]
    return float(np.std(found, ddof=1))


def _root(name: str, points: Tensor) -> Tensor:
    """A matrix R whose R^T R is the covariance, (min(n, d), d)."""
    if len(points) < 2:
        raise ShapeError(f"{name} has 1 point; a covariance needs at least 2")
    centred = (points - points.mean(0)) / (len(points) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R


def _radii(name: str, points: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
    """For each k the squared distances to the k-th neighbour within the set, (n,)."""
    most = max(check_count("k", k) for k in ks)
    _check_neighbours(name, points, most)
    parts: list[Tensor] = []
    for start, squares in _squares(points, points):
        rows = torch.arange(len(squares), device=points.device)
        squares[rows, start + rows] = torch.inf
        parts.append(squares.topk(most, largest=False).values)
    nearest = torch.cat(parts)
    return [nearest[:, k - 1] for k in ks]


def _check_neighbours(name: str, points: Tensor, k: int) -> None:
    """Refuse a set in which some point has fewer than k others."""
    if len(points) <= k:
        raise InvalidArgument(f"{name} has {len(points)} points; {k} neighbours need at least {k + 1}")


def _balls(centres: Tensor, radii: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The number of points in each ball, and the number of balls around each point; radii are squared."""
    held = torch.zeros(len(centres), dtype=torch.float64)
    holding: list[Tensor] = []
    spread = (centres - centres.mean(0)).square().sum(-1).max()
    reach = radii + SLACK * torch.finfo(centres.dtype).eps * spread
    for _, squares in _squares(points, centres):
        within = squares <= reach
        held += within.sum(0).cpu()
        holding.append(within.sum(1).cpu().double())
    return held, torch.cat(holding)


def _squares(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Blocks of squared distances from some x to all y, each with the index of its first x."""
    rows = max(1, PAIRS // len(y))
    for start in range(0, len(x), rows):
        yield start, pairwise_cost(x[start : start + rows], y)


def _share(counts: Tensor) -> float:
    return float((counts > 0).double().mean())


def _labels(labels: Any) -> Tensor:
    found = to_tensor("labels", labels)
    if found.ndim != 1 or len(found) == 0:
        raise ShapeError(f"labels has shape {tuple(found.shape)}; one class a sample is needed, (m,)")
    if found.is_floating_point() or found.dtype == torch.bool or int(found.min()) < 0:
        raise InvalidArgument(f"labels holds {found.dtype} down to {float(found.min()):g}; classes are integers from 0")
    return found.long()
