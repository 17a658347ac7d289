"""The settings of `pushforward solve`: its flags and its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pushforward.jobs.settings import AT_LEAST_ONE, COMMAND, FREE, POSITIVE, Bound, Switch, check_bounds, default_or

__all__ = ["Solve"]

# Beyond it a picture's own mass is lost in rounding.
_MOST_BACKGROUND = 1e6


@dataclass(frozen=True, kw_only=True)
class Solve:
    """Solve optimal transport between two pictures, between two clouds of points, or for one cost matrix.

    Pictures of one size (.png, .jpg, ...): grey value is mass on the pixel grid. Points (.npy, .csv, .tsv, or .npz with
    `points` and perhaps `weights`; a .csv may have a column `weight`): one point a row, columns paired by their
    headings. One cost matrix (.npy, .csv, .tsv, or .npz with `cost` and perhaps `a` and `b`). Masses are normalised
    to 1. A recipe, a YAML file of settings, may stand beside the flags, which override it.

    Exit code 0: converged. 1: not converged; the partial result is printed, and says so. 2: a wrong flag or file.
    """

    a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")]
    """Source picture (.png, .jpg, ...: grey value is mass), points (.npy, .csv, .npz with `points` and perhaps
    `weights`: one point a row), or the cost matrix (.npy, .csv, .npz with `cost` and perhaps `a` and `b`)."""
    b: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[B]", help_behavior_hint="")] = None
    """Target picture of the same size, or points."""
    epsilon: Annotated[float | None, default_or("0.05 of the mean cost", "FLOAT"), POSITIVE] = None
    """Entropic regularisation, in units of the cost."""
    method: Literal["auto", "newton", "sns", "sinkhorn"] = "auto"
    """The solver; auto chooses, and falls back where the first choice fails."""
    tol: Annotated[float, POSITIVE] = 1e-9
    """L1 error of both marginals together that counts as converged."""
    max_iterations: Annotated[int | None, default_or("the method's own limit", "INT"), AT_LEAST_ONE] = None
    """Most iterations."""
    exact: Switch = False
    """Compute the exact, unregularised transport cost as well."""
    p: Annotated[Literal[1, 2] | None, default_or("2", "{1,2}")] = None
    """Pictures: the cost of a pair of pixels is |i - j|^p, summed over the two axes."""
    scale: Annotated[float | None, default_or("1 / (longer side)^p", "FLOAT"), POSITIVE] = None
    """Pictures: factor on that cost. By default distances count in picture sides."""
    background: Annotated[float | None, default_or("0", "FLOAT"), Bound(least=0, most=_MOST_BACKGROUND)] = None
    """Pictures: mass added to every pixel, as a share of the largest grey value."""
    cost: Annotated[
        Literal["sqeuclidean", "euclidean", "manhattan", "cosine", "matrix"] | None,
        default_or("sqeuclidean", "{sqeuclidean,euclidean,manhattan,cosine,matrix}"),
    ] = None
    """Points: the cost of a pair. One file: matrix, if it holds the cost of every pair but looks like points."""
    ink: Annotated[Literal["light", "dark"] | None, default_or("light", "{light,dark}")] = None
    """Pictures: whether the light or the dark is mass. Without it, dark ink on light paper is refused."""
    out: Annotated[Path | None, default_or("none", "FOLDER"), FREE] = None
    """Folder for the potentials, the plan, the metrics, the recipe and a page that shows them."""
    json: Annotated[Switch, COMMAND] = False
    """Print the result as JSON."""

    def run(self) -> int:
        """Solve, print, and write the run's folder if one is asked for; returns the exit code."""
        check_bounds(self)

        from pushforward.jobs.solve.run import run

        return run(self)
