"""What `pushforward solve --out RUN` leaves behind.

potentials.safetensors   f (n,) and g (m,)
plan.npz                 the plan, sparse (scipy.sparse.load_npz); left out where all pairs are too many
log.jsonl                one line a step of each method
result.json              what the command printed
recipe.yaml              the settings, with which the run is repeated
report.json, index.html  the page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file
from scipy import sparse

import pushforward as pf
from pushforward import report
from pushforward.jobs.folder import LOG, begin, write_page, write_result
from pushforward.jobs.inputs.pictures import Pictures
from pushforward.jobs.inputs.points import Points
from pushforward.report import transport

if TYPE_CHECKING:
    from scipy.sparse import coo_array

    from pushforward import Solution
    from pushforward.jobs.inputs.transport import Problem
    from pushforward.jobs.solve.settings import Solve

__all__ = ["write"]

# Above this many pairs (160 MB of plan) neither the plan nor its picture is written.
_MOST_PAIRS = 20_000_000
# Passes over all pairs that the comparison with Sinkhorn may take: a few seconds.
_COMPARISON_WORK = 2e9


def write(
    folder: Path, settings: Solve, problem: Problem, cost: Any, solution: Solution[Any], result: dict[str, Any]
) -> Path:
    """Write a run's folder.

    Args:
        folder: An existing folder.
        settings: As they were given.
        problem: What was read.
        cost: What was handed to the solver.
        solution: What the solver gave back.
        result: What the command printed.

    Returns:
        The page.
    """
    pairs = solution.plan.shape[0] * solution.plan.shape[1]
    solutions = {settings.method: solution}
    if settings.method != "sinkhorn" and solution.status is not pf.Status.INFEASIBLE:
        limit = int(min(5000, max(20, _COMPARISON_WORK / pairs)))
        solutions["sinkhorn"] = pf.solve(
            cost,
            problem.a,
            problem.b,
            epsilon=solution.epsilon,
            method="sinkhorn",
            tol=settings.tol,
            max_iterations=limit,
            throw=False,
        )

    save_file(
        {"f": np.ascontiguousarray(solution.f), "g": np.ascontiguousarray(solution.g)},
        folder / "potentials.safetensors",
    )
    plan = solution.plan.to_sparse() if pairs <= _MOST_PAIRS else None
    if plan is not None:
        sparse.save_npz(folder / "plan.npz", plan)
    begin(folder, "solve", settings)
    write_result(folder, result, allow_nan=False)
    _write_log(folder / LOG, solutions)
    blocks = _blocks(folder, problem, plan, solutions, result)
    return write_page(
        folder,
        title=f"Transport: {problem.title}",
        lead=f"{solution.status.message[0].upper()}{solution.status.message[1:]}.",
        heading="The solution",
        blocks=blocks,
    )


def _write_log(file: Path, solutions: dict[str, Solution[Any]]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for method, solution in solutions.items():
            for step in solution.history:
                line = {
                    "method": method,
                    "kind": step.kind,
                    "epsilon": float(step.epsilon),
                    "error": float(step.error),
                    "evaluations": int(step.evaluations),
                    "seconds": float(step.seconds),
                }
                stream.write(json.dumps(line) + "\n")


def _blocks(
    folder: Path, problem: Problem, plan: coo_array | None, solutions: dict[str, Solution[Any]], result: dict[str, Any]
) -> list[report.Block]:
    solution = next(iter(solutions.values()))
    counts = result["iterations"]
    blocks: list[report.Block] = [
        report.Facts(
            facts=(
                ("status", result["status"]),
                ("method", result["method"]),
                ("epsilon", f"{solution.epsilon:.6g}"),
                ("regularised optimum", f"{float(solution.value):.9g}"),
                ("transport cost <P, C>", f"{float(solution.transport_cost):.9g}"),
                ("marginal error", f"{float(solution.marginal_error):.3g}"),
                ("Sinkhorn + Newton steps", f"{counts['sinkhorn']} + {counts['newton']}"),
                ("seconds", f"{result['seconds']:.3f}"),
            )
        )
    ]
    if plan is None:
        n, m = solution.plan.shape
        blocks.append(report.Text(text=f"The plan has {n} x {m} entries, too many to be written or drawn here."))
    elif isinstance(problem, Pictures):
        a, b = problem.a.reshape(problem.shape), problem.b.reshape(problem.shape)
        blocks.append(transport.pixels_picture(folder, a, b, plan))
    elif isinstance(problem, Points) and problem.x.shape[1] == 2:
        blocks.append(transport.points_picture(folder, problem.x, problem.y, plan, (problem.a, problem.b)))
    if plan is not None:
        blocks.append(transport.plan_picture(folder, plan.toarray()))
    blocks.append(transport.convergence_picture(folder, solutions, tol=result["tol"]))
    limits = tuple(result["bounds"])
    if None not in limits:
        exact = None if result["exact"] is None else result["exact"]["cost"]
        blocks.append(transport.bounds_picture(folder, limits, regularised=float(solution.transport_cost), exact=exact))
    return blocks
