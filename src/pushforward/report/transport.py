"""The blocks of a page about a transport problem and its solution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import diags_array

from pushforward import plots
from pushforward.report.model import Picture
from pushforward.report.pictures import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from scipy.sparse import coo_array

    from pushforward.ot import Solution

__all__ = [
    "Array",
    "bounds_picture",
    "curve",
    "closing_bounds_picture",
    "convergence_picture",
    "morph_picture",
    "pixels_picture",
    "plan_picture",
    "points_picture",
]

Array = NDArray[np.float64]

# Lines between more points than this hide one another.
_MOST_LINES = 400


def curve(solution: Solution[Any]) -> tuple[list[int], list[float]]:
    """The passes over the plan and the marginal errors after each step of a solution, its final error last."""
    counts = solution.iterations
    passes = [step.evaluations for step in solution.history] + [counts.plan_evaluations + counts.products]
    return passes, [step.error for step in solution.history] + [float(solution.marginal_error)]


def convergence_picture(folder: Path, solutions: Mapping[str, Solution[Any]], *, tol: float) -> Picture:
    """Marginal error against passes over the plan, one line a solution.

    Args:
        folder: The run's folder.
        solutions: Solutions of one problem by the name of their method.
        tol: The error that was asked for.

    Returns:
        The block for the page.
    """
    curves = {name: curve(solution) for name, solution in solutions.items()}

    def paint(figure: Figure) -> None:
        plots.convergence(figure.subplots(), curves, tol=tol)

    last = ", ".join(f"{name} {passes[-1]} passes" for name, (passes, _) in curves.items())
    return draw(
        folder,
        "convergence",
        paint,
        alt=f"Marginal error against passes over the plan, by method: {last}.",
        caption="How fast the plan comes to have the right marginals. A pass looks at every pair once, whether for an "
        "exponential or for a product, so the axis counts work, not loops. A method that solves easier problems first, "
        "with a larger epsilon, starts anew on each.",
    )


def plan_picture(folder: Path, plan: Array) -> Picture:
    """The plan as a picture.

    Args:
        folder: The run's folder.
        plan: The plan, shape (n, m).

    Returns:
        The block for the page.
    """
    share = float((plan > 1e-3 * plan.max()).mean())

    def paint(figure: Figure) -> None:
        plots.plan_picture(figure.subplots(), plan)

    return draw(
        folder,
        "plan",
        paint,
        alt=f"The {plan.shape[0]} x {plan.shape[1]} transport plan.",
        caption=f"The plan: each row is a source point, each column a target point, coloured where mass goes. "
        f"{100 * share:.1f} % of the entries exceed a thousandth of the largest: the smaller epsilon, the fewer, and "
        "the cheaper a sparse Newton step.",
    )


def bounds_picture(folder: Path, limits: tuple[float, float], *, regularised: float, exact: float | None) -> Picture:
    """The certified interval, with the exact cost in it where it is known.

    Args:
        folder: The run's folder.
        limits: Certified lower and upper bound of the unregularised cost.
        regularised: <P, C> of the regularised plan.
        exact: The exact cost, or None.

    Returns:
        The block for the page.
    """

    def paint(figure: Figure) -> None:
        plots.bounds(figure.subplots(), *limits, exact=exact, regularised=regularised)

    return draw(
        folder,
        "bounds",
        paint,
        alt=f"An interval from {limits[0]:.6g} to {limits[1]:.6g}.",
        caption=f"From the regularised solution alone: the unregularised cost is at least {limits[0]:.6g} and at most "
        f"{limits[1]:.6g}. The lower bound is a feasible dual point, the upper bound a feasible plan."
        + ("" if exact is None else f" The exact cost is {exact:.6g}."),
    )


def closing_bounds_picture(folder: Path, limits: Mapping[float, tuple[float, float]], *, exact: float) -> Picture:
    """The certified interval for several epsilons.

    Args:
        folder: The run's folder.
        limits: For each epsilon the certified lower and upper bound of the unregularised cost.
        exact: The exact cost.

    Returns:
        The block for the page.
    """
    epsilons = sorted(limits)
    lower, upper = zip(*(limits[epsilon] for epsilon in epsilons), strict=True)

    def paint(figure: Figure) -> None:
        plots.bounds_by_epsilon(figure.subplots(), epsilons, lower, upper, exact=exact)

    width = upper[0] - lower[0]
    return draw(
        folder,
        "bounds-by-epsilon",
        paint,
        alt="Upper and lower bound meeting at the exact cost as epsilon falls.",
        caption=f"Less regularisation, tighter bounds: at epsilon = {epsilons[0]:.2g} they are {width:.2g} apart, "
        f"{100 * width / exact:.2g} % of the exact cost.",
    )


def pixels_picture(folder: Path, a: Array, b: Array, plan: coo_array) -> Picture:
    """Two pictures side by side, and between them where the first one's pixels go.

    Args:
        folder: The run's folder.
        a: Source weights, shape (height, width).
        b: Target weights, shape (height, width).
        plan: The plan between their pixels, in row-major order.

    Returns:
        The block for the page.
    """
    height, width = a.shape
    pixels = np.stack(np.divmod(np.arange(height * width), width)[::-1], axis=1).astype(np.float64)
    few = height * width <= _MOST_LINES
    lines = (
        (pixels, pixels, plan) if few else _mean_moves(pixels, plan, stride=math.ceil(math.sqrt(a.size / _MOST_LINES)))
    )

    def paint(figure: Figure) -> None:
        left, middle, right = figure.subplots(1, 3)
        plots.picture(left, a)
        plots.arrows(plots.picture(middle, np.zeros_like(a)), *lines)
        plots.picture(right, b)

    explanation = (
        "Each line in the middle is one entry of the plan: it starts at a pixel of the source, and its dot is where in "
        "the target the mass lands; stronger lines carry more."
        if few
        else "Each line in the middle starts at a pixel of the source, one of many, and its dot is where in the target "
        "that pixel's mass lands on average; stronger lines carry more."
    )
    return draw(
        folder,
        "pixels",
        paint,
        size=(7.2, min(5.0, 0.1 + 2.4 * height / width)),
        wide=True,
        alt="The source picture, lines from its pixels to where their mass goes, and the target picture.",
        caption=f"Source, plan, target. {explanation}",
    )


def _mean_moves(pixels: Array, plan: coo_array, *, stride: int) -> tuple[Array, Array, coo_array]:
    """Pixels on a coarser grid, the mean target of the mass in each, and the amount of that mass, on the diagonal."""
    rows = plan.tocsr()
    mass = np.asarray(rows.sum(axis=1)).ravel()
    kept = np.flatnonzero((pixels % stride == stride // 2).all(axis=1) & (mass > 0))
    return pixels[kept], (rows[kept] @ pixels) / mass[kept, None], diags_array(mass[kept]).tocoo()


def morph_picture(folder: Path, plan: coo_array, shape: tuple[int, int]) -> Picture:
    """Mass on its way from one picture to the other, as a row of pictures.

    Args:
        folder: The run's folder.
        plan: The plan between the pixels of two pictures, in row-major order.
        shape: (height, width) of the pictures.

    Returns:
        The block for the page.
    """

    def paint(figure: Figure) -> None:
        plots.frames(figure.subplots(), plan, shape)

    return draw(
        folder,
        "morph",
        paint,
        size=(8.4, 1.35),
        wide=True,
        alt="Seven pictures: the source turns into the target, stroke by stroke.",
        caption="The plan, walked: every bit of ink on a straight line from its pixel to its target, at seven moments.",
    )


def points_picture(folder: Path, x: Array, y: Array, plan: coo_array, weights: tuple[Any, Any]) -> Picture:
    """Two clouds in the plane with the plan between them.

    Args:
        folder: The run's folder.
        x: Source points, shape (n, 2).
        y: Target points, shape (m, 2).
        plan: The plan.
        weights: The weights a and b, None for uniform.

    Returns:
        The block for the page.
    """

    def paint(figure: Figure) -> None:
        ax = plots.points(figure.subplots(), x, y, a=weights[0], b=weights[1])
        plots.arrows(ax, x, y, plan)

    return draw(
        folder,
        "points",
        paint,
        size=(4.6, 4.4),
        alt=f"{len(x)} source points joined to {len(y)} target points.",
        caption="The heaviest entries of the plan as lines from source to target; stronger lines carry more mass.",
    )
