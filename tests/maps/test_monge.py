"""MongeMap: what it learns, keeps, refuses, and goes on with."""

import itertools
import json
import warnings

import numpy as np
import pytest
import torch

from pushforward import metrics
from pushforward.errors import CheckpointError, Interrupted, InvalidArgument, NonFiniteError, ShapeError
from pushforward.maps.costs import CallableCost, ElasticL1
from pushforward.maps.linear import LinearMap
from pushforward.maps.monge import MongeMap
from pushforward.maps.monge.fitting import Course
from pushforward.maps.monge.monge import FREE
from pushforward.maps.truths import GaussianPair, LogSumExp, Meridians

SMALL = {"hidden": (32, 32), "steps": 40, "batch_size": 64, "random_state": 0}


def pair(n=300, dim=2, seed=0):
    truth = LogSumExp(dim=dim)
    random = torch.Generator().manual_seed(seed)
    return truth.sample(n, random), truth.target(n, random)


def plain(x):
    return x.square().sum(1)


def test_a_gaussian_pair_keeps_the_gaussian_map():
    truth = GaussianPair(dim=8)
    random = torch.Generator().manual_seed(0)
    x, y = truth.sample(1000, random), truth.target(1000, random)
    fitted = MongeMap(start="linear", **SMALL).fit(x, y)
    new = truth.sample(500, random)
    assert metrics.l2_uvp(fitted.transform(new), truth.map(new), variance=truth.target_variance) < 3.0


def test_the_gap_improves_on_the_linear_map_where_the_truth_is_not_linear():
    truth = LogSumExp(dim=2)
    random = torch.Generator().manual_seed(0)
    x, y = truth.sample(2000, random), truth.target(2000, random)
    new = truth.sample(500, random)
    variance = float(y.var(0).sum())

    def error(**settings):
        fitted = MongeMap(random_state=0, hidden=(64, 64), batch_size=256, learning_rate=1e-2, **settings).fit(x, y)
        return metrics.l2_uvp(fitted.transform(new), truth.map(new), variance=variance), fitted

    start, _ = error(steps=0)
    trained, fitted = error(steps=120, start="linear")
    assert fitted.stage_ == "gap"
    assert trained < 0.5 * start


def test_the_kept_map_is_the_best_judged():
    x, y = pair()
    fitted = MongeMap(start="linear", **SMALL).fit(x, y)
    best = min(fitted.validation_, key=lambda record: record["criterion"])
    assert fitted.stage_ in (best["stage"], "start")
    assert {"divergence", "gap", "variance_ratio", "mean_shift", "criterion"} <= set(best)
    assert [record["step"] for record in fitted.validation_[:3]] == [0, 2, 4]


@pytest.mark.parametrize("start", ["linear", "identity", "entropic"])
def test_every_start(start):
    x, y = pair()
    fitted = MongeMap(start=start, **SMALL).fit(x, y)
    assert fitted.score(x, y) > -float(metrics.wasserstein2(x, y))
    stages = [record["stage"] for record in fitted.validation_]
    assert ("entropic" in stages) == (start == "entropic")


def test_a_start_left_to_itself_distils_where_points_suffice():
    for n, stages in ((300, {"start", "gap"}), (700, {"start", "entropic"})):
        fitted = MongeMap(**SMALL).fit(*pair(n))
        assert {record["stage"] for record in fitted.validation_} == stages
        assert (fitted.epsilon_ is None) == ("gap" not in stages)


def test_for_other_costs_the_gap_is_trained_after_distillation():
    fitted = MongeMap(ElasticL1(gamma=0.5), **SMALL).fit(*pair(700))
    assert [stage for stage, _ in itertools.groupby(record["stage"] for record in fitted.validation_)] == [
        "start", "entropic", "gap",
    ]  # fmt: skip


