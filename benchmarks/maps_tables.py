"""The tables of transport maps, and what their targets have come to, from results/maps.json.

A figure stands with half the width of its 95 % interval over seeds, by Student's t; a figure of one seed has none.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from lib import Results, Row, Tables, difference, digits, estimate, grouped, listed, markdown, where
from map_cells_tables import SHIFT, gains, patients

Values = dict[int, float]  # by seed
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


def figure(rows: list[Row], pair: str, method: str, name: str) -> Values:
    """A figure, the CPU seconds, or the peak memory, of every seed of this pair and method that came to an end."""
    found = where(rows, pair=pair, method=method, status="ok")
    if name == "seconds":
        return {row["seed"]: row["seconds"] for row in found}
    if name == "memory":
        return {row["seed"]: row["memory_mib"]["peak"] for row in found}
    return {row["seed"]: row["figures"][name] for row in found if name in row["figures"]}


def shown(values: Values) -> str:
    """The estimate, and the number of seeds where it is not five."""
    found = estimate(values.values())
    return "" if found is None else f"{found}" + ("" if len(values) == 5 else f" [{len(values)}]")


def footnote(results: Results, pairs: Collection[str]) -> str:
    rows = [row for row in results["rows"] if row["pair"] in pairs]
    processors = " and ".join(sorted(grouped(rows, "processor")))
    days, commits = listed(rows, "date", 10), listed(rows, "commit", 9)
    return (
        f"\n{processors}, one thread, CPU seconds of fitting; mean and 95 % interval over seeds, "
        f"five unless a number in brackets says otherwise; {days}, commit {commits}.\n"
    )


def methods_in(rows: list[Row], pairs: Collection[str]) -> list[str]:
    return list(grouped((row for row in rows if row["pair"] in pairs), "method"))


def named(method: str) -> str:
    return NAMES.get(method, method)


def benchmark_table(results: Results) -> str:
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


def pair_table(results: Results, pair: str, columns: dict[str, str]) -> str:
    """Every method on one pair, a column a figure."""
    body = []
    for method in methods_in(results["rows"], [pair]):
        of = partial(figure, results["rows"], pair, method)
        figures = [shown(of(name)) for name in columns]
        body.append([named(method), *figures, *(brief(of(name)) for name in ("seconds", "memory"))])
    return markdown(["map", *columns.values(), "CPU s", "peak MiB"], body) + footnote(results, [pair])


def faster(row: Row) -> tuple[list[float], list[float], float]:
    """Milliseconds of our steps and of OTT-JAX's, and by how much ours are faster, repetition by repetition."""
    ours, theirs = (row["milliseconds"][name] for name in ("pushforward", "ott-jax"))
    return ours, theirs, statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def step_table(results: Results) -> str:
    """One training step of ours and of OTT-JAX's, taken in turns in one process."""
    body = []
    for row in where(results["rows"], pair="step", status="ok"):
        ours, theirs, ratio = faster(row)
        body.append([row["method"], *(digits(statistics.median(each)) for each in (ours, theirs)), f"{ratio:.1f}x"])
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
    for row in where(rows, pair="step", status="ok"):
        ratio = faster(row)[2]
        verdict = "reached" if ratio >= FASTER else f"missed by {FASTER - ratio:.1f}x"
        asked = [f"one step, batch 1024, d = 32, {row['method']}", f"at least {FASTER:g}x faster"]
        lines.append([*asked, f"{ratio:.1f}x", verdict])
    return lines


def better_patients(rows: Sequence[Row], method: str) -> list[str]:
    """In how many patients the map lands nearer the treated cells than the mean shift does, seed by seed."""
    each = {patient: estimate(gains(rows, method, "w2", patient)) for patient in patients(rows)}
    known = {patient: gain for patient, gain in each.items() if gain is not None}
    better = sum(gain.mean > 0 for gain in known.values())
    nearer = "; ".join(f"{patient} {gain}" for patient, gain in known.items())
    verdict = "reached" if better >= PATIENTS_BETTER else f"missed by {PATIENTS_BETTER - better}"
    asked = [f"cells, {method}", f"W2² under the {SHIFT}'s in {PATIENTS_BETTER} of 5 patients"]
    return [*asked, f"{better} of {len(known)}; nearer by {nearer}", verdict]


def target_lines(rows: list[Row], cells: Sequence[Row] = ()) -> list[str]:
    """Each target: what was asked, what it came to, and whether that reaches it."""
    ours = [method for method in grouped(cells, "method") if "MongeMap" in method]
    verdicts = [*(bounded(rows, target) for target in TARGETS), at_the_floor(rows), *faster_steps(rows)]
    return [" | ".join(line) for line in [*verdicts, *(better_patients(cells, method) for method in ours)]]


GAUSSIAN = {"l2_uvp": "L2-UVP %", "cosine": "cosine", "exact_gap": "gap", "variance_ratio": "variance ratio"}
TABLES: Tables = {
    "maps-benchmark": ("maps.json", benchmark_table),
    "maps-gaussian": ("maps.json", partial(pair_table, pair="gaussian-32", columns=GAUSSIAN)),
    "maps-step": ("maps.json", step_table),
}
