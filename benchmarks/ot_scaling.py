"""How the solver grows with the problem, and what a second thread brings: wall-clock seconds to an error of 1e-9.

    python benchmarks/ot_scaling.py [--sizes 500 1000 2000 4000 8000] [--repeats 3] [--out FILE]

random     independent costs, uniform in [0, 1), epsilon 1/1200
cloud      points in R^3 as in `problems.py`, epsilon 1e-3 of the largest cost

Rows: ours on one thread and two, with the compiled kernels and with torch alone; POT's exact emd on one thread, where
it takes less than --limit seconds. A row is the median of `repeats` calls after one that warms up, in a process of its
own. Two threads need two cores at rest: wall-clock seconds of a busy machine mean nothing.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from typing import Any

import numpy as np
from lib import RESULTS, Row, conditions, cpu_seconds, in_own_process, parsed, say, write_json
from problems import PAPER_EPSILON, squared_distances, uniform

SOLVERS = ("compiled, 1 thread", "compiled, 2 threads", "torch, 1 thread", "pot emd")


def problem_of(name: str, n: int) -> tuple[np.ndarray, float]:
    rng = np.random.default_rng(n)
    if name == "random":
        return rng.random((n, n)), PAPER_EPSILON
    x, y = rng.standard_normal((n, 3)), 0.5 + rng.standard_normal((n, 3)) * np.linspace(0.5, 1.5, 3)
    return squared_distances(x, y), 1e-3


def measured(name: str, n: int, solver: str, repeats: int) -> dict[str, Any]:
    """One row. Runs in its own process."""
    os.environ["PUSHFORWARD_NATIVE"] = "0" if solver.startswith("torch") else ""
    threads = 2 if "2" in solver else 1
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) if threads > 1 else os.sched_getaffinity(0))
    import torch

    torch.set_num_threads(threads)
    cost, epsilon = problem_of(name, n)
    weights = uniform(n)
    if solver == "pot emd":
        import ot

        def run() -> Any:
            return ot.emd(weights, weights, cost, numItermax=10**8)
    else:
        import pushforward

        def run() -> Any:
            return pushforward.solve(cost, weights, weights, epsilon=epsilon, throw=False)

    walls, cpus = [], []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        result, cpu = cpu_seconds(run)
        walls.append(time.perf_counter() - began)
        cpus.append(cpu)
        if len(walls) == 1 and walls[0] > 20.0:
            break
    kept = slice(1, None) if len(walls) > 1 else slice(None)
    row = {"status": "ok", "wall": statistics.median(walls[kept]), "seconds": statistics.median(cpus[kept])}
    if solver != "pot emd":
        row |= {"claim": result.status.name, "error": float(result.marginal_error)}
    return row


def main() -> None:
    sizes = (500, 1000, 2000, 4000, 8000)
    asked = parsed(__doc__, {"sizes": sizes, "repeats": 3, "limit": 60.0, "out": RESULTS / "ot_scaling.json"})
    rows: list[Row] = []
    for name, solver in itertools.product(("random", "cloud"), SOLVERS):
        for n in asked.sizes:
            row = in_own_process(measured, name, n, solver, asked.repeats, wall_limit=asked.limit)
            rows.append({"problem": name, "n": n, "solver": solver} | row)
            say(f"{name:8}{n:6} {solver:20} {row}")
            write_json(asked.out, conditions() | {"rows": rows})
            if row["status"] != "ok" or row["wall"] > asked.limit / 4:
                break


if __name__ == "__main__":
    main()
