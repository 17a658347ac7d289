"""The tables of cells by patient, from results/map_cells.json."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from lib import Estimate, Results, Row, Tables, difference, digits, estimate, grouped, markdown, where

SHIFT = "mean shift"
FIELD = {
    "divergence": "divergence",
    "mean_error": "means apart²",
    "variance_ratio": "variance ratio",
    "mmd": "MMD",
    "change_correlation": "change r",
}


def patients(rows: Sequence[Row]) -> list[str]:
    return sorted(grouped(rows, "patient"))


def of_patient(rows: Sequence[Row], patient: str, method: str, name: str) -> dict[int, float]:
    """A figure of one patient by seed."""
    return {row["seed"]: row["figures"][name] for row in where(rows, patient=patient, method=method)}


def gains(rows: Sequence[Row], method: str, name: str, patient: str) -> list[float]:
    """By how much the mean shift's figure is larger, on the same cells, seed by seed."""
    return difference(*(of_patient(rows, patient, each, name) for each in (SHIFT, method)))


def distance_table(results: Results) -> str:
    """W2^2 of each patient, means of the other figures over all of them, and the floor in the last line."""
    rows = results["rows"]

    def over_patients(method: str, name: str, power: int = 1) -> str:
        found = [row["figures"] for row in where(rows, method=method)]
        values = [one[name] ** power for one in found if name in one]
        return digits(statistics.fmean(values)) if values else ""

    def by_patient(method: str, name: str) -> list[str]:
        return [str(estimate(of_patient(rows, patient, method, name).values())) for patient in patients(rows)]

    body = [
        [
            method, *by_patient(method, "w2"), *(over_patients(method, name) for name in FIELD),
            over_patients(method, "gene_correlation", 2),
        ]
        for method in complete(rows)
    ]  # fmt: skip
    body.append(["floor: drug against drug", *by_patient("identity", "w2_floor"), *[""] * (len(FIELD) + 1)])
    return markdown(["map", *(f"{patient}, W2²" for patient in patients(rows)), *FIELD.values(), "r²"], body)


def complete(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The methods that have every patient and seed, and their rows, in the order of `map_cells_methods`."""
    from map_cells_methods import EVERY  # loads torch

    methods = grouped(rows, "method")
    most = max(map(len, methods.values()))
    return {method: methods[method] for method in EVERY if len(methods.get(method, [])) == most}


def gain_table(results: Results, name: str) -> str:
    """Gains over the mean shift: of each patient over seeds, and over patients, each a mean of its seeds."""
    rows, body = results["rows"], []
    for method in complete(rows):
        found = [estimate(gains(rows, method, name, patient)) for patient in patients(rows)]
        each = [gain for gain in found if gain is not None]
        over = estimate(gain.mean for gain in each)
        if method != SHIFT and over is not None:
            clear = sum(gain.clear() and gain.mean > 0 for gain in each)
            body.append([method, *map(bold, each), f"{clear} of {len(each)}", bold(over)])
    return markdown(["gain over the mean shift", *patients(rows), "clear in", "over patients"], body)


def bold(gain: Estimate) -> str:
    return gain.bold(str(gain))


def recipe_table(results: Results) -> str:
    """Of methods with several recipes, the one that was chosen for each patient."""
    body = []
    for method, rows in complete(results["rows"]).items():
        chosen = {row["patient"]: row["recipe"] for row in rows if row.get("scores")}
        if chosen:
            body.append([method, *(chosen[patient] for patient in patients(rows))])
    return markdown(["recipe chosen by the other four", *patients(results["rows"])], body)


def coordinate_table(results: Results) -> str:
    """Control / floor / own shift / mean shift of the other four; and the share of the way that the last leaves."""
    body = []
    for name, rows in grouped(results["coordinates"], "coordinates").items():
        found = [row["figures"] for row in rows]
        left = statistics.fmean((f["mean shift"] - f["floor"]) / (f["control"] - f["floor"]) for f in found)
        body.append([name, *(" / ".join(f"{value:.1f}" for value in f.values()) for f in found), f"{100 * left:.0f} %"])
    return markdown(["components of", *patients(results["rows"]), "left by the mean shift"], body)


def w2_table(results: Results) -> str:
    """W2^2 of the predicted patient a column, the floor in the last line."""
    rows = results["rows"]

    def line(method: str, name: str) -> list[str]:
        every = [of_patient(rows, patient, method, name) for patient in patients(rows)]
        return [f"{estimate(found.values())}" + ("" if len(found) == 5 else f" [{len(found)}]") for found in every]

    body = [[method, *line(method, "w2")] for method in grouped(rows, "method")]
    body.append(["floor: drug against drug", *line("identity", "w2_floor")])
    table = markdown(["W2² of the fifth patient", *patients(rows)], body)
    return table + "\nMean and 95 % interval over five draws of halves.\n"


FILE = "map_cells.json"
TABLES: Tables = {
    "map-cells-distances": (FILE, distance_table),
    "map-cells-gains-w2": (FILE, partial(gain_table, name="w2")),
    "map-cells-gains-divergence": (FILE, partial(gain_table, name="divergence")),
    "map-cells-recipes": (FILE, recipe_table),
    "map-cells-coordinates": (FILE, coordinate_table),
    "maps-cells": (FILE, w2_table),
}
