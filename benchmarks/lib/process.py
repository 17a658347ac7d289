"""How a call is timed: one core, one thread, a process of its own, CPU seconds.

A call that hangs can be ended, and no package disturbs the next one's threads or floating-point flags (some are linked
with -ffast-math, which flushes denormals to zero for the whole process). The process is pinned to one core: a thread
pool that escapes the settings below still cannot run in parallel.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
LONG_CALL = 20.0  # a first call over this many CPU seconds is the measurement; a shorter one warms up
CORE_VARIABLE = "PUSHFORWARD_BENCH_CORE"


def say(text: str) -> None:
    print(text, flush=True)


def cpu_seconds(run: Callable[[], Any]) -> tuple[Any, float]:
    """What the call returns, and the CPU seconds that it took."""
    began = time.process_time()
    result = run()
    return result, time.process_time() - began


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Median CPU seconds of `repeats` calls after one that warms up."""
    run()
    return statistics.median(cpu_seconds(run)[1] for _ in range(repeats))


def times(run: Callable[[], Any], *, repeats: int, limit: float) -> tuple[Any, list[float]]:
    """The last call's result, and CPU seconds of repeated calls.

    The first call warms up; where it takes over LONG_CALL seconds it is itself the measurement. A call over `limit` CPU
    seconds ends the process (ITIMER_PROF's signal, sent by the kernel, reaches compiled loops too).
    """

    def timed() -> tuple[Any, float]:
        signal.setitimer(signal.ITIMER_PROF, limit)
        found = cpu_seconds(run)
        signal.setitimer(signal.ITIMER_PROF, 0)
        return found

    result, first = timed()
    if first > LONG_CALL or repeats == 0:
        return result, [first]
    seconds = []
    for _ in range(repeats):
        result, one = timed()
        seconds.append(one)
    return result, seconds


def _child(connection: Connection, job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    core = int(os.environ.get(CORE_VARIABLE, max(os.sched_getaffinity(0))))
    os.sched_setaffinity(0, {core})
    warnings.simplefilter("ignore")
    try:
        connection.send(cpu_seconds(lambda: job(*arguments)))
    except MemoryError:
        connection.send("out of memory")
    except Exception as error:  # noqa: BLE001 - a peer that raises has a row too: what it said
        connection.send(f"raised {type(error).__name__}: {str(error)[:200]}")


def _outcome(job: Callable[..., Any], arguments: tuple[Any, ...], wall_limit: float) -> tuple[Any, float] | str:
    """What the job returned in a spawned, pinned process and its CPU seconds there; or how it failed."""
    os.environ.update(ONE_THREAD)  # inherited; numpy, torch and jax read it when they are first loaded
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, job, arguments))
    process.start()
    sender.close()
    try:
        outcome = receiver.recv() if receiver.poll(wall_limit) else "time limit"
    except EOFError:
        process.join()
        ended_by_timer = process.exitcode == -signal.SIGPROF
        outcome = "time limit" if ended_by_timer else f"process ended with {process.exitcode}"
    if process.is_alive():
        process.kill()
    process.join()
    return outcome


def in_own_process(job: Callable[..., dict[str, Any]], *arguments: Any, wall_limit: float) -> dict[str, Any]:
    """The row that `job`, an importable function, makes in a process of its own, or one that says how it ended."""
    outcome = _outcome(job, arguments, wall_limit)
    return {"status": outcome} if isinstance(outcome, str) else outcome[0]


def result_of(job: Callable[..., Any], *arguments: Any, wall_limit: float) -> tuple[Any, float]:
    """What a job that must succeed returns there, and its CPU seconds. Exits, saying how it ended, where it failed."""
    outcome = _outcome(job, arguments, wall_limit)
    if isinstance(outcome, str):
        raise SystemExit(f"{job.__name__}: {outcome}")
    return outcome
