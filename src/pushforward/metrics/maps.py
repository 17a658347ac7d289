"""Metrics of a map: how near it is to the true map, to its target, and to being optimal.

symbol   meaning                                                  shape        unit
x        points of the source mu                                  (n, d)       length
T(x)     where a map sends them, row by row: `mapped`             (n, d)       length
T*(x)    where the optimal map sends them, row by row: `true`     (n, d)       length
y        points of the target nu, in no order                     (m, d)       length
c        ground cost                                              (n, m)       the cost's own

    L2-UVP(T)  = 100 E|T - T*|^2 / tr Cov(nu)                                         percent
    cosine(T)  = E<T - id, T* - id> / (E|T - id|^2 E|T* - id|^2)^(1/2)                1
    W2^2(x, y) = min over couplings of E|x - y|^2                                     length^2
    stranded   = share of T(x) 1.5 times as far from y as 99 % of other targets       1
    gap(T)     = mean_i c(x_i, T(x_i)) - min over permutations s of mean_i c(x_i, T(x_s(i)))

A sample is never at distance 0 from another of the same distribution. So W2^2(T#mu, nu) must be compared with its
floor W2^2(nu, nu'), both between samples of one size: empirical transport costs depend on it. Mapped points that are
drawn together are near to any sample. So a W2^2 below its floor, or at another variance than the target's, does not
show a good map; `doubts` warns of it.

Sources: Korotin et al. 2021 (arXiv 2106.01954), section 4.2, for the first two; Uscidda & Cuturi 2023 (arXiv
2302.04953) for the gap; Bunne et al. 2023 (CellOT, Nature Methods 20) for what is reported of cells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward._checks import check_count, check_finite, check_positive, check_weight
from pushforward._interop import like_input, to_tensor
from pushforward._typed import typed
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.metrics.clouds import clouds, rows_alike
from pushforward.ot.costs import GroundCost, PointCost, pairwise_cost
from pushforward.ot.exact import exact
from pushforward.ot.small import best_permutation
from pushforward.ot.solve import solve

__all__ = [
    "FEWEST_STRANDED",
    "STRANDED",
    "MapReport",
    "cosine_similarity",
    "doubts",
    "exact_gap",
    "gene_correlation",
    "halves",
    "judge_map",
    "l2_uvp",
    "marker_genes",
    "matching",
    "mean_shift",
    "mmd",
    "stranded",
    "variance_ratio",
    "wasserstein2",
]

# Widths at which CellOT and its successors average the discrepancy of cells.
CELL_GAMMAS = (2.0, 1.0, 0.5, 0.1, 0.01, 0.005)
# W2^2 is judged beside images of about the target's own spread; a share of stranded images above the last, of three or
# more images, is more than chance.
SPREAD = (0.5, 2.0)
STRANDED, FEWEST_STRANDED = 0.03, 3
AWAY = 1.5
# A W2^2 that is higher by less than this share is as good, and so is one below its floor by less.
ALIKE = 0.01
# Rows whose distances from all of y are held at a time.
NEAREST_BLOCK = 1024
# Above this size a small-epsilon plan's potentials save more of an assignment than they cost (2048 points in the plane:
# 0.45 s instead of 8.9 s on one core); the smaller epsilon over the mean cost, the more they save.
GUESS_ABOVE, GUESS_EPSILON, GUESS_TOL = 256, 1e-3, 1e-3


@typed
def l2_uvp(predicted: Any, true: Any, *, variance: float) -> float:
    """Unexplained variance of a map whose truth is known: 0 is the truth, 100 no better than a constant.

    Args:
        predicted: T(x), (n, d).
        true: T*(x) at the same points, (n, d).
        variance: tr Cov(nu), the target's total variance, in length^2.

    Returns:
        Percent of the variance, at least 0.

    Raises:
        ShapeError: The two differ in shape.

    Source: Korotin et al. 2021, section 4.2.

    Example:
        >>> l2_uvp(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]), variance=2.0)
        25.0
    """
    variance = check_positive("variance", variance)
    predicted, true = rows_alike(("predicted", predicted), ("true", true))
    percent = 100.0 * float((predicted - true).square().sum(1).mean()) / variance
    if math.isinf(percent):
        raise NonFiniteError(f"variance is {variance:g}, over which the map's mean square error overflows")
    return percent


def cosine_similarity(x: Any, predicted: Any, true: Any) -> float:
    """Cosine, in L2(mu), between a map's displacements and the true ones: 1 where they are parallel with one factor.

    Args:
        x: Points of the source, (n, d).
        predicted: T(x), (n, d).
        true: T*(x), (n, d).

    Returns:
        A number in [-1, 1]; NaN where one of the two maps moves nothing.

    Source: Korotin et al. 2021, section 4.2.

    Example:
        >>> x = np.zeros((2, 2))
        >>> round(cosine_similarity(x, x + [1.0, 1.0], x + [1.0, 0.0]), 4)
        0.7071
    """
    x, predicted, true = rows_alike(("x", x), ("predicted", predicted), ("true", true))
    ours, theirs = predicted - x, true - x
    norms = ours.norm() * theirs.norm()
    return float((ours * theirs).sum() / norms)


def matching(cost: Any) -> Any:
    """The permutation s of least total cost, sum_i cost[i, s(i)].

    Args:
        cost: (n, n) finite costs.

    Returns:
        s, (n,): the column of each row; a tensor for a tensor, numpy for numpy.

    Raises:
        ShapeError: The costs are not square.
        NonFiniteError: One of them is no finite number.

    Example:
        >>> matching(np.array([[0.0, 1.0], [-1.0, 1.0]]))
        array([1, 0])
    """
    tensor = to_tensor("cost", cost)
    if tensor.ndim != 2 or tensor.shape[0] != tensor.shape[1] or len(tensor) == 0:
        raise ShapeError(f"cost has shape {tuple(tensor.shape)}; a matching needs as many columns as rows, (n, n)")
    columns = _assign(check_finite("cost", tensor.detach()).cpu().double().numpy())
    return like_input(torch.from_numpy(columns).to(tensor.device), not isinstance(cost, Tensor))


def wasserstein2(x: Any, y: Any) -> float:
    """The exact W2^2 between two samples: by a matching for equal sizes, by `pushforward.exact` otherwise.

    Args:
        x, y: Points, (n, d) and (m, d), each of equal weight.

    Returns:
        W2^2, in length^2.

    Example:
        >>> wasserstein2(np.array([[0.0], [1.0]]), np.array([[4.0], [2.0]]))
        6.5
    """
    cost = PointCost(x, y).matrix().detach().cpu().numpy()
    if cost.shape[0] != cost.shape[1]:
        return float(exact(cost).cost)
    return float(cost[np.arange(len(cost)), _assign(cost)].mean())


@typed
def exact_gap(x: Any, mapped: Any, cost: GroundCost = "sqeuclidean") -> float:
    """The cost of the map minus the cost of the cheapest assignment of its points to its mapped points.

    It is 0 exactly where the pairs (x_i, T(x_i)) are cyclically monotone for the cost.

    Args:
        x: Points of the source, (n, d).
        mapped: T(x), (n, d).
        cost: A name of `pushforward.ot.costs`, or a callable (n, d), (n, d) -> (n, n).

    Returns:
        The difference, at least 0, in units of the cost.

    Example:
        >>> x = np.array([[0.0], [1.0]])
        >>> exact_gap(x, x + 3.0), exact_gap(x, -x)
        (0.0, 1.0)
    """
    x, mapped = rows_alike(("x", x), ("mapped", mapped))
    costs = check_finite("cost(x, mapped)", pairwise_cost(x, mapped, cost).detach()).cpu().double().numpy()
    return float((costs.diagonal() - costs[np.arange(len(costs)), _assign(costs)]).mean())


def variance_ratio(mapped: Any, y: Any) -> float:
    """The variance of the mapped points over the target's, tr Cov(T#mu) / tr Cov(nu).

    Args:
        mapped, y: Points, (n, d) and (m, d), two at least of each.

    Returns:
        The ratio: below 1 the map has shrunk the source, above 1 spread it too far.

    Example:
        >>> variance_ratio(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]))
        0.25
    """
    mapped, y = clouds(("mapped", mapped), ("y", y))
    return float(_total_variance("mapped", mapped) / _target_variance(y))


def mean_shift(mapped: Any, y: Any) -> float:
    """The distance of the means, |E T - E y| / tr Cov(nu)^(1/2).

    Args:
        mapped, y: Points, (n, d) and (m, d), two at least of y.

    Returns:
        The distance in standard deviations of the target.

    Example:
        >>> round(mean_shift(np.array([[2.0]]), np.array([[0.0], [2.0]])), 4)
        0.7071
    """
    mapped, y = clouds(("mapped", mapped), ("y", y))
    return float((mapped.mean(0) - y.mean(0)).norm() / _target_variance(y).sqrt())


def stranded(mapped: Any, y: Any, other: Any) -> float:
    """The share of mapped points far from the target: 1.5 times as far from y as 99 % of a second target sample are.

    It is about 0 for a right map. It is large where a map must tear its points apart and does not, and where mass is
    not conserved, so that points of one cluster are sent on the way to another. Where nearly every target point occurs
    twice (whole numbers, say) there is no distance to compare with, and the share is 0.

    Args:
        mapped: T(x), (k, d).
        y: Points of the target, (m, d).
        other: More points of the target, independent of y.

    Returns:
        The share, in [0, 1].

    Example:
        >>> y = np.array([[0.0], [1.0], [10.0], [11.0]])
        >>> stranded(np.array([[0.1], [5.0]]), y, y + 0.2)
        0.5
    """
    mapped, y, other = clouds(("mapped", mapped), ("y", y), ("other", other))
    usual = _nearest(other, y).quantile(0.99)
    return float((_nearest(mapped, y) > AWAY * usual).double().mean()) if usual > 0 else 0.0


@typed
def doubts(metrics: Mapping[str, float], floor: float, simple: Mapping[str, Mapping[str, float]], *, count: int) -> Any:
    """The warnings that a map's metrics on held-out points call for.

    Args:
        metrics: The map's metrics, as `MapReport.figures` returns them.
        floor: W2^2 between two samples of the target.
        simple: The same metrics of simpler maps by name (identity, mean shift), which it should beat.
        count: The number of mapped points.

    Returns:
        A tuple of sentences, empty where there is no warning: that a simpler map is nearer to the target, that the
        variance of the mapped points is not the target's, that W2^2 is below its floor, that mapped points lie where
        no target is.

    Example:
        >>> metrics = {"w2": 9.0, "variance_ratio": 1.1}
        >>> doubts(metrics, 5.0, {"identity": {"w2": 6.0, "variance_ratio": 1.0}}, count=100)
        ('worse than the identity on held-out points: W2^2 9 against 6 (floor 5)',)
    """
    found: list[str] = []
    floor, count = check_weight("floor", floor), check_count("count", count, least=0)
    w2, spread, lost = metrics["w2"], metrics["variance_ratio"], metrics.get("stranded", 0.0)
    for name, rival in simple.items():
        # A simple map whose own image is drawn together is near to any sample, and beats nobody.
        if rival["w2"] * (1 + ALIKE) < w2 and SPREAD[0] <= rival["variance_ratio"] <= SPREAD[1]:
            found.append(
                f"worse than the {name} on held-out points: W2^2 {w2:.4g} against {rival['w2']:.4g} (floor {floor:.4g})"
            )
    if not SPREAD[0] <= spread <= SPREAD[1]:
        how = "drawn together" if spread < 1 else "flung apart"
        found.append(f"the images are {how}: their variance is {spread:.2g} times the target's, outside 0.5 to 2")
    if w2 < floor * (1 - ALIKE) and spread < 1:
        found.append(
            f"W2^2 {w2:.4g} is below its floor {floor:.4g}, which no right map is but by chance: images that are drawn "
            f"together (variance {spread:.2g} of the target's) are near to any sample"
        )
    if lost > STRANDED and lost * count >= FEWEST_STRANDED:
        found.append(
            f"{100 * lost:.0f} % of the images lie where no target is: the map does not tear its "
            "points apart where it should, or the groups of source and target differ in size, as where cells have died"
        )
    return tuple(found)


@typed
def halves(points: Any, *, seed: int = 0) -> tuple[Any, Any]:
    """Two disjoint halves of a sample, drawn at random. `wasserstein2` between them is the floor at that size.

    Args:
        points: (n, d), at least 2; an odd one is left out.
        seed: The same seed draws the same halves.

    Returns:
        Two arrays (n // 2, d), of the caller's kind and dtype.

    Example:
        >>> [len(half) for half in halves(np.zeros((5, 1)))]
        [2, 2]
    """
    tensor = to_tensor("points", points)
    if tensor.ndim != 2 or len(tensor) < 2:
        raise ShapeError(f"points has shape {tuple(tensor.shape)}; at least 2 points, (n, d), can be halved")
    check_finite("points", tensor)
    seed = check_count("seed", seed, least=0)
    order, half = np.random.default_rng(seed).permutation(len(tensor)), len(tensor) // 2
    as_numpy = not isinstance(points, Tensor)
    return like_input(tensor[order[:half]], as_numpy), like_input(tensor[order[half : 2 * half]], as_numpy)


@typed
def mmd(x: Any, y: Any, *, gammas: Sequence[float] = CELL_GAMMAS) -> float:
    """The squared maximum mean discrepancy with kernels exp(-gamma |x - y|^2), averaged over gamma.

    The V-statistic, pairs of a point with itself included, as the single-cell field reports it: its floor is about
    (1/n + 1/m) times the kernel's spread, not 0.

    Args:
        x, y: Points, (n, d) and (m, d).
        gammas: The kernels' gamma, in length^-2.

    Returns:
        The squared discrepancy, at least 0.

    Source: Gretton et al. 2012, equation 5; gammas of Bunne et al. 2023.

    Example:
        >>> round(mmd(np.zeros((3, 1)), np.ones((2, 1)), gammas=[1.0]), 4)  # 2 - 2/e
        1.2642
    """
    x, y = clouds(("x", x), ("y", y))
    gammas = [check_positive("gammas", gamma) for gamma in gammas]
    if not gammas:
        raise InvalidArgument("gammas is empty; at least one is needed")
    squares = [(pairwise_cost(x, x), 1.0), (pairwise_cost(y, y), 1.0), (pairwise_cost(x, y), -2.0)]
    return sum(sign * float(torch.exp(-gamma * c).mean()) for c, sign in squares for gamma in gammas) / len(gammas)


def gene_correlation(predicted: Any, observed: Any) -> float:
    """Pearson's r between the two populations' mean expressions, over genes. CellOT's tables print its square.

    Args:
        predicted, observed: Cells x genes, (n, genes) and (m, genes), two genes at least.

    Returns:
        A number in [-1, 1]; NaN where all means of one population are equal.

    Source: Bunne et al. 2023.

    Example:
        >>> round(gene_correlation(np.array([[0.0, 1.0, 2.0]]), np.array([[1.0, 3.0, 5.0]])), 6)
        1.0
    """
    predicted, observed = clouds(("predicted", predicted), ("observed", observed))
    if predicted.shape[1] < 2:
        raise ShapeError("predicted has 1 gene; a correlation over genes needs at least 2")
    p, o = (means - means.mean() for means in (predicted.mean(0), observed.mean(0)))
    return float(p @ o / (p.norm() * o.norm()))


def marker_genes(control: Any, treated: Any, *, count: int = 50) -> Any:
    """The genes in which the two populations differ most, by the size of Welch's t.

    Args:
        control, treated: Cells x genes, (n, genes) and (m, genes), two cells at least of each.
        count: The number of genes.

    Returns:
        Their columns, (count,), the strongest first; genes that are constant in both populations come last.

    Example:
        >>> marker_genes(np.array([[0.0, 5.0], [1.0, 6.0]]), np.array([[0.5, 9.0], [0.6, 9.5]]), count=1)
        array([1])
    """
    as_numpy = not isinstance(control, Tensor)
    control, treated = clouds(("control", control), ("treated", treated))
    if check_count("count", count) > control.shape[1]:
        raise InvalidArgument(f"count is {count} but there are {control.shape[1]} genes")
    for name, cells in (("control", control), ("treated", treated)):
        _total_variance(name, cells)
    error = (control.var(0) / len(control) + treated.var(0) / len(treated)).sqrt()
    t = ((treated.mean(0) - control.mean(0)) / error).abs().nan_to_num(nan=-1.0)
    return like_input(t.argsort(descending=True, stable=True)[:count], as_numpy)


@dataclass(frozen=True, kw_only=True, slots=True)
class MapReport:
    """The metrics of one map, in the order of a table's columns.

    Args:
        l2_uvp: Percent of the target's variance by which the map misses the true one; None where that is not known.
        cosine: The cosine of its displacements with the true ones; None where those are not known.
        w2: Exact W2^2 between the mapped points and the target, in length^2.
        w2_floor: Exact W2^2 between two disjoint samples of the target, of the same size.
        exact_gap: Excess over the cheapest assignment to the mapped points, in units of the cost.
        variance_ratio: Total variance of the mapped points over the target's.
        mean_shift: Distance of the means in standard deviations of the target.
        stranded: Share of the mapped points where no target is, about 0 for a right map.
    """

    l2_uvp: float | None
    cosine: float | None
    w2: float
    w2_floor: float
    exact_gap: float
    variance_ratio: float
    mean_shift: float
    stranded: float

    def figures(self) -> dict[str, float]:
        """The known metrics by name, in the order above."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@typed
def judge_map(
    x: Any,
    mapped: Any,
    y: Any,
    *,
    cost: GroundCost = "sqeuclidean",
    true: Any = None,
    variance: float | None = None,
    other: Any = None,
    points: int = 1024,
) -> MapReport:
    """The metrics of a map, on points that it was not fitted on.

    Exact transport takes the same number of points everywhere, `points` at most, drawn by a fixed seed: all maps
    evaluated on one x and y are evaluated on the same points.

    Args:
        x: Points of the source, (n, d).
        mapped: T(x), (n, d).
        y: Points of the target, (m, d).
        cost: The cost for which the map should be optimal.
        true: T*(x), (n, d), where it is known.
        variance: tr Cov(nu); None takes y's.
        other: More points of the target, (k, d), independent of y, for the floor; None takes one half of y for it.
        points: Size of the samples between which exact transport is solved.

    Returns:
        The metrics.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(400, 2))
        >>> report = judge_map(x, 2 * x, 2 * x[::-1], true=2 * x)
        >>> report.l2_uvp, round(report.cosine, 6), round(report.variance_ratio, 6), round(report.exact_gap, 6)
        (0.0, 1.0, 1.0, 0.0)
    """
    x, mapped = rows_alike(("x", x), ("mapped", mapped))
    mapped, y = clouds(("mapped", mapped), ("y", y))
    if true is not None:
        _, true = rows_alike(("x", x), ("true", true))
    near, far = halves(y) if other is None else clouds(("y", y), ("other", other))
    size = min(check_count("points", points), len(x), len(near), len(far))
    total = float(_target_variance(y)) if variance is None else check_positive("variance", variance)
    rng = np.random.default_rng(0)
    rows, near, far = _draw(len(x), size, rng), near[_draw(len(near), size, rng)], far[_draw(len(far), size, rng)]
    return MapReport(
        l2_uvp=None if true is None else l2_uvp(mapped, true, variance=total),
        cosine=None if true is None else cosine_similarity(x, mapped, true),
        w2=wasserstein2(mapped[rows], near),
        w2_floor=wasserstein2(near, far),
        exact_gap=exact_gap(x[rows], mapped[rows], cost),
        variance_ratio=variance_ratio(mapped, y),
        mean_shift=mean_shift(mapped, y),
        stranded=stranded(mapped[rows], near, far),
    )


def _assign(cost: np.ndarray) -> np.ndarray:
    """The column of each row in the cheapest permutation, (n,).

    Subtracting prices from columns and rows leaves the order of permutations as it is. With nearly optimal prices
    almost every row's cheapest column is its own, and the augmenting paths are short.
    """
    reduced = cost - cost.min(1, keepdims=True)
    mean = float(reduced.mean())
    if len(cost) > GUESS_ABOVE and mean > 0:
        prices = solve(reduced, epsilon=GUESS_EPSILON * mean, tol=GUESS_TOL, throw=False).g
        reduced = reduced - prices
        reduced -= reduced.min(1, keepdims=True)
    return best_permutation(torch.from_numpy(reduced)).numpy()


def _nearest(points: Tensor, y: Tensor) -> Tensor:
    """The distance of each point from the nearest of y, (n,)."""
    return torch.cat([torch.cdist(part, y).min(1).values for part in points.split(NEAREST_BLOCK)])


def _draw(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(count)[:size]


def _total_variance(name: str, points: Tensor) -> Tensor:
    """The trace of the covariance, unbiased."""
    if len(points) < 2:
        raise ShapeError(f"{name} has 1 point; a variance needs at least 2")
    return points.var(0).sum()


def _target_variance(y: Tensor) -> Tensor:
    """The total variance of the target, which must not be 0: it is the unit of other metrics."""
    variance = _total_variance("y", y)
    if not variance > 0:
        raise InvalidArgument("all points of y are the same; its variance is the unit here and must not be 0")
    return variance
