"""What the tables of maps say: intervals, differences seed by seed, verdicts on targets."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import map_cells_tables
import maps_tables
import numpy as np
import pytest
import tables
from lib import estimate, filled
from scipy import stats


def row(pair: str, method: str, seed: int, seconds: float = 10.0, **figures: float) -> dict[str, Any]:
    return {
        "pair": pair, "method": method, "seed": seed, "status": "ok", "seconds": seconds, "figures": figures,
        "memory_mib": {"before": 100.0, "peak": 300.0}, "date": "2026-01-02T03:04:05", "commit": "abc",
        "processor": "some processor",
    }  # fmt: skip


def results(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"machine": {"processor": "A processor"}, "rows": rows}


def verdict(lines: list[str], start: str) -> str:
    (line,) = [line for line in lines if line.startswith(start)]
    return line


def test_the_interval_is_students() -> None:
    values = [4.0, 5.5, 4.5, 6.0, 5.0]
    low, high = stats.t.interval(0.95, 4, loc=statistics.fmean(values), scale=stats.sem(values))
    found = estimate(values)
    assert found.mean == pytest.approx((low + high) / 2)
    assert found.half == pytest.approx((high - low) / 2, rel=1e-3)


def test_one_seed_has_no_interval_and_none_no_figure() -> None:
    assert str(estimate([4.567])) == "4.57"
    assert estimate([]) is None


def test_a_target_is_reached_or_says_by_how_much_it_was_missed() -> None:
    rows = [row("w2-16", "monge", seed, seconds=100.0, l2_uvp=5.5) for seed in range(5)]
    rows += [row("w2-64", "monge", 0, seconds=100.0, l2_uvp=10.0)]
    lines = maps_tables.target_lines(rows)
    assert "missed by 0.500" in verdict(lines, "w2-16, monge | L2-UVP")
    assert verdict(lines, "w2-64, monge | L2-UVP").endswith("reached")
    assert verdict(lines, "w2-16, monge | CPU s").endswith("reached")
    assert verdict(lines, "w2-2, monge | L2-UVP").endswith("not measured")


def test_a_row_that_failed_counts_for_nothing() -> None:
    failed = row("w2-16", "monge", 0, l2_uvp=1.0) | {"status": "time limit"}
    assert "not measured" in verdict(maps_tables.target_lines([failed]), "w2-16, monge | L2-UVP")


def test_the_floor_is_taken_seed_by_seed() -> None:
    # The floor wanders by more than the excess: only the differences show that the excess is 0.1 every time.
    floors = [0.5, 0.9, 1.3]
    rows = [row("mixture", "monge", n, w2=floor + 0.1, w2_floor=floor, exact_gap=0.0) for n, floor in enumerate(floors)]
    assert "missed by 11 %" in verdict(maps_tables.target_lines(rows), "mixture, monge | W2²")
    rows = [row("mixture", "monge", n, w2=floor - 0.1, w2_floor=floor, exact_gap=0.0) for n, floor in enumerate(floors)]
    assert "reached" in verdict(maps_tables.target_lines(rows), "mixture, monge | W2²")


def test_patients_are_counted_in_which_the_map_beats_the_mean_shift() -> None:
    def cells(patient: str, method: str, seed: int, w2: float) -> dict[str, Any]:
        return {"patient": patient, "method": method, "seed": seed, "figures": {"w2": w2, "w2_floor": 30.0}}

    rows = []
    for number, patient in enumerate(("A", "B", "C", "D", "E")):
        gain = 1.0 if number < 3 else -1.0
        for seed in range(2):
            rows.append(cells(patient, "mean shift", seed, 50.0 + seed))
            rows.append(cells(patient, "`MongeMap`", seed, 50.0 + seed - gain))
    line = verdict(maps_tables.target_lines([], rows), "cells, `MongeMap`")
    assert "3 of 5" in line
    assert line.endswith("reached")


def test_the_step_is_compared_repetition_by_repetition() -> None:
    step = row("step", "tutorial", 0) | {"milliseconds": {"pushforward": [1.0, 2.0, 4.0], "ott-jax": [3.0, 4.0, 16.0]}}
    assert "3.0x | reached" in verdict(maps_tables.target_lines([step]), "one step")
    assert "3.0x" in maps_tables.step_table(results([step]))


def test_every_method_is_a_line_and_fewer_seeds_are_said() -> None:
    rows = [row(f"w2-{d}", "monge", seed, l2_uvp=4.0) for d in (2, 16, 64) for seed in range(5)]
    rows += [row("w2-16", "ott best", seed, l2_uvp=30.0 + seed) for seed in range(2)]
    text = maps_tables.benchmark_table(results(rows))
    assert sum(line.startswith("| ") for line in text.splitlines()) == 4
    (line,) = [line for line in text.splitlines() if "OTT-JAX, best found" in line]
    assert "30.5 ±" in line
    assert "[2]" in line
    assert text.count("[") == 1


@pytest.mark.usefixtures("data_sets")
def test_held_out_cells_are_in_nothing_that_is_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import maps_problems as problems

    pair = problems.load("cells-PW034", 1)
    fitted = {point.tobytes() for point in np.concatenate([pair.x, pair.y])}
    assert pair.x.shape == pair.y.shape == (2000, 30)
    for held_out in (pair.x_test, pair.y_test, pair.y_other):
        assert held_out.shape == (250, 30)
        assert fitted.isdisjoint(point.tobytes() for point in held_out)
    assert {point.tobytes() for point in pair.y_test}.isdisjoint(point.tobytes() for point in pair.y_other)


def test_a_table_without_results_yet_is_left_alone(tmp_path: Path) -> None:
    text = "<!-- table:maps-cells -->\nas it was\n<!-- /table:maps-cells -->\n"
    assert filled(text, tables.TABLES, tmp_path) == text


def test_targets_and_cells_make_tables() -> None:
    rows = [row("mixture", "monge", seed, w2=1.0, w2_floor=0.8, exact_gap=0.01) for seed in range(2)]
    assert "missed by 0.0040" in verdict(maps_tables.target_lines(rows), "mixture, monge | exact gap")
    cells = [{"patient": "A", "method": "identity", "seed": 0, "figures": {"w2": 50.0, "w2_floor": 30.0}}]
    assert "| floor: drug against drug | 30.0 [1] |" in map_cells_tables.w2_table({"rows": cells})