def test_of_maps_judged_alike_the_later_is_kept_where_a_stage_tolerates_it():
    course, network = Course(), torch.nn.Linear(1, 1, bias=False)

    def check(stage, criterion, tolerance):
        with torch.no_grad():
            network.weight.fill_(criterion)
        course.note({"stage": stage, "criterion": criterion}, network, tolerance)
        return course.stage, round(float(course.kept["weight"]), 4), course.stale

    assert check("start", 0.1, 0.0) == ("start", 0.1, 0)
    assert check("entropic", 0.0995, 0.0) == ("start", 0.1, 1)
    assert check("gap", 0.101, 0.003) == ("gap", 0.101, 0)
    assert check("gap", 0.09, 0.003) == ("gap", 0.09, 0)
    assert check("gap", 0.092, 0.003) == ("gap", 0.092, 0)
    assert check("gap", 0.094, 0.003) == ("gap", 0.092, 1)  # against the best, not the one kept


@pytest.mark.parametrize("torn", [-1.0, np.inf])
def test_with_a_gap_left_a_free_network_is_tried_and_the_better_kept(monkeypatch, torn):
    monkeypatch.setattr("pushforward.maps.monge.monge.TORN", torn)
    fitted = MongeMap(**SMALL).fit(*pair())
    stages = [record["stage"] for record in fitted.validation_]
    assert stages.count("start") == (2 if torn < 0 else 1)
    if torn < 0:
        second = len(stages) - stages[::-1].index("start") - 1
        first, other = (
            min(record["criterion"] for record in part)
            for part in (fitted.validation_[:second], fitted.validation_[second:])
        )
        assert fitted.network_.form == ("residual" if other < first - 1e-3 else "potential")


@pytest.mark.parametrize("network", ["residual", "structured", "potential"])
def test_every_network(network):
    x, y = pair(100)
    fitted = MongeMap(network=network, start="linear", **SMALL).fit(x, y)
    assert ("train_asymmetry" in fitted.validation_[-1]) == (network == "structured")
    assert fitted.transform(x).shape == x.shape


def test_a_module_of_ones_own_is_copied_and_trained():
    x, y = pair(100)
    torch.manual_seed(0)
    module = torch.nn.Linear(2, 2)
    before = module.weight.detach().clone()
    fitted = MongeMap(network=module, start="linear", **SMALL).fit(x, y)
    assert fitted.network_ is not module
    torch.testing.assert_close(module.weight, before)
    assert float((fitted.network_.weight - before).abs().max()) > 1e-4


def test_sparse_displacements_for_an_elastic_cost():
    truth = LogSumExp(dim=4, cost=ElasticL1(gamma=0.5))
    random = torch.Generator().manual_seed(0)
    x, y = truth.sample(400, random), truth.target(400, random)
    fitted = MongeMap(ElasticL1(gamma=0.5), **SMALL).fit(x, y)
    moved = fitted.transform(x) - x.float()
    assert float((moved == 0).float().mean()) > 0.05


def test_images_on_the_sphere_for_the_geodesic_cost():
    truth = Meridians(source_kappa=2.0, target_kappa=20.0)
    random = torch.Generator().manual_seed(0)
    x, y = truth.sample(200, random), truth.target(200, random)
    fitted = MongeMap("geodesic", **SMALL).fit(x, y)
    torch.testing.assert_close(fitted.transform(x).norm(dim=1), torch.ones(200, dtype=x.dtype))


def test_a_function_as_cost():
    x, y = pair(100)

    def cost(one, other):
        return (one[:, None] - other).abs().pow(1.5).sum(-1)

    fitted = MongeMap(cost, **SMALL).fit(x, y)
    assert fitted.transform(x).shape == x.shape
    assert isinstance(fitted._ground(), CallableCost)


@pytest.mark.parametrize("estimator", ["debiased", "entropic", "exact"])
def test_every_estimator_of_the_gap(estimator):
    x, y = pair(100)
    fitted = MongeMap(estimator=estimator, start="linear", **SMALL).fit(x, y)
    assert np.isfinite(fitted.validation_[-1]["train_gap"])


