"""Figures of samples: Gaussians in closed form, sets worked out by hand, definitions written out, laws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from pushforward import metrics
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.metrics import samples


def exactly(rng: np.random.Generator, mean: np.ndarray, root: np.ndarray, n: int) -> np.ndarray:
    """A sample whose mean and covariance are exactly these: mean, root root^T."""
    z = rng.normal(size=(n, len(root)))
    z -= z.mean(0)
    white = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T)).T)
    return white @ root.T + mean


def test_frechet_of_gaussians_in_closed_form(rng):
    d = 6
    a, b, m = rng.normal(size=(d, d)), rng.normal(size=(d, d)), rng.normal(size=d)
    x, y = exactly(rng, 100 + m, a, 200), exactly(rng, 100 + np.zeros(d), b, 70)
    cross = np.trace(scipy.linalg.sqrtm(a @ a.T @ b @ b.T).real)
    expected = m @ m + np.trace(a @ a.T) + np.trace(b @ b.T) - 2 * cross
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(y, x) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(3 * x, 3 * y) == pytest.approx(9 * expected, rel=1e-9)


def test_frechet_where_covariances_are_singular(rng):
    x = np.concatenate([rng.normal(size=(40, 3)), np.zeros((40, 5))], axis=1)
    # moving along a direction in which nothing varies costs the square of the shift and nothing else
    assert metrics.frechet_distance(x, x + [0, 0, 0, 0.01, 0, 0, 0, 0]) == pytest.approx(1e-4, rel=1e-9)
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    few = rng.normal(size=(4, 100))  # fewer rows than features
    assert metrics.frechet_distance(few, 2 * few) == pytest.approx(
        (few.mean(0) ** 2).sum() + np.trace(np.cov(few.T)), rel=1e-9
    )


def test_neighbours_by_hand():
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # distances to the nearest other: 1, 1, 2, 7
    generated = np.array([[0.5], [4.5], [30.0]])  # 4, 4, 25.5
    # 0.5 is in the balls of 0 and 1; 4.5 in those of 3 (not: 1.5 <= 2, so it is) and 10 (5.5 <= 7); 30 in none
    assert metrics.precision_recall(real, generated, k=1) == pytest.approx((2 / 3, 1.0))
    assert metrics.density_coverage(real, generated, k=1) == pytest.approx((4 / 3, 1.0))
    # the last ball of the generated set reaches from 4.5 to 55.5, that of 4.5 from 0.5 to 8.5, that of 0.5 to 4.5
    assert metrics.precision_recall(real + 50.0, generated, k=1) == pytest.approx((0.0, 1 / 2 + 1 / 4))


def test_neighbours_by_their_definitions(rng, monkeypatch):
    monkeypatch.setattr(samples, "PAIRS", 100)  # several chunks
    real, generated, k = rng.normal(size=(40, 2)), 1.5 * rng.normal(size=(30, 2)), 4
    across = np.linalg.norm(generated[:, None] - real, axis=-1)
    ball = np.sort(np.linalg.norm(real[:, None] - real, axis=-1), axis=1)[:, k]
    back = np.sort(np.linalg.norm(generated[:, None] - generated, axis=-1), axis=1)[:, k]
    precision, recall = (across <= ball).any(1).mean(), (across <= back[:, None]).any(0).mean()
    density, coverage = (across <= ball).sum() / (k * 30), (across <= ball).any(0).mean()
    assert 0 < precision < 1
    assert 0 < coverage < 1
    assert metrics.precision_recall(real, generated, k=k) == pytest.approx((precision, recall))
    assert metrics.density_coverage(real, generated, k=k) == pytest.approx((density, coverage))
    swapped = metrics.precision_recall(generated, real, k=k)
    assert swapped == pytest.approx((recall, precision))


def test_identical_and_disjoint_sets(rng):
    x = rng.normal(size=(60, 5)) + 1000.0
    shuffled = x[rng.permutation(60)]
    assert metrics.precision_recall(x, shuffled) == (1.0, 1.0)
    assert metrics.density_coverage(x, shuffled, k=5) == pytest.approx((6 / 5, 1.0))  # each point, and its neighbours
    assert metrics.precision_recall(x, x + 1e4) == (0.0, 0.0)
    assert metrics.density_coverage(x, x - 1e4) == (0.0, 0.0)
    copies = np.repeat(x[:3], 20, axis=0)  # radii of 0
    assert metrics.precision_recall(copies, copies[::-1]) == (1.0, 1.0)


def test_density_and_coverage_of_one_law(rng):
    real, generated = rng.normal(size=(2000, 3)), rng.normal(size=(2000, 3))
    density, coverage = metrics.density_coverage(real, generated, k=5)
    assert density == pytest.approx(1.0, abs=0.05)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_a_lost_kind_of_data_shows_in_recall_and_a_wrong_one_in_precision(rng):
    two = np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 50.0])
    one = np.concatenate([rng.normal(size=(200, 2))])
    precision, recall = metrics.precision_recall(two, one)
    assert (precision > 0.9, 0.4 < recall < 0.51) == (True, True)
    precision, recall = metrics.precision_recall(one, two)
    assert (0.4 < precision < 0.51, recall > 0.9) == (True, True)


def test_counted_classes():
    labels = [4, 4, 0, 1]
    assert metrics.class_histogram(labels, 6).tolist() == [1, 1, 0, 0, 2, 0]
    assert isinstance(metrics.class_histogram(torch.tensor(labels), 6), torch.Tensor)
    assert metrics.modes(torch.tensor(labels)) == 3


def test_the_error_of_a_distance_is_its_spread_over_draws():
    rng = np.random.default_rng(1)
    reports = [metrics.judge_samples(rng.normal(size=(200, 3)), 1 + rng.normal(size=(400, 3))) for _ in range(40)]
    spread = np.std([report.frechet for report in reports], ddof=1)
    assert np.mean([report.frechet_error for report in reports]) == pytest.approx(spread, rel=0.3)


def test_too_few_rows_for_the_features_are_named(rng):
    few, many = rng.normal(size=(60, 64)), rng.normal(size=(500, 64))
    with pytest.warns(UserWarning, match="real has 60 rows of 64 features"):
        metrics.judge_samples(few, many)


def test_a_report_is_its_parts(rng):
    real, generated, other = (rng.normal(size=(n, 4)) for n in (50, 50, 40))
    report = metrics.judge_samples(real, generated, other=other, labels=rng.integers(0, 2, 50))
    assert list(report.figures()) == [
        *("frechet", "frechet_error", "frechet_floor", "floor_error"),
        *("precision", "recall", "density", "coverage", "modes"),
    ]
    assert report.frechet == metrics.frechet_distance(real, generated)
    assert report.frechet_floor == metrics.frechet_distance(real, other)
    assert (report.precision, report.recall) == metrics.precision_recall(real, generated)
    assert (report.density, report.coverage) == metrics.density_coverage(real, generated)
    assert report.modes == 2
    # unequal sizes are made equal, so that the share of the data that is covered does not depend on how many samples
    many = metrics.judge_samples(real, np.repeat(generated, 20, axis=0))
    assert many.coverage <= report.coverage
    assert many.frechet_floor == metrics.frechet_distance(*metrics.halves(real))
    assert "modes" not in many.figures()


X = np.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.frechet_distance(X[:1], X), ShapeError, "x has 1 point; a covariance"),
        (lambda: metrics.frechet_distance(X, X[:, :1]), ShapeError, "y has points of dimension 1"),
        (lambda: metrics.frechet_distance(X, X + np.inf), NonFiniteError, r"y\[0, 0\] is inf"),
        (lambda: metrics.precision_recall(X, X[:3]), InvalidArgument, "generated has 3 points; 3 neighbours need"),
        (lambda: metrics.density_coverage(X[:5], X), InvalidArgument, "real has 5 points; 5 neighbours need"),
        (lambda: metrics.precision_recall(X, X, k=0), InvalidArgument, "k must be an integer of at least 1"),
        (lambda: metrics.class_histogram([3], 3), InvalidArgument, "labels holds 3, but classes is 3"),
        (lambda: metrics.modes([0.5]), InvalidArgument, "classes are integers"),
        (lambda: metrics.modes([-1]), InvalidArgument, "down to -1"),
        (lambda: metrics.modes([]), ShapeError, r"labels has shape \(0,\)"),
        (lambda: metrics.judge_samples(X, X, labels=[1]), ShapeError, "labels has 1 entries but there are 6"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, error, message: str):
    with pytest.raises(error, match=message):
        call()
