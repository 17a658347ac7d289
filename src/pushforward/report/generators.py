"""The blocks of a page about generators: grids of their samples, and their metrics beside the teacher's.

symbol    meaning                    shape           unit
samples   images, C is 1 or 3        (N, C, H, W)    [-1, 1]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.image import imsave
from numpy.typing import ArrayLike, NDArray

from pushforward.report.model import Picture, Table
from pushforward.report.training import figures_table

__all__ = ["generators_table", "judged_by", "samples_picture", "save_grid", "tiled"]

# Pixels of an image's longer side on the page, at least: small images are shown with pixels of several.
_LEAST_SIDE = 32
_GAP = 2
_JUDGED = """\
Features: {features}. {count} images of each, drawn with seed {seed}. Distances are measured from one half of the data.
The Frechet distance of the other half, {floor}, is the floor; that of noise with the data's mean and spread at every
pixel is {noise}. A standard error follows ±. Precision and density: how many of the images lie where data is. Recall
and coverage: how much of the data has images near it.{classes} Evaluations: calls of the network for one image."""
_FIGURES = (
    "frechet",
    "precision",
    "recall",
    "density",
    "coverage",
    "modes",
    "class_distance",
    "evaluations",
    "seconds",
)


def tiled(samples: ArrayLike, *, columns: int = 8) -> NDArray[np.uint8]:
    """One picture of all images, side by side and row by row.

    Args:
        samples: (N, C, H, W).
        columns: Images in a row.

    Returns:
        Colours, (height, width, 3).

    Example:
        >>> tiled(np.zeros((5, 1, 32, 32)), columns=3).shape
        (70, 104, 3)
    """
    images = np.asarray(samples, dtype=np.float64).transpose(0, 2, 3, 1)
    images = np.rint(255 * np.clip(images / 2 + 0.5, 0, 1)).astype(np.uint8)
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    factor = -(-_LEAST_SIDE // max(images.shape[1:3]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    rows, (height, width) = -(-len(images) // columns), images.shape[1:3]
    sheet = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = _GAP + index // columns * (height + _GAP), _GAP + index % columns * (width + _GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet


def save_grid(file: Path, samples: ArrayLike, *, columns: int = 8) -> None:
    """Write `tiled` images as a picture, in the format of the file name's end.

    Raises:
        OSError: The file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    imsave(file, tiled(samples, columns=columns))


def samples_picture(folder: Path, name: str, samples: ArrayLike, *, caption: str, columns: int = 8) -> Picture:
    """A grid of images, the same on light and dark pages.

    Args:
        folder: The run's folder; the file becomes `pictures/<name>.png` in it.
        name: The picture's file name without its end.
        samples: (N, C, H, W).
        caption: The caption, for instance which model drew them.
        columns: Images in a row.

    Returns:
        The block for the page.
    """
    file = f"pictures/{name}.png"
    save_grid(folder / file, samples, columns=columns)
    return Picture(light=file, dark=file, alt=f"{len(np.asarray(samples))} images. {caption}", caption=caption)


def judged_by(figures: Mapping[str, str], *, features: str, count: int, seed: int) -> str:
    """How the metrics of a `generators_table` were computed, for its caption.

    Args:
        figures: The metrics of one of its rows, as `diffusion.judge.written` returns them.
        features: The features that they were computed in, by the name in `diffusion.judge`.
        count: The number of images.
        seed: The seed that the images were drawn with.

    Returns:
        A few sentences.
    """
    labelled = "class_distance" in figures
    classes = " Class distance: total variation between the classes' shares and the data's." if labelled else ""
    floor, noise = figures["frechet_floor"], figures["frechet_noise"]
    return _JUDGED.format(features=features, count=count, seed=seed, floor=floor, noise=noise, classes=classes)


def generators_table(rows: Mapping[str, Mapping[str, float | str]], *, caption: str) -> Table:
    """A table of generators and their metrics, those of `diffusion.judge` first, in its order.

    Args:
        rows: For each generator's name its metrics by name; evaluations and seconds may be among them.
        caption: What the table shows.

    Returns:
        The block for the page.
    """
    shown = {row: {name: figures[name] for name in _FIGURES if name in figures} for row, figures in rows.items()}
    table = figures_table(shown, caption=" ".join(caption.split()))
    return Table(columns=("generator", *table.columns[1:]), rows=table.rows, caption=table.caption)
