"""The loops over n x m numbers against the same formulas in numpy; `test_descent.py` has the steps."""

from __future__ import annotations

import numpy as np
import pytest

# Around the widths of vectors (2, 4, 8 numbers, and twice that), and enough numbers for the threads to get parts.
SIDES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33]
SIZES = [(n, m) for k, n in enumerate(SIDES) for m in (SIDES[-1 - k], SIDES[k], 8)]
SPLIT = (150, 151)
LOWEST, HIGHEST = -300.0, 300.0
THREADS = pytest.mark.parametrize("threads", [1, 2, 3])
EPSILON = 0.07


def problems(rng: np.random.Generator, batch: int, n: int, m: int) -> dict[str, np.ndarray]:
    """Costs of which some are infinite, weights of which some are zero, and potentials."""
    cost = rng.normal(size=(batch, n, m))
    cost[rng.random(cost.shape) < 0.1] = np.inf
    a, b = rng.random((batch, n)), rng.random((batch, m))
    a[rng.random(a.shape) < 0.1], b[rng.random(b.shape) < 0.1] = 0.0, 0.0
    return {"cost": cost, "a": a, "b": b, "f": rng.normal(size=(batch, n)), "g": rng.normal(size=(batch, m))}


def exp(x: np.ndarray) -> np.ndarray:
    return np.exp(np.clip(x, LOWEST, HIGHEST))


