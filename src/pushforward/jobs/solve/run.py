"""What `pushforward solve` does with its settings; `page.py` says what it leaves behind."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import pushforward as pf
from pushforward.errors import PushforwardError
from pushforward.jobs.errors import NOT_CONVERGED, OK, InputError
from pushforward.jobs.folder import make_folder
from pushforward.jobs.inputs.arrays import Array, is_picture
from pushforward.jobs.inputs.costs import read_cost
from pushforward.jobs.inputs.pictures import Pictures, read_pictures
from pushforward.jobs.inputs.points import Points, read_points
from pushforward.jobs.settings import arguments_for

if TYPE_CHECKING:
    from pushforward import GridCost, PointCost
    from pushforward.jobs.inputs.transport import Problem
    from pushforward.jobs.solve.settings import Solve

__all__ = ["run"]


def run(settings: Solve) -> int:
    """Solve, print, and write the run's folder if one is asked for; returns the exit code.

    Raises:
        InputError: A flag or file is wrong.
    """
    problem = _read(settings)
    if settings.out is not None:
        make_folder(settings.out)
    cost, solve = _cost(settings, problem), pf.solve  # its first use loads torch, which is not the solver's time
    start = time.perf_counter()
    try:
        given = arguments_for(solve, settings, {"cost": "", "a": "", "b": ""})
        solution = solve(cost, problem.a, problem.b, **given, throw=False)
        seconds = time.perf_counter() - start
        exact = _exact(cost, problem) if settings.exact else None
    except PushforwardError as error:
        raise InputError(f"{settings.a}: {error}") from None

    result = _result(problem.title, solution, exact, seconds=seconds, tol=settings.tol)
    print(json.dumps(result, indent=2, allow_nan=False) if settings.json else _block(result))
    if settings.out is not None:
        from pushforward.jobs.solve.page import write

        page = write(settings.out, settings, problem, cost, solution, result)
        if not settings.json:
            print(f"page              {page}")
    reached = solution.converged and (exact is None or exact["cost"] is not None)
    return OK if reached else NOT_CONVERGED


def _read(settings: Solve) -> Problem:
    a, b = settings.a, settings.b
    pictures = is_picture(a)
    if b is not None and is_picture(b) != pictures:
        raise InputError(f"{b}: and {a} are not of one kind; give two pictures or two files of points")
    kind = "pictures" if pictures else "points" if b is not None else "cost"
    for flag, value, only in (
        ("--p", settings.p, "pictures"),
        ("--scale", settings.scale, "pictures"),
        ("--background", settings.background, "pictures"),
        ("--ink", settings.ink, "pictures"),
        ("--cost", settings.cost, "cost" if settings.cost == "matrix" else "points"),
    ):
        if value is not None and kind != only:
            raise InputError(f"{flag}: is for {only} only; {a} holds {kind}")
    if kind == "cost":
        return read_cost(a, sure=settings.cost == "matrix")
    if b is None:
        raise InputError(f"{a}: is one picture; transport needs a second one of the same size")
    if pictures:
        return read_pictures(a, b, background=settings.background or 0.0, ink=settings.ink)
    return read_points(a, b)


def _cost(settings: Solve, problem: Problem) -> GridCost | PointCost | Array:
    if isinstance(problem, Pictures):
        p = settings.p or 2
        return pf.GridCost(problem.shape, p=p, scale=settings.scale or 1.0 / max(problem.shape) ** p)
    if isinstance(problem, Points):
        pair = "sqeuclidean" if settings.cost is None or settings.cost == "matrix" else settings.cost
        return pf.PointCost(problem.x, problem.y, pair)
    return problem.cost


def _exact(cost: Any, problem: Problem) -> dict[str, Any]:
    """The exact cost and its certified gap; without a cost, why there is none."""
    try:
        found = pf.exact(cost, problem.a, problem.b)
    except pf.errors.NotConverged as failure:
        return {"cost": None, "gap": None, "message": str(failure)}
    return {"cost": float(found.cost), "gap": float(found.gap), "message": found.status.message}


def _result(title: str, solution: Any, exact: dict[str, Any] | None, *, seconds: float, tol: float) -> dict[str, Any]:
    lower, upper = solution.bounds()
    counts = solution.iterations
    return {
        "problem": title,
        "status": solution.status.name,
        "message": solution.status.message,
        "method": solution.method,
        "epsilon": _number(solution.epsilon),
        "value": _number(solution.value),
        "transport_cost": _number(solution.transport_cost),
        "bounds": [_number(lower), _number(upper)],
        "marginal_error": _number(solution.marginal_error),
        "tol": tol,
        "duality_gap": _number(solution.duality_gap),
        "iterations": {
            name: int(getattr(counts, name)) for name in ("sinkhorn", "newton", "cg", "plan_evaluations", "products")
        },
        "seconds": seconds,
        "exact": exact,
    }


def _number(value: Any) -> float | None:
    """A float that JSON can hold; None for what is not finite."""
    return float(value) if math.isfinite(value) else None


def _block(result: dict[str, Any]) -> str:
    counts = result["iterations"]
    lower, upper = result["bounds"]
    rows = [
        ("problem", result["problem"]),
        ("status", result["status"]),
        ("", result["message"]),
        ("method", result["method"]),
        ("epsilon", _show(result["epsilon"])),
        ("value", f"{_show(result['value'])}   regularised optimum"),
        ("transport cost", f"{_show(result['transport_cost'])}   <P, C>"),
        ("bounds", f"{_show(lower)} to {_show(upper)}   certified, of the unregularised cost"),
        ("marginal error", f"{_show(result['marginal_error'], 3)}   asked for {result['tol']:.3g}"),
        (
            "iterations",
            f"{counts['sinkhorn']} Sinkhorn, {counts['newton']} Newton, {counts['cg']} CG; "
            f"{counts['plan_evaluations']} plan evaluations, {counts['products']} products",
        ),
        ("seconds", f"{result['seconds']:.3f}"),
    ]
    exact = result["exact"]
    if exact is not None and exact["cost"] is None:
        rows.append(("exact cost", f"not found: {exact['message']}"))
    elif exact is not None:
        rows.append(("exact cost", f"{_show(exact['cost'])}   certified to {abs(exact['gap']):.3g}"))
    if result["status"] != "CONVERGED":
        rows.insert(2, ("", "PARTIAL RESULT: what follows is not the solution that was asked for"))
    return "\n".join(f"{name:<18}{value}" for name, value in rows)


def _show(value: float | None, digits: int = 9) -> str:
    return "not finite" if value is None else f"{value:.{digits}g}"
