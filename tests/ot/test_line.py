"""Points on a line by running sums: every operation is the explicit matrix's, and the solvers run on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.geometry.line import REACH, LineGeometry
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solvers.auto import solve_detached
from pushforward.ot.solvers.newton import newton
from pushforward.ot.solvers.symmetric import self_transport

SCALE = 2.0
# From well mixed to the smallest epsilon that points in [-1, 2] allow.
EPSILON = pytest.mark.parametrize("epsilon", [1.0, 0.1, SCALE * 3 / REACH])


def pair_of(x: Tensor, y: Tensor) -> tuple[LineGeometry, DenseGeometry]:
    return LineGeometry(x, y, SCALE), DenseGeometry.of(SCALE * (x[..., None] - y[:, None]).abs())


def weights(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.dirichlet(np.full(shape[-1], 0.3), shape[:-1]))


@pytest.fixture
def case(rng) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Two problems of 30 x 21 points with ties on either side and between the sides, and atoms without weight."""
    x, y = (torch.from_numpy(rng.uniform(-1, 2, size=(2, size))) for size in (30, 21))
    x[:, :4], x[:, 7], y[:, 9] = y[:, :4], x[:, 8], y[:, 10]
    x[0, 0], x[0, 1] = -1.0, 2.0
    a, b = weights(rng, 2, 30), weights(rng, 2, 21)
    a[0, 2] = a[1, 7] = b[0, 9] = b[1, 3] = 0.0
    a, b = (w / w.sum(-1, keepdim=True) for w in (a, b))
    return x, y, a, b, 0.3 * torch.from_numpy(rng.normal(size=(2, 21)))


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@EPSILON
@pytest.mark.parametrize("damping", [1.0, 0.6])
def test_its_kernel_is_the_dense_one(case, rng, epsilon: float, damping: float):
    x, y, a, b, g = case
    line, dense = pair_of(x, y)
    assert line.fits(epsilon)
    one, f_one, cols_one = line.kernel(g, epsilon, a, b, damping=damping)
    two, f_two, cols_two = dense.kernel(g, epsilon, a, b, damping=damping)
    assert_near(f_one, f_two)
    assert_near(cols_one, cols_two)
    assert_near(one.dense(), two.matrix)
    u, v = torch.from_numpy(rng.normal(size=(2, 30))).exp(), torch.from_numpy(rng.normal(size=(2, 21))).exp()
    assert_near(one.rows(v), two.rows(v))
    assert_near(one.cols(u), two.cols(u))
    assert_near(one.normal(u, v), two.normal(u, v))
    assert one.entries > 0
    assert one.normal_seconds > 0


@EPSILON
def test_its_measures_are_the_dense_ones(case, rng, epsilon: float):
    x, y, a, b, g = case
    line, dense = pair_of(x, y)
    one, two = (geometry.measure(g, epsilon, a, b) for geometry in (line, dense))
    assert_near(one.f, two.f)
    assert_near(one.cols, two.cols)
    assert_near(one.cost_by_col, two.cost_by_col)
    f = two.f + 0.1 * epsilon * torch.from_numpy(rng.normal(size=(2, 30)))  # rows that are not exact
    assert_near(line.plan(f, g, epsilon, a, b), dense.plan(f, g, epsilon, a, b))
    v = torch.from_numpy(rng.normal(size=(2, 21, 3)))
    assert_near(line.product(f, g, epsilon, a, b, v), dense.product(f, g, epsilon, a, b, v))


def test_its_costs_are_the_dense_ones(case):
    x, y, a, b, g = case
    line, dense = pair_of(x, y)
    assert line.shape == dense.shape
    for one, two in ((line, dense), (line.transposed(), dense.transposed())):
        assert_near(one.matrix(), two.matrix())
        assert one.mean == pytest.approx(two.mean, rel=1e-13)
        assert one.peak == pytest.approx(two.peak, rel=1e-13)
        assert one.least == two.least == 0.0
    assert_near(line.c_transform(g), dense.c_transform(g))
    assert_near(line.bilinear(a, b), dense.bilinear(a, b))
    rows, cols = torch.arange(30) % 3 > 0, torch.arange(21) % 4 > 0
    assert_near(line.select(rows, cols).matrix(), dense.select(rows, cols).matrix())
    assert line.transposed().least == 0.0
    assert LineGeometry(torch.zeros(1, 2), torch.full((1, 3), 0.5), SCALE).least == 1.0


@EPSILON
def test_displacement_is_the_derivative_at_a_fixed_plan(case, epsilon: float):
    x, y, a, b, g = case
    line, dense = pair_of(x, y)
    f = dense.measure(g, epsilon, a, b).f
    plan = dense.plan(f, g, epsilon, a, b)
    sign = torch.sign(x[..., None] - y[:, None])
    assert_near(line.displacement(f, g, epsilon, a, b), (plan * SCALE * sign).sum(-1))


