"""What scikit-learn, numpy, torch and pandas users may count on, of every map."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.maps.entropic import EntropicMap
from pushforward.maps.icnn import ICNNMap
from pushforward.maps.linear import LinearMap
from pushforward.maps.monge import MongeMap
from pushforward.maps.progressive import ProgressiveMap


class Labels:
    """Lets scikit-learn's checks pass labels (n,) for Y: they get X itself, each point moved by its label."""

    def fit(self, X, y=None, *, condition=None):
        return super().fit(X, moved(X, y), condition=condition)

    def score(self, X, y=None):
        return super().score(X, moved(X, y))


def moved(X, y):
    if y is None or getattr(y, "ndim", 1) == 2:
        return y
    labels = np.asarray(y)
    try:
        return np.asarray(X, dtype=float) + np.unique(labels, return_inverse=True)[1][:, None]
    except (TypeError, ValueError):  # what the check is about: the map has to say so
        return X


class LabelledLinearMap(Labels, LinearMap):
    pass


class LabelledEntropicMap(Labels, EntropicMap):
    pass


class LabelledProgressiveMap(Labels, ProgressiveMap):
    pass


class LabelledICNNMap(Labels, ICNNMap):
    pass


class LabelledMongeMap(Labels, MongeMap):
    pass


# Every map of the package, with settings that fit in a blink. None is exempt from any of scikit-learn's checks; its
# check of array-API inputs skips itself unless SCIPY_ARRAY_API is set.
MAPS = {
    "linear": LabelledLinearMap(),
    "entropic": LabelledEntropicMap(epsilon=0.1, random_state=0),
    "entropic-debiased": LabelledEntropicMap(epsilon=0.1, debias=True, random_state=0),
    "progressive": LabelledProgressiveMap(epsilon=0.1, random_state=0),
    "icnn": LabelledICNNMap(hidden=(8,), steps=5, random_state=0),
    "monge": LabelledMongeMap(hidden=(8,), steps=2, batch_size=16, random_state=0),
}

EVERY_MAP = pytest.mark.parametrize("estimator", MAPS.values(), ids=MAPS.keys())


def checks():
    for name, estimator in MAPS.items():
        for copy, check in estimator_checks_generator(estimator, mark="skip"):
            yield pytest.param(copy, check, id=f"{name}-{getattr(check, 'func', check).__name__}")


