"""The tables of transport maps, and what their targets have come to, from results/maps.json. Standard library only.

A figure stands with half the width of its 95 % interval over seeds, by Student's t; a figure of one seed stands alone.
Differences between methods are taken seed by seed first.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TABLES", "Estimate", "estimate", "target_lines"]

Row = dict[str, Any]
Values = dict[int, float]  # by seed
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}

W2_PAIRS = {"w2-2": "d = 2", "w2-16": "d = 16", "w2-64": "d = 64"}
NAMES = {
    "linear": "`LinearMap`",
    "entropic": "`EntropicMap`",
    "progressive": "`ProgressiveMap`",
    "icnn": "`ICNNMap`",
    "plain network": "network, no gap",
    "monge": "**`MongeMap`**",
    "monge gap alone": '`MongeMap(start="linear")`',
    "monge from the identity": '`MongeMap(start="identity")`',
    "monge from the identity, large epsilon": '`MongeMap(start="identity", epsilon=(0.3, 0.03))`',
    "monge like ott": "`MongeMap`, OTT's network and start",
    "ott tutorial": "OTT-JAX, tutorial's epsilons",
    "ott best": "OTT-JAX, best found",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and half of its 95 % interval (None from one seed)."""

    mean: float
    half: float | None

    def __str__(self) -> str:
        if self.half is None:
            return digits(self.mean)
        places = max(0, 1 - math.floor(math.log10(self.half))) if self.half else 2
        return f"{self.mean:.{min(places, 4)}f} ± {self.half:.{min(places, 4)}f}"


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, min(4, 2 - math.floor(math.log10(abs(value)))))}f}"


def estimate(values: Iterable[float]) -> Estimate | None:
    values = list(values)
    if len(values) < 2:
        return Estimate(values[0], None) if values else None
    quantile = T_975.get(len(values) - 1, 1.96)
    return Estimate(statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values)))


def figure(rows: list[Row], pair: str, method: str, name: str) -> Values:
    """A figure, the CPU seconds, or the peak memory, of every seed of this pair and method that came to an end."""
    found = [row for row in rows if (row["pair"], row["method"], row["status"]) == (pair, method, "ok")]
    if name == "seconds":
        return {row["seed"]: row["seconds"] for row in found}
    if name == "memory":
        return {row["seed"]: row["memory_mib"]["peak"] for row in found}
    return {row["seed"]: row["figures"][name] for row in found if name in row["figures"]}


def difference(one: Values, other: Values) -> list[float]:
    """Seed by seed, over the seeds that both have."""
    return [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]


def shown(values: Values) -> str:
    """The estimate, and the number of seeds where it is not five."""
    found = estimate(values.values())
    return "" if found is None else f"{found}" + ("" if len(values) == 5 else f" [{len(values)}]")


