"""`pf.solve` with the compiled kernels and without: the same answers, the same manners."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.ot.solvers import native, newton

pytestmark = pytest.mark.usefixtures("compiled")


def without(monkeypatch: pytest.MonkeyPatch, *problem: Any, **settings: Any) -> Any:
    """`pf.solve` with torch alone."""
    with monkeypatch.context() as patch:
        for module in ("geometry.dense", "solvers.native"):
            patch.setattr(f"pushforward.ot.{module}.kernels", lambda: None)
        return pf.solve(*problem, **settings)


def draw(seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A problem of one of many kinds: arguments of `pf.solve`."""
    rng = np.random.default_rng(seed)
    kind = ("matrix", "forbidden", "batch", "points", "grid", "wide")[seed % 6]
    n, m, batch = int(rng.integers(1, 81)), int(rng.integers(1, 81)), int(rng.integers(2, 5))
    scale = 10.0 ** rng.integers(-20, 21)
    if kind == "grid":
        shape = tuple(int(k) for k in rng.integers(1, {1: 50, 2: 8, 3: 4}[1 + seed // 6 % 3], 1 + seed // 6 % 3))
        p, n = int(rng.integers(1, 3)), int(np.prod(shape))
        cost, mean, m = pf.GridCost(shape, p=p, scale=scale), scale * sum(np.square(shape)) / 6, n
    elif kind == "points":
        points = [rng.normal(size=(k, 3)) * np.sqrt(scale) for k in (n, m)]
        cost, mean = pf.PointCost(*points), 6 * scale
    else:
        cost, mean = scale * rng.random((batch, n, m) if kind == "batch" else (n, m)), 0.5 * scale
    if kind == "forbidden":
        cost[(rng.random(cost.shape) < 0.3) & (rng.permutation(n)[:, None] % m != np.arange(m) % n)] = np.inf
    lead = (batch,) if kind == "batch" else ()
    orders = 30 if kind == "wide" else 2
    a, b = (10.0 ** -(orders * rng.random((*lead, k))) for k in (n, m))
    a, b = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    return (cost, a, b), {"epsilon": max(mean, 1e-300) * 10.0 ** rng.uniform(-4, 1), "throw": False}


def apart(one: Any, two: Any, weight: Any) -> float:
    """How far potentials are from each other up to a constant, on average over the mass."""
    step = np.asarray(one) - np.asarray(two)
    step = step - (step * weight).sum(-1, keepdims=True)
    return float((np.abs(step) * weight).sum(-1).max())


def assert_same(one: Any, two: Any, problem: tuple[Any, ...], epsilon: float) -> None:
    """Statuses and answers agree to what the tolerance allows."""
    assert one.status is two.status
    if not one.converged:
        return
    _, a, b = problem
    size = epsilon + max(np.abs(np.asarray(x)).max() for x in (one.f, one.g))
    np.testing.assert_allclose(one.value, two.value, rtol=0, atol=4e-9 * size)
    moved = max(apart(one.f, two.f, a), apart(one.g, two.g, b))
    # The symmetric KL of two plans is <a' - a, f' - f>/epsilon + <b' - b, g' - g>/epsilon; then Pinsker's inequality.
    here, there = one.plan.to_dense(), two.plan.to_dense()
    far = np.abs(np.asarray(one.g) - np.asarray(two.g)).max() + np.abs(np.asarray(one.f) - np.asarray(two.f)).max()
    assert np.abs(here - there).sum((-2, -1)).max() <= np.sqrt(4e-9 * far / epsilon) + 4e-9
    if epsilon > 0.02 * size:  # where the plan is one piece
        assert moved <= 1e-6 * size


@pytest.mark.parametrize("part", range(12))
def test_random_problems(monkeypatch, part):
    for seed in range(20 * part, 20 * part + 20):
        problem, settings = draw(seed)
        one, two = pf.solve(*problem, **settings), without(monkeypatch, *problem, **settings)
        try:
            assert_same(one, two, problem, settings["epsilon"])
        except AssertionError as wrong:
            raise AssertionError(f"seed {seed}: {one.status}, {two.status}") from wrong


@pytest.mark.parametrize("rho", [0.01, 1.0, 1e3, (np.inf, 0.5)], ids=str)
@pytest.mark.parametrize("sizes", [(30, 20), (20, 30), (3, 12, 12), (80, 80)], ids=str)
def test_unbalanced_problems(monkeypatch, rng, sizes, rho):
    cost = rng.random(sizes)
    cost[..., 0, 1] = np.inf
    a, b = rng.random(sizes[:-1]), rng.random((*sizes[:-2], sizes[-1]))
    settings = {"epsilon": 0.05, "unbalanced": rho, "throw": False}
    one, two = pf.solve(cost, a, b, **settings), without(monkeypatch, cost, a, b, **settings)
    assert one.converged
    assert two.converged
    np.testing.assert_allclose(one.value, two.value, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(one.plan.to_dense(), two.plan.to_dense(), atol=1e-7)


def sized(n: int, m: int) -> tuple[Any, float]:
    rng = np.random.default_rng(n)
    return rng.random((n, m)), 0.01


def test_the_compiled_path_is_taken(monkeypatch):
    seen = []

    def listening(*given: Any) -> Any:
        answer = native.descend(*given)
        seen.append(answer[2])
        return answer

    monkeypatch.setattr(newton, "descend", listening)
    cost, epsilon = sized(40, 30)
    pf.solve(cost, epsilon=epsilon)
    assert seen
    assert set(seen) == {native.Reason.DONE}


@pytest.mark.parametrize("sizes", [(40, 30), (30, 40), (300, 200), (520, 520)], ids=str)
def test_the_same_call_twice_is_bit_identical(sizes):
    cost, epsilon = sized(*sizes)
    one, two = (pf.solve(cost, epsilon=epsilon) for _ in range(2))
    np.testing.assert_array_equal(one.f, two.f)
    np.testing.assert_array_equal(one.g, two.g)
    assert one.iterations == two.iterations


def test_the_answer_does_not_depend_on_the_clock(monkeypatch):
    cost, epsilon = sized(520, 520)
    dense = newton.Newton(sparse_below=1e-9)  # large and dense: what CG multiplies with is rounded to floats on the way
    one = pf.solve(cost, epsilon=0.3 * epsilon, method=dense)
    monkeypatch.setattr(native, "PATIENCE_SECONDS", 0.0)  # every step reports
    two = pf.solve(cost, epsilon=0.3 * epsilon, method=dense)
    assert one.iterations.cg > 5
    np.testing.assert_allclose(one.g, two.g, atol=1e-9)
    assert one.iterations.newton == two.iterations.newton


@pytest.mark.parametrize("patience", [0.0, 0.1])
def test_progress_hears_of_every_step(monkeypatch, patience):
    monkeypatch.setattr(native, "PATIENCE_SECONDS", patience)
    cost, epsilon = sized(50, 60)
    heard: list[Any] = []
    one = pf.solve(cost, epsilon=epsilon, progress=heard.append)
    assert tuple(heard) == one.history
    assert len(heard) == one.iterations.sinkhorn + one.iterations.newton
    assert [step.kind for step in heard].count("newton") == one.iterations.newton
    for name in ("evaluations", "seconds"):
        values = [getattr(step, name) for step in heard]
        assert values == sorted(values)
        assert values[0] > 0
    assert heard[-1].evaluations <= one.iterations.plan_evaluations + one.iterations.products
    assert all(0 < step.error < 2 for step in heard)
    assert [step.epsilon for step in heard] == sorted((step.epsilon for step in heard), reverse=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 65])
@pytest.mark.parametrize("batch", [None, 3])
def test_the_limit_of_steps_is_kept_exactly(rng, limit, batch):
    cost = rng.random((batch, 40, 30) if batch else (40, 30))
    one = pf.solve(cost, epsilon=1e-3, tol=1e-30, max_iterations=limit, throw=False)
    assert len(one.history) == one.iterations.sinkhorn + one.iterations.newton == limit


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_in_the_hook_comes_through_and_breaks_nothing(kind):
    cost, epsilon = sized(50, 40)
    right = pf.solve(cost, epsilon=epsilon)

    def raising(step: Any) -> None:
        if step.kind == "newton":
            raise kind

    with pytest.raises(kind):
        pf.solve(cost, epsilon=epsilon, progress=raising)
    np.testing.assert_array_equal(pf.solve(cost, epsilon=epsilon).f, right.f)


LAYOUTS = ("columns first", "every other", "float32", "integers")


@pytest.mark.parametrize(
    ("library", "layout"),
    [("numpy", "read-only"), *itertools.product(("numpy", "torch"), LAYOUTS)],  # a tensor cannot be read-only
)
@pytest.mark.parametrize("lead", [(), (3,)], ids=str)
def test_arrays_of_any_layout_and_kind(rng, layout, lead, library):
    given = [rng.integers(1, 5, (*lead, *size)).astype(float) for size in ((9, 7), (9,), (7,))]
    given[1:] = (7 * 9 * 5 // 5 * np.ones_like(x) / x.shape[-1] for x in given[1:])  # whole numbers of the same mass
    shaped = {
        "columns first": lambda x: np.asfortranarray(x),
        "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
        "read-only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
        "float32": lambda x: x.astype(np.float32),
        "integers": lambda x: x.astype(np.int64),
    }[layout]
    before = [x.copy() for x in given]
    laid = [shaped(x) for x in given]
    one = pf.solve(*(laid if library == "numpy" else map(torch.from_numpy, laid)), epsilon=0.3)
    two = pf.solve(*given, epsilon=0.3)
    np.testing.assert_allclose(np.asarray(one.f), two.f, rtol=1e-6)
    for x, y in zip(laid, before, strict=True):
        np.testing.assert_array_equal(x, y)
