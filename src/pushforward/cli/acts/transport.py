"""Act one: transport between handwritten digits, by every method."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import pushforward as pf
from pushforward import samples
from pushforward.report import Code, Section, Table, Text
from pushforward.report import transport as show

if TYPE_CHECKING:
    from pushforward.ot import Solution

__all__ = ["transport"]

_EPSILON = 1 / 1200
_EPSILONS = (3e-2, 1e-2, 3e-3, _EPSILON, 3e-4)
_TOL = 1e-9
_METHODS = ("sinkhorn", "sns", "newton", "auto")


def transport(folder: Path) -> Section:
    """Move the ink of a 3 to that of an 8 by every method, and compare them.

    Args:
        folder: The tour's folder; the pictures go there.

    Returns:
        The section.
    """
    a, b = samples.digit_pair(3, 8)
    height, width = a.shape
    cost = pf.GridCost((height, width), p=2, scale=1.0 / max(height, width) ** 2)
    matrix = _dense(height, width)

    solutions: dict[str, Solution] = {}
    seconds: dict[str, float] = {}
    for method in _METHODS:
        solutions[method], seconds[method] = _timed(
            lambda method=method: pf.solve(
                matrix, a.ravel(), b.ravel(), epsilon=_EPSILON, method=method, tol=_TOL, throw=False
            )
        )
    exact, seconds["exact"] = _timed(lambda: pf.exact(matrix, a.ravel(), b.ravel()))
    grid, seconds["grid"] = _timed(
        lambda: pf.solve(cost, a.ravel(), b.ravel(), epsilon=_EPSILON, tol=_TOL, throw=False)
    )
    best = solutions["auto"]
    limits = {
        epsilon: pf.solve(matrix, a.ravel(), b.ravel(), epsilon=epsilon, tol=_TOL, throw=False).bounds()
        for epsilon in _EPSILONS
    }
    plan = best.plan.to_sparse(1e-9)
    return Section(
        label="Act one",
        title="Moving ink",
        blocks=(
            Text(
                text="Two handwritten digits, 8 x 8 pixels each, with the same amount of ink. What is the cheapest way to "
                "turn one into the other, if moving ink costs the squared distance? The answer is a plan: how much "
                "goes from each pixel to each other one."
            ),
            show.morph_picture(folder, plan, (height, width)),
            show.pixels_picture(folder, a, b, plan),
            Text(
                text=f"The plan minimises cost plus epsilon times its relative entropy, epsilon = 1/1200 with distances "
                f"in picture sides. Every method is given the same problem and asked for an error of {_TOL:g} in the "
                "plan's marginals, recomputed from the plan that it returns."
            ),
            show.convergence_picture(folder, {name: solutions[name] for name in _METHODS if name != "auto"}, tol=_TOL),
            show.plan_picture(folder, best.plan.to_dense()),
            _table(solutions, seconds, grid, exact),
            Text(
                text="Sinkhorn's iteration rescales rows and columns in turn; it is simple, and slow when epsilon is "
                "small. SNS stops it early and goes on with Newton steps whose Hessian keeps only the plan's largest "
                "entries. Newton is this library's own version. They take different roads, so what they agree on can "
                "be trusted."
            ),
            Text(
                text="A regularised plan is a little blurred, and its cost a little off. How far off is not guessed but "
                "certified, from the regularised solution alone, without solving the exact problem."
            ),
            show.bounds_picture(
                folder, limits[_EPSILON], regularised=float(best.transport_cost), exact=float(exact.cost)
            ),
            show.closing_bounds_picture(folder, limits, exact=float(exact.cost)),
            Text(text="The same from your own pictures, points or cost matrix:"),
            Code(text="pushforward solve first.png second.png --epsilon 0.001 --out runs/mine"),
        ),
    )


def _dense(height: int, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    at = np.stack(np.divmod(np.arange(height * width), width), axis=1) / max(height, width)
    return np.square(at[:, None, :] - at[None, :, :]).sum(-1)


def _timed(run: Any) -> tuple[Any, float]:
    """The result and the least time of three runs: the first one also pays for loading code."""
    times: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return result, min(times)


def _table(solutions: dict[str, Any], seconds: dict[str, float], grid: Any, exact: Any) -> Table:
    names = {"sinkhorn": "Sinkhorn", "sns": "SNS (published)", "newton": "Newton (ours)", "auto": "auto"}
    rows: list[tuple[str, ...]] = [_row(names[name], found, seconds[name]) for name, found in solutions.items()]
    rows.append(_row("auto, pixel grid", grid, seconds["grid"]))
    rows.append(
        ("exact", "", "", f"{1e3 * seconds['exact']:.1f}", "", "", f"{float(exact.cost):.8f}", exact.status.name)
    )
    return Table(
        columns=("method", "iterations", "plan evaluations", "ms", "marginal error", "value", "cost", "status"),
        words=("status",),
        rows=tuple(rows),
        caption="Iterations are Sinkhorn + Newton steps; milliseconds are the least of three runs. Value is the "
        "regularised optimum, cost the transport cost of the plan; the exact plan has no regularisation, so only a cost.",
    )


def _row(name: str, found: Any, seconds: float) -> tuple[str, ...]:
    counts = found.iterations
    return (
        name,
        f"{counts.sinkhorn} + {counts.newton}",
        str(counts.plan_evaluations),
        f"{1e3 * seconds:.1f}",
        f"{float(found.marginal_error):.1e}",
        f"{float(found.value):.8f}",
        f"{float(found.transport_cost):.8f}",
        found.status.name,
    )
