"""Pictures. Every function draws on the matplotlib Axes that it is given, and returns them.

Colours come from the rcParams in force, so the same function draws for a light and for a dark page:

    with plots.theme("dark"):
        figure = plots.figure(4.6, 3.2)
        plots.convergence(figure.subplots(), {"sinkhorn": (passes, errors)})

Backgrounds are transparent. The palette is Okabe and Ito's, lightened or darkened to keep at least 3:1 contrast.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from scipy.sparse import coo_array

__all__ = [
    "THEMES",
    "arrows",
    "bounds",
    "convergence",
    "figure",
    "frames",
    "moves",
    "picture",
    "plan_picture",
    "points",
    "theme",
    "training",
]

ThemeName = Literal["light", "dark"]
THEMES: tuple[ThemeName, ...] = ("light", "dark")

# A method keeps its name, its place in the theme's colour cycle and its dashes over all pictures.
_METHODS = {
    "sinkhorn": ("Sinkhorn", "C1", (0, (5, 1.5))),
    "sns": ("SNS", "C2", (0, (1.5, 1.2))),
    "newton": ("Newton", "C0", "-"),
    "auto": ("auto", "C0", "-"),
}

_CYCLES = {
    "light": ["#0072b2", "#d55e00", "#00805c", "#a8558a", "#a87400", "#3b8fc2"],
    "dark": ["#56b4e9", "#f0894a", "#2fbf94", "#dc96bd", "#e6b23c", "#8ecdf2"],
}
_INK = {"light": "#3c434d", "dark": "#b9c1cb"}
_GRID = {"light": "#3c434d26", "dark": "#b9c1cb26"}
# No mass is transparent: the page shows through.
_MASS = {
    "light": ["#0072b200", "#7db8dd", "#0072b2", "#06304f"],
    "dark": ["#56b4e900", "#23648f", "#56b4e9", "#eef7fd"],
}

for _name in THEMES:
    # rcParams take a colour map by its name only, so it has to have one.
    mpl.colormaps.register(LinearSegmentedColormap.from_list(f"pushforward-{_name}", _MASS[_name]), force=True)


@contextmanager
def theme(name: ThemeName) -> Generator[None]:
    """Set matplotlib's parameters for a light or a dark page, and restore them afterwards.

    Args:
        name: "light" or "dark".

    Yields:
        Nothing.
    """
    ink = _INK[name]
    style: dict[Any, Any] = {
        "axes.edgecolor": ink,
        "axes.labelcolor": ink,
        "axes.linewidth": 0.8,
        "axes.prop_cycle": cycler(color=_CYCLES[name]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": ink,
        "axes.titlesize": 10.5,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "font.size": 10.5,
        "axes.labelsize": 10.5,
        "font.family": "sans-serif",
        "grid.color": _GRID[name],
        "grid.linewidth": 0.8,
        "image.cmap": f"pushforward-{name}",
        "legend.frameon": False,
        "lines.linewidth": 2.0,
        "svg.hashsalt": "pushforward",
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
    }
    with mpl.rc_context(style):
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure that belongs to no window.

    Args:
        width: Width in inches.
        height: Height in inches.

    Returns:
        A Figure whose axes are laid out to fill it.
    """
    return Figure(figsize=(width, height), layout="constrained")


