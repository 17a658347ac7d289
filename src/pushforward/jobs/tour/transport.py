"""Act one: transport between handwritten digits, by every method."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

import pushforward as pf
from pushforward import samples
from pushforward.report import Code, Section, Table, Text
from pushforward.report import transport as show

if TYPE_CHECKING:
    from pushforward import ExactSolution, Solution

__all__ = ["transport"]

T = TypeVar("T")
Method = Literal["sinkhorn", "sns", "newton", "auto"]

_EPSILON = 1 / 1200
_EPSILONS = (3e-2, 1e-2, 3e-3, _EPSILON, 3e-4)
_TOL = 1e-9
_METHODS: dict[Method, str] = {
    "sinkhorn": "Sinkhorn",
    "sns": "SNS (published)",
    "newton": "Newton (ours)",
    "auto": "auto",
}

_QUESTION = """Two handwritten digits, 8 x 8 pixels each, with the same amount of ink. What is the cheapest way to
turn one into the other, if moving ink costs the squared distance? The answer is a plan: how much goes from each
pixel to each other one."""
_PROBLEM = f"""The plan minimises cost plus epsilon times its relative entropy, epsilon = 1/1200 with distances in
picture sides. Every method is given the same problem and asked for an error of {_TOL:g} in the plan's marginals,
recomputed from the plan that it returns."""
_METHODS_EXPLAINED = """Sinkhorn's iteration rescales rows and columns in turn; it is simple, and slow when epsilon
is small. SNS stops it early and goes on with Newton steps whose Hessian keeps only the plan's largest entries.
Newton is this library's own version. They take different roads, so what they agree on can be trusted."""
_BOUNDS = """A regularised plan is a little blurred, and its cost a little off. How far off is not guessed but
certified, from the regularised solution alone, without solving the exact problem."""
_TABLE = """Iterations are Sinkhorn + Newton steps, passes are looks at all pairs; milliseconds are the least of up
to three runs. Value is the regularised optimum, cost the transport cost of the plan; the exact plan has no
regularisation, so only a cost."""


def transport(folder: Path) -> Section:
    """Move the ink of a 3 to that of an 8 by every method, and compare them.

    Args:
        folder: The tour's folder; the pictures go there.

    Returns:
        The section.
    """
    ink, other = samples.digit_pair(3, 8)
    a, b, matrix = ink.ravel(), other.ravel(), _squared_distances(*ink.shape)
    grid = pf.GridCost(ink.shape, p=2, scale=1.0 / max(ink.shape) ** 2)

    solved: dict[Method, tuple[Solution[Any], float]] = {
        method: _timed(
            lambda method=method: pf.solve(matrix, a, b, epsilon=_EPSILON, method=method, tol=_TOL, throw=False)
        )
        for method in _METHODS
    }
    on_grid = _timed(lambda: pf.solve(grid, a, b, epsilon=_EPSILON, tol=_TOL, throw=False))
    exact = _timed(lambda: pf.exact(matrix, a, b))
    limits = {epsilon: _bounds(matrix, a, b, epsilon) for epsilon in _EPSILONS}

    best, truth = solved["auto"][0], float(exact[0].cost)
    plan = best.plan.to_sparse(1e-9)
    # "auto" is one of the other three, so its curve would lie on theirs.
    curves = {method: solution for method, (solution, _) in solved.items() if method != "auto"}
    blocks = (
        Text(text=_QUESTION),
        show.morph_picture(folder, plan, ink.shape),
        show.pixels_picture(folder, ink, other, plan),
        Text(text=_PROBLEM),
        show.convergence_picture(folder, curves, tol=_TOL),
        show.plan_picture(folder, best.plan.to_dense()),
        _table(solved, on_grid, exact),
        Text(text=_METHODS_EXPLAINED),
        Text(text=_BOUNDS),
        show.bounds_picture(folder, limits[_EPSILON], regularised=float(best.transport_cost), exact=truth),
        show.closing_bounds_picture(folder, limits, exact=truth),
        Text(text="The same from your own pictures, points or cost matrix:"),
        Code(text="pushforward solve first.png second.png --epsilon 0.001 --out runs/mine"),
    )
    return Section(label="Act one", title="Moving ink", blocks=blocks)


def _squared_distances(height: int, width: int) -> show.Array:
    """The cost of `GridCost((height, width), p=2)` in picture sides as a matrix, shape (height width, height width)."""
    at = np.stack(np.divmod(np.arange(height * width), width), axis=1) / max(height, width)
    return np.square(at[:, None, :] - at[None, :, :]).sum(-1)


def _bounds(matrix: show.Array, a: show.Array, b: show.Array, epsilon: float) -> tuple[float, float]:
    lower, upper = pf.solve(matrix, a, b, epsilon=epsilon, tol=_TOL, throw=False).bounds()
    return float(lower), float(upper)


def _timed(run: Callable[[], T]) -> tuple[T, float]:
    """The result and the least time of up to three runs: the first one also pays for loading code."""
    times: list[float] = []
    while True:
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
        if len(times) == 3 or sum(times) > 0.5:
            return result, min(times)


def _table(
    solved: dict[Method, tuple[Solution[Any], float]],
    on_grid: tuple[Solution[Any], float],
    exact: tuple[ExactSolution[Any], float],
) -> Table:
    rows = [_row(_METHODS[method], *found) for method, found in solved.items()]
    rows.append(_row("auto, pixel grid", *on_grid))
    solution, seconds = exact
    rows.append(("exact", "", "", f"{1e3 * seconds:.1f}", "", "", f"{float(solution.cost):.8f}", solution.status.name))
    return Table(
        columns=("method", "iterations", "passes", "ms", "marginal error", "value", "cost", "status"),
        words=("status",),
        rows=tuple(rows),
        caption=_TABLE,
    )


def _row(name: str, solution: Any, seconds: float) -> tuple[str, ...]:
    counts = solution.iterations
    return (
        name,
        f"{counts.sinkhorn} + {counts.newton}",
        str(counts.plan_evaluations + counts.products),
        f"{1e3 * seconds:.1f}",
        f"{float(solution.marginal_error):.1e}",
        f"{float(solution.value):.8f}",
        f"{float(solution.transport_cost):.8f}",
        solution.status.name,
    )