def markdown(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def footnote(results: dict[str, Any], pairs: Iterable[str]) -> str:
    rows = [row for row in results["rows"] if row["pair"] in pairs]
    processors, days, commits = (
        sorted({str(row[name])[:length] for row in rows})
        for name, length in (("processor", 99), ("date", 10), ("commit", 9))
    )
    return (
        f"\n{' and '.join(processors)}, one thread, CPU seconds of fitting; mean and 95 % interval over seeds, "
        f"five unless a number in brackets says otherwise; {', '.join(days)}, commit {', '.join(commits)}.\n"
    )


def methods_in(rows: list[Row], pairs: Iterable[str]) -> list[str]:
    pairs = set(pairs)
    return list(dict.fromkeys(row["method"] for row in rows if row["pair"] in pairs))


def named(method: str) -> str:
    return NAMES.get(method, method)


def benchmark_table(results: dict[str, Any]) -> str:
    """L2-UVP and CPU seconds on the Wasserstein-2 benchmark; the peak memory of the middle dimension."""
    rows = results["rows"]
    body = []
    for method in methods_in(rows, W2_PAIRS):
        line = [named(method)]
        for pair in W2_PAIRS:
            line += [shown(figure(rows, pair, method, "l2_uvp")), brief(figure(rows, pair, method, "seconds"))]
        body.append([*line, brief(figure(rows, "w2-16", method, "memory"))])
    columns = [title for name in W2_PAIRS.values() for title in (f"{name}, L2-UVP %", "CPU s")]
    return markdown(["map", *columns, "peak MiB"], body) + footnote(results, W2_PAIRS)


def brief(values: Values) -> str:
    """The mean alone."""
    return digits(statistics.fmean(values.values())) if values else ""


def pair_table(pair: str, columns: dict[str, str]) -> Callable[[dict[str, Any]], str]:
    """Every method on one pair, a column a figure."""

    def table(results: dict[str, Any]) -> str:
        rows = results["rows"]
        body = [
            [
                named(method),
                *(shown(figure(rows, pair, method, name)) for name in columns),
                brief(figure(rows, pair, method, "seconds")),
                brief(figure(rows, pair, method, "memory")),
            ]
            for method in methods_in(rows, [pair])
        ]
        return markdown(["map", *columns.values(), "CPU s", "peak MiB"], body) + footnote(results, [pair])

    return table


def of_patient(rows: Sequence[Row], patient: str, method: str, name: str) -> Values:
    """A figure of the rows of map_cells.json, by seed."""
    return {row["seed"]: row["figures"][name] for row in rows if (row["patient"], row["method"]) == (patient, method)}


def patients(rows: Sequence[Row]) -> list[str]:
    return sorted({row["patient"] for row in rows})


def cells_table(results: dict[str, Any]) -> str:
    """W2^2 of the predicted patient a column, the floor in the last line."""
    rows = results["rows"]
    body = [
        [method, *(shown(of_patient(rows, patient, method, "w2")) for patient in patients(rows))]
        for method in dict.fromkeys(row["method"] for row in rows)
    ]
    floor = [shown(of_patient(rows, patient, "identity", "w2_floor")) for patient in patients(rows)]
    table = markdown(["W2² of the fifth patient", *patients(rows)], [*body, ["floor: drug against drug", *floor]])
    return table + "\nMean and 95 % interval over five draws of halves.\n"


def step_table(results: dict[str, Any]) -> str:
    """One training step of ours and of OTT-JAX's, taken in turns in one process."""
    rows = [row for row in results["rows"] if row["pair"] == "step" and row["status"] == "ok"]
    body = []
    for row in rows:
        ours, theirs = (row["milliseconds"][name] for name in ("pushforward", "ott-jax"))
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        body.append(
            [row["method"], digits(statistics.median(ours)), digits(statistics.median(theirs)), f"{ratio:.1f}x"]
        )
    return markdown(["epsilons", "pushforward, ms", "OTT-JAX, ms", "faster"], body) + footnote(results, ["step"])


@dataclass(frozen=True, slots=True)
class Target:
    """At most `bound` of a figure, for one method on one pair."""

    pair: str
    method: str
    name: str
    bound: float


TARGETS = [
    Target("gaussian-32", "monge", "l2_uvp", 1.0),
    Target("gaussian-32", "monge from the identity, large epsilon", "l2_uvp", 6.0),
    *(Target(f"w2-{d}", "monge", "l2_uvp", bound) for d, bound in ((2, 0.5), (16, 5.0), (64, 11.0))),
    *(Target(f"w2-{d}", "monge", "seconds", 120.0) for d in (2, 16, 64)),
    *(Target(f"w2-{d}", "monge gap alone", "l2_uvp", bound) for d, bound in ((2, 0.5), (16, 9.0), (64, 17.0))),
    Target("mixture", "monge", "exact_gap", 0.006),
]
UNITS = {"l2_uvp": "L2-UVP %", "seconds": "CPU s", "exact_gap": "exact gap"}
FASTER, PATIENTS_BETTER = 3.0, 3


def bounded(rows: list[Row], target: Target) -> list[str]:
    """What it was, what it came to, and by how much it was missed."""
    values = figure(rows, target.pair, target.method, target.name)
    found = estimate(values.values())
    asked = [f"{target.pair}, {target.method}", f"{UNITS[target.name]} at most {target.bound:g}"]
    if found is None:
        return [*asked, "", "not measured"]
    over = found.mean - target.bound
    return [*asked, shown(values), "reached" if over <= 0 else f"missed by {digits(over)}"]


def at_the_floor(rows: list[Row]) -> list[str]:
    """W2^2 of the mixture's image against the floor of the same seed."""
    pairs = [figure(rows, "mixture", "monge", name) for name in ("w2", "w2_floor")]
    excess = estimate(difference(*pairs))
    asked = ["mixture, monge", "W2² at the floor"]
    if excess is None:
        return [*asked, "", "not measured"]
    floor = statistics.fmean(pairs[1].values())
    reached = excess.mean - (excess.half or 0.0) <= 0
    verdict = (
        "reached (the interval of the excess holds 0)" if reached else f"missed by {100 * excess.mean / floor:.0f} %"
    )
    return [*asked, f"{shown(pairs[0])}, floor {shown(pairs[1])}, excess {excess}", verdict]


def faster_steps(rows: list[Row]) -> list[list[str]]:
    lines = []
    for row in rows:
        if row["pair"] == "step" and row["status"] == "ok":
            times = row["milliseconds"]
            ratio = statistics.median(b / a for a, b in zip(times["pushforward"], times["ott-jax"], strict=True))
            verdict = "reached" if ratio >= FASTER else f"missed by {FASTER - ratio:.1f}x"
            asked = [f"one step, batch 1024, d = 32, {row['method']}", f"at least {FASTER:g}x faster"]
            lines.append([*asked, f"{ratio:.1f}x", verdict])
    return lines


def better_patients(rows: Sequence[Row], method: str) -> list[str]:
    """In how many patients the map lands nearer the treated cells than the mean shift does, seed by seed."""
    gains = {
        patient: estimate(difference(*(of_patient(rows, patient, each, "w2") for each in ("mean shift", method))))
        for patient in patients(rows)
    }
    known = {patient: gain for patient, gain in gains.items() if gain is not None}
    better = sum(gain.mean > 0 for gain in known.values())
    said = "; ".join(f"{patient} {gain}" for patient, gain in known.items())
    verdict = "reached" if better >= PATIENTS_BETTER else f"missed by {PATIENTS_BETTER - better}"
    asked = [f"cells, {method}", f"W2² under the mean shift's in {PATIENTS_BETTER} of 5 patients"]
    return [*asked, f"{better} of {len(known)}; nearer by {said}", verdict]


def verdicts(rows: list[Row], cells: Sequence[Row]) -> list[list[str]]:
    bounds = [bounded(rows, target) for target in TARGETS]
    ours = dict.fromkeys(row["method"] for row in cells if "MongeMap" in row["method"])
    return [*bounds, at_the_floor(rows), *faster_steps(rows), *(better_patients(cells, method) for method in ours)]


def target_lines(rows: list[Row], cells: Sequence[Row] = ()) -> list[str]:
    return [" | ".join(line) for line in verdicts(rows, cells)]


def targets_table(results: dict[str, Any]) -> str:
    rows = results["rows"]
    return markdown(["what", "target", "measured", ""], verdicts(rows, [])) + footnote(
        results, {row["pair"] for row in rows}
    )


GAUSSIAN = {"l2_uvp": "L2-UVP %", "cosine": "cosine", "exact_gap": "gap", "variance_ratio": "variance ratio"}
MIXTURE = {
    "w2": "W2²",
    "w2_floor": "floor",
    "exact_gap": "gap",
    "variance_ratio": "variance ratio",
    "mean_shift": "mean shift",
}
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "maps-benchmark": ("maps.json", benchmark_table),
    "maps-gaussian": ("maps.json", pair_table("gaussian-32", GAUSSIAN)),
    "maps-mixture": ("maps.json", pair_table("mixture", MIXTURE)),
    "maps-cells": ("map_cells.json", cells_table),
    "maps-step": ("maps.json", step_table),
    "maps-targets": ("maps.json", targets_table),
}
