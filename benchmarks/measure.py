"""How a call is timed and its answer judged: one core, its own process, CPU seconds, errors recomputed.

Every measured call runs in a freshly spawned process, so that a call that hangs can be ended, and no package disturbs
the next one's threads or floating-point flags (some are linked with -ffast-math, which flushes denormals to zero for
the whole process). The process is pinned to one core: a thread pool that escapes the settings below still cannot run
in parallel.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "TOLERANCE",
    "Answer",
    "conditions",
    "in_own_process",
    "judged",
    "marginal_error",
    "say",
    "times",
    "write_json",
]

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
TOLERANCE = 1e-9  # L1 error of both marginals together
LONG_CALL = 20.0  # a first call over this many CPU seconds is the measurement; a shorter one warms up
CORE_VARIABLE = "PUSHFORWARD_BENCH_CORE"
PACKAGES = ("torch", "numpy", "scipy", "POT", "ott-jax", "jax", "geomloss", "regot", "mdot-tnt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a solver returned: potentials u, v with P = exp(u_i + v_j - C_ij / epsilon), or, from exact solvers, a plan.

    u (..., n) and v (..., m) carry the weights: u = f / epsilon + log a. A plan P of this form with the right marginals
    is the optimum, so its marginal error certifies it; a bare plan is only known to be feasible.
    """

    u: NDArray[np.float64] | None = None
    v: NDArray[np.float64] | None = None
    plan: NDArray[np.float64] | None = None
    counts: dict[str, int] | None = None
    claim: str | None = None  # what the package itself says of its result, where it says anything


def plan_of(answer: Answer, cost: NDArray[np.float64], epsilon: float) -> NDArray[np.float64]:
    if answer.plan is not None:
        return np.asarray(answer.plan, dtype=np.float64)
    u, v = np.asarray(answer.u, dtype=np.float64), np.asarray(answer.v, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(u[..., :, None] + v[..., None, :] - cost / epsilon)


def marginal_error(plan: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """L1 error of both marginals together, in float64; the largest over a batch. NaN counts as infinite."""
    with np.errstate(invalid="ignore"):
        errors = np.abs(plan.sum(-1) - a).sum(-1) + np.abs(plan.sum(-2) - b).sum(-1)
    worst = float(np.max(errors))
    return worst if np.isfinite(worst) else float("inf")


def value_of(answer: Answer, plan: NDArray[np.float64], problem: Any) -> float:
    """The dual value <f, a> + <g, b> - epsilon (sum P - 1) where there are potentials, else the cost <P, C>."""
    if answer.plan is not None:
        return float((plan * problem.cost).sum())
    f = problem.epsilon * (answer.u - np.log(problem.a))
    g = problem.epsilon * (answer.v - np.log(problem.b))
    return float(f @ problem.a + g @ problem.b - problem.epsilon * (plan.sum() - 1))


def times(run: Callable[[], Any], *, repeats: int, limit: float) -> tuple[Any, list[float]]:
    """CPU seconds of repeated calls, and the last call's result.

    The first call warms up; where it takes over LONG_CALL seconds it is itself the measurement. A call over `limit` CPU
    seconds ends the process (ITIMER_PROF's signal, sent by the kernel, reaches compiled loops too).
    """

    def timed() -> tuple[Any, float]:
        signal.setitimer(signal.ITIMER_PROF, limit)
        start = time.process_time()
        result = run()
        seconds = time.process_time() - start
        signal.setitimer(signal.ITIMER_PROF, 0)
        return result, seconds

    result, first = timed()
    if first > LONG_CALL or repeats == 0:
        return result, [first]
    seconds = []
    for _ in range(repeats):
        result, one = timed()
        seconds.append(one)
    return result, seconds


def _child(connection: Connection, job: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    core = int(os.environ.get(CORE_VARIABLE, max(os.sched_getaffinity(0))))
    os.sched_setaffinity(0, {core})
    warnings.simplefilter("ignore")
    try:
        row = job(*arguments)
    except MemoryError:
        row = {"status": "out of memory"}
    except Exception as error:  # noqa: BLE001 - a peer that raises has a row too: what it said
        row = {"status": f"raised {type(error).__name__}: {str(error)[:200]}"}
    connection.send(row)


def in_own_process(job: Callable[..., dict[str, Any]], *arguments: Any, wall_limit: float) -> dict[str, Any]:
    """The row that `job`, an importable function, makes in a spawned, pinned process, or one that says how it ended."""
    os.environ.update(ONE_THREAD)  # inherited; numpy, torch and jax read it when they are first loaded
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, job, arguments))
    process.start()
    sender.close()
    try:
        row = receiver.recv() if receiver.poll(wall_limit) else {"status": "time limit"}
    except EOFError:
        process.join()
        ended_by_timer = process.exitcode == -signal.SIGPROF
        row = {"status": "time limit" if ended_by_timer else f"process ended with {process.exitcode}"}
    if process.is_alive():
        process.kill()
    process.join()
    return row


def judged(problem: Any, answer: Answer, seconds: list[float]) -> dict[str, Any]:
    """A row of results: the median time, and the error and value recomputed from what was returned."""
    plan = plan_of(answer, problem.cost, problem.epsilon)
    error = marginal_error(plan, problem.a, problem.b)
    row: dict[str, Any] = {
        "status": "ok" if error <= TOLERANCE else "not at the tolerance",
        "seconds": statistics.median(seconds),
        "runs": seconds,
        "error": error if np.isfinite(error) else None,
        "value": value_of(answer, plan, problem) if np.isfinite(error) else None,
    }
    return row | {key: said for key in ("counts", "claim") if (said := getattr(answer, key)) is not None}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str | None:
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return git.stdout.strip() or None


def conditions() -> dict[str, Any]:
    """What a result must come with: machine, versions, date, commit, threads, tolerance."""
    return {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "threads": 1,
        "tolerance": TOLERANCE,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes through a temporary file, so that a run that is killed leaves the last whole result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
