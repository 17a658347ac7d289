"""`solve` converges wherever Sinkhorn's iteration does: a few of the problems that `benchmarks/ot_hostile.py` draws."""

from __future__ import annotations

from typing import Any

import ot_hostile as hostile
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32 - 1)
FEW = settings(max_examples=24)


def judge(k: int) -> None:
    p = hostile.drawn(k)
    found = hostile.answered(p)
    assert not found["lies"], found
    assert not found["not finite"], found
    if not found["converged"]:
        taken, error = hostile.sinkhorn(p, steps=5000)
        assert error > hostile.TOLERANCE, (found, taken)


# Each stopped the solver once: bells, pieces that had to meet, weights of 1e-300, costs with heavy tails.
@example(34)
@example(108)
@example(246)
@example(2893)
@given(SEEDS)
@FEW
def test_compiled(k: int):
    judge(k)


@example(34)
@example(438)
@given(SEEDS)
@FEW
def test_torch(k: int):
    with pytest.MonkeyPatch.context() as patch:
        for module in ("geometry.dense", "geometry.sparse", "solvers.native"):
            patch.setattr(f"pushforward.ot.{module}.kernels", lambda: None)
        judge(k)


@pytest.mark.parametrize("k", range(12))
def test_what_nobody_can_solve_is_admitted(k: int):
    p, more = hostile.hopeless(k)
    found: dict[str, Any] = hostile.answered(p, **more)
    assert not found["converged"]


def test_the_reference_converges():
    """A check of the yardstick: where the solver does converge, so does Sinkhorn's iteration at a large epsilon."""
    reached = [hostile.sinkhorn(p)[1] for p in map(hostile.drawn, range(40)) if p.epsilon > 0.1 * p.cost.mean()]
    assert len(reached) > 3
    assert max(reached) <= hostile.TOLERANCE