def convergence(ax: Axes, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], *, tol: float | None = None) -> Axes:
    """Marginal error against passes over the plan, one line a method, both axes logarithmic.

    Args:
        ax: Where to draw.
        curves: For each method's name the passes over the plan so far and the L1 marginal errors, two
            sequences of one length; errors of exactly 0 are left out.
        tol: The error that was asked for, drawn as a line; None for none.

    Returns:
        The same Axes.
    """
    for name, (passes, errors) in curves.items():
        x, y = np.asarray(passes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
        keep = (x > 0) & (y > 0) & np.isfinite(y)
        if keep.any():
            label, colour, dashes = _METHODS.get(name, (name, None, "-"))
            ax.plot(x[keep], y[keep], color=colour, linestyle=dashes, label=label)
            ax.plot(x[keep][-1], y[keep][-1], color=ax.lines[-1].get_color(), marker="o", markersize=5, zorder=3)
    ax.set(xscale="log", yscale="log", xlabel="passes over the plan", ylabel="marginal error (L1)")
    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    ax.minorticks_off()
    ax.grid(axis="y")
    if tol is not None and tol > 0:
        ax.axhline(tol, color=mpl.rcParams["text.color"], linewidth=1, linestyle=(0, (2, 3)))
        ax.annotate(
            "asked for", (0.01, tol), xycoords=ax.get_yaxis_transform(), xytext=(0, 4), textcoords="offset points"
        )
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, columnspacing=1.2, handlelength=1.6)
    return ax


def training(
    ax: Axes,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    quantity: str,
    kept: tuple[str, int] | None = None,
) -> Axes:
    """A quantity of a training against its steps, one line for each run; a dot marks where each ends.

    Args:
        ax: Where to draw.
        curves: For each run's name the steps and the values, two sequences of one length; values that are not finite
            are left out.
        quantity: The name of the values, with their unit.
        kept: The run and the step whose model was kept: a ring marks it, and no dot the ends.

    Returns:
        The same Axes.
    """
    # Colour alone does not tell lines apart for everyone.
    dashes = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
    for k, (name, (steps, values)) in enumerate(curves.items()):
        x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        if len(x):
            (line,) = ax.plot(x, y, linestyle=dashes[k % len(dashes)], label=name)
            ends = x == kept[1] if kept is not None and name == kept[0] else np.zeros(len(x), dtype=bool)
            if kept is None:
                ends[-1] = True
            face = "none" if kept is not None else line.get_color()
            size = 9 if kept is not None else 5
            ax.plot(x[ends], y[ends], "o", color=line.get_color(), markerfacecolor=face, markersize=size, zorder=3)
    ax.set(xlabel="steps", ylabel=quantity)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.grid(axis="y")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=1.2, handlelength=1.9)
    return ax


