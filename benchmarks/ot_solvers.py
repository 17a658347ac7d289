"""Entropic optimal transport to an L1 marginal error of 1e-9: CPU seconds of this solver and its peers, one thread.

    python benchmarks/ot_solvers.py [--problems NAME ...] [--solvers NAME ...] [--repeats 3] [--limit 120]
                                    [--out FILE] [--keep]

Each problem and solver has a process of its own (`measure.py`). Peers run with the settings of `peer_settings.json`,
found by `tune_peers.py`; this project's solver with its defaults. A row holds the median CPU seconds, the error and
the value recomputed from what was returned, and the settings. With `--keep`, rows of an earlier file that are not run
again stay, each with its date.

The floor. On the same machine and core two passes over the n x m matrix are timed beside each problem: `exp_pass`,
one exponential an entry, by blocks of rows, and `mv_pass`, one matrix-vector product. A Newton solver must build the
plan about five times (once an epsilon level, and a last time to verify), and each conjugate-gradient iteration needs
one pass over the entries of the plan that count, a fraction `density` of the matrix: those over 2^-52 of the
largest entry of their row. So

    floor = 5 exp_pass + cg density mv_pass,           distance = seconds / floor,      passes = seconds / exp_pass

with cg the iterations of our own solve. It is a bound for a solver of this kind, not for all: a separable grid can go
below it. `roofline` is that of the work done (`traffic.py`), of which bytes and exponentials are counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import conditions, in_own_process, judged, plan_of, say, times, write_json
from ours import OURS
from peers import PEERS
from problems import PROBLEMS, MissingData, load
from tune_peers import SETTINGS

RESULTS = Path(__file__).with_name("results") / "ot_solvers.json"
SOLVERS = OURS | PEERS
BUILDS = 5  # plan evaluations in the floor
SURELY = 0.02  # an L2 error below this share of a bound keeps the L1 error of 2000 entries below the bound


def passes(problem_name: str) -> dict[str, Any]:
    """CPU seconds of one exponential and one matrix-vector product over the matrix. Runs in its own process."""
    import torch

    torch.set_num_threads(1)
    problem = load(problem_name)
    exponents = torch.from_numpy(-problem.cost / problem.epsilon).clamp(min=-60)
    plan, vector = torch.empty_like(exponents), torch.ones(exponents.shape[1], dtype=exponents.dtype)
    rows = max(1, 2**16 // exponents.shape[1])  # half a megabyte: in cache

    def exp_pass() -> None:
        for block, out in zip(exponents.split(rows), plan.split(rows), strict=True):
            torch.exp(block, out=out)

    def median(work: Any) -> float:
        seconds = []
        for _ in range(8):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
        return statistics.median(seconds[1:])

    return {"exp_pass": median(exp_pass), "mv_pass": median(lambda: plan @ vector), "pairs": exponents.numel()}


def measured(
    problem_name: str, solver_name: str, settings: dict[str, Any], repeats: int, limit: float
) -> dict[str, Any]:
    """One row: the timed calls, judged. Runs in its own process."""
    problem, solver = load(problem_name), SOLVERS[solver_name]
    run, read = solver.prepare(problem, **settings)
    result, seconds = times(run, repeats=repeats, limit=limit)
    answer = read(result)
    row = judged(problem, answer, seconds)
    if solver_name in OURS and row["error"] is not None:
        from traffic import traffic

        plan = plan_of(answer, problem.cost, problem.epsilon)
        row["density"] = float((plan > 2.0**-52 * plan.max(1, keepdims=True)).mean())
        row |= traffic(run)
    return row


def floor(row: dict[str, Any], passed: dict[str, float]) -> dict[str, float]:
    """The floor of the module's docstring for one of our rows, and how far the row is from it."""
    seconds = BUILDS * passed["exp_pass"] + row["counts"]["cg"] * row["density"] * passed["mv_pass"]
    bandwidth, rate = (work * passed["pairs"] / passed[name] for work, name in ((8, "mv_pass"), (1, "exp_pass")))
    return {
        "floor": seconds,
        "distance": row["seconds"] / seconds,
        "passes": row["seconds"] / passed["exp_pass"],
        "roofline": max(row["bytes"] / bandwidth, row["exps"] / rate),
    }


def settings_of(problem: str, solver: str, tuned: dict[str, Any]) -> dict[str, Any]:
    """The settings found by tuning; where it found none that reach the tolerance, a threshold that is surely enough."""
    own, found = SOLVERS[solver], tuned.get(problem, {}).get(solver, {})
    settings = dict(found.get("settings", own.settings))
    if own.tolerance is not None and found.get("status") != "ok":
        settings["tolerance"] = own.tolerance * SURELY
    return settings


def compare(
    problem: str, solvers: list[str], tuned: dict[str, Any], repeats: int, limit: float
) -> Iterator[dict[str, Any]]:
    """The rows of one problem, as they come."""
    passed = in_own_process(passes, problem, wall_limit=120)
    for solver in solvers:
        settings = settings_of(problem, solver, tuned)
        row = in_own_process(measured, problem, solver, settings, repeats, limit, wall_limit=20 * limit)
        row = {"problem": problem, "solver": solver} | row | {"settings": settings, "limit": limit} | passed
        if "density" in row and row.get("counts"):
            row |= floor(row, passed)
        seconds = f"{row['seconds']:.4f} s, error {row['error']}" if "seconds" in row else f"limit {limit:g} s"
        say(f"{problem:16} {solver:22} {row['status']}, {seconds}")
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120.0, help="CPU seconds that one call may take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--keep", action="store_true", help="keep the rows of an earlier file that are not run again")
    arguments = parser.parse_args()

    tuned = json.loads(SETTINGS.read_text())
    run = conditions() | {"limit": arguments.limit, "repeats": arguments.repeats}
    earlier = json.loads(arguments.out.read_text()) if arguments.keep and arguments.out.is_file() else {"rows": []}
    there, here = (one["processor"] for one in (earlier.get("machine", run["machine"]), run["machine"]))
    if there != here:  # seconds of two machines in one table compare nothing
        parser.error(f"--keep: {arguments.out} was measured on {there}, this is {here}; choose another --out")
    rows = earlier["rows"]
    skipped: dict[str, str] = {}
    for problem in arguments.problems:
        try:
            has_grid = load(problem).grid is not None
        except MissingData as missing:
            skipped[problem] = str(missing)
            say(f"{problem} skipped: {missing}")
            continue
        solvers = [name for name in arguments.solvers if has_grid or not SOLVERS[name].grids_only]
        rows = [row for row in rows if row["problem"] != problem or row["solver"] not in solvers]
        for row in compare(problem, solvers, tuned, arguments.repeats, arguments.limit):
            rows.append(row | {"date": run["date"], "commit": run["commit"]})
            write_json(arguments.out, run | {"skipped": skipped, "rows": rows})


if __name__ == "__main__":
    main()