def build_plainly(
    cost: np.ndarray, log_col: np.ndarray, a: np.ndarray, damping: float, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(f, P) from the definition: rows of mass a e^((1 - lambda) (log sum + centre / epsilon))."""
    exponent = log_col[:, None] - cost / EPSILON
    top = exponent.max(-1, keepdims=True).clip(-1e300)
    plan = np.where(cost < np.inf, exp(exponent - top), 0.0)
    sums = plan.sum(-1, keepdims=True)
    log_sum = np.log(sums, where=sums > 0, out=np.zeros_like(sums)) + top
    mass = a[..., None] * np.exp((1 - damping) * (log_sum + centre[:, None, None] / EPSILON))
    full = sums > 0
    f = np.where(full, -damping * (EPSILON * log_sum + centre[:, None, None]), 0.0)[..., 0]
    return f, np.where(full, plan * mass / np.where(full, sums, 1.0), 0.0)


def check_build(native, given: dict[str, np.ndarray], damping: float, threads: int) -> None:
    cost, a, b, g = given["cost"], given["a"], given["b"], given["g"]
    centre = g.max(-1)
    with np.errstate(divide="ignore"):
        log_col = (g - centre[:, None]) / EPSILON + np.log(b)
    f, plan, cols, costs = (
        np.full_like(a, np.nan),
        np.full_like(cost, np.nan),
        np.full_like(b, np.nan),
        np.empty_like(b),
    )
    native.build(cost, log_col, a, EPSILON, damping, centre, f, cols, plan, costs, threads)
    right_f, right_plan = build_plainly(cost, log_col, a, damping, centre)
    np.testing.assert_allclose(f, right_f, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(plan, right_plan, rtol=1e-12, atol=1e-120)
    np.testing.assert_allclose(cols, right_plan.sum(1), rtol=1e-12, atol=1e-120)
    paid = np.where(cost < np.inf, right_plan * np.where(cost < np.inf, cost, 0.0), 0.0).sum(1)
    np.testing.assert_allclose(costs, paid, rtol=1e-11, atol=1e-13)
    again_f, again_cols = np.empty_like(f), np.empty_like(cols)
    native.build(cost, log_col, a, EPSILON, damping, centre, again_f, again_cols, None, None, threads)
    np.testing.assert_array_equal(again_f, f)
    np.testing.assert_array_equal(again_cols, cols)


@pytest.mark.parametrize("damping", [1.0, 0.6])
def test_build(native, rng, damping):
    for n, m in SIZES:
        check_build(native, problems(rng, 1, n, m), damping, 1)


@THREADS
def test_build_on_threads(native, rng, threads):
    check_build(native, problems(rng, 1, *SPLIT), 0.6, threads)
    check_build(native, problems(rng, 5, 9, 17), 1.0, threads)


def test_a_row_without_partners_has_no_plan(native, rng):
    given = problems(rng, 2, 5, 9)
    given["cost"][1, 3] = np.inf
    check_build(native, given, 1.0, 1)


@THREADS
@pytest.mark.parametrize("sizes", [(1, *SPLIT), (5, 9, 17), (3, 1, 33), (2, 33, 1)], ids=str)
def test_marginals(native, rng, sizes, threads):
    given = problems(rng, *sizes)
    cost, a, b, f, g = (given[name] for name in ("cost", "a", "b", "f", "g"))
    f *= 30  # exponents beyond both clamps
    rows, cols = np.empty_like(a), np.empty_like(b)
    native.marginals(cost, f, g, a, b, EPSILON, rows, cols, threads)
    density = np.where(cost < np.inf, exp((f[..., None] + g[:, None] - cost) / EPSILON), 0.0)
    plan = a[..., None] * b[:, None] * density
    np.testing.assert_allclose(rows, plan.sum(-1), rtol=1e-12)
    np.testing.assert_allclose(cols, plan.sum(-2), rtol=1e-12)


def csr(kept: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A boolean matrix as (starts, columns, costs)."""
    starts = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    return starts, np.nonzero(kept)[1].astype(np.int32), cost[kept]


@THREADS
@pytest.mark.parametrize("radius", [-10.0, 0.0, 1.0, np.inf])
@pytest.mark.parametrize("sizes", [SPLIT, (33, 17), (1, 9), (9, 1), (2, 2)], ids=str)
def test_pairs_near(native, rng, sizes, radius, threads):
    given = problems(rng, 1, *sizes)
    cost, f, g = given["cost"], given["f"][0], given["g"][0]
    near = f[:, None] + g - cost[0] >= -radius
    right = csr(near, cost[0])
    found = native.find_near(cost, f, g, radius, threads)
    for here, there in zip(found, right, strict=True):
        np.testing.assert_array_equal(here, there)
        assert here.dtype == there.dtype
    narrowed = native.narrow(*found, f, g, 0.5, threads)
    for here, there in zip(narrowed, csr(near & (f[:, None] + g - cost[0] >= -0.5), cost[0]), strict=True):
        np.testing.assert_array_equal(here, there)


@THREADS
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sizes", [SPLIT, (33, 17), (1, 9), (9, 1)], ids=str)
def test_fill(native, rng, sizes, share, threads):
    given = problems(rng, 1, *sizes)
    cost, a, log_col = given["cost"][0], given["a"][0], 10 * given["g"][0]
    f, log_row = given["f"][0].copy(), 10 * given["f"][0]
    kept = (rng.random(cost.shape) < share) & (cost < np.inf)
    starts, columns, costs = csr(kept, cost)
    values, cols, moved = np.empty_like(costs), np.empty_like(log_col), f.copy()
    native.fill(starts, columns, costs, log_row, log_col, a, EPSILON, values, moved, cols, threads)
    plan = np.where(kept, exp(log_row[:, None] + log_col - cost / EPSILON), 0.0)
    sums = plan.sum(1)
    scale = np.where((sums > 0) & (a > 0), a / np.where(sums > 0, sums, 1.0), 1.0)
    scale[a == 0] = 1.0
    plan *= scale[:, None]
    np.testing.assert_allclose(values, plan[kept], rtol=1e-12)
    np.testing.assert_allclose(cols, plan.sum(0), rtol=1e-12)
    np.testing.assert_allclose(moved, f + EPSILON * np.log(scale), rtol=1e-13, atol=1e-13)


def test_exponentials_are_right_to_the_last_digits(native, rng):
    x = np.concatenate([-300 * rng.random(40_000), np.linspace(-300, 0, 1001), -np.log(2) * np.arange(0.5, 400, 1)])
    x = np.append(x[x >= -300], 0.0)
    pairs, zeros = np.arange(len(x), dtype=np.int32), np.zeros(len(x))
    values, f, cols = np.empty_like(x), np.zeros(len(x)), np.empty_like(x)
    starts = np.arange(len(x) + 1, dtype=np.int32)
    # Rows of weight zero are left as they are: values are the bare exponentials.
    native.fill(starts, pairs, -x, zeros, zeros, zeros, 1.0, values, f, cols, 1)
    assert np.abs(values / np.exp(x) - 1).max() <= 4e-16
    plan, one = np.empty((1, 1, len(x))), np.ones((1, 1))
    native.build(-x[None, None], zeros[None], one, 1.0, 1.0, np.zeros(1), one.copy(), zeros[None].copy(), plan, None, 1)
    # The last exponent is zero; its entry is the scale.
    assert np.abs(plan[0, 0] / plan[0, 0, -1] / np.exp(x) - 1).max() <= 1e-15


def test_exponents_are_clamped(native):
    x = np.array([-1e308, -np.inf, -301.0, 301.0, 1e308, np.inf])
    pairs, zeros = np.arange(6, dtype=np.int32), np.zeros(6)
    values = np.empty(6)
    native.fill(np.arange(7, dtype=np.int32), pairs, zeros, x, zeros, zeros, 1.0, values, np.zeros(6), np.zeros(6), 1)
    np.testing.assert_allclose(values, np.exp([-300.0] * 3 + [300.0] * 3), rtol=1e-15)


def test_an_unknown_instruction_set_is_refused(compiled):
    with pytest.raises(ValueError, match="not built, or not of this processor"):
        compiled.set_instruction_set("mmx")
    assert compiled.instruction_set() in compiled.instruction_sets()
