"""The tables of the solvers, from results/ot_*.json and published_table.json."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lib import Results, Row, Tables, grouped, markdown

OURS = "pushforward"
EXACT = ("pot emd", "pushforward exact")
TITLES = {
    "random-500": "random costs, 500 x 500",
    "random-2000": "random costs, 2000 x 2000",
    "images-l2": "two 28 x 28 digits, squared l2",
    "images-l1": "two 28 x 28 digits, l1",
    "cloud-r3-1e-2": "2000 points in R^3, epsilon 1e-2",
    "cloud-r3-1e-3": "2000 points in R^3, epsilon 1e-3",
    "cloud-r64-1e-2": "2000 points in R^64, epsilon 1e-2",
    "cloud-r64-1e-3": "2000 points in R^64, epsilon 1e-3",
    "clouds-1024x64x64": "1024 x 64 x 64, points in R^3",
    "random-1024x64x64": "1024 x 64 x 64, random costs",
}


def seconds(value: float) -> str:
    """Three digits: 0.0123, 0.123, 1.23, 12.3, 123."""
    if value < 1:
        return f"{value:.4f}" if value < 0.1 else f"{value:.3f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def cell(row: Row | None) -> str:
    """Seconds where the tolerance was met, else what happened."""
    if row is None:
        return ""
    if row["status"] == "ok":
        return seconds(row["seconds"])
    if row["status"] == "time limit":
        return f"over {row['limit']:g}"
    if row["status"] == "not at the tolerance":
        error = "not finite" if row["error"] is None else f"error {row['error']:.0e}"
        return f"{error} in {seconds(row['seconds'])}"
    return row["status"].split(":")[0]


def footnote(results: Results) -> str:
    machine, rows = results["machine"], results["rows"]
    days = sorted({row.get("date", results["date"])[:10] for row in rows})
    own = [row for row in rows if row.get("solver", OURS).startswith(OURS)]  # our commit says nothing about a peer
    commits = sorted({row.get("commit", results["commit"]) or "not committed" for row in own})
    return (
        f"\n{machine['processor']}, one thread, median CPU seconds to a recomputed L1 marginal error of "
        f"{results['tolerance']:g}; {', '.join(days)}, commit {', '.join(commits)}.\n"
    )


def by_problem(rows: list[Row], key: str) -> dict[str, dict[str, Row]]:
    groups = grouped(rows, key)
    return {name: {row["solver"]: row for row in groups[name]} for name in TITLES if name in groups}


def best(rows: dict[str, Row], wanted: Callable[[str], bool]) -> Row | None:
    """The fastest row at the tolerance among the solvers wanted."""
    good = [row for name, row in rows.items() if wanted(name) and row["status"] == "ok"]
    return min(good, key=lambda row: row["seconds"], default=None)


def with_name(row: Row | None) -> str:
    return f"{row['solver']} {seconds(row['seconds'])}" if row else "none"


def ratio(other: Row | None, own: Row | None) -> str:
    return f"{other['seconds'] / own['seconds']:.1f}x" if other and own and own["status"] == "ok" else ""


def solvers_table(results: Results) -> str:
    """Ours at its defaults against the best tuned peer, a line a problem; grids on lines of their own."""
    header = ["problem", "pushforward", "best peer, tuned", "faster", "POT emd (exact)", "times the floor"]
    body = []
    for problem, rows in by_problem(results["rows"], "problem").items():
        own, exact = rows.get("pushforward auto"), rows.get("pot emd")
        peer = best(rows, lambda name: not name.startswith(OURS) and name not in EXACT and name != "ott grid")
        distance = f"{own['distance']:.1f}" if own and "distance" in own else ""
        body.append([TITLES[problem], cell(own), with_name(peer), ratio(peer, own), cell(exact), distance])
        if "ott grid" in rows:
            own, peer = rows.get("pushforward grid"), best(rows, lambda name: name == "ott grid")
            body.append([f"{TITLES[problem]}, as a grid", cell(own), with_name(peer), ratio(peer, own), "", ""])
    return markdown(header, body) + footnote(results)


def matrix_of(results: Results, key: str) -> str:
    """Every solver, a line each, on every problem."""
    rows = [{"limit": results.get("limit")} | row for row in results["rows"]]
    problems = by_problem(rows, key)
    body = [[name, *(cell(found.get(name)) for found in problems.values())] for name in grouped(rows, "solver")]
    return markdown(["solver", *(TITLES[problem] for problem in problems)], body) + footnote(results)


HOLDS = {
    "random-500": "CG on few entries, gathered one by one; calls",
    "random-2000": "three passes over the cost, and first touches of memory",
    "images-l2": "CG on gathered entries",
    "images-l1": "the same, and seven patterns found anew",
    "cloud-r3-1e-2": "streams of the plan: CG reads half of the bytes, as floats",
    "cloud-r3-1e-3": "the same: some 200 CG iterations over a plan that is half full",
    "cloud-r64-1e-2": "the same",
    "cloud-r64-1e-3": "CG until a factor pays, then two factors, which are in neither count",
}


def roofline_table(results: Results) -> str:
    """What a solve of ours moves and pays, the roofline of that, and what holds it back."""
    header = ["problem", "seconds", "GB moved", "exp paid, 10^6", "roofline", "over it", "what holds it back"]
    body = []
    for problem, rows in by_problem(results["rows"], "problem").items():
        row = rows.get("pushforward auto", {})
        if "roofline" in row:
            line = [f"{row['bytes'] / 1e9:.2f}", f"{row['exps'] / 1e6:.1f}", seconds(row["roofline"])]
            over = f"{row['seconds'] / row['roofline']:.1f}x"
            body.append([TITLES[problem], cell(row), *line, over, HOLDS.get(problem, "")])
    return markdown(header, body) + footnote(results)


def scaling_table(results: Results) -> str:
    """Wall-clock seconds by size, a line a problem and solver."""
    sizes = sorted(grouped(results["rows"], "n"))
    body = []
    for (problem, solver), rows in grouped(results["rows"], "problem", "solver").items():
        found = {row["n"]: seconds(row["wall"]) if row["status"] == "ok" else row["status"] for row in rows}
        body.append([problem, solver, *(found.get(n, "") for n in sizes)])
    machine = results["machine"]
    note = f"\n{machine['processor']}, wall-clock seconds; {results['date'][:10]}, commit {results['commit']}.\n"
    return markdown(["problem", "solver", *(f"n = {n:,}" for n in sizes)], body) + note


def _iterations(row: Row) -> str:
    counts = row.get("counts", {})
    parts = [f"{counts[kind]:,}" for kind in ("sinkhorn", "newton") if counts.get(kind)]
    return " + ".join(parts) or "0"


def published_table(results: Results) -> str:
    """Iterations (Sinkhorn + Newton) and seconds, and the paper's own figures beside them."""
    header = ["family", "method", "iterations", "seconds", "paper's iterations", "paper's seconds"]
    body = []
    for row in results["rows"]:
        iterations = _iterations(row) if "counts" in row else ""
        paper = [f"{value:,}" if value else "" for value in row.get("published", ["", ""])]
        spent = cell({"limit": results["limit"]} | row)
        body.append([TITLES[row["family"]], row["method"], iterations, spent, *paper])
    return markdown(header, body) + footnote(results)


TABLES: Tables = {
    "ot-solvers": ("ot_solvers.json", solvers_table),
    "ot-solvers-all": ("ot_solvers.json", partial(matrix_of, key="problem")),
    "ot-roofline": ("ot_solvers.json", roofline_table),
    "ot-scaling": ("ot_scaling.json", scaling_table),
    "ot-published": ("published_table.json", published_table),
    "ot-batches": ("ot_batches.json", partial(matrix_of, key="batch")),
}