def test_maps_that_get_worse_from_check_to_check_end_a_stage():
    def rises(*criteria, best=0.1):
        course = Course(criterion=best)
        course.validation = [{"criterion": criterion} for criterion in criteria]
        return course.rises(3)

    assert rises(0.1, 0.102, 0.103, 0.104)
    assert not rises(0.102, 0.103, 0.104)  # three checks need a fourth before them
    assert not rises(0.1, 0.102, 0.101, 0.104)
    assert not rises(0.1, 0.1002, 0.1004, 0.1006)  # within the margin of the best
    assert not rises(0.3, 0.2, 0.15, 0.12)


def test_a_network_that_learns_few_points_by_heart_is_not_trained_to_the_end():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((600, 60)), random.standard_normal((600, 60)) + 1.0
    fitted = MongeMap(steps=200, hidden=(64, 64), random_state=0).fit(x, y)
    assert fitted.stage_ == "start"
    assert fitted.validation_[-1]["step"] < 200
    assert fitted.kept_ == 0


def test_a_map_that_loses_to_the_mean_shift_is_said_with_both_figures():
    random = np.random.default_rng(0)
    x, y = random.standard_normal((100, 200)), random.standard_normal((100, 200)) + 0.5
    x[:, 0] *= 30.0
    y[:, 0] *= 30.0
    module = torch.nn.Linear(200, 200)
    with torch.no_grad():
        module.weight.copy_(3.0 * torch.eye(200))
    with pytest.warns(UserWarning, match="the mean shift is judged better than this map on 10 points held out"):
        fitted = MongeMap(network=module, steps=0, random_state=0).fit(x, y)
    assert fitted.simpler_["mean shift"] < fitted.validation_[fitted.kept_]["criterion"]


def test_points_sent_where_no_target_is_are_said():
    random = np.random.default_rng(1)

    def clusters(*counts):
        return np.concatenate([random.standard_normal((n, 2)) * 0.3 + [6.0 * k, 0.0] for k, n in enumerate(counts)])

    with pytest.warns(UserWarning, match="of the images of 60 points held out lie where no target is"):
        MongeMap(steps=0, random_state=0).fit(clusters(300, 300), clusters(540, 60))


def test_a_score_below_the_identitys_is_said():
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((60, 80)) for _ in range(2))
    fitted = LinearMap(0.0).fit(x, y)
    with pytest.warns(UserWarning, match="the identity scores .* where this LinearMap scores"):
        fitted.score(*(random.standard_normal((100, 80)) for _ in range(2)))


class TestConditions:
    @staticmethod
    def data(doses=(0.0, 1.0, 2.0), n=150):
        random = np.random.default_rng(0)
        x = random.standard_normal((n, 2))
        y = np.concatenate([random.standard_normal((n, 2)) * 0.5 + [3.0 * dose, 0.0] for dose in doses])
        return x, y, np.repeat(doses, n)

    def test_numbers_predict_for_a_condition_held_out(self):
        x, y, dose = self.data(doses=(0.0, 1.0, 2.0, 4.0))
        fitted = MongeMap(**SMALL).fit(x, y, condition=dose)
        between = fitted.transform(x, condition=3.0)
        assert abs(between[:, 0].mean() - 9.0) < 0.5
        assert fitted.score(x, y[dose == 2.0], condition=2.0) > -1.0

    def test_labels_on_both_sides(self):
        x, y, _ = self.data(doses=(0.0, 1.0))
        labels = np.repeat(["a", "b"], 75), np.repeat(["a", "b"], 150)
        fitted = MongeMap(**SMALL).fit(x, y, condition=labels)
        apart = fitted.transform(x, condition="b") - fitted.transform(x, condition="a")
        assert abs(apart[:, 0].mean() - 3.0) < 0.3
        with pytest.raises(InvalidArgument, match=r"condition 'c' is unknown.*'a', 'b'"):
            fitted.transform(x, condition="c")

    def test_an_entropic_stage_of_every_condition(self):
        x, y, dose = self.data()
        fitted = MongeMap(start="entropic", **SMALL).fit(x, y, condition=dose)
        assert "entropic" in [record["stage"] for record in fitted.validation_]

    def test_survives_a_file(self, tmp_path):
        x, y, dose = self.data()
        fitted = MongeMap(**SMALL).fit(x, y, condition=dose)
        fitted.save(tmp_path)
        again = MongeMap.load(tmp_path)
        np.testing.assert_array_equal(again.transform(x, condition=1.5), fitted.transform(x, condition=1.5))

    def test_errors(self):
        x, y, dose = self.data()
        with pytest.raises(ShapeError, match=r"condition has shape .* but there are 450 points"):
            MongeMap(**SMALL).fit(x, y, condition=np.zeros((7, 1)))
        with pytest.raises(InvalidArgument, match=r"condition 5 has 1 points in Y"):
            MongeMap(**SMALL).fit(x, y, condition=np.where(np.arange(450) == 0, 5.0, dose))
        with pytest.raises(NonFiniteError, match="condition has a NaN"):
            MongeMap(**SMALL).fit(x, y, condition=np.where(np.arange(450) == 0, np.nan, dose))
        fitted = MongeMap(**SMALL).fit(x, y, condition=dose)
        with pytest.raises(InvalidArgument, match="condition is needed"):
            fitted.transform(x)
        with pytest.raises(ShapeError, match="1 numbers for each condition"):
            fitted.transform(x, condition="high")


