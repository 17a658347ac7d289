"""The training loss against the public functions that it is a faster form of."""

import pytest
import torch

import pushforward as pf
from pushforward.maps.costs import Cosine, ElasticL1, Euclidean, SquaredEuclidean
from pushforward.maps.gap import monge_gap
from pushforward.maps.monge.objective import Objective, transport_cost


@pytest.fixture
def clouds():
    random = torch.Generator().manual_seed(0)
    x, t, y = (torch.randn(60, 3, generator=random, dtype=torch.float64) for _ in range(3))
    return x, x + 0.3 * t, 1.5 * y + 1.0


def objective(cost, weight=2.0, estimator="debiased", gap_epsilon=0.5, **settings):
    return Objective(
        cost=cost, fit_epsilon=0.5, gap_epsilon=gap_epsilon, weight=weight, estimator=estimator, **settings
    )


COSTS = [SquaredEuclidean(), Euclidean(), ElasticL1(gamma=0.2), Cosine()]


@pytest.mark.parametrize("gap_epsilon", [0.5, 0.2])
@pytest.mark.parametrize("cost", COSTS, ids=lambda cost: type(cost).__name__)
def test_value_and_gradient_are_those_of_the_exact_forms(clouds, cost, gap_epsilon):
    x, t, y = clouds
    t.requires_grad_()
    fit, gap = objective(cost, gap_epsilon=gap_epsilon)(x, t, y)
    fast = torch.autograd.grad(fit + 2.0 * gap, t)[0]
    plain_fit = pf.sinkhorn_divergence(t, y, cost=cost, epsilon=0.5)
    plain_gap = monge_gap(x, t, cost=cost, epsilon=gap_epsilon)
    plain = torch.autograd.grad(plain_fit + 2.0 * plain_gap, t)[0]
    within_y = pf.solve(pf.PointCost(y, y, cost), epsilon=0.5).value
    assert float((fit - 0.5 * within_y).detach()) == pytest.approx(float(plain_fit), rel=1e-3, abs=1e-3)
    assert float(gap.detach()) == pytest.approx(float(plain_gap), rel=1e-2, abs=1e-3)
    assert float((fast - plain).norm() / plain.norm()) < 5e-3


@pytest.mark.parametrize("estimator", ["entropic", "exact"])
def test_other_estimators(clouds, estimator):
    x, t, y = clouds
    t.requires_grad_()
    _, gap = objective(SquaredEuclidean(), estimator=estimator)(x, t, y)
    plain = monge_gap(x, t, estimator=estimator, epsilon=0.5)
    assert float(gap) == pytest.approx(float(plain), rel=1e-3, abs=1e-6)
    fast, slow = (torch.autograd.grad(value, t)[0] for value in (gap, plain))
    assert float((fast - slow).norm() / slow.norm()) < 5e-3


def test_the_crossed_fit_compares_halves_and_leaves_the_gap_as_it_is(clouds):
    x, t, y = clouds
    cost = ElasticL1(gamma=0.2)
    fit, gap = objective(cost, crossed=True)(x, t, y)

    def optimum(one, other):
        return float(pf.solve(pf.PointCost(one, other, cost), epsilon=0.5).value)

    across = sum(optimum(one, other) for one in (t[:30], t[30:]) for other in (y[:30], y[30:])) / 4
    assert float(fit) == pytest.approx(across - 0.5 * optimum(t[:30], t[30:]), rel=1e-3)
    assert float(gap) == float(objective(cost)(x, t, y)[1])


def test_only_the_crossed_fit_leaves_the_true_map_alone():
    random = torch.Generator().manual_seed(0)
    slopes = {True: 0.0, False: 0.0}
    for _ in range(40):
        x, other = (torch.randn(64, 2, generator=random, dtype=torch.float64) for _ in range(2))
        for crossed in slopes:
            stretch = torch.ones((), dtype=torch.float64, requires_grad=True)
            fit, _ = objective(Euclidean(), weight=0.0, crossed=crossed)(x, stretch * x, other)
            slopes[crossed] += float(torch.autograd.grad(fit, stretch)[0]) / 40
    assert slopes[False] > 0.02  # descended, it shrinks the identity's images
    assert abs(slopes[True]) < 0.25 * slopes[False]


def test_a_gap_without_weight_is_not_computed(clouds):
    x, t, y = clouds
    _, gap = objective(SquaredEuclidean(), weight=0.0)(x, t, y)
    assert float(gap) == 0.0


def test_float32_images_get_float32_gradients(clouds):
    x, t, y = (points.float() for points in clouds)
    t.requires_grad_()
    fit, gap = objective(SquaredEuclidean())(x, t, y)
    (fit + gap).backward()
    assert t.grad is not None
    assert t.grad.dtype == torch.float32


def test_a_symmetric_problem_has_the_value_of_the_general_solver(clouds):
    x = clouds[0]
    cost = SquaredEuclidean()(x, x)
    assert float(transport_cost(cost, 0.3, symmetric=True)) == pytest.approx(
        float(pf.solve(cost, epsilon=0.3).value), rel=1e-4
    )
