"""The blocks of a page about transport maps: arrows, recoloured pictures, and metrics beside other maps'."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.image import imsave

from pushforward import plots
from pushforward.report.model import Picture, Table
from pushforward.report.pictures import draw
from pushforward.report.transport import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["maps_table", "moves_picture", "photograph_picture"]

# Pixels of a picture's longer side on the page: as many as a wide screen shows of it.
_LONGEST = 720
# What the figures are called, and with how many digits they are shown.
_COLUMNS = {
    "l2_uvp": ("L2-UVP (%)", ".2f"),
    "cosine": ("cosine", ".3f"),
    "divergence": ("divergence", ".3g"),
    "w2": ("W2²", ".4g"),
    "w2_floor": ("its floor", ".4g"),
    "exact_gap": ("gap", ".2g"),
    "variance_ratio": ("variance ratio", ".3f"),
    "mean_shift": ("mean shift", ".3f"),
    "stranded": ("stranded", ".3f"),
    "seconds": ("seconds", ".1f"),
}


def maps_table(rows: Mapping[str, Mapping[str, float]], *, caption: str) -> Table:
    """A table of maps and their metrics; the cell of a metric that a map lacks is empty.

    Args:
        rows: For each map's name its metrics: those of `metrics.judge_map`, `divergence` and `seconds`.
        caption: What the table shows.

    Returns:
        The block for the page.
    """
    shown = [name for name in _COLUMNS if any(name in figures for figures in rows.values())]
    return Table(
        columns=("map", *(_COLUMNS[name][0] for name in shown)),
        rows=tuple((row, *(_cell(figures, name) for name in shown)) for row, figures in rows.items()),
        caption=" ".join(caption.split()),
    )


def _cell(figures: Mapping[str, float], name: str) -> str:
    """A metric in few digits; empty where there is none, such as the cosine of a map that moves nothing."""
    value = figures.get(name, math.nan)
    return format(value, _COLUMNS[name][1]) if math.isfinite(value) else ""


def moves_picture(folder: Path, name: str, moves: tuple[Array, Array, Array], *, caption: str) -> Picture:
    """A map as arrows from points to their images, in the plane.

    In more dimensions than two, the plane is that in which source and target together vary most.

    Args:
        folder: The run's folder.
        name: The picture's file name without its end.
        moves: Points (n, d), their images (n, d), and points of the target (m, d); d at least 2.
        caption: What the picture means.

    Returns:
        The block for the page.
    """
    x, mapped, y = moves if moves[0].shape[1] == 2 else _projected(*moves)

    def paint(figure: Figure) -> None:
        plots.moves(figure.subplots(), x, mapped, y)

    return draw(
        folder,
        name,
        paint,
        size=(4.6, 4.4),
        alt=f"Arrows from source points to where the map sends them, before {len(y)} points of the target.",
        caption=caption,
    )


def photograph_picture(folder: Path, name: str, colours: Array, *, alt: str, caption: str) -> Picture:
    """A photograph in its own colours, the same on light and dark pages.

    Args:
        folder: The run's folder; the file becomes `pictures/<name>.jpg` in it.
        name: The picture's file name without its end.
        colours: In [0, 1], shape (height, width, 3).
        alt: A description for readers who do not see the picture.
        caption: What it means.

    Returns:
        The block for the page.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    file = f"pictures/{name}.jpg"
    step = min(-(-max(colours.shape[:2]) // _LONGEST), *colours.shape[:2])
    height, width = (side // step * step for side in colours.shape[:2])
    # Means over blocks, so that a smaller copy keeps the colours and does not flicker.
    blocks = colours[:height, :width].reshape(height // step, step, width // step, step, 3).mean(axis=(1, 3))
    imsave(folder / file, np.uint8(np.rint(255 * np.clip(blocks, 0, 1))), pil_kwargs={"quality": 88})
    return Picture(light=file, dark=file, alt=alt, caption=caption)


def _projected(x: Array, mapped: Array, y: Array) -> tuple[Array, Array, Array]:
    pooled = np.concatenate([x, y])
    centre = pooled.mean(axis=0)
    _, _, directions = np.linalg.svd(pooled - centre, full_matrices=False)
    x, mapped, y = ((points - centre) @ directions[:2].T for points in (x, mapped, y))
    return x, mapped, y
