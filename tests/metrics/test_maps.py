"""Every figure against its definition written out, closed forms, and other libraries."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.optimize import linear_sum_assignment

from pushforward import metrics
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.metrics import maps


@pytest.fixture
def clouds(rng):
    """A source, a map that is not optimal, and a target of another size."""
    x = rng.normal(size=(60, 3))
    return x, 1.5 * x[:, ::-1] + 0.3, rng.normal(size=(50, 3)) * 2.0


COSTS = {
    "uniform": lambda rng, n: rng.random((n, n)),
    "ties": lambda rng, n: rng.integers(0, 3, (n, n)).astype(float),
    "all equal": lambda rng, n: np.full((n, n), 2.5),
    "negative": lambda rng, n: rng.normal(size=(n, n)) - 100.0,
    "huge": lambda rng, n: 1e12 * rng.random((n, n)),
    "tiny": lambda rng, n: 1e-12 * rng.random((n, n)),
    "heavy tails": lambda rng, n: rng.pareto(0.5, (n, n)),
    "uneven rows": lambda rng, n: rng.random((n, n)) * np.logspace(-6, 6, n)[:, None],
    "points": lambda rng, n: ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, n, 2))) ** 2).sum(-1),
    "far": lambda rng, n: ((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, n, 2)) - 1e3) ** 2).sum(-1),
}


@pytest.mark.parametrize("name", COSTS)
def test_no_permutation_is_cheaper(rng, name: str):
    cost = COSTS[name](rng, 6)
    best = min(cost[range(6), list(s)].sum() for s in itertools.permutations(range(6)))
    assert cost[range(6), metrics.matching(cost)].sum() == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("name", COSTS)
def test_the_prices_that_save_work_change_nothing(rng, monkeypatch, name: str):
    monkeypatch.setattr(maps, "GUESS_ABOVE", 1)
    cost = COSTS[name](rng, 80)
    s = metrics.matching(cost)
    assert sorted(s) == list(range(80))
    assert cost[range(80), s].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum(), rel=1e-12)


def test_a_matching_of_many_points(rng):
    cost = COSTS["points"](rng, maps.GUESS_ABOVE + 50)
    s = metrics.matching(torch.from_numpy(cost).requires_grad_(True))
    assert isinstance(s, torch.Tensor)
    assert cost[range(len(s)), s.numpy()].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum(), rel=1e-12)


def test_l2_uvp_is_its_definition(clouds):
    x, mapped, _ = clouds
    expected = 100 * np.mean([np.sum((p - t) ** 2) for p, t in zip(mapped, x, strict=True)]) / 7.0
    assert metrics.l2_uvp(mapped, x, variance=7.0) == pytest.approx(expected, rel=1e-12)
    assert metrics.l2_uvp(x, x, variance=7.0) == 0
    total = x.var(0).sum()
    assert metrics.l2_uvp(np.broadcast_to(x.mean(0), x.shape), x, variance=total) == pytest.approx(100)
    assert metrics.l2_uvp(10 * mapped, 10 * x, variance=700.0) == pytest.approx(expected)


def test_cosine_is_that_of_the_displacements(clouds):
    x, mapped, _ = clouds
    true = x + 1.0
    ours, theirs = (mapped - x).reshape(-1), (true - x).reshape(-1)
    expected = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert metrics.cosine_similarity(x, mapped, true) == pytest.approx(expected, rel=1e-12)
    assert metrics.cosine_similarity(x, x + 0.1 * (mapped - x), mapped) == pytest.approx(1)
    assert metrics.cosine_similarity(x, 2 * x - mapped, mapped) == pytest.approx(-1)
    assert np.isnan(metrics.cosine_similarity(x, x, true))


def test_w2_on_the_line_sorts(rng):
    x, y = rng.normal(size=40), rng.normal(size=40) ** 2
    assert metrics.wasserstein2(x[:, None], y[:, None]) == pytest.approx(np.mean((np.sort(x) - np.sort(y)) ** 2))
    twice = np.repeat(y, 2)
    assert metrics.wasserstein2(x[:, None], twice[:, None]) == pytest.approx(np.mean((np.sort(x) - np.sort(y)) ** 2))


@pytest.mark.parametrize("m", [60, 35])
def test_w2_against_another_program(rng, m: int):
    ot = pytest.importorskip("ot")
    x, y = rng.normal(size=(60, 4)), rng.normal(size=(m, 4)) + 1.0
    expected = ot.emd2(np.full(60, 1 / 60), np.full(m, 1 / m), ot.dist(x, y))
    assert metrics.wasserstein2(x, y) == pytest.approx(expected, rel=1e-9)
    # moving both apart by t adds |t|^2 + 2 <t, E x - E y>
    moved = expected + 4.0 + 4.0 * (x[:, 0].mean() - y[:, 0].mean())
    assert metrics.wasserstein2(x + np.array([2.0, 0, 0, 0]), y) == pytest.approx(moved, rel=1e-9)


def test_the_gap_is_zero_at_optimal_maps_only(rng):
    x = rng.normal(size=(100, 3))
    for cost in ("sqeuclidean", "euclidean", "manhattan", lambda x, y: (x[:, None] - y).abs().pow(3).sum(-1)):
        assert metrics.exact_gap(x, x + np.array([1.0, -2.0, 0.5]), cost) == pytest.approx(0, abs=1e-12)
        assert metrics.exact_gap(x, -x, cost) > 0.1
    assert metrics.exact_gap(x, x @ np.diag([3.0, 0.1, 1.0])) == pytest.approx(0, abs=1e-12)


def test_the_gap_is_what_rearranging_saves(clouds):
    x, mapped, _ = clouds
    paid = ((x - mapped) ** 2).sum(1).mean()
    assert metrics.exact_gap(x, mapped) == pytest.approx(paid - metrics.wasserstein2(x, mapped), rel=1e-9)
    shuffled = np.random.default_rng(1).permutation(len(x))
    assert metrics.exact_gap(x[shuffled], mapped[shuffled]) == pytest.approx(metrics.exact_gap(x, mapped), rel=1e-9)


def test_moments_of_an_image(clouds):
    _, mapped, y = clouds
    total = np.trace(np.cov(y.T))
    assert metrics.variance_ratio(mapped, y) == pytest.approx(np.trace(np.cov(mapped.T)) / total, rel=1e-12)
    shift = np.linalg.norm(mapped.mean(0) - y.mean(0)) / np.sqrt(total)
    assert metrics.mean_shift(mapped, y) == pytest.approx(shift, rel=1e-12)
    assert metrics.mean_shift(5 * mapped + 1, 5 * y + 1) == pytest.approx(shift, rel=1e-9)
    assert metrics.variance_ratio(5 * mapped + 1, 5 * y - 7) == pytest.approx(metrics.variance_ratio(mapped, y))


def test_halves_are_disjoint_and_the_same_again(rng):
    points = np.arange(21.0)[:, None]
    near, far = metrics.halves(points)
    assert near.shape == far.shape == (10, 1)
    assert not set(near[:, 0]) & set(far[:, 0])
    assert not np.array_equal(np.sort(near[:, 0]), np.arange(10))
    for ours, again in zip((near, far), metrics.halves(torch.from_numpy(points).float()), strict=True):
        assert again.dtype == torch.float32
        np.testing.assert_array_equal(ours, again.numpy())
    assert not np.array_equal(near, metrics.halves(points, seed=1)[0])


def test_mmd_against_kernels_written_elsewhere(clouds):
    from sklearn.metrics.pairwise import rbf_kernel

    x, _, y = clouds
    expected = np.mean(
        [
            rbf_kernel(x, x, gamma).mean() + rbf_kernel(y, y, gamma).mean() - 2 * rbf_kernel(x, y, gamma).mean()
            for gamma in (2, 1, 0.5, 0.1, 0.01, 0.005)
        ]
    )
    assert metrics.mmd(x, y) == pytest.approx(expected, rel=1e-9)
    assert metrics.mmd(x, x[::-1]) == pytest.approx(0, abs=1e-12)
    assert metrics.mmd(x, y, gammas=(0.3,)) != pytest.approx(expected, rel=0.1)


def test_genes_against_scipy(rng):
    control, treated = rng.gamma(2.0, size=(40, 9)), rng.gamma(2.0, size=(30, 9)) + np.linspace(0, 2, 9)
    r = scipy.stats.pearsonr(control.mean(0), treated.mean(0)).statistic
    assert metrics.gene_correlation(control, treated) == pytest.approx(r, rel=1e-9)
    t = scipy.stats.ttest_ind(treated, control, equal_var=False).statistic
    np.testing.assert_array_equal(metrics.marker_genes(control, treated, count=4), np.argsort(-np.abs(t))[:4])


def test_genes_that_never_vary_are_no_markers(rng):
    control, treated = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    control[:, 1] = treated[:, 1] = 4.0  # no difference, no spread
    control[:, 2], treated[:, 2] = 0.0, 1.0  # all difference, no spread
    assert metrics.marker_genes(control, treated, count=3).tolist() == [2, 0, 1]


def test_a_report_holds_the_figures_in_a_fixed_order(clouds):
    x, mapped, y = clouds
    true = 1.2 * x
    near, far = metrics.halves(y)
    report = metrics.judge_map(x, mapped, y, true=true, points=25)
    assert list(report.figures()) == [
        "l2_uvp",
        "cosine",
        "w2",
        "w2_floor",
        "exact_gap",
        "variance_ratio",
        "mean_shift",
        "stranded",
    ]
    assert report.l2_uvp == pytest.approx(metrics.l2_uvp(mapped, true, variance=np.trace(np.cov(y.T))))
    assert report.cosine == metrics.cosine_similarity(x, mapped, true)
    assert report.w2_floor == pytest.approx(metrics.wasserstein2(near, far))
    assert report.variance_ratio == metrics.variance_ratio(mapped, y)
    assert report.mean_shift == metrics.mean_shift(mapped, y)
    assert report.w2 > 0
    unknown = metrics.judge_map(x, mapped, y)
    assert list(unknown.figures()) == ["w2", "w2_floor", "exact_gap", "variance_ratio", "mean_shift", "stranded"]
    assert unknown.l2_uvp is None


def test_a_report_takes_all_points_where_sizes_agree(clouds):
    x, mapped, _ = clouds
    y, other = x[::-1] * 2.0, x + 0.5
    report = metrics.judge_map(x, mapped, y, other=other, true=mapped, variance=9.0)
    assert report.w2 == pytest.approx(metrics.wasserstein2(mapped, y), rel=1e-9)
    assert report.w2_floor == pytest.approx(metrics.wasserstein2(y, other), rel=1e-9)
    assert report.exact_gap == pytest.approx(metrics.exact_gap(x, mapped), rel=1e-9)
    assert metrics.judge_map(x, mapped, y, true=y, variance=9.0).l2_uvp == metrics.l2_uvp(mapped, y, variance=9.0)


def test_a_report_keeps_pairs_together_and_its_cost(clouds):
    x, mapped, y = clouds
    assert metrics.judge_map(x, 3 * x + 1, y, points=20).exact_gap == pytest.approx(0, abs=1e-12)
    cubed = metrics.judge_map(x, mapped, y, cost=lambda x, y: (x[:, None] - y).norm(dim=-1) ** 3).exact_gap
    assert cubed != pytest.approx(metrics.judge_map(x, mapped, y).exact_gap)


def test_tensors_and_arrays_give_the_same_figures(clouds):
    x, mapped, y = clouds
    tensors = [torch.from_numpy(np.ascontiguousarray(c)).requires_grad_(True) for c in clouds]
    expected = metrics.judge_map(x, mapped, y, true=x[::-1]).figures()
    assert metrics.judge_map(*tensors, true=tensors[0].detach().flip(0)).figures() == expected
    rounded = metrics.judge_map(*(t.float() for t in tensors), true=tensors[0].flip(0)).figures()
    assert rounded == pytest.approx(expected, rel=1e-5)
    assert metrics.mmd(tensors[0], tensors[2]) == metrics.mmd(x, y)
    assert isinstance(metrics.marker_genes(tensors[0], tensors[2], count=1), torch.Tensor)


class TestDoubts:
    FLOOR = 10.0
    GOOD = {"w2": 10.1, "variance_ratio": 0.97, "stranded": 0.01}

    def said(self, figures=None, **simple):
        return metrics.doubts(self.GOOD | (figures or {}), self.FLOOR, simple, count=200)

    def test_a_good_map_has_none(self):
        assert self.said(identity={"w2": 15.0, "variance_ratio": 1.0}) == ()
        assert self.said({"w2": 9.95}, identity={"w2": 10.05, "variance_ratio": 1.0}) == ()

    def test_a_simpler_map_that_is_nearer(self):
        (said,) = self.said({"w2": 12.0}, identity={"w2": 11.0, "variance_ratio": 1.0}, shift={"w2": 13.0})
        assert said.startswith("worse than the identity on held-out points: W2^2 12 against 11")

    def test_a_simpler_map_whose_image_is_drawn_together_beats_nobody(self):
        assert self.said({"w2": 12.0}, identity={"w2": 9.0, "variance_ratio": 0.3}) == ()

    @pytest.mark.parametrize(("spread", "how"), [(0.19, "drawn together"), (0.49, "drawn"), (2.1, "flung apart")])
    def test_a_variance_that_is_not_the_targets(self, spread, how):
        (said,) = self.said({"variance_ratio": spread})
        assert how in said

    def test_below_the_floor_is_no_success(self):
        said = self.said({"w2": 5.0, "variance_ratio": 0.19})
        assert len(said) == 2
        assert "below its floor" in said[1]

    def test_images_where_no_target_is(self):
        (said,) = self.said({"stranded": 0.07})
        assert "7 % of the images lie where no target is" in said
        assert metrics.doubts(self.GOOD | {"stranded": 0.04}, self.FLOOR, {}, count=50) == ()  # two images


def test_points_on_the_way_between_two_clusters_are_stranded():
    rng = np.random.default_rng(0)
    y, other = (np.r_[rng.normal(size=(400, 3)), rng.normal(size=(100, 3)) + 12.0] for _ in range(2))
    right, wrong = rng.normal(size=(500, 3)), rng.normal(size=(500, 3))
    wrong[:50] += 6.0
    assert metrics.stranded(right, y, other) < 0.03
    assert metrics.stranded(wrong, y, other) == pytest.approx(0.1, abs=0.03)


X, Y = np.zeros((4, 2)), np.eye(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.matching(X), ShapeError, r"cost has shape \(4, 2\); a matching needs"),
        (lambda: metrics.matching(np.diag([0.0, np.inf])), NonFiniteError, r"cost\[1, 1\] is inf"),
        (lambda: metrics.l2_uvp(X, X[:3], variance=1.0), ShapeError, "true has 3 points but predicted has 4"),
        (lambda: metrics.l2_uvp(X, X[:, :1], variance=1.0), ShapeError, "true has points of dimension 1"),
        (lambda: metrics.l2_uvp(X, X, variance=0.0), InvalidArgument, "variance must be a positive"),
        (lambda: metrics.cosine_similarity(X, X + np.nan, X), NonFiniteError, r"predicted\[0, 0\] is nan"),
        (lambda: metrics.exact_gap(X, X[:2]), ShapeError, "mapped has 2 points but x has 4"),
        (lambda: metrics.exact_gap(X, X, "chebyshev"), InvalidArgument, "cost must be one of"),
        (lambda: metrics.variance_ratio(X[:1], X), ShapeError, "mapped has 1 point; a variance needs"),
        (lambda: metrics.variance_ratio(X, X), InvalidArgument, "all points of y are the same"),
        (lambda: metrics.halves(X[:1]), ShapeError, "at least 2 points"),
        (lambda: metrics.mmd(X, X, gammas=()), InvalidArgument, "gammas is empty"),
        (lambda: metrics.mmd(X, X, gammas=(1.0, -1.0)), InvalidArgument, "gammas must be a positive"),
        (lambda: metrics.gene_correlation(X[:, :1], X[:, :1]), ShapeError, "at least 2"),
        (lambda: metrics.marker_genes(X, X, count=3), InvalidArgument, "count is 3 but there are 2 genes"),
        (lambda: metrics.judge_map(X, X, X, points=0), InvalidArgument, "points must be an integer"),
        (lambda: metrics.judge_map(X, X, X[:, :1]), ShapeError, "y has points of dimension 1"),
        (lambda: metrics.judge_map(X, X, Y, true=X, variance=0.0), InvalidArgument, "variance must be a positive"),
        (lambda: metrics.judge_map(X, X, X, other=X[:, :1]), ShapeError, "other has points of dimension 1"),
        (lambda: metrics.judge_map(X, X, X, true=X[:2]), ShapeError, "true has 2 points but x has 4"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, error, message: str):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(("name", "known"), [("PW036", (49.0, 34.9, 38.6)), ("PW040", (81.8, 43.8, 59.8))])
def test_cells_before_and_after_a_drug(name: str, known: tuple[float, ...], data_sets: Path):
    """The floor is far under what the drug changed, and the difference of means takes most of the way."""
    with np.load(data_sets / "cells" / "gbm_panobinostat.npz", allow_pickle=False) as stored:
        counts, patient, condition = (stored[name] for name in ("counts", "patient", "condition"))
    logs = np.log1p(1000 * counts / counts.sum(1, keepdims=True))
    axes = np.linalg.eigh(np.cov(logs.T))[1][:, -30:]
    cells = (logs - logs.mean(0)) @ axes
    drug, control = (cells[(patient == name) & (condition == c)] for c in ("panobinostat", "ctrl"))
    fitted, held_out = metrics.halves(control)
    drug_fitted, drug_held_out = metrics.halves(drug)
    still = metrics.judge_map(held_out, held_out, drug_held_out, other=drug_fitted)
    moved = held_out + drug_fitted.mean(0) - fitted.mean(0)
    shifted = metrics.judge_map(held_out, moved, drug_held_out, other=drug_fitted)
    # Other halves of the cells move these figures by some percent.
    assert (still.w2, still.w2_floor, shifted.w2) == pytest.approx(known, rel=0.1)
    assert shifted.mean_shift < 0.5 * still.mean_shift
