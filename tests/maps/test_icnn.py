"""The convex network against its definition and the laws of convex functions; the map against known ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pushforward.errors import CheckpointError, Interrupted, InvalidArgument
from pushforward.maps.convex import ConvexPotential, conjugate_points
from pushforward.maps.icnn import FREE, ICNNMap
from pushforward.maps.linear import LinearMap
from pushforward.maps.truths import GaussianPair, LogSumExp, w2_benchmark
from pushforward.metrics import l2_uvp

HIDDEN = pytest.mark.parametrize("hidden", [(7,), (16, 5), (8, 9, 6)])


def anywhere(hidden, dim=3, seed=0):
    """A potential at weights that no training chose, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    potential = ConvexPotential(dim, hidden, generator).double()
    with torch.no_grad():
        for weight in potential.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    potential.project()
    return potential


def points(rng, n, dim=3):
    return torch.from_numpy(3.0 * rng.standard_normal((n, dim)))


@HIDDEN
def test_the_gradient_written_out_is_the_gradient(hidden, rng):
    potential, u = anywhere(hidden), points(rng, 20).requires_grad_()
    (expected,) = torch.autograd.grad(potential(u).sum(), u)
    # torch's softplus is linear beyond 20, where the sigmoid still lacks 2e-9.
    torch.testing.assert_close(potential.gradient(u.detach()), expected, rtol=1e-7, atol=1e-7)


@HIDDEN
def test_the_potential_is_convex_at_any_weights(hidden, rng):
    potential = anywhere(hidden)
    u, v = points(rng, 500), points(rng, 500)
    with torch.no_grad():
        above = 0.5 * (potential(u) + potential(v)) - potential(0.5 * (u + v))
    assert above.min() > -1e-12
    assert above.max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_no_other_pairing_with_the_images_is_cheaper(seed, rng):
    from scipy.optimize import linear_sum_assignment

    u = points(rng, 60)
    gains = (u @ anywhere((16, 8), seed=seed).gradient(u).T).numpy()
    rows, columns = linear_sum_assignment(gains, maximize=True)
    # The exact gap of the gradient of a convex function is 0, trained or not.
    assert gains[rows, columns].sum() - np.trace(gains) < 1e-9 * np.abs(gains).max()


def test_conjugate_points_have_the_slopes(rng):
    potential = anywhere((16, 8))
    w = points(rng, 40)
    v = potential.gradient(w)
    found, square = conjugate_points(potential, v, torch.zeros_like(v), 300)
    torch.testing.assert_close(square, (v - potential.gradient(found)).square().sum(1))
    torch.testing.assert_close(found, w, rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # Fenchel and Young, with equality at conjugate points only
        conjugate = (found * v).sum(1) - potential(found)
        others = points(rng, 40)
        assert (potential(others) + conjugate - (others * v).sum(1)).min() > -1e-6


def test_more_steps_never_leave_a_larger_residual(rng):
    potential, v = anywhere((16, 8)), points(rng, 100)
    squares = [conjugate_points(potential, v, v, steps)[1] for steps in (0, 1, 5, 25)]
    for fewer, more in zip(squares, squares[1:], strict=False):
        assert (more <= fewer).all()


@pytest.mark.parametrize("d", [1, 4])
def test_training_starts_at_the_best_linear_map(d, rng):
    x, y = rng.standard_normal((60, d)) @ rng.standard_normal((d, d)), rng.standard_normal((70, d)) + 3.0
    start = ICNNMap(steps=1, learning_rate=1e-12, random_state=0).fit(x, y).transform(x)
    np.testing.assert_allclose(start, LinearMap().fit(x, y).transform(x), atol=1e-5)


def error(known, icnn, n=1000, seed=0):
    """L2-UVP, in percent of the target's variance, on points not fitted."""
    generator = torch.Generator().manual_seed(seed)
    x, y, unseen = known.sample(n, generator), known.target(n, generator), known.sample(1000, generator)
    truth = known.map(unseen)
    variance = float(truth.var(0).sum())
    return tuple(
        100 * float((fitted.fit(x, y).transform(unseen) - truth).square().sum(1).mean()) / variance
        for fitted in (LinearMap(), icnn)
    )


def test_a_map_that_is_not_linear_is_found():
    linear, found = error(LogSumExp(dim=2), ICNNMap(hidden=(32, 32), steps=150, batch_size=128, random_state=0))
    assert found < 0.35 * linear


def test_a_linear_map_is_hardly_spoilt():
    linear, found = error(GaussianPair(dim=8), ICNNMap(hidden=(32, 32), steps=60, batch_size=128, random_state=0))
    assert found < linear + 1.0


def test_what_is_kept_is_the_best_of_the_history(rng):
    x, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 6))
    icnn = ICNNMap(hidden=(32, 32), steps=200, batch_size=40, random_state=0).fit(x, y)
    # Forty points of one law have nothing to teach: the held-out value soon rises, and training ends.
    assert icnn.history_[-1]["step"] < 200
    duals = [record["dual"] for record in icnn.history_]
    assert min(duals) < duals[-1]
    spread = np.trace(np.cov(icnn.transform(x).T)) / np.trace(np.cov(y.T))
    assert 0.5 < spread < 1.5