def test_displacement_against_finite_differences(rng):
    x, y = torch.from_numpy(rng.random((1, 6))), torch.from_numpy(rng.random((1, 5)))
    a, b, epsilon, step = weights(rng, 1, 6), weights(rng, 1, 5), 0.2, 1e-6

    def value(x: Tensor) -> float:
        problem = Problem(geometry=LineGeometry(x, y, SCALE), a=a, b=b, epsilon=epsilon)
        g = solve_detached(problem, 1e-13)
        return float((a * problem.measure(g).f).sum() + (b * g).sum())

    problem = Problem(geometry=LineGeometry(x, y, SCALE), a=a, b=b, epsilon=epsilon)
    g = solve_detached(problem, 1e-13)
    found = problem.geometry.displacement(problem.measure(g).f, g, epsilon, a, b)[0]
    moved = torch.eye(6, dtype=torch.float64) * step
    expected = [(value(x + move) - value(x - move)) / (2 * step) for move in moved]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-7)


@EPSILON
def test_newton_and_self_transport_run_on_it(case, epsilon: float):
    x, y, a, b, _ = case
    dense = pair_of(x, y)[1]
    for k in range(2):
        here, rows, cols = slice(k, k + 1), a[k] > 0, b[k] > 0
        problem = Problem(geometry=LineGeometry(x[here], y[here], SCALE), a=a[here], b=b[here], epsilon=epsilon)
        g = solve_detached(problem, 1e-9)
        as_dense = Problem(
            geometry=DenseGeometry.of(dense.cost[here][:, rows][:, :, cols]),
            a=a[here, rows],
            b=b[here, cols],
            epsilon=epsilon,
        )
        assert float(as_dense.error(as_dense.measure(g[:, cols]), g[:, cols])) <= 1e-9
    together = Problem(geometry=LineGeometry(x, y, SCALE), a=a, b=b, epsilon=epsilon)
    g, done = newton(together, None, 1e-9, Recorder(500))
    assert done
    assert float(together.error(together.measure(g), g).max()) <= 1e-9
    twice = LineGeometry(x, x, SCALE)
    problem = Problem(geometry=twice, a=a, b=a, epsilon=epsilon)
    f, done = self_transport(problem, 1e-10, Recorder(60))
    assert done
    as_dense = Problem(geometry=DenseGeometry.of(twice.matrix()), a=a, b=a, epsilon=epsilon)
    assert float(as_dense.error(as_dense.measure(f), f).max()) <= 1e-10


def test_clouds_apart_at_the_reach(rng):
    """The hardest case for the exponents: all y beyond all x, and potentials that fall twice as steeply as the cost."""
    x, y = torch.from_numpy(rng.random((1, 300))), torch.from_numpy(9.0 + rng.random((1, 200)))
    line, dense = pair_of(x, y)
    epsilon = SCALE * 10 / REACH
    assert line.fits(epsilon)
    problem = Problem(geometry=line, a=weights(rng, 1, 300), b=weights(rng, 1, 200), epsilon=epsilon)
    g, done = newton(problem, None, 1e-9, Recorder(200))
    assert done
    expected = dense.measure(g, epsilon, problem.a, problem.b)
    torch.testing.assert_close(problem.measure(g).f, expected.f, rtol=1e-12, atol=0)
    torch.testing.assert_close(problem.measure(g).cols, expected.cols, rtol=1e-9, atol=1e-13)
    steep = SCALE * 20 * torch.from_numpy(rng.normal(size=(1, 200)))  # columns that no row sees
    one, two = (geometry.measure(steep, epsilon, problem.a, problem.b) for geometry in (line, dense))
    torch.testing.assert_close(one.f, two.f, rtol=1e-12, atol=0)
    torch.testing.assert_close(one.cols, two.cols, rtol=1e-9, atol=1e-13)


def test_it_says_where_it_does_not_fit():
    line = LineGeometry(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 3.0]]), SCALE)
    assert line.fits(1.01 * SCALE * 3 / REACH)
    assert not line.fits(0.99 * SCALE * 3 / REACH)


def test_a_plan_of_two_points_has_a_closed_form():
    points, epsilon = torch.tensor([[0.0, 1.0]], dtype=torch.float64), 0.7
    line, half = LineGeometry(points, points, SCALE), torch.full((1, 2), 0.5, dtype=torch.float64)
    f, done = self_transport(Problem(geometry=line, a=half, b=half, epsilon=epsilon), 1e-13, Recorder(60))
    assert done
    expected = -0.5 * epsilon * math.log(0.5 * (1 + math.exp(-SCALE / epsilon)))
    torch.testing.assert_close(f, torch.full_like(f, expected), rtol=0, atol=1e-13)
