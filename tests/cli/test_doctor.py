from __future__ import annotations

from collections.abc import Callable

import pytest

import pushforward as pf


def test_a_healthy_machine(run: Callable):
    outcome = run("doctor")
    assert outcome.code == 0, outcome.out
    lines = {line[:18].strip(): line[18:] for line in outcome.out.splitlines()}
    assert lines["torch"]
    assert "threads" in lines["machine"]
    assert lines["cpu"].startswith("ok: CONVERGED")


def test_a_wrong_answer_is_noticed(run: Callable, monkeypatch: pytest.MonkeyPatch):
    solve = pf.solve
    # The cost doubled: converged, and bounds that do not hold the true cost.
    monkeypatch.setattr(pf, "solve", lambda cost, **settings: solve(2 * cost, **settings))
    outcome = run("doctor")
    assert outcome.code == 1
    assert "WRONG" in outcome.out


def test_a_broken_device_is_one_line(run: Callable, monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(pf, "solve", broken)
    outcome = run("doctor")
    assert outcome.code == 1
    assert "FAILED: no kernel image is available" in outcome.out