def picture(ax: Axes, mass: ArrayLike, *, title: str = "", largest: float | None = None) -> Axes:
    """A distribution over pixels.

    Args:
        ax: Where to draw.
        mass: Weights, shape (height, width).
        title: A few words above the picture.
        largest: The weight that gets the strongest colour; None for the largest in `mass`.

    Returns:
        The same Axes.
    """
    ax.imshow(np.asarray(mass), vmin=0, vmax=largest, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(mpl.rcParams["grid.color"])
    ax.set_title(title)
    return ax


def plan_picture(ax: Axes, plan: ArrayLike, *, pixels: int = 320) -> Axes:
    """A transport plan as a picture: row i says where the mass of point i goes.

    Args:
        ax: Where to draw.
        plan: The plan, shape (n, m), entries at least 0. A plan wider than `pixels` is shown by sums over blocks.
        pixels: Largest number of rows and columns in the picture.

    Returns:
        The same Axes.
    """
    shown = _block_sums(np.asarray(plan, dtype=np.float64), pixels)
    # Most entries are small beside the largest: the square root keeps them visible.
    ax.imshow(np.sqrt(shown), vmin=0, interpolation="nearest", aspect="auto" if _oblong(shown) else "equal")
    ax.set(xticks=[], yticks=[], xlabel="target", ylabel="source")
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(mpl.rcParams["grid.color"])
    return ax


def arrows(ax: Axes, x: ArrayLike, y: ArrayLike, plan: coo_array, *, most: int = 400) -> Axes:
    """Where a plan sends its mass: a line from source to target for each of its heaviest entries, a dot at the target.

    Args:
        ax: Where to draw.
        x: Source points, shape (n, 2), as (horizontal, vertical).
        y: Target points, shape (m, 2).
        plan: The plan, sparse, shape (n, m).
        most: Draw at most this many entries.

    Returns:
        The same Axes.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    heaviest = np.argsort(plan.data)[-most:]
    if not len(heaviest):
        return ax
    starts, ends, weights = x[plan.row[heaviest]], y[plan.col[heaviest]], plan.data[heaviest]
    share = weights / weights.max()
    strength = (0.15 + 0.75 * share).tolist()
    lines = LineCollection(
        list(np.stack([starts, ends], axis=1)), colors="C1", linewidths=0.4 + 1.8 * share, alpha=strength
    )
    lines.set_capstyle("round")
    ax.add_collection(lines)
    ax.scatter(ends[:, 0], ends[:, 1], s=2 + 10 * share, color="C1", alpha=strength, linewidths=0, zorder=2)
    return ax


def points(ax: Axes, x: ArrayLike, y: ArrayLike, *, a: ArrayLike | None = None, b: ArrayLike | None = None) -> Axes:
    """Two clouds of points in the plane, at one scale on both axes.

    Args:
        ax: Where to draw.
        x: Source points, shape (n, 2).
        y: Target points, shape (m, 2).
        a: Weights of the source, shape (n,), shown as the area of the marks; None for equal ones.
        b: Weights of the target, shape (m,).

    Returns:
        The same Axes.
    """
    for cloud, weights, colour, label in ((x, a, "C0", "source"), (y, b, "C2", "target")):
        cloud = np.asarray(cloud, dtype=np.float64)
        area = 12.0 if weights is None else 12.0 * len(cloud) * np.asarray(weights) / np.sum(weights)
        ax.scatter(cloud[:, 0], cloud[:, 1], s=area, color=colour, label=label, linewidths=0, zorder=3)
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.2)
    return ax


def moves(ax: Axes, x: ArrayLike, mapped: ArrayLike, y: ArrayLike, *, most: int = 90) -> Axes:
    """A map in the plane: an arrow from each point to its image, before the target's points.

    Args:
        ax: Where to draw.
        x: Points, shape (n, 2).
        mapped: Their images, shape (n, 2).
        y: Points of the target, shape (m, 2).
        most: Draw at most so many arrows, of points spread evenly over the rows.

    Returns:
        The same Axes.
    """
    x, mapped, y = (np.asarray(points, dtype=np.float64) for points in (x, mapped, y))
    ax.scatter(y[:, 0], y[:, 1], s=12, color="C2", alpha=0.6, linewidths=0, label="target")
    shown = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).astype(int))
    starts, ends = x[shown], mapped[shown]
    ax.quiver(*starts.T, *(ends - starts).T, angles="xy", scale_units="xy", scale=1, color="C1", alpha=0.8, width=0.004)
    ax.scatter(starts[:, 0], starts[:, 1], s=9, color="C0", linewidths=0, zorder=3, label="source")
    # The limits follow marks, not arrows: these invisible ones keep the heads inside.
    ax.scatter(ends[:, 0], ends[:, 1], s=0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.2)
    return ax


def bounds(
    ax: Axes, lower: float, upper: float, *, exact: float | None = None, regularised: float | None = None
) -> Axes:
    """The certified interval of the unregularised transport cost, and what is known to lie in or near it.

    Args:
        ax: Where to draw.
        lower: Certified lower bound, in units of the cost.
        upper: Certified upper bound.
        exact: The exact transport cost, if it was computed.
        regularised: <P, C> of the regularised plan, if it is to be shown.

    Returns:
        The same Axes.
    """
    ax.plot([lower, upper], [0, 0], color="C0", linewidth=9, solid_capstyle="butt", alpha=0.45)
    for value in (lower, upper):
        ax.plot([value, value], [-0.28, 0.28], color="C0", linewidth=2)
    ax.annotate(
        "certified bounds",
        ((lower + upper) / 2, -0.28),
        xytext=(0, -4),
        textcoords="offset points",
        ha="center",
        va="top",
        color="C0",
        fontweight="bold",
    )
    marks = (("exact", exact, "C3", "D"), ("<P, C>", regularised, "C1", "o"))
    for row, (label, value, colour, marker) in enumerate(marks):
        if value is not None:
            ax.plot([value], [0], marker=marker, color=colour, markersize=7, zorder=4, linestyle="none")
            ax.annotate(
                label,
                (value, 0.28),
                xytext=(0, 6 + 14 * row),
                textcoords="offset points",
                ha="center",
                color=colour,
                fontweight="bold",
            )
    ax.set(ylim=(-1.1, 1.4), yticks=[], xlabel="transport cost")
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.15)
    ax.locator_params(axis="x", nbins=4)
    return ax


def bounds_by_epsilon(
    ax: Axes, epsilons: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, exact: float | None = None
) -> Axes:
    """How the certified interval of the unregularised cost closes as epsilon falls.

    Args:
        ax: Where to draw.
        epsilons: The values of epsilon, shape (k,), in units of the cost.
        lower: Certified lower bounds, shape (k,).
        upper: Certified upper bounds, shape (k,).
        exact: The exact transport cost, drawn as a line, if it was computed.

    Returns:
        The same Axes.
    """
    ax.fill_between(epsilons, lower, upper, color="C0", alpha=0.25, linewidth=0)
    ax.plot(epsilons, upper, color="C0", marker="v", markersize=5, label="upper bound")
    ax.plot(epsilons, lower, color="C0", marker="^", markersize=5, label="lower bound", linestyle=(0, (5, 1.5)))
    if exact is not None:
        ax.axhline(exact, color="C3", linewidth=1.5, linestyle=(0, (2, 2)), label="exact")
    ax.set(xscale="log", xlabel="epsilon", ylabel="transport cost")
    ax.invert_xaxis()
    ax.minorticks_off()
    ax.grid(axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=1.2, handlelength=1.6)
    return ax


def frames(ax: Axes, plan: coo_array, shape: tuple[int, int], *, steps: int = 7, zoom: int = 6) -> Axes:
    """Displacement interpolation between two pictures: each bit of mass on its straight way from pixel i to pixel j.

    At time t the plan's entry P_ij stands at (1 - t) x_i + t x_j (McCann 1997).

    Args:
        ax: Where to draw; the pictures stand side by side, t = 0 on the left, t = 1 on the right.
        plan: A plan between the pixels of two pictures of one shape, in row-major order, sparse.
        shape: (height, width) of the pictures in pixels.
        steps: How many pictures.
        zoom: Side of a pixel in the drawing, so that mass between two pixels has a place.

    Returns:
        The same Axes.
    """
    height, width = shape
    start = np.stack(np.divmod(plan.row, width), 1)
    end = np.stack(np.divmod(plan.col, width), 1)
    strip = np.zeros((height * zoom, (steps * (width + 1) - 1) * zoom))
    for k, t in enumerate(np.linspace(0, 1, steps)):
        at = np.rint(((1 - t) * start + t * end) * zoom).astype(int)
        frame = np.zeros((height * zoom, width * zoom))
        for down in range(zoom):
            for right in range(zoom):
                np.add.at(frame, (at[:, 0] + down, at[:, 1] + right), plan.data)
        left = k * (width + 1) * zoom
        strip[:, left : left + width * zoom] = frame
    ax.imshow(strip, vmin=0, vmax=np.quantile(strip[strip > 0], 0.995), interpolation="nearest")
    ax.set_axis_off()
    return ax


def _block_sums(plan: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    for axis in (0, 1):
        size = plan.shape[axis]
        if size > pixels:
            starts = np.unique(np.linspace(0, size, pixels, endpoint=False).astype(int))
            plan = np.add.reduceat(plan, starts, axis=axis)
    return plan


def _oblong(shown: NDArray[np.float64]) -> bool:
    return max(shown.shape) > 3 * min(shown.shape)
