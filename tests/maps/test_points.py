"""What maps take as points: outliers set no scale, columns go by name, what is no points is refused by name."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from pushforward.errors import InvalidArgument, NonFiniteError
from pushforward.maps.entropic import EntropicMap
from pushforward.maps.icnn import ICNNMap
from pushforward.maps.linear import LinearMap
from pushforward.maps.monge import MongeMap
from pushforward.maps.outliers import find_outliers
from pushforward.maps.progressive import ProgressiveMap

QUICK: dict[str, Any] = {"steps": 30, "batch_size": 64, "hidden": (32, 32), "epsilon": 0.05, "random_state": 0}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def clouds(rng):
    return rng.normal(size=(300, 3)), rng.normal(size=(250, 3)) + 1.0


MAPS = [
    LinearMap(),
    EntropicMap(0.02, random_state=0),
    ProgressiveMap(random_state=0),
    ICNNMap(steps=30, hidden=(16,), batch_size=64, random_state=0),
    MongeMap(**QUICK),
]


@pytest.mark.parametrize("estimator", MAPS, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize(("side", "where"), [("X", 1e4), ("Y", 3e5)])
def test_one_far_row_is_named_and_collapses_no_map(estimator, side, where, clouds):
    x, y = clouds
    sides = {"X": x, "Y": y}
    sides[side] = np.insert(sides[side], 7, where, axis=0)
    with pytest.warns(UserWarning, match=rf"{side} has 1 of \d+ rows far from all others: row 7"):
        images = estimator.fit(sides["X"], sides["Y"]).transform(x)
    assert 0.4 < images.var(0).min() <= images.var(0).max() < 1.6
    assert np.abs(images.mean(0) - 1.0).max() < 0.3


def test_without_far_rows_a_map_is_that_of_the_others(clouds, rng):
    x, y = clouds
    far = np.insert(x, [0, 50], rng.normal(size=(2, 3)) * 1e5, axis=0)
    with pytest.warns(UserWarning, match="rows 0, 51"):
        fitted = LinearMap().fit(far, y)
    np.testing.assert_array_equal(fitted.transform(x), LinearMap().fit(x, y).transform(x))


def test_conditions_stay_with_their_rows_when_one_is_left_out(clouds):
    x, y = clouds
    far = np.insert(x, 10, -1e6, axis=0)
    of_x, of_y = np.repeat(["a", "b"], [151, 150]), np.repeat(["a", "b"], 125)
    with pytest.warns(UserWarning, match="row 10"):
        fitted = MongeMap(steps=0, random_state=0).fit(far, y, condition=(of_x, of_y))
    plain = MongeMap(steps=0, random_state=0).fit(x, y, condition=(np.delete(of_x, 10), of_y))
    np.testing.assert_array_equal(fitted.transform(x, condition="b"), plain.transform(x, condition="b"))


@pytest.mark.parametrize(
    "points",
    [
        lambda r: r.normal(size=(20_000, 2)),
        lambda r: r.laplace(size=(20_000, 1)),
        lambda r: r.lognormal(size=(20_000, 3)),
        lambda r: r.poisson(0.05, size=(500, 30)),
        lambda r: np.log1p(np.log1p(1e3 * r.poisson(3.0, size=(60, 7)))),
        lambda r: np.r_[r.normal(size=(900, 2)), r.normal(size=(100, 2)) + 9.0],
        lambda r: np.zeros((30, 2)),
        lambda r: np.r_[np.zeros((95, 1)), np.ones((5, 1))],
    ],
)
def test_ordinary_points_have_no_outliers(points, rng):
    assert find_outliers(torch.from_numpy(points(rng).astype(np.float64))) is None


def test_a_far_group_is_kept_and_said(rng):
    x = np.r_[rng.normal(size=(950, 2)) * 0.01, rng.normal(size=(50, 2)) * 0.01 + 1.0]
    found = find_outliers(torch.from_numpy(x))
    assert found.grouped.all()
    with pytest.warns(UserWarning, match="50 of 1000 rows far from all others.*taken for a group and kept"):
        fitted = LinearMap(0.0).fit(x, 2 * x)
    np.testing.assert_allclose(fitted.transform(x), 2 * x, atol=1e-9)


@pytest.mark.parametrize("scale", [1e20, 1e-20])
@pytest.mark.parametrize("side", ["X", "Y"])
def test_points_whose_squares_overflow_are_refused_by_name(side, scale, clouds):
    sides = dict(zip("XY", clouds, strict=True))
    sides[side] = sides[side] * scale
    with pytest.raises(InvalidArgument, match=rf"{side} has coordinates up to .*Change the unit"):
        MongeMap(**QUICK).fit(sides["X"], sides["Y"])


@pytest.mark.parametrize("scale", [1e-10, 1e10])
def test_units_do_not_matter_within_that(scale, clouds):
    x, y = clouds
    one, other = (MongeMap(**QUICK).fit(s * x, s * y).transform(s * x) / s for s in (1.0, scale))
    np.testing.assert_allclose(other, one, atol=0.05)


def test_images_that_a_narrow_dtype_cannot_hold_are_no_infinity(clouds):
    x, y = clouds
    fitted = LinearMap().fit(x, y * 1e5)
    for points in (x.astype(np.float16), torch.from_numpy(x).half()):
        with pytest.raises(NonFiniteError, match="X is float16, which cannot hold its images"):
            fitted.transform(points)


class TestFrames:
    NAMES = ("CD4", "CD8", "CD19")

    @pytest.fixture
    def frames(self, clouds):
        x, _ = clouds
        X = pd.DataFrame(x, columns=list(self.NAMES))
        return X, X + [0.0, 0.0, 5.0]

    @pytest.mark.parametrize("names", [NAMES, (3, 1, 2), ("a", "b", "a b")])
    def test_columns_of_both_are_paired_by_name(self, names, frames):
        X, Y = (frame.set_axis(list(names), axis=1) for frame in frames)
        turned = Y[[names[2], names[0], names[1]]]
        fitted = LinearMap().fit(X, turned)
        moved = fitted.transform(X) - X.to_numpy()
        np.testing.assert_allclose(moved.mean(0), [0, 0, 5], atol=1e-9)
        assert fitted.score(X, turned) == pytest.approx(fitted.score(X, Y), abs=1e-9)

    def test_other_columns_are_refused(self, frames):
        X, Y = frames
        with pytest.raises(InvalidArgument, match="Y must have the columns of X, but lacks 'CD8' and has also 'CD20'"):
            LinearMap().fit(X, Y.rename(columns={"CD8": "CD20"}))
        twice = X.set_axis(["a", "a", "b"], axis=1)
        with pytest.raises(InvalidArgument, match="unique column names"):
            LinearMap().fit(twice, Y.set_axis(["a", "b", "a"], axis=1))
        fitted = LinearMap().fit(X, Y)
        with pytest.raises(InvalidArgument, match="Y must have the columns of the fit's X"):
            fitted.score(X, Y.rename(columns={"CD8": "CD20"}))

    @pytest.mark.parametrize("names", [NAMES, (3, 1, 2)])
    def test_new_points_must_have_them_in_order(self, names, frames, tmp_path):
        X, Y = (frame.set_axis(list(names), axis=1) for frame in frames)
        LinearMap().fit(X, Y).save(tmp_path)
        fitted = LinearMap.load(tmp_path)
        assert fitted.transform(X).shape == X.shape
        for use in (fitted.transform, lambda points: fitted.score(points, Y)):
            with pytest.raises(InvalidArgument, match="X has"):
                use(X[[names[1], names[0], names[2]]])

    def test_one_without_names_goes_by_position(self, frames):
        X, Y = frames
        for other in (Y.to_numpy(), pd.DataFrame(Y.to_numpy()), torch.from_numpy(Y.to_numpy())):
            moved = LinearMap().fit(X, other).transform(X) - X.to_numpy()
            np.testing.assert_allclose(moved.mean(0), [0, 0, 5], atol=1e-9)

    def test_conditions_by_name(self, clouds):
        x, y = clouds
        one = pd.DataFrame({"dose": np.repeat([0.0, 1.0], 150), "time": 5.0 * np.repeat([0.0, 1.0], 150)})
        two = pd.DataFrame({"dose": np.repeat([0.0, 1.0], 125), "time": 5.0 * np.repeat([0.0, 1.0], 125)})
        plain = MongeMap(steps=0, random_state=0).fit(x, y, condition=(one, two))
        turned = MongeMap(steps=0, random_state=0).fit(x, y, condition=(one, two[["time", "dose"]]))
        asked = one[["time", "dose"]]
        np.testing.assert_array_equal(turned.transform(x, condition=asked), plain.transform(x, condition=one))
        with pytest.raises(InvalidArgument, match="condition must have the columns"):
            MongeMap(steps=0, random_state=0).fit(x, y, condition=(one, two.rename(columns={"time": "batch"})))

    @pytest.mark.parametrize("what", ["condition", "groups"])
    def test_labels_of_other_rows_are_refused(self, what, clouds):
        x, y = clouds
        X, Y = (pd.DataFrame(points, index=[f"cell{k}" for k in range(len(points))]) for points in clouds)
        of_x = pd.Series(np.repeat(["a", "b"], 150), index=X.index)
        of_y = pd.Series(np.repeat(["a", "b"], 125), index=Y.index)
        MongeMap(steps=0, random_state=0).fit(X, Y, **{what: (of_x, of_y)})
        with pytest.raises(InvalidArgument, match=f"{what} of Y has row labels in another order than Y's: row 0"):
            MongeMap(steps=0, random_state=0).fit(X, Y, **{what: (of_x, of_y[::-1])})
        with pytest.raises(InvalidArgument, match=f"{what} of X has row labels of other rows"):
            MongeMap(steps=0, random_state=0).fit(X, Y, **{what: (of_x.rename(lambda name: name + "-1"), of_y)})


def test_a_condition_of_every_point_is_refused_with_advice(clouds, rng):
    x, y = clouds
    with pytest.raises(InvalidArgument, match=r"condition has 550 different values for 550 points.*np\.digitize"):
        MongeMap(**QUICK).fit(x, y, condition=(rng.random(300), rng.random(250)))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_a_missing_label_is_no_label(missing, clouds):
    x, y = clouds
    labels = np.array(["a"] * 249 + [missing], dtype=object)
    with pytest.raises(NonFiniteError, match="condition has 1 missing values, the first at row 249"):
        MongeMap(**QUICK).fit(x, y, condition=labels)


def anndata_of(x):
    return pytest.importorskip("anndata").AnnData(x)


def backed(x, tmp_path, matrix):
    anndata = pytest.importorskip("anndata")
    anndata.AnnData(matrix(x)).write_h5ad(tmp_path / "x.h5ad")
    return anndata.read_h5ad(tmp_path / "x.h5ad", backed="r").X


NO_POINTS = {
    "AnnData": (lambda x, _: anndata_of(x), r"is an AnnData; pass its numbers"),
    "backed sparse": (lambda x, folder: backed(x, folder, sparse.csr_matrix), r"matrix on disk .*to_memory"),
    "sparse": (lambda x, _: sparse.csr_matrix(x), "[Ss]parse"),
    "sparse tensor": (lambda x, _: torch.from_numpy(x).to_sparse(), r"sparse .*to_dense"),
    "meta": (lambda x, _: torch.from_numpy(x).to("meta"), "on meta"),
    "float8": (lambda x, _: torch.from_numpy(x).to(torch.float8_e4m3fn), "float8_e4m3fn; .* 16 bits at least"),
    "list of clouds": (lambda x, _: [x, x], "is a list of 2 arrays"),
    "list of tensors": (lambda x, _: [torch.from_numpy(x), torch.from_numpy(x[:5])], "is a list of 2 arrays"),
    "text": (lambda x, _: "cells.h5ad", "cannot be used as points"),
    "words": (lambda x, _: x.astype(str), "cannot be used as points"),
    "dates": (lambda x, _: np.full(x.shape, np.datetime64("2026-01-01")), "dtype datetime64"),
    "spans": (lambda x, _: np.full(x.shape, np.timedelta64(1, "D")), "dtype timedelta64"),
    "datetimes": (lambda x, _: [[datetime(2026, 1, 1)] * 3] * 9, "X|Y"),
    "dicts": (lambda x, _: np.full(x.shape, {}), "cannot be used as points"),
    "masked": (lambda x, _: np.ma.masked_less(x, 0.0), "masked entries"),
    "number": (lambda x, _: 3.0, "cannot be used as points"),
    "none": (lambda x, _: [None, None], "cannot be used as points"),
    "ragged": (lambda x, _: [[1.0, 2.0], [3.0]], "cannot be used as points"),
}


@pytest.mark.parametrize(("make", "message"), NO_POINTS.values(), ids=NO_POINTS.keys())
def test_what_is_no_points_is_named_at_every_door(make, message, clouds, tmp_path):
    x, y = clouds
    wrong, fitted = make(x, tmp_path), LinearMap().fit(x, y)
    doors = {
        "X": (lambda: LinearMap().fit(wrong, y), lambda: fitted.transform(wrong), lambda: fitted.score(wrong, y)),
        "Y": (lambda: LinearMap().fit(x, wrong), lambda: fitted.score(x, wrong)),
    }
    for name, calls in doors.items():
        for call in calls:
            with pytest.raises(InvalidArgument, match=message) as caught:
                call()
            assert name in str(caught.value).split()[0]


def test_what_holds_the_same_numbers_is_taken(clouds, tmp_path):
    x, y = clouds
    expected = LinearMap().fit(x, y).transform(x)
    for same in (x.tolist(), x.astype(np.longdouble), np.asfortranarray(x), np.ma.array(x), x.astype(">f8"), list(x)):
        np.testing.assert_allclose(LinearMap().fit(same, y).transform(same), expected, rtol=1e-12)
    np.testing.assert_allclose(LinearMap().fit(backed(x, tmp_path, np.asarray), y).transform(x), expected, rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearMap().fit(pd.DataFrame(x), y).transform(x)
