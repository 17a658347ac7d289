"""1024 problems of 64 x 64 in one call, to the same error: this solver, OTT under vmap, POT's batch solver, a loop.

    python benchmarks/ot_batches.py [--batches NAME ...] [--solvers NAME ...] [--repeats 3] [--limit 120] [--out FILE]

One thread, a process each, CPU seconds, as in `ot_solvers.py`. The error is the worst of the 1024, recomputed from
what was returned. The peers are tuned here: every setting listed is tried on the first TUNED_ON problems, its own
threshold tightened only until the recomputed error of each is at most 1e-9, and the fastest is then measured on all,
tightened again where the whole batch needs it. A call may take `--limit` CPU seconds; a row of one that took longer
says so. The loop is ours, called 1024 times.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from lib import RESULTS, Row, conditions, in_own_process, parsed, say, times, write_json
from measure import TOLERANCE, Answer, from_duals, judged, tightened
from peer_calls import UNLIMITED, Prepared
from problems import BATCHES, Batch, load_batch

TUNED_ON = 128  # problems: the search for settings takes the first of the batch


def ott_vmap(batch: Batch, *, lse: bool, momentum: float, check_every: int, tolerance: float) -> Prepared:
    """OTT's Sinkhorn under jax.vmap: the loop runs until the last problem is at its threshold."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    solver = sinkhorn.Sinkhorn(
        lse_mode=lse, threshold=tolerance, inner_iterations=check_every, max_iterations=1_000_000,
        momentum=acceleration.Momentum(value=momentum, inner_iterations=check_every),
    )  # fmt: skip
    a, b = jnp.asarray(batch.a), jnp.asarray(batch.b)

    def solve(cost: Any) -> Any:
        output = solver(linear_problem.LinearProblem(geometry.Geometry(cost_matrix=cost, epsilon=batch.epsilon), a, b))
        return output.f, output.g

    cost = jnp.asarray(batch.cost)
    compiled = jax.jit(jax.vmap(solve)).lower(cost).compile()

    def read(result: Any) -> Answer:
        return Answer(u=np.asarray(result[0]) / batch.epsilon, v=np.asarray(result[1]) / batch.epsilon)

    return lambda: jax.block_until_ready(compiled(cost)), read


def pot_batch(batch: Batch, *, method: str, backend: str, tolerance: float) -> Prepared:
    """POT's batch solver; its threshold is the largest L2 error of the rows."""
    import ot.batch
    import torch

    convert = torch.from_numpy if backend == "torch" else np.asarray
    a, b = (convert(np.tile(weights, (len(batch.cost), 1))) for weights in (batch.a, batch.b))
    cost = convert(batch.cost)

    def run() -> Any:
        return ot.batch.solve_batch(
            cost, reg=batch.epsilon, a=a, b=b, max_iter=UNLIMITED, tol=tolerance, method=method, grad="detach"
        )

    return run, lambda result: Answer(plan=np.asarray(result.plan))


def pushforward_batch(batch: Batch) -> Prepared:
    """`pushforward.solve` on the whole batch, at its defaults."""
    import pushforward

    def run() -> Any:
        return pushforward.solve(batch.cost, batch.a, batch.b, epsilon=batch.epsilon, throw=False)

    return run, lambda solution: from_duals(batch, solution.f, solution.g, claim=str(solution.status))


def pushforward_loop(batch: Batch) -> Prepared:
    """`pushforward.solve` on one problem after the other, at its defaults."""
    import pushforward

    def run() -> Any:
        return [pushforward.solve(cost, batch.a, batch.b, epsilon=batch.epsilon, throw=False) for cost in batch.cost]

    def read(solutions: Any) -> Answer:
        failures = sorted({solution.status.name for solution in solutions})
        return from_duals(batch, [s.f for s in solutions], [s.g for s in solutions], claim=", ".join(failures))

    return run, read


SOLVERS: dict[str, Callable[..., Prepared]] = {
    "pushforward": pushforward_batch,
    "pushforward loop": pushforward_loop,
    "ott vmap": ott_vmap,
    "pot batch": pot_batch,
}
TRIED: dict[str, dict[str, tuple[Any, ...]]] = {
    "ott vmap": {"lse": (False, True), "momentum": (1.7, 1.5, 1.8, 1.3, 1.0), "check_every": (20,)},
    "pot batch": {"method": ("sinkhorn", "log_sinkhorn"), "backend": ("torch", "numpy")},
}


def measured(
    batch_name: str, solver: str, settings: dict[str, Any], repeats: int, limit: float, count: int | None = None
) -> Row:
    """One row, its threshold (where the solver has one) tightened first. Runs in its own process."""
    whole = load_batch(batch_name)
    batch = dataclasses.replace(whole, cost=whole.cost[:count])

    def attempt(tolerance: float) -> Row:
        used = settings | ({"tolerance": tolerance} if solver in TRIED else {})
        run, read = SOLVERS[solver](batch, **used)
        result, seconds = times(run, repeats=repeats, limit=limit)
        return judged(batch, read(result), seconds) | {"settings": used}

    return tightened(attempt, TOLERANCE) if solver in TRIED else attempt(TOLERANCE)


def best_settings(batch: str, solver: str, limit: float) -> dict[str, Any]:
    """The fastest of the settings tried that reaches the tolerance; the first if none does."""
    axes = TRIED.get(solver, {})
    candidates = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    best: dict[str, Any] | None = None
    for settings in candidates if len(candidates) > 1 else []:
        allowed = best["seconds"] if best else limit
        row = in_own_process(measured, batch, solver, settings, 0, allowed, TUNED_ON, wall_limit=20 * limit)
        say(f"  tried {solver} {settings}: {row['status']} {row.get('seconds')} s, error {row.get('error')}")
        if row["status"] == "ok":
            best = row
    return best["settings"] if best else candidates[0]


def main() -> None:
    options = {"batches": BATCHES, "solvers": SOLVERS, "repeats": 3, "limit": 120.0, "out": RESULTS / "ot_batches.json"}
    asked = parsed(__doc__, options)
    repeats, limit = asked.repeats, asked.limit
    run = conditions(tolerance=TOLERANCE) | {"limit": limit, "repeats": repeats}
    rows: list[Row] = []
    for batch, solver in itertools.product(asked.batches, asked.solvers):
        settings = best_settings(batch, solver, limit)
        row = in_own_process(measured, batch, solver, settings, repeats, limit, wall_limit=20 * limit)
        rows.append({"batch": batch, "solver": solver, "settings": settings} | row | {"limit": limit})
        say(f"{batch:20} {solver:18} {row['status']} {row.get('seconds')} s, error {row.get('error')}")
        write_json(asked.out, run | {"rows": rows})


if __name__ == "__main__":
    main()
