"""Colour transfer: a picture's pixels are points in [0, 1]^3, and a map between such points recolours it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pushforward.jobs.inputs.arrays import Array

__all__ = ["recolour", "save_colours"]


def recolour(transform: Callable[[Array], Array], colours: Array) -> Array:
    """The mapped colours, clipped to [0, 1]: a map of colours may leave their cube, a picture cannot.

    Args:
        transform: Gives the images of colours (k, 3).
        colours: The colours of pixels in steps of 1/255, shape (n, 3).

    Returns:
        Shape (n, 3).
    """
    # A photograph of a million pixels has some hundred thousand colours; one colour has one image.
    red, green, blue = np.rint(255 * colours).astype(np.int64).T
    codes, pixel = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    distinct = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1) / 255.0
    return np.clip(transform(distinct), 0.0, 1.0)[pixel]


def save_colours(file: Path, colours: Array) -> None:
    """Write a picture, in the form that the end of the file's name says.

    Args:
        file: Where to.
        colours: In [0, 1], shape (height, width, 3).

    Raises:
        OSError: It cannot be written.
    """
    from PIL import Image

    Image.fromarray(np.uint8(np.rint(255 * colours))).save(file)
