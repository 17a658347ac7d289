"""Problems that stop a solver: bells, plans in pieces, bad starts, batches of unlike problems; and fallbacks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.ot import Newton
from pushforward.ot.solvers import auto

PATHS = ("compiled", "torch")
front = importlib.import_module("pushforward.ot.solve")  # `pushforward.ot.solve` is the function


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled path, where it is built, and the torch path."""
    if request.param == "torch":
        for module in ("geometry.dense", "geometry.sparse", "solvers.native"):
            monkeypatch.setattr(f"pushforward.ot.{module}.kernels", lambda: None)
    return request.param


def bells(n: int, m: int, *, width: float = 0.07) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared distances on a line of length 3, and the same bell on both grids, its tails exp(-4/width)."""
    x, y = np.linspace(0, 3, n), np.linspace(0, 3, m)
    a, b = (np.exp(-((t - 1) ** 2) / width) for t in (x, y))
    return (x[:, None] - y) ** 2, a / a.sum(), b / b.sum()


def error_of(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum())


@pytest.mark.parametrize("epsilon", [1e-3, 3e-4, 1e-4, 2e-5])
@pytest.mark.parametrize("method", ["auto", "newton"])
def test_bells(path: str, epsilon: float, method: str):
    cost, a, b = bells(50, 52)
    sol = pf.solve(cost, a, b, epsilon=epsilon, method=method)
    assert error_of(sol.plan.to_dense(), a, b) <= 1.001e-9
    assert sol.iterations.sinkhorn + sol.iterations.newton <= 200
    lower, upper = sol.bounds()
    assert lower - 1e-9 <= pf.exact(cost, a, b).cost <= upper + 1e-9


@pytest.mark.parametrize("width", [0.07, 0.008, 0.0058])
def test_tails_are_no_burden(path: str, width: float):
    """Weights down to 1e-300: what is too small to make an error does not steer the steps."""
    cost, a, b = bells(60, 40, width=width)
    assert 0 < min(a.min(), b.min()) < 1e-24
    sol = pf.solve(cost, a, b, epsilon=3e-3)
    assert sol.iterations.sinkhorn + sol.iterations.newton <= 60
    plan = sol.plan.to_dense()
    assert error_of(plan, a, b) <= 1.001e-9
    small = b < 1e-13
    assert np.abs(plan.sum(0) - b)[small].sum() <= 1e-11
    for potentials in (sol.f, sol.g):
        assert np.isfinite(potentials).all()


def pieces(apart: float, difference: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two groups, `apart` from each other, of which the first has `difference` too much mass on the left."""
    rng = np.random.default_rng(5)
    cost = rng.random((8, 9))
    cost[:4, 5:] += apart
    cost[4:, :5] += apart
    a, b = np.repeat([1 + difference, 1 - difference], 4) / 8, np.repeat([1 / 10, 1 / 8], [5, 4])
    return cost, a, b


@pytest.mark.parametrize("difference", [1e-2, 1e-5, 1e-8])
def test_pieces_of_unequal_mass_meet_in_a_leap(path: str, difference: float):
    """The potentials of one group have to move by 1e5 epsilon before the difference can cross."""
    cost, a, b = pieces(100.0, difference)
    sol = pf.solve(cost, a, b, epsilon=1e-3, method="newton", tol=1e-10)
    assert sol.iterations.newton <= 100
    assert sol.plan.to_dense()[:4, 5:].sum() == pytest.approx(difference / 2, rel=1e-3, abs=1e-10)


@pytest.mark.parametrize("method", ["auto", "newton", Newton(factor=2.0)], ids=str)
@pytest.mark.parametrize("size", [1e3, 1e6, 1e9, 1e250])
def test_a_start_that_leads_nowhere_is_left(path: str, rng, method: Any, size: float):
    cost = rng.random((30, 40))
    sol = pf.solve(cost, epsilon=0.01, method=method, init=size * rng.random(40))
    cold = pf.solve(cost, epsilon=0.01)
    assert sol.value == pytest.approx(cold.value, abs=1e-9)
    assert np.abs(sol.f - cold.f).max() <= 1e-6


def test_a_good_start_is_kept(path: str, rng):
    cost = rng.random((30, 40))
    first = pf.solve(cost, epsilon=0.01)
    again = pf.solve(cost, epsilon=0.01, init=first)
    assert again.iterations.newton + again.iterations.sinkhorn <= 1


@pytest.mark.parametrize("epsilon", [1e-3, 1e-4])
def test_a_batch_is_a_loop(path: str, rng, epsilon: float):
    hard, a, b = bells(50, 52)
    costs = np.stack([rng.random(hard.shape), hard, 1 - hard / 9, pieces_like(hard)])
    batch = pf.solve(costs, a, b, epsilon=epsilon, throw=False)
    assert batch.status is pf.Status.CONVERGED
    for k, cost in enumerate(costs):
        assert batch.value[k] == pytest.approx(pf.solve(cost, a, b, epsilon=epsilon).value, abs=1e-8)


def pieces_like(cost: np.ndarray) -> np.ndarray:
    n, m = cost.shape
    return cost + 50.0 * ((np.arange(n)[:, None] < n // 3) != (np.arange(m) < m // 3))


def failing(calls: list[Any], which: Callable[[int], bool]) -> Callable[..., tuple[torch.Tensor, bool]]:
    """`newton`, which in some of its calls uses up the steps allowed and comes back with nothing."""
    real = auto.newton

    def fake(problem: Any, g: Any, tol: float, recorder: Any, settings: Any = None) -> tuple[torch.Tensor, bool]:
        calls.append((settings, recorder.left))
        if not which(len(calls) - 1):
            return real(problem, g, tol, recorder, settings)
        while not recorder.exhausted:
            recorder.record("newton", problem.epsilon, 1.0)
        return torch.zeros_like(problem.b), False

    return fake


def test_auto_falls_back_on_a_slower_path(monkeypatch, rng):
    calls: list[Any] = []
    monkeypatch.setattr(auto, "newton", failing(calls, lambda k: k == 0))
    assert pf.solve(rng.random((9, 7)), epsilon=0.05).converged
    assert [settings for settings, _ in calls] == [Newton(), auto.GENTLE]


@pytest.mark.parametrize("limit", [None, 400, 1000, 5000])
def test_auto_falls_back_on_sinkhorn_and_has_steps_for_it(monkeypatch, rng, limit: int | None):
    calls: list[Any] = []
    monkeypatch.setattr(auto, "newton", failing(calls, lambda k: True))
    sol = pf.solve(rng.random((9, 7)), epsilon=0.1, max_iterations=limit)
    assert sol.converged
    assert sol.iterations.sinkhorn > 0
    assert sol.iterations.newton + sol.iterations.sinkhorn <= (limit or front.LIMITS["auto"])
    assert calls[0][1] == min(1000, (limit or front.LIMITS["auto"]) // 2)


def test_a_small_limit_is_the_usual_paths(monkeypatch, rng):
    calls: list[Any] = []
    monkeypatch.setattr(auto, "newton", failing(calls, lambda k: True))
    sol = pf.solve(rng.random((9, 7)), epsilon=0.05, max_iterations=60, throw=False)
    assert sol.status is pf.Status.ITERATION_LIMIT
    assert [left for _, left in calls] == [60]


def test_what_only_rounding_keeps_from_the_tolerance_ends_soon(rng):
    sol = pf.solve(1e6 * (1 + rng.random((20, 30))), epsilon=1e-6, throw=False)
    assert sol.status is pf.Status.STALLED
    assert sol.iterations.sinkhorn + sol.iterations.newton <= 3000
