"""The tables of maps for costs other than the squared Euclidean one, from results/map_costs.json."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lib import Results, Row, Tables, estimate, grouped, markdown, where

NAMES = {
    "monge": "**`MongeMap(cost)`**",
    "debiased gap": "the same from the linear map, debiased gap",
    "fit alone": "the same from the linear map, no gap",
    "squared cost": "the same from the linear map, squared cost",
}
COLUMNS = {
    "excess": "cost over the optimum's, %",
    "exact_gap": "exact gap, %",
    "w2": "W2²",
    "w2_floor": "floor",
    "l2_uvp": "L2-UVP %",
    "still_recall": "still: recall",
    "still_precision": "precision",
    "off_sphere": "off the sphere",
}


def problem_table(results: Results, problem: str) -> str:
    """One line a method that was run: means over seeds with 95 % intervals."""
    rows = where(results["rows"], problem=problem)
    columns = [name for name in COLUMNS if any(name in row["figures"] for row in rows)]
    body = []
    for method, own in grouped(rows, "method").items():
        found = [estimate(row["figures"][name] for row in own if name in row["figures"]) for name in columns]
        seconds = sum(row["seconds"] for row in own) / len(own)
        cells = ["" if each is None else str(each) for each in found]
        body.append([NAMES.get(method, method), *cells, f"{seconds:.0f}"])
    return markdown(["map", *(COLUMNS[name] for name in columns), "CPU s"], body)


def verdicts_table(results: Results) -> str:
    """Whether what `MongeMap` pays is within 1 % of the optimum, and how far its image is from the floor."""
    import map_costs_truths  # loads torch: what the samples' own optimum pays is computed from the truths

    body = []
    for problem, rows in grouped(where(results["rows"], method="monge"), "problem").items():
        body.append([problem, *_verdict(rows, [map_costs_truths.of_the_sample(problem, row["seed"]) for row in rows])])
    columns = ["cost over the optimum's, %", "within 1 %", "the sample's own", "beyond it", "W2² over the floor"]
    return markdown(["problem", *columns], body)


def _verdict(rows: Sequence[Row], sampled: Sequence[float]) -> list[str]:
    figures = [row["figures"] for row in rows]
    excess, above = estimate(f["excess"] for f in figures), estimate(f["w2"] - f["w2_floor"] for f in figures)
    beyond = estimate(f["excess"] - least for f, least in zip(figures, sampled, strict=True))
    assert excess is not None
    far = abs(excess.mean) - 1.0
    reached = "reached" if far <= 0 else f"missed by {far:.2f}"
    return [str(excess), reached, str(estimate(sampled)), str(beyond), str(above)]


FILE = "map_costs.json"
TABLES: Tables = {
    "map-costs-verdicts": (FILE, verdicts_table),
    **{
        f"map-costs-{problem}": (FILE, partial(problem_table, problem=problem))
        for problem in ("radial", "petals", "sphere", "elastic")
    },
}
