"""Writes the committed results into the README and the documentation, as markdown tables.

    python benchmarks/tables.py [--check] [FILE ...]

Between the lines `<!-- table:NAME -->` and `<!-- /table:NAME -->` of each file (by default README.md,
benchmarks/README.md and docs/**/*.md) the table NAME is written anew from `results/*.json`. With `--check` nothing is
written, and the exit code is 1 where a table is not up to date. Needs the standard library only. Tables: ot-solvers,
ot-solvers-all, ot-roofline, ot-scaling, ot-published, ot-batches, lm-losses, those of `maps_tables.py`:
maps-benchmark, maps-gaussian, maps-mixture, maps-cells, maps-step, maps-targets, those of `f_tables.py`: f-variance,
f-order, f-modes, f-gaps, f-step, and those of `digits_tables.py`: digits-teacher, digits-students,
digits-students-paired, digits-imbalanced, digits-imbalanced-paired, digits-gan, digits-stacked, mnist-students.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import digits_tables
import f_tables
import maps_tables
from maps_tables import markdown

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_name("results")
MARKED = re.compile(r"(?P<open><!-- table:(?P<name>[\w-]+) -->\n).*?(?P<close><!-- /table:(?P=name) -->)", re.DOTALL)
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

Row = dict[str, Any]


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


def footnote(results: dict[str, Any]) -> str:
    machine, rows = results["machine"], results["rows"]
    days = sorted({row.get("date", results["date"])[:10] for row in rows})
    own = [row for row in rows if row.get("solver", OURS).startswith(OURS)]  # our commit says nothing about a peer
    commits = sorted({row.get("commit", results["commit"]) or "not committed" for row in own})
    return (
        f"\n{machine['processor']}, one thread, median CPU seconds to a recomputed L1 marginal error of "
        f"{results['tolerance']:g}; {', '.join(days)}, commit {', '.join(commits)}.\n"
    )


def by_problem(rows: list[Row], key: str) -> dict[str, dict[str, Row]]:
    grouped: dict[str, dict[str, Row]] = {}
    for row in rows:
        grouped.setdefault(row[key], {})[row["solver"]] = row
    return {name: grouped[name] for name in TITLES if name in grouped}


def best(rows: dict[str, Row], wanted: Callable[[str], bool]) -> Row | None:
    """The fastest row at the tolerance among the solvers wanted."""
    good = [row for name, row in rows.items() if wanted(name) and row["status"] == "ok"]
    return min(good, key=lambda row: row["seconds"], default=None)


def with_name(row: Row | None) -> str:
    return f"{row['solver']} {seconds(row['seconds'])}" if row else "none"


def ratio(other: Row | None, own: Row | None) -> str:
    return f"{other['seconds'] / own['seconds']:.1f}x" if other and own and own["status"] == "ok" else ""


def solvers_table(results: dict[str, Any]) -> str:
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


def all_solvers_table(results: dict[str, Any]) -> str:
    """Every solver on every problem."""
    grouped = by_problem(results["rows"], "problem")
    solvers = list(dict.fromkeys(row["solver"] for row in results["rows"]))
    body = [[solver, *(cell(grouped[problem].get(solver)) for problem in grouped)] for solver in solvers]
    return markdown(["solver", *(TITLES[problem] for problem in grouped)], body) + footnote(results)


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


def roofline_table(results: dict[str, Any]) -> str:
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


def scaling_table(results: dict[str, Any]) -> str:
    """Wall-clock seconds by size, a line a problem and solver."""
    sizes = sorted({row["n"] for row in results["rows"]})
    lines: dict[tuple[str, str], dict[int, Row]] = {}
    for row in results["rows"]:
        lines.setdefault((row["problem"], row["solver"]), {})[row["n"]] = row

    def entry(row: Row | None) -> str:
        return "" if row is None else seconds(row["wall"]) if row["status"] == "ok" else row["status"]

    body = [[problem, solver, *(entry(found.get(n)) for n in sizes)] for (problem, solver), found in lines.items()]
    machine = results["machine"]
    note = f"\n{machine['processor']}, wall-clock seconds; {results['date'][:10]}, commit {results['commit']}.\n"
    return markdown(["problem", "solver", *(f"n = {n:,}" for n in sizes)], body) + note


def _iterations(row: Row) -> str:
    counts = row.get("counts", {})
    parts = [f"{counts[kind]:,}" for kind in ("sinkhorn", "newton") if counts.get(kind)]
    return " + ".join(parts) or "0"


def published_table(results: dict[str, Any]) -> str:
    """Iterations (Sinkhorn + Newton) and seconds, and the paper's own figures beside them."""
    header = ["family", "method", "iterations", "seconds", "paper's iterations", "paper's seconds"]
    body = []
    for row in results["rows"]:
        paper = row.get("published", ["", ""])
        row = row | {"limit": results["limit"]}
        iterations = _iterations(row) if "counts" in row else ""
        body.append(
            [TITLES[row["family"]], row["method"], iterations, cell(row), *(f"{x:,}" if x else "" for x in paper)]
        )
    return markdown(header, body) + footnote(results)