class TestNewConditions:
    """What the linear start answers for conditions that no fit has seen; nothing is trained."""

    @staticmethod
    def fitted(c, shifts, n=200):
        random = np.random.default_rng(1)
        d = shifts.shape[1]
        y = np.concatenate([random.standard_normal((n, d)) + shift for shift in shifts])
        x = random.standard_normal((n, d))
        return x, y, MongeMap(steps=0, random_state=0).fit(x, y, condition=np.repeat(c, n, 0))

    def test_a_shift_that_is_linear_in_the_condition_is_found(self):
        random = np.random.default_rng(0)
        c, new, slopes = (random.standard_normal(shape) for shape in ((20, 3), (5, 3), (3, 4)))
        x, _, fitted = self.fitted(c, c @ slopes)
        for asked in new:
            moved = fitted.transform(x, condition=asked).mean(0) - x.mean(0)
            np.testing.assert_allclose(moved, asked @ slopes, atol=0.3)

    def test_where_the_description_says_nothing_the_map_is_that_of_no_description(self):
        random = np.random.default_rng(0)
        c, shifts = random.standard_normal((4, 10)), 3.0 * random.standard_normal((4, 5))
        x, y, fitted = self.fitted(c, shifts)
        assert fitted.conditions_.reading.kind == "none"
        plain = MongeMap(steps=0, random_state=0).fit(
            np.tile(x, (4, 1)), y, groups=(np.repeat(range(4), 200), np.repeat(range(4), 200))
        )
        with pytest.warns(UserWarning, match="all new ones have the same images"):
            new = fitted.transform(x, condition=5.0 * c[0])
        np.testing.assert_allclose(new, plain.transform(x), atol=0.5)
        # while known conditions keep the shift that they have
        known = fitted.transform(x, condition=c[0])
        np.testing.assert_allclose(known.mean(0) - x.mean(0), shifts[0], atol=0.3)

    def test_descriptions_that_say_the_same_twice(self):
        dose = np.array([0.0, 1.0, 2.0, 3.0, 4.0])[:, None]
        shifts = np.sqrt(dose) * [1.0, 2.0]
        _, _, fitted = self.fitted(np.hstack([dose, dose / 3 + 0.1, dose * 7.7]), shifts)
        # One slope, shared by the three; their rounding is none.
        slope = np.polyfit(dose[:, 0], shifts, 1)[0] * dose.std()
        np.testing.assert_allclose(fitted.network_.drift, np.tile(slope[:, None] / 3, 3), atol=0.1)