@pytest.mark.parametrize(("copy", "check"), list(checks()))
def test_scikit_learns_contract(copy, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(copy)


@pytest.fixture
def clouds(rng):
    return rng.standard_normal((40, 3)), rng.standard_normal((50, 3)) * 0.5 + 2.0


@EVERY_MAP
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_come_back_as_tensors_of_their_dtype(estimator, dtype, clouds):
    x, y = (torch.from_numpy(points).to(dtype) for points in clouds)
    image = clone(estimator).fit(x, y).transform(x)
    assert isinstance(image, torch.Tensor)
    assert image.dtype == dtype
    assert image.shape == x.shape
    assert not image.requires_grad


@EVERY_MAP
@pytest.mark.parametrize(("dtype", "out"), [(np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float64)])
def test_arrays_come_back_as_arrays_of_their_dtype(estimator, dtype, out, clouds):
    x, y = ((10 * points).astype(dtype) for points in clouds)
    image = clone(estimator).fit(x, y).transform(x)
    assert isinstance(image, np.ndarray)
    assert image.dtype == out


@EVERY_MAP
def test_single_and_double_precision_agree(estimator, clouds):
    x, y = clouds
    double = clone(estimator).fit(x, y).transform(x)
    single = clone(estimator).fit(x.astype(np.float32), y.astype(np.float32)).transform(x.astype(np.float32))
    np.testing.assert_allclose(single, double, atol=2e-3)


@EVERY_MAP
def test_far_from_the_origin_is_as_near_it(estimator, clouds):
    x, y = clouds
    here = clone(estimator).fit(x, y).transform(x)
    there = clone(estimator).fit(x + 1e4, y + 1e4).transform(x + 1e4)
    np.testing.assert_allclose(there - 1e4, here, atol=2e-3)


@EVERY_MAP
def test_data_frames_keep_their_columns(estimator, clouds):
    pandas = pytest.importorskip("pandas")
    x, y = (pandas.DataFrame(points, columns=["p53", "myc", "egfr"]) for points in clouds)
    fitted = clone(estimator).fit(x, y)
    assert isinstance(fitted.transform(x), np.ndarray)
    frame = fitted.set_output(transform="pandas").transform(x)
    assert list(frame.columns) == ["p53", "myc", "egfr"]
    with pytest.raises(ValueError, match="feature names"):
        fitted.transform(x.rename(columns={"myc": "MYC"}))


@EVERY_MAP
def test_a_map_is_a_step_of_a_pipeline(estimator, clouds):
    x, y = clouds
    steps = make_pipeline(StandardScaler(), clone(estimator))
    assert steps.fit(x, y).transform(x).shape == x.shape


@EVERY_MAP
def test_fitting_again_forgets(estimator, clouds):
    x, y = clouds
    again = clone(estimator).fit(y, x).fit(x, y)
    np.testing.assert_array_equal(again.transform(x), clone(estimator).fit(x, y).transform(x))


@EVERY_MAP
def test_a_failed_fit_leaves_no_fitted_map(estimator, clouds):
    x, y = clouds
    fitted = clone(estimator).fit(x, y)
    with pytest.raises(NonFiniteError):
        fitted.fit(x, np.full_like(y, np.nan))
    with pytest.raises(NotFittedError):
        fitted.transform(x)


@EVERY_MAP
def test_the_score_is_higher_for_the_map_than_for_a_stranger(estimator, clouds):
    x, y = clouds
    fitted = clone(estimator).fit(x, y)
    assert fitted.score(x, y) > fitted.score(x, y + 3.0)


@EVERY_MAP
def test_nothing_of_the_callers_is_changed(estimator, clouds):
    x, y = clouds
    before, state, torch_state = (x.copy(), y.copy()), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    fitted = clone(estimator).fit(x, y)
    fitted.transform(x)
    fitted.score(x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


@EVERY_MAP
def test_what_cannot_be_used_is_named(estimator, clouds):
    x, y = clouds
    broken = y.copy()
    broken[[3, 7], 1] = np.nan
    for points in (broken, torch.from_numpy(broken)):
        with pytest.raises(NonFiniteError, match=r"Y has 2 of 50 rows .* row 3"):
            clone(estimator).fit(x, points)
    with pytest.raises(ShapeError, match="X has points of dimension 3 but Y of dimension 2"):
        clone(estimator).fit(x, y[:, :2])
    with pytest.raises(InvalidArgument, match="Y has 1 sample"):
        clone(estimator).fit(x, y[:1])
    with pytest.raises(InvalidArgument, match="target y is None"):
        clone(estimator).fit(x, None)
    fitted = clone(estimator).fit(x, y)
    for wrong in (x[:, :2], torch.from_numpy(x[:, :2])):
        with pytest.raises(ShapeError, match="X has 2 features, but .* expecting 3 features"):
            fitted.transform(wrong)
    with pytest.raises(ShapeError, match="Y has points of dimension 2"):
        fitted.score(x, y[:, :2])
    for odd in (torch.zeros(3), torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.complex64)):
        with pytest.raises(InvalidArgument, match="X has (shape|dtype)"):
            fitted.transform(odd)


@EVERY_MAP
def test_a_map_that_was_not_fitted_says_so(estimator, clouds):
    x, y = clouds
    for use in (lambda m: m.transform(x), lambda m: m.score(x, y), lambda m: m.save("nowhere")):
        with pytest.raises(NotFittedError):
            use(clone(estimator))