def batches_table(results: dict[str, Any]) -> str:
    rows = [row | {"limit": results["limit"]} for row in results["rows"]]
    grouped = by_problem(rows, "batch")
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    body = [[solver, *(cell(grouped[batch].get(solver)) for batch in grouped)] for solver in solvers]
    return markdown(["solver", *(TITLES[batch] for batch in grouped)], body) + footnote(results)


def lm_losses_table(results: dict[str, Any]) -> str:
    by_size: dict[tuple[int, int], dict[str, Row]] = {}
    for row in results["rows"]:
        by_size.setdefault((row["samples"], row["classes"]), {})[row["loss"]] = row
    body = []
    for (samples, classes), rows in by_size.items():
        theirs, ours = rows["published"], rows["divergence"]
        times = [f"{row['milliseconds']:.3g}" for row in (theirs, ours)]
        kept = [f"{row['kept_bytes'] / 2**20:.3g}" for row in (theirs, ours)]
        faster = theirs["milliseconds"] / ours["milliseconds"]
        body.append([str(samples), f"{classes:,}", *times, f"{faster:.1f}x", *kept])
    header = ["samples", "classes", "published, ms", "ours, ms", "faster", "published keeps, MiB", "ours keeps, MiB"]
    note = "; ".join(
        [results["machine"]["processor"], "one thread, median CPU time", results["date"], f"commit {results['commit']}"]
    )
    return f"{markdown(header, body)}\n{note}.\n"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "ot-solvers": ("ot_solvers.json", solvers_table),
    "ot-solvers-all": ("ot_solvers.json", all_solvers_table),
    "ot-roofline": ("ot_solvers.json", roofline_table),
    "ot-scaling": ("ot_scaling.json", scaling_table),
    "ot-published": ("published_table.json", published_table),
    "ot-batches": ("ot_batches.json", batches_table),
    "lm-losses": ("lm_losses.json", lm_losses_table),
}
TABLES |= maps_tables.TABLES | f_tables.TABLES | digits_tables.TABLES


def filled(text: str, results: Path) -> str:
    """The text with every marked table written from the results. Raises KeyError for a name that is no table."""

    def table(match: re.Match[str]) -> str:
        source, make = TABLES[match["name"]]
        file = results / source
        if not file.exists():  # a benchmark that has not been run yet
            return match[0]
        return match["open"] + make(json.loads(file.read_text())) + match["close"]

    return MARKED.sub(table, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where a table is not up to date"
    )
    arguments = parser.parse_args()
    default = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    stale = []
    for path in arguments.files or [path for path in default if path.is_file()]:
        text = path.read_text()
        new = filled(text, RESULTS)
        if new != text:
            stale.append(str(path))
            if not arguments.check:
                path.write_text(new)
    if arguments.check and stale:
        sys.exit(f"tables not up to date in {', '.join(stale)}: run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
