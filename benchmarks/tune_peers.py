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

from typing import Any

from lib import BENCHMARKS, Row, in_own_process, parsed, read, say, times, write_json
from measure import judged, tightened
from peers import PEERS, Solver
from problems import PROBLEMS, available, load

SETTINGS = BENCHMARKS / "peer_settings.json"
HOPELESS = 10
SHORTEST_LIMIT = 5.0  # seconds
BUDGET = 3  # trials that may fail or run into the time limit before a search that found nothing ends


def trial(problem_name: str, solver_name: str, settings: dict[str, Any], limit: float) -> dict[str, Any]:
    """One run with these settings, its threshold tightened until the error is small enough. In its own process."""
    solver, problem = PEERS[solver_name], load(problem_name)

    def attempt(tolerance: float | None) -> Row:
        used = settings | ({} if solver.tolerance is None else {"tolerance": tolerance})
        run, read_result = solver.prepare(problem, **used)
        result, seconds = times(run, repeats=0, limit=limit)
        return judged(problem, read_result(result), seconds) | {"settings": used}

    if solver.tolerance is None:
        return attempt(None)
    return tightened(attempt, settings.get("tolerance", solver.tolerance))


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
    options = {"problems": PROBLEMS, "solvers": PEERS, "limit": 30.0, "keep": False, "out": SETTINGS}
    asked = parsed(__doc__, options)
    everything = read(asked.out) if asked.out.exists() else {}
    for name in asked.problems:
        problem = available(name)
        if problem is None:
            continue
        say(name)
        rows = everything.setdefault(name, {})
        for peer in asked.solvers:
            solver = PEERS[peer]
            if not solver.axes or (solver.grids_only and problem.grid is None) or (asked.keep and peer in rows):
                continue
            best = min((row["seconds"] for row in rows.values() if row["status"] == "ok"), default=asked.limit)
            limit = min(max(HOPELESS * best, SHORTEST_LIMIT), asked.limit)
            rows[peer] = search(name, peer, solver, limit)
            write_json(asked.out, everything)


if __name__ == "__main__":
    main()