def test_one_seed_is_one_map(rng):
    x, y = rng.standard_normal((50, 2)), rng.standard_normal((50, 2)) ** 3
    first, again, other = (
        ICNNMap(hidden=(8,), steps=20, random_state=seed).fit(x, y).transform(x) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


@pytest.mark.parametrize(("n", "m", "d"), [(2, 3, 2), (5, 9, 12)])
def test_few_points_and_flat_ones(n, m, d, rng):
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    for source, target in ((x, y), (np.ones_like(x), y), (x, np.ones_like(y)), (x * [1.0, *[0.0] * (d - 1)], y)):
        assert np.isfinite(ICNNMap(hidden=(8,), steps=5, random_state=0).fit(source, target).transform(x)).all()


def test_the_unit_of_length_does_not_matter(rng):
    x, y = rng.standard_normal((80, 2)), rng.standard_normal((80, 2)) ** 3
    icnn = ICNNMap(hidden=(8,), steps=20, random_state=0)
    here = icnn.fit(x, y).transform(x)
    np.testing.assert_allclose(icnn.fit(1e6 * x, 1e6 * y).transform(1e6 * x) / 1e6, here, atol=1e-3)


def test_saved_and_loaded(tmp_path: Path, rng):
    x, y = rng.standard_normal((40, 3)), rng.standard_normal((40, 3)) + 2.0
    fitted = ICNNMap(hidden=[8, 4], steps=10, random_state=0).fit(x, y)
    fitted.save(tmp_path)
    loaded = ICNNMap.load(tmp_path)
    np.testing.assert_array_equal(loaded.transform(x), fitted.transform(x))
    assert loaded.history_ == fitted.history_
    assert loaded.get_params() == fitted.get_params()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden", ()),
        ("hidden", 64),
        ("hidden", (8, 0)),
        ("steps", 0),
        ("batch_size", 2.5),
        ("learning_rate", -1.0),
        ("conjugate_steps", 0),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(name, value, rng):
    x = rng.standard_normal((20, 2))
    with pytest.raises(InvalidArgument, match=f"^{name} must be"):
        ICNNMap(**{name: value}).fit(x, x)


def test_on_the_benchmark_it_beats_the_linear_map_by_far(data_sets):
    pair = w2_benchmark(data_sets / "w2_benchmark", 16)
    icnn = ICNNMap(hidden=(64, 64), steps=150, batch_size=256, random_state=0)
    icnn.fit(pair.source[:4096], pair.target[:4096])
    # The linear map is at 42; 2,000 steps at full width, on all points, reach 3.
    assert l2_uvp(icnn.transform(pair.source_test), pair.map_test, variance=pair.target_variance) < 36.0


SMALL = {"hidden": (16, 16), "steps": 40, "batch_size": 32, "random_state": 0}
# A value of every parameter that counts, other than in SMALL.
CHANGED = {"hidden": (16, 8), "steps": 60, "batch_size": 16, "learning_rate": 0.01, "conjugate_steps": 2}


def clouds():
    truth, random = LogSumExp(dim=2), torch.Generator().manual_seed(0)
    return truth.sample(200, random), truth.target(200, random)


class Stop(Exception):
    """A kill, as far as the training sees."""


@pytest.mark.parametrize(("error", "step"), [(Stop, 11), (Stop, 33)])
def test_a_training_that_was_stopped_goes_on_bit_by_bit(tmp_path, monkeypatch, error, step):
    x, y = clouds()
    whole = ICNNMap(**SMALL).fit(x, y)
    project, calls = ConvexPotential.project, []

    def stopped(potential):
        calls.append(0)
        if len(calls) == step:
            raise error
        project(potential)

    with monkeypatch.context() as patched:
        patched.setattr(ConvexPotential, "project", stopped)
        with pytest.raises(error):
            ICNNMap(checkpoint=tmp_path, **SMALL).fit(x, y)
        resumed = ICNNMap(checkpoint=tmp_path, **SMALL).fit(x, y)
        # from the last even step on: a checkpoint is written at every second one
        assert len(calls) == step + whole.history_[-1]["step"] - (step - 1) // 2 * 2
        taken = len(calls)
        again = ICNNMap(checkpoint=tmp_path, **SMALL).fit(x, y)
        assert len(calls) == taken  # what is finished is not trained again
    for found in (resumed, again):
        assert bool((found.transform(x) == whole.transform(x)).all())
        assert (found.history_, found.kept_) == (whole.history_, whole.kept_)


def test_a_training_that_ended_early_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr("pushforward.maps.icnn.PATIENCE", 1)
    x, y = clouds()
    settings = SMALL | {"learning_rate": 3.0}
    whole = ICNNMap(checkpoint=tmp_path, **settings).fit(x, y)
    monkeypatch.setattr(ConvexPotential, "project", None)  # no step can be taken
    assert whole.history_[-1]["step"] < SMALL["steps"]
    assert ICNNMap(checkpoint=tmp_path, **settings).fit(x, y).history_ == whole.history_


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    assert ICNNMap().get_params().keys() == CHANGED.keys() | FREE
    x, y = clouds()
    ICNNMap(checkpoint=tmp_path, **SMALL).fit(x, y)
    for name, value in CHANGED.items():
        with pytest.raises(CheckpointError, match=rf"other data, settings .*\b{name} "):
            ICNNMap(checkpoint=tmp_path, **SMALL | {name: value}).fit(x, y)
    with pytest.raises(CheckpointError, match=r"\(data is another\)"):
        ICNNMap(checkpoint=tmp_path, **SMALL).fit(x + 1.0, y)
    with pytest.raises(CheckpointError, match="seed was"):
        ICNNMap(checkpoint=tmp_path, **SMALL | {"random_state": 1}).fit(x, y)


def test_an_interrupt_keeps_the_best_map(monkeypatch):
    x, y = clouds()

    def interrupted(potential):
        raise KeyboardInterrupt

    monkeypatch.setattr(ConvexPotential, "project", interrupted)
    with pytest.warns(Interrupted, match="interrupted in step 1; the best map until then is kept"):
        fitted = ICNNMap(**SMALL).fit(x, y)
    np.testing.assert_allclose(fitted.transform(x), LinearMap().fit(x, y).transform(x), atol=1e-4)
