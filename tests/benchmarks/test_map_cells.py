"""Cells by patient: recipes are chosen among known patients, and gains are taken on the same cells."""

from __future__ import annotations

from typing import Any

import map_cells
import map_cells_methods
import map_cells_tables
import numpy as np
import pytest


def patients(slope: float) -> list[Any]:
    """Four whose cells move by 1 in every direction and, along the first, by their description times the slope."""
    random = np.random.default_rng(0)
    found = []
    for description in (-1.0, -0.3, 0.4, 0.9):
        described = np.array([description, 0.0, 0.0])
        control = (described + 0.1 * random.standard_normal((30, 3))).astype(np.float32)
        treated = (described + 1.0 + 0.1 * random.standard_normal((30, 3))).astype(np.float32)
        treated[:, 0] += slope * description
        found.append(map_cells_methods.Patient(control=control, treated=treated, described=described))
    return found


@pytest.mark.parametrize(("slope", "expected"), [(0.0, "plain"), (2.0, "by description")])
def test_the_recipe_is_the_one_that_predicts_known_patients(slope: float, expected: str) -> None:
    recipes = {
        "none": lambda _patients, _seed: lambda cells, _: cells,
        "by description": map_cells_methods.regressed(1, 0.01),
        "plain": map_cells_methods.shifted(1.0),
    }
    name, scores = map_cells.chosen(map_cells_methods.Method(recipes=recipes), patients(slope))
    assert name == expected
    assert scores["none"] == max(scores.values())


def test_a_recipe_is_not_shown_the_patient_it_is_asked_about() -> None:
    known, shown = patients(0.0), []

    def recipe(given: list[Any], _seed: int) -> Any:
        shown.append(given)
        return lambda cells, described: cells * 0 + described.astype(np.float32)

    map_cells.chosen(map_cells_methods.Method(recipes={"one": recipe, "other": recipe}), known)
    numbers = {id(each): number for number, each in enumerate(known)}
    assert [[numbers[id(each)] for each in given] for given in shown[:4]] == [
        [1, 2, 3],
        [0, 2, 3],
        [0, 1, 3],
        [0, 1, 2],
    ]


def test_a_gain_is_paired_by_seed_and_bold_where_it_is_clear() -> None:
    rows = [
        {
            "patient": patient,
            "method": method,
            "seed": seed,
            "figures": {"w2": 50.0 + 10 * seed - gain + 0.1 * seed * gain},
        }
        for patient in map_cells.PATIENTS
        for seed in map_cells.SEEDS
        for method, gain in ((map_cells_tables.SHIFT, 0.0), ("`LinearMap`", -2.0))
    ]
    assert map_cells_tables.gains(rows, "`LinearMap`", "w2", "PW030") == pytest.approx([-2.0, -1.8, -1.6, -1.4, -1.2])
    table = map_cells_tables.gain_table({"rows": rows}, "w2")
    assert table.splitlines()[2].startswith("| `LinearMap` | **-1.60 ± 0.39**")
    assert "0 of 5" in table
