"""A measure's transport to itself: the general solver's potential, in a number of steps that epsilon leaves alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pushforward.ot.costs import pairwise_cost
from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solvers.auto import solve_detached
from pushforward.ot.solvers.symmetric import self_transport

COSTS = pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "manhattan"])


def problem_of(cost: Tensor, a: Tensor, epsilon: float) -> Problem:
    return Problem(geometry=DenseGeometry.of(cost), a=a, b=a, epsilon=epsilon)


def points_and_weights(rng: np.random.Generator, n: int = 60, d: int = 2) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(rng.normal(size=(n, d))), torch.from_numpy(rng.dirichlet(np.full(n, 0.3)))[None]


def error(problem: Problem, f: Tensor) -> float:
    return float(problem.error(problem.measure(f), f).max())


def test_two_points_have_a_closed_form():
    c, epsilon = 0.7, 0.2
    cost = torch.tensor([[[0.0, c], [c, 0.0]]], dtype=torch.float64)
    f, done = self_transport(
        problem_of(cost, torch.full((1, 2), 0.5, dtype=torch.float64), epsilon), 1e-13, Recorder(100)
    )
    assert done
    expected = -0.5 * epsilon * math.log(0.5 * (1 + math.exp(-c / epsilon)))
    torch.testing.assert_close(f, torch.full_like(f, expected), rtol=0, atol=1e-13)


@COSTS
@pytest.mark.parametrize("share", [3.0, 0.1, 1e-2, 1e-4])
def test_the_general_solvers_plan_in_few_steps(rng, cost: str, share: float):
    x, a = points_and_weights(rng)
    c = pairwise_cost(x, x, cost)[None]
    problem, recorder = problem_of(c, a, share * float(c.mean())), Recorder(100)
    f, done = self_transport(problem, 1e-11, recorder)
    assert done
    assert error(problem, f) <= 1e-11
    assert recorder.plan_evaluations == 1
    assert recorder.sinkhorn <= 20
    assert recorder.steps[0].error > recorder.steps[-1].error
    g = solve_detached(problem, 1e-12)
    expected = 0.5 * (g + problem.measure(g).f)  # f and g = f + constant of the general solver
    seen = a > 1e-6
    torch.testing.assert_close(((f - expected) / problem.epsilon)[seen], torch.zeros_like(f)[seen], rtol=0, atol=1e-4)
    torch.testing.assert_close(problem.measure(f).f[seen], f[seen], rtol=0, atol=1e-4 * problem.epsilon)


def test_a_batch_is_its_problems_and_mass_scales(rng):
    clouds = [points_and_weights(rng, n=20) for _ in range(3)]
    costs = torch.stack([pairwise_cost(x, x) for x, _ in clouds])
    weights = torch.cat([mass * a for mass, (_, a) in zip([1.0, 7.0, 1e-3], clouds, strict=True)])
    together, done = self_transport(problem_of(costs, weights, 0.05), 1e-13, Recorder(100))
    assert done
    for k, (_, a) in enumerate(clouds):
        alone, _ = self_transport(problem_of(costs[k : k + 1], a, 0.05), 1e-13, Recorder(100))
        shift = -0.5 * 0.05 * math.log(float(weights[k].sum()))
        torch.testing.assert_close(together[k : k + 1], alone + shift, rtol=0, atol=1e-10)


def test_atoms_without_weight_keep_their_potential(rng):
    x, a = points_and_weights(rng, n=12)
    a[0, :4] = 0.0
    x[3] += 1e3  # too far to be seen
    problem = problem_of(pairwise_cost(x, x)[None], a, 0.01)
    start = torch.zeros_like(a)
    start[0, 2] = 5.0
    f, done = self_transport(problem, 1e-12, Recorder(100), start)
    assert done
    assert f[0, :4].tolist() == [0.0, 0.0, 5.0, 0.0]
    inner = problem_of(pairwise_cost(x[4:], x[4:])[None], a[:, 4:], 0.01)
    torch.testing.assert_close(f[:, 4:], self_transport(inner, 1e-12, Recorder(100))[0], rtol=0, atol=1e-9)


def test_a_start_far_off_costs_new_kernels_and_no_digits(rng):
    x, a = points_and_weights(rng)
    problem, recorder = problem_of(pairwise_cost(x, x)[None], a, 0.01), Recorder(100)
    f, done = self_transport(problem, 1e-11, recorder, torch.full_like(a, 10.0))  # 1000 epsilon
    assert done
    assert recorder.plan_evaluations > 1
    assert error(problem, f) <= 1e-11
    warm = Recorder(100)
    self_transport(problem, 1e-11, warm, f)
    assert warm.sinkhorn == 1


def test_what_does_not_converge_says_so(rng):
    cost = torch.from_numpy(rng.random((30, 30)))
    cost = (cost + cost.T)[None]
    a = torch.from_numpy(rng.dirichlet(np.ones(30)))[None]
    problem = problem_of(cost, a, 0.01)  # exp(-C/epsilon) is far from positive definite
    f, done = self_transport(problem, 1e-9, Recorder(1000))
    assert not done
    assert torch.isfinite(f).all()
    assert error(problem, f) > 1e-9
    x, a = points_and_weights(rng)
    assert not self_transport(problem_of(pairwise_cost(x, x)[None], a, 0.1), 1e-9, Recorder(3))[1]
