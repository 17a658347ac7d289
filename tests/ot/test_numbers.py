"""Numbers near the ends of their type: an error, a wider type, or the truth; never an infinity under CONVERGED."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.errors import InvalidArgument, MassError, NonFiniteError


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("mass", [1.0, 3e5, 1e30, 1e60])
def test_results_keep_the_callers_type_where_it_holds_them(dtype: torch.dtype, mass: float):
    cost = torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    a, b = torch.full((6,), mass / 6, dtype=torch.float64), torch.full((5,), mass / 5, dtype=torch.float64)
    sol = pf.solve(cost, a, b, epsilon=0.1)
    exact = pf.solve(cost.double(), a, b, epsilon=0.1)
    eps, largest = torch.finfo(dtype).eps, torch.finfo(dtype).max
    ours = (sol.value, sol.transport_cost, sol.f, sol.g, sol.plan.to_dense(), sol.plan @ torch.ones(5))
    theirs = (exact.value, exact.transport_cost, exact.f, exact.g, exact.plan.to_dense(), exact.plan @ torch.ones(5))
    for one, two in zip(ours, theirs, strict=True):
        assert torch.isfinite(one).all()
        assert (one.double() - two.double()).abs().sum() <= eps * two.abs().sum()
        if two.abs().max() < largest:
            assert one.dtype == dtype
        else:
            assert torch.finfo(one.dtype).max > two.abs().max()


def test_a_plan_too_thin_for_halves_is_wider():
    """A million entries of 1e-6 each are mostly below what float16 can hold to its three digits."""
    cost = torch.rand(1000, 1000, generator=torch.Generator().manual_seed(0)).half()
    plan = pf.solve(cost, epsilon=10.0, tol=1e-6).plan.to_dense()
    assert plan.dtype == torch.float32
    assert float((plan.double().sum(1) - 1e-3).abs().sum()) <= 1e-3


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_half_weights_of_either_library(library: str, kind: str):
    rng = np.random.default_rng(0)
    a, b = (rng.dirichlet(np.ones(100)).astype(kind) for _ in "ab")
    cost = rng.random((100, 100)).astype(kind)
    given = (cost, a, b) if library == "numpy" else tuple(map(torch.from_numpy, (cost, a, b)))
    sol = pf.solve(*given, epsilon=0.05)
    assert sol.converged
    assert str(sol.f.dtype).endswith(kind)


def test_masses_that_differ_are_still_refused(rng):
    cost, a, b = rng.random((9, 9)), np.full(9, 1 / 9), np.full(9, 1.01 / 9)
    for kind in (np.float64, np.float16):
        with pytest.raises(MassError, match="a sums to"):
            pf.solve(cost, a.astype(kind), b.astype(kind), epsilon=0.1)


@pytest.mark.parametrize(
    ("cost", "mass", "more", "error", "named"),
    [
        (1.0, 1.0, {"epsilon": 1e-315}, InvalidArgument, "epsilon is 1e-315"),
        (1.0, 1.0, {"epsilon": 5e-324}, InvalidArgument, "epsilon is"),
        (1e200, 1.0, {"epsilon": 1e-100}, InvalidArgument, "epsilon is 1e-100"),
        (1e-310, 1.0, {"epsilon": 1e-311}, InvalidArgument, "epsilon is 1e-311"),
        (1e307, 1.0, {}, NonFiniteError, "cost is too large"),
        (1e300, 1.0, {"epsilon": 1e299}, NonFiniteError, "cost is too large"),
        (1.0, 1e-140, {"epsilon": 0.1}, MassError, "a sums to 1e-140"),
        (1.0, 1e-320, {"epsilon": 0.1}, MassError, "a sums to"),
        (1.0, 1e200, {"epsilon": 0.1}, MassError, "a sums to 1e"),
        (1.0, 1e308, {"epsilon": 0.1}, MassError, "a sums to 1e"),
        (1e250, 1e90, {"epsilon": 1e249}, NonFiniteError, "times the mass of a is"),
        (1e-250, 1e-90, {"epsilon": 1e-251}, NonFiniteError, "times the mass of a is"),
        (1.0, 1.0, {"epsilon": 0.1, "unbalanced": 1e-310}, InvalidArgument, "unbalanced is 1e-310"),
        (1.0, 1.0, {"epsilon": 0.1, "unbalanced": (math.inf, 1e-300)}, InvalidArgument, "unbalanced is 1e-300"),
    ],
    ids=str,
)
def test_numbers_that_cannot_be_computed_with_are_refused(cost, mass, more, error, named):
    with pytest.raises(error, match=named):
        pf.solve(cost * np.arange(1.0, 7).reshape(2, 3), np.full(2, mass / 2), np.full(3, mass / 3), **more)


@pytest.mark.parametrize("unit", [1e-270, 1e-150, 1.0, 1e150, 1e270])
@pytest.mark.parametrize("mass", [1e-19, 1e-9, 1.0, 1e8])
def test_units_of_cost_and_mass_over_the_whole_range(rng, unit: float, mass: float):
    cost, a, b = rng.random((5, 4)), np.full(5, 0.2), np.full(4, 0.25)
    sol = pf.solve(unit * cost, mass * a, mass * b, epsilon=0.05 * unit)
    plan = sol.plan.to_dense()
    assert np.abs(plan.sum(1) / mass - a).sum() + np.abs(plan.sum(0) / mass - b).sum() <= 1.001e-9
    assert sol.transport_cost / unit / mass == pytest.approx(pf.solve(cost, epsilon=0.05).transport_cost, rel=1e-6)
    for number in (sol.value, sol.duality_gap, sol.f, sol.g):
        assert np.isfinite(number).all()


@pytest.mark.parametrize("epsilon", [1e-20, 1e-200])
def test_an_epsilon_below_all_rounding_is_admitted(rng, epsilon: float):
    sol = pf.solve(
        rng.random((4, 5)), rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(5)), epsilon=epsilon, throw=False
    )
    assert sol.status in (pf.Status.STALLED, pf.Status.ITERATION_LIMIT)
    assert np.isfinite(sol.plan.to_dense()).all()