class TestGroups:
    def test_points_are_coupled_within_groups(self):
        # Everything moves by 1 along the second axis, but few are left of the one group and many come of the other.
        random = np.random.default_rng(0)

        def sample(left, right):
            points = random.standard_normal((left + right, 2))
            return points + np.repeat([[-4.0, 0.0], [4.0, 0.0]], (left, right), 0), np.repeat(["a", "b"], (left, right))

        (x, of_x), (y, of_y) = sample(300, 60), sample(60, 300)
        y = y + [0.0, 1.0]
        within = MongeMap(start="linear", **SMALL).fit(x, y, groups=(of_x, of_y))
        np.testing.assert_allclose((within.transform(x) - x).mean(0), [0.0, 1.0], atol=0.3)
        pooled = MongeMap(start="linear", **SMALL).fit(x, y).transform(x) - x
        assert pooled[:, 0].mean() > 3.0

    def test_errors(self):
        x, y = pair(60)
        of = ["a", "b"] * 30
        with pytest.raises(InvalidArgument, match="groups must be a pair"):
            MongeMap(**SMALL).fit(x, y, groups=of)
        with pytest.raises(InvalidArgument, match="condition and groups were both given"):
            MongeMap(**SMALL).fit(x, y, groups=(of, of), condition=(of, of))
        fitted = MongeMap(**SMALL).fit(x, y, groups=(of, of))
        with pytest.raises(InvalidArgument, match="fitted without"):
            fitted.transform(x, condition=of)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cost": "l7"}, "cost must be one of .*'euclidean'"),
        ({"start": "warm"}, "start must be one of"),
        ({"network": "unet"}, "network must be one of"),
        ({"estimator": "best"}, "estimator must be one of"),
        ({"epsilon": 0.0}, "epsilon must be a positive"),
        ({"epsilon": "small"}, "epsilon must be one of 'auto'"),
        ({"gap_weight": -1.0}, "gap_weight must be a finite number of at least 0"),
        ({"steps": -1}, "steps must be an integer of at least 0"),
        ({"batch_size": 1}, "batch_size must be an integer of at least 2"),
        ({"learning_rate": 0}, "learning_rate must be a positive"),
        ({"validation_fraction": 1.0}, "validation_fraction must be below 1"),
        ({"cost": "euclidean", "network": "potential"}, "needs a cost h.x - y. with a grad h"),
        ({"cost": "euclidean", "start": "entropic"}, "needs a cost h.x - y. with a grad h"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    x, y = pair(60)
    with pytest.raises(InvalidArgument, match=message):
        MongeMap(**SMALL | settings).fit(x, y)


def test_wrong_points_are_named():
    x, y = (points.numpy() for points in pair(60))
    with pytest.raises(NonFiniteError, match="X has 1 of 60 rows with a NaN.*row 3"):
        MongeMap(**SMALL).fit(np.where(np.arange(60)[:, None] == 3, np.nan, x), y)
    with pytest.raises(ShapeError, match="X has points of dimension 2 but Y of dimension 3"):
        MongeMap(**SMALL).fit(x, np.zeros((60, 3)))
    with pytest.raises(InvalidArgument, match="Y has 1 sample"):
        MongeMap(**SMALL).fit(x, y[:1])


def test_the_same_seed_gives_the_same_map_and_leaves_global_generators_alone():
    x, y = pair(100)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    one, other = (MongeMap(**SMALL).fit(x, y).transform(x) for _ in range(2))
    assert bool((one == other).all())
    assert bool((torch.get_rng_state() == before[0]).all())
    assert (np.random.get_state(legacy=False)["state"]["key"] == before[1]).all()  # noqa: NPY002


def test_saved_and_loaded_it_is_the_same_map(tmp_path):
    x, y = pair(100)
    fitted = MongeMap(**SMALL).fit(x, y)
    fitted.save(tmp_path)
    again = MongeMap.load(tmp_path)
    assert bool((again.transform(x) == fitted.transform(x)).all())
    assert again.validation_ == fitted.validation_
    assert again.get_params()["hidden"] == (32, 32)


class Stop(Exception):
    """A kill, as far as the training sees."""


@pytest.mark.parametrize("start", ["linear", "entropic"])
def test_a_training_that_was_stopped_goes_on_bit_by_bit(tmp_path, start):
    x, y = pair(200)
    settings = SMALL | {"start": start}
    whole = MongeMap(**settings).fit(x, y)

    def stop(record):
        if (record["stage"], record["step"]) == ("gap" if start == "linear" else "entropic", 20):
            raise Stop

    with pytest.raises(Stop):
        MongeMap(checkpoint=tmp_path, progress=stop, **settings).fit(x, y)
    resumed = MongeMap(checkpoint=tmp_path, **settings).fit(x, y)
    assert bool((resumed.transform(x) == whole.transform(x)).all())
    assert json.dumps(resumed.validation_) == json.dumps(whole.validation_)
    # and what is finished is not trained again
    seen = []
    MongeMap(checkpoint=tmp_path, progress=seen.append, **settings).fit(x, y)
    assert not seen


# A value of every parameter that counts, other than in SMALL.
CHANGED = {
    "cost": "euclidean",
    "start": "identity",
    "network": "residual",
    "hidden": (32, 16),
    "estimator": "exact",
    "gap_weight": 1.0,
    "symmetry_weight": 0.1,
    "epsilon": 0.1,
    "steps": 20,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "patience": 3,
    "validation_fraction": 0.2,
}


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    assert MongeMap().get_params().keys() == CHANGED.keys() | FREE
    x, y = pair(100)
    MongeMap(checkpoint=tmp_path, **SMALL).fit(x, y)
    for name, value in CHANGED.items():
        with pytest.raises(CheckpointError, match=rf"other data, settings .*\b{name} "):
            MongeMap(checkpoint=tmp_path, **SMALL | {name: value}).fit(x, y)
    with pytest.raises(CheckpointError, match=r"\bdata is another"):
        MongeMap(checkpoint=tmp_path, **SMALL).fit(x + 1.0, y)
    with pytest.raises(CheckpointError, match="seed was"):
        MongeMap(checkpoint=tmp_path, **SMALL | {"random_state": 1}).fit(x, y)


def test_an_interrupt_keeps_the_best_map():
    x, y = pair(100)

    def interrupt(record):
        if record["step"] == 20:
            raise KeyboardInterrupt

    with pytest.warns(Interrupted, match="interrupted in step"):
        fitted = MongeMap(progress=interrupt, **SMALL).fit(x, y)
    assert fitted.transform(x).shape == x.shape


def test_a_loss_that_is_not_finite_ends_the_stage_with_a_warning():
    x, y = pair(100)

    class Breaks(torch.nn.Linear):
        def forward(self, points):
            return super().forward(points) * (float("nan") if self.training and points.shape[0] == 64 else 1.0)

    with pytest.warns(UserWarning, match="the loss of stage 'gap'"):
        fitted = MongeMap(network=Breaks(2, 2), start="linear", **SMALL).fit(x, y)
    assert fitted.stage_ == "start"


def test_few_points_are_judged_on_themselves():
    x, y = pair(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MongeMap(**SMALL).fit(x, y).transform(x).shape == (20, 2)


class Explodes(torch.nn.Linear):
    """Fine on batches, and on held-out points until it has been trained a little."""

    def forward(self, points):
        broken = points.shape[0] != 64 and float((self.weight - torch.eye(2)).abs().max()) > 0.01
        return super().forward(points) + (torch.inf if broken else 0.0)


def own(kind):
    module = kind(2, 2)
    with torch.no_grad():
        module.weight.copy_(torch.eye(2))
        module.bias.zero_()
    return module


def test_images_that_are_not_finite_lose_no_earlier_map():
    x, y = pair(100)
    fitted = MongeMap(network=own(Explodes), start="linear", **SMALL).fit(x, y)
    assert fitted.validation_[-1]["criterion"] == np.inf
    np.testing.assert_allclose(fitted.network_.weight, np.eye(2), atol=0.011)


def test_a_network_that_is_broken_from_the_start_is_named():
    x, y = pair(100)
    module = own(torch.nn.Linear)
    with torch.no_grad():
        module.weight.fill_(torch.nan)
    with pytest.raises(InvalidArgument, match="network gives images that are not finite before any training"):
        MongeMap(network=module, start="linear", **SMALL).fit(x, y)
