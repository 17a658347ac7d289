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

from collections.abc import Iterator
from typing import Any

from lib import RESULTS, Row, conditions, in_own_process, median_seconds, parsed, read, say, times, write_json
from measure import TOLERANCE, judged, plan_of
from ours import OURS
from peers import PEERS
from problems import PROBLEMS, available, load
from tune_peers import SETTINGS

SOLVERS = OURS | PEERS
BUILDS = 5  # plan evaluations in the floor
SURELY = 0.02  # an L2 error below this share of a bound keeps the L1 error of 2000 entries below the bound


def passes(problem_name: str) -> dict[str, Any]:
    """CPU seconds of one exponential and one matrix-vector product over the matrix. Runs in its own process."""
    import torch

    problem = load(problem_name)
    exponents = torch.from_numpy(-problem.cost / problem.epsilon).clamp(min=-60)
    plan, vector = torch.empty_like(exponents), torch.ones(exponents.shape[1], dtype=exponents.dtype)
    rows = max(1, 2**16 // exponents.shape[1])  # half a megabyte: in cache

    def exp_pass() -> None:
        for block, out in zip(exponents.split(rows), plan.split(rows), strict=True):
            torch.exp(block, out=out)

    passes = {"exp_pass": exp_pass, "mv_pass": lambda: plan @ vector}
    return {name: median_seconds(run, 7) for name, run in passes.items()} | {"pairs": exponents.numel()}


def measured(problem_name: str, solver_name: str, settings: dict[str, Any], repeats: int, limit: float) -> Row:
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


def compare(problem: str, solvers: list[str], tuned: dict[str, Any], repeats: int, limit: float) -> Iterator[Row]:
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
    options = {"problems": PROBLEMS, "solvers": SOLVERS, "repeats": 3, "limit": 120.0, "keep": False}
    asked = parsed(__doc__, options | {"out": RESULTS / "ot_solvers.json"})
    tuned = read(SETTINGS)
    run = conditions(tolerance=TOLERANCE) | {"limit": asked.limit, "repeats": asked.repeats}
    earlier = read(asked.out) if asked.keep else {"rows": []}
    there, here = (one["processor"] for one in (earlier.get("machine", run["machine"]), run["machine"]))
    if there != here:  # seconds of two machines in one table compare nothing
        raise SystemExit(f"--keep: {asked.out} was measured on {there}, this is {here}; choose another --out")
    rows, skipped = earlier["rows"], {}
    for name in asked.problems:
        problem = available(name, skipped)
        if problem is None:
            continue
        solvers = [solver for solver in asked.solvers if problem.grid is not None or not SOLVERS[solver].grids_only]
        rows = [row for row in rows if row["problem"] != name or row["solver"] not in solvers]
        for row in compare(name, solvers, tuned, asked.repeats, asked.limit):
            rows.append(row | {"date": run["date"], "commit": run["commit"]})
            write_json(asked.out, run | {"skipped": skipped, "rows": rows})


if __name__ == "__main__":
    main()
