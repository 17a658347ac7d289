"""Finds each peer's best settings on each problem, so that the comparison is with the peers at their best.

    python benchmarks/tune_peers.py [--problems NAME ...] [--solvers NAME ...] [--limit SECONDS] [--out FILE] [--keep]

A coordinate search over the axes in `peers.py`: for each setting in turn every value is tried with the others held,
and the fastest that reaches the tolerance stays. A package's own threshold is in its own norm, so for each candidate
it starts loose and is tightened only until the recomputed error is at most 1e-9. Each trial is a process of its own,
ended once it is slower than the solver's best so far, or HOPELESS times slower than the best peer. Writes
`peer_settings.json`: by problem and solver the settings, the CPU seconds seen and the error reached (a record of the
search, one run each; the figures to quote are those of `ot_solvers.py`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from measure import TOLERANCE, in_own_process, judged, say, times, write_json
from peers import PEERS, Solver
from problems import PROBLEMS, MissingData, load

SETTINGS = Path(__file__).with_name("peer_settings.json")
TIGHTENINGS = 8
HOPELESS = 10
SHORTEST_LIMIT = 5.0  # seconds
BUDGET = 3  # trials that may fail or run into the time limit before a search that found nothing ends


def trial(problem_name: str, solver_name: str, settings: dict[str, Any], limit: float) -> dict[str, Any]:
    """One run with these settings, its threshold tightened until the error is small enough. In its own process."""
    solver = PEERS[solver_name]
    problem = load(problem_name)
    tolerance = settings.get("tolerance", solver.tolerance)
    searches = solver.tolerance is not None
    for _ in range(TIGHTENINGS if searches else 1):
        used = settings | ({"tolerance": tolerance} if searches else {})
        run, read = solver.prepare(problem, **used)
        result, seconds = times(run, repeats=0, limit=limit)
        row = judged(problem, read(result), seconds) | {"settings": used}
        if row["status"] == "ok" or row["error"] is None or row["error"] > 1.0:
            break
        if searches:
            tolerance *= max(0.7 * TOLERANCE / row["error"], 1e-3)
    return row


def better(row: dict[str, Any], best: dict[str, Any]) -> bool:
    """A run at the tolerance beats one that is not; then the faster; among those that are not, the smaller error."""
    if row["status"] != "ok":
        return best["status"] != "ok" and (row.get("error") or 1e9) < (best.get("error") or 1e9)
    return best["status"] != "ok" or row["seconds"] < 0.97 * best["seconds"]


def search(problem: str, name: str, solver: Solver, limit: float) -> dict[str, Any]:
    """The best row that the coordinate search finds for one solver on one problem."""

    def run(settings: dict[str, Any], seconds: float) -> dict[str, Any]:
        row = in_own_process(trial, problem, name, settings, seconds, wall_limit=6 * limit + 60)
        row.setdefault("settings", settings)
        shown = {k: v for k, v in row["settings"].items() if k != "function"}
        say(f"  {name} {shown}: {row['status']} {row.get('seconds', 0):.3f} s, error {row.get('error')}")
        return row

    best = run(solver.settings, limit)
    fruitless = int(best["status"] != "ok")
    for axis, values in solver.axes.items():
        for value in values:
            if best["settings"].get(axis, values[0]) == value or fruitless >= BUDGET:
                continue
            allowed = best["seconds"] if best["status"] == "ok" else limit
            row = run(best["settings"] | {axis: value}, max(allowed, 0.05))
            fruitless += best["status"] != "ok" and row["status"] == "time limit"
            if better(row, best):
                best = row
    return {key: best.get(key) for key in ("settings", "status", "seconds", "error")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--solvers", nargs="+", default=list(PEERS), choices=list(PEERS), metavar="NAME")
    parser.add_argument("--limit", type=float, default=30.0, help="CPU seconds that one trial may take")
    parser.add_argument("--out", type=Path, default=SETTINGS)
    parser.add_argument("--keep", action="store_true", help="search only where the file has nothing yet")
    arguments = parser.parse_args()
    for problem in arguments.problems:
        try:
            has_grid = load(problem).grid is not None
        except MissingData as missing:
            say(f"{problem} skipped: {missing}")
            continue
        say(problem)
        for name in arguments.solvers:
            solver = PEERS[name]
            if not solver.axes or (solver.grids_only and not has_grid):
                continue
            everything = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
            rows = everything.setdefault(problem, {})
            best = min((row["seconds"] for row in rows.values() if row["status"] == "ok"), default=arguments.limit)
            if arguments.keep and name in rows:
                continue
            limit = min(max(HOPELESS * best, SHORTEST_LIMIT), arguments.limit)
            rows[name] = search(problem, name, solver, limit)
            write_json(arguments.out, everything)


if __name__ == "__main__":
    main()
