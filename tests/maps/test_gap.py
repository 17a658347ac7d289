"""The Monge gap: zero at known optimal maps, positive elsewhere, and between its bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.maps.costs import (
    CallableCost,
    Cosine,
    ElasticKOverlap,
    ElasticL1,
    ElasticSubspace,
    Euclidean,
    Geodesic,
    Manhattan,
    PNorm,
    PowerCost,
    SquaredEuclidean,
    TranslationCost,
)
from pushforward.maps.gap import monge_gap

COSTS = [
    SquaredEuclidean(),
    Euclidean(),
    Manhattan(),
    PNorm(p=3.0),
    PowerCost(p=1.5),
    ElasticL1(gamma=0.4),
    ElasticKOverlap(gamma=0.7, k=1),
    ElasticSubspace(gamma=2.0, basis=torch.tensor([[1.0], [1.0]], dtype=torch.float64)),
    Cosine(),
    Geodesic(),
    CallableCost(lambda x, y: 1.0 - torch.exp(-(x[:, None] - y).square().sum(-1))),
]
ESTIMATORS = pytest.mark.parametrize("estimator", ["debiased", "entropic", "exact"])


def every(cases):
    return pytest.mark.parametrize("cost", cases, ids=lambda cost: type(cost).__name__)


def points(n: int, seed: int, d: int = 2) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gap(x, tx, cost="sqeuclidean", **settings) -> float:
    return float(monge_gap(x, tx, cost=cost, **settings))


def best_replies(x: torch.Tensor, cost, seed: int) -> torch.Tensor:
    """T(x) = argmin_y c(x, y) - g(y) over some y, optimal to its image for any g."""
    y = points(15, seed)
    reach = cost(x, y)
    prices = 0.3 * reach.std() * points(15, seed + 1, 1)[:, 0]
    return y[(reach - prices).argmin(1)]


def convex_gradient(x: torch.Tensor) -> torch.Tensor:
    """The gradient of |x|^2 / 10 + log sum exp(A x + b)."""
    slopes, offsets = points(5, 40, x.shape[1]), points(5, 41, 1)[:, 0]
    return 0.2 * x + (x @ slopes.T + offsets).softmax(-1) @ slopes


def assert_optimal(x, tx, cost):
    unit = float(cost(x, tx).mean())
    assert abs(gap(x, tx, cost, estimator="exact")) < 1e-12 * unit
    assert abs(gap(x, tx, cost, epsilon=0.01 * unit)) < 0.02 * unit
    shuffled = tx.roll(1, 0)
    assert gap(x, shuffled, cost, estimator="exact") > 0.05 * unit
    assert gap(x, shuffled, cost, epsilon=0.01 * unit) > 0.05 * unit


@every(COSTS)
def test_zero_at_best_replies(cost):
    x = points(24, 0)
    assert_optimal(x, best_replies(x, cost, seed=1), cost)


@every([cost for cost in COSTS if isinstance(cost, TranslationCost)])
def test_zero_at_translations(cost):
    x = points(20, 2)
    tx = x + torch.tensor([0.7, -0.3], dtype=torch.float64)
    assert abs(gap(x, tx, cost, estimator="exact")) < 1e-12
    # The Sinkhorn divergence of a translation is its cost where the cost splits into the mean and the rest.
    if isinstance(cost, SquaredEuclidean | ElasticSubspace):
        assert abs(gap(x, tx, cost, epsilon=0.5)) < 1e-8


@ESTIMATORS
@every(COSTS)
def test_the_identity(cost, estimator):
    x = points(20, 3)
    value = gap(x, x, cost, estimator=estimator, epsilon=0.1)
    low, high = (0.1 * math.log(20), 0.2 * math.log(20)) if estimator == "entropic" else (0.0, 0.0)
    assert low - 1e-8 <= value <= high + 1e-8


def test_zero_at_gradients_of_convex_functions():
    x = points(40, 4, 3)
    assert_optimal(x, convex_gradient(x), SquaredEuclidean())


def test_zero_at_outward_radial_maps_for_the_euclidean_cost():
    x = points(30, 5)
    radius = x.norm(dim=-1, keepdim=True)
    assert_optimal(x, x / radius * (radius.square() + radius + 0.5), Euclidean())


def test_zero_along_meridians_for_the_geodesic_cost():
    """Towards one pole and never past it, by an amount that keeps the order of each meridian."""
    polar, azimuth = torch.linspace(0.3, 2.8, 24, dtype=torch.float64), 5.0 * points(24, 6, 1)[:, 0]

    def on_sphere(angle):
        flat = torch.stack([azimuth.cos(), azimuth.sin()], -1) * angle.sin()[:, None]
        return torch.cat([flat, angle.cos()[:, None]], -1)

    assert_optimal(on_sphere(polar), on_sphere(0.4 * polar), Geodesic())


@every(COSTS)
@pytest.mark.parametrize("share", [0.003, 0.1, 3.0])
def test_the_entropic_gap_is_between_its_bounds(cost, share):
    n = 16
    for seed in (7, 8):
        x, tx = points(n, seed), 1.5 * points(n, seed + 50)
        exact = gap(x, tx, cost, estimator="exact")
        epsilon = share * float(cost(x, tx).mean())
        entropic = gap(x, tx, cost, estimator="entropic", epsilon=epsilon)
        assert exact >= 0
        offset = epsilon * math.log(n)
        assert exact + offset - 1e-9 <= entropic <= exact + 2 * offset + 1e-9


def test_what_the_estimators_read_at_an_optimal_map():
    x = points(64, 9)
    tx = convex_gradient(x)
    unit = float(SquaredEuclidean()(x, tx).mean())

    def offsets(epsilon):
        return gap(x, tx, estimator="entropic", epsilon=epsilon) / (epsilon * math.log(64))

    assert 1.0 <= offsets(1e-4 * unit) < 1.05
    assert 1.95 < offsets(10 * unit) <= 2.0
    assert abs(gap(x, tx, epsilon=0.05 * unit)) < 0.01 * unit < gap(x, tx, estimator="entropic", epsilon=0.05 * unit)


@ESTIMATORS
@every(COSTS)
def test_derivatives(cost, estimator):
    x, tx = points(6, 10).requires_grad_(), (points(6, 11) + 1.0).requires_grad_()
    torch.autograd.gradcheck(
        lambda x, tx: monge_gap(x, tx, cost=cost, estimator=estimator, epsilon=0.3, tol=1e-11), (x, tx), fast_mode=True
    )


@ESTIMATORS
def test_going_downhill_orders_the_pairs(estimator):
    x = points(12, 12, 1)
    tx = points(12, 13, 1).requires_grad_()
    before = gap(x, tx.detach(), estimator="exact")
    for _ in range(40):
        (gradient,) = torch.autograd.grad(monge_gap(x, tx, estimator=estimator, epsilon=0.1), tx)
        tx = (tx - gradient).detach().requires_grad_()
    assert gap(x, tx.detach(), estimator="exact") < 0.1 * before


@ESTIMATORS
def test_laws(estimator):
    x, tx = points(14, 14), points(14, 15) + 0.5
    value = gap(x, tx, estimator=estimator)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(16))
    assert gap(x[order], tx[order], estimator=estimator) == pytest.approx(value, abs=1e-8)
    assert gap(3 * x, 3 * tx, estimator=estimator) == pytest.approx(9 * value, rel=1e-6)
    assert gap(x + 5, tx + 5, estimator=estimator) == pytest.approx(value, abs=1e-8)


@ESTIMATORS
def test_forms(estimator):
    x, tx = points(20, 17), points(20, 18)
    value = monge_gap(x, tx, estimator=estimator)
    rough = monge_gap(x.float(), tx.float(), estimator=estimator)
    assert value.shape == rough.shape == ()
    assert (value.dtype, rough.dtype) == (torch.float64, torch.float32)
    assert float(rough) == pytest.approx(float(value), rel=1e-5)
    number = monge_gap(x.numpy(), tx.numpy(), estimator=estimator)
    assert isinstance(number, np.float64)
    assert number == pytest.approx(float(value), abs=1e-12)


def test_debiased_is_the_cost_less_the_divergence():
    x, tx = points(14, 19), points(14, 20)
    expected = Euclidean().paired(x, tx).mean() - pf.sinkhorn_divergence(x, tx, cost="euclidean")
    assert gap(x, tx, "euclidean") == pytest.approx(float(expected), abs=1e-12)


def test_exact_is_the_linear_program():
    x, tx = points(30, 21), points(30, 22)
    for cost in COSTS:
        expected = float(cost.paired(x, tx).mean()) - pf.exact(cost(x, tx)).cost
        assert gap(x, tx, cost, estimator="exact") == pytest.approx(expected, abs=1e-10)


def test_one_point_has_no_other_way():
    x, tx = points(1, 23), points(1, 24)
    for estimator in ("debiased", "entropic", "exact"):
        assert abs(gap(x, tx, estimator=estimator)) < 1e-12


def test_entropic_is_ott_jaxs():
    """Its `ent_reg_cost`: minus epsilon times Shannon's entropy of the plan."""
    theirs = pytest.importorskip(
        "ott.neural.methods.monge_gap", reason="ott-jax with its neural extra is not installed"
    )
    jax = pytest.importorskip("jax")
    ground = pytest.importorskip("ott.geometry.costs")
    rng = np.random.default_rng(25)
    x, tx = rng.normal(size=(40, 3)), 1.5 * rng.normal(size=(40, 3)) + 0.3
    settings = {"epsilon": 0.1, "threshold": 1e-10, "max_iterations": 20_000}
    with jax.enable_x64(True):
        arrays = jax.numpy.asarray(x), jax.numpy.asarray(tx)
        expected = float(theirs.monge_gap_from_samples(*arrays, cost_fn=ground.Euclidean(), **settings))
    assert gap(x, tx, "euclidean", estimator="entropic", epsilon=0.1) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"tx": points(5, 0)}, ShapeError, r"x has shape \(4, 2\) but tx \(5, 2\)"),
        ({"tx": points(4, 0, 3)}, ShapeError, r"tx \(4, 3\)"),
        ({"tx": points(4, 0) * math.nan}, NonFiniteError, r"tx\[0, 0\]"),
        ({"x": points(4, 0) * math.nan}, NonFiniteError, r"^x\[0, 0\]"),
        ({"estimator": "biased"}, InvalidArgument, "'debiased', 'entropic', 'exact'"),
        ({"cost": "l3"}, InvalidArgument, "'geodesic'"),
        ({"epsilon": -1.0}, InvalidArgument, "epsilon"),
        ({"epsilon": 0.0, "estimator": "exact"}, InvalidArgument, "epsilon"),
        ({"tol": 0}, InvalidArgument, "tol"),
        ({"cost": lambda x, y: torch.cdist(x, y) / 0 * 0, "estimator": "exact"}, NonFiniteError, "cost"),
    ],
)
def test_what_cannot_be_used_is_named(change, error, says):
    arguments = {"x": points(4, 1), "tx": points(4, 2), **change}
    with pytest.raises(error, match=says):
        monge_gap(**arguments)
