"""Real sample data that ships inside installed packages, so that examples and the tour need no download.

symbol   meaning                                          shape        unit
a, b     weights of two digits' pixels, each of mass 1    (8, 8)       mass
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pushforward._checks import check_choice
from pushforward._typed import typed
from pushforward.errors import InvalidArgument

__all__ = ["digit", "digit_pair", "digits", "photograph", "prose"]

Array = NDArray[np.float64]


@typed
def digit(label: int, *, index: int = 0) -> Array:
    """One handwritten digit as a distribution of ink over its pixels.

    Args:
        label: The digit that is shown, 0 to 9.
        index: Which of the samples of that digit, in the data set's order (about 180 of each).

    Returns:
        Pixel weights, shape (8, 8), at least 0 and of total mass 1.

    Raises:
        InvalidArgument: There is no such digit or no such sample of it.

    Source: Alpaydin & Kaynak, optical recognition of handwritten digits (UCI), as scikit-learn ships it.

    Example:
        >>> digit(3).shape
        (8, 8)
    """
    return _ink("label", label, index)


@typed
def digit_pair(source: int = 3, target: int = 8, *, index: int = 0) -> tuple[Array, Array]:
    """Two handwritten digits as distributions of ink, see `digit`.

    Args:
        source: The first digit, 0 to 9.
        target: The second digit, 0 to 9.
        index: Which sample of each.

    Returns:
        Two arrays of pixel weights, shape (8, 8) each, of mass 1 each.

    Raises:
        InvalidArgument: There is no such digit or no such sample of it.
    """
    return _ink("source", source, index), _ink("target", target, index)


def _ink(name: str, label: int, index: int) -> Array:
    """The ink of one digit, as `digit` returns it; `name` is the argument that gives its label."""
    from sklearn.datasets import load_digits

    if not 0 <= label <= 9:
        raise InvalidArgument(f"{name} is {label}; it must be a digit, 0 to 9")
    images, labels = load_digits(return_X_y=True)
    found = np.flatnonzero(labels == label)
    if not -len(found) <= index < len(found):
        raise InvalidArgument(f"index is {index}, but there are {len(found)} samples of digit {label}")
    ink = np.asarray(images[found[index]], dtype=np.float64).reshape(8, 8)
    return ink / ink.sum()


def digits() -> tuple[Array, NDArray[np.int64]]:
    """All 1797 handwritten digits as pictures.

    Returns:
        Pixels within [0, 1], shape (1797, 8, 8, 1), and the digit that each shows, (1797,).

    Source: As `digit`.

    Example:
        >>> images, labels = digits()
        >>> images.shape, labels[:4].tolist()
        ((1797, 8, 8, 1), [0, 1, 2, 3])
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.asarray(images).reshape(-1, 8, 8, 1) / 16.0, np.asarray(labels, dtype=np.int64)


@typed
def photograph(name: Literal["china", "flower"], *, height: int | None = None) -> Array:
    """One of scikit-learn's two colour photographs, 427 x 640 pixels, or a smaller copy of it.

    Args:
        name: "china" (a temple under a grey sky) or "flower" (a dahlia before green).
        height: Height of the copy in pixels, 1 to 427; None for the full size. The width follows.

    Returns:
        Intensities in [0, 1], shape (height, width, 3).

    Raises:
        InvalidArgument: There is no such photograph, or `height` is out of range.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_image

    check_choice("name", name, ("china", "flower"))
    picture = Image.fromarray(load_sample_image(f"{name}.jpg"))
    if height is not None:
        if not 1 <= height <= picture.height:
            raise InvalidArgument(f"height is {height}; it must be 1 to {picture.height} pixels")
        picture = picture.resize((max(1, round(picture.width * height / picture.height)), height), Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float64) / 255.0


def prose() -> str:
    """The Python language reference as plain text: some 79 topics, half a million characters.

    It is of the Python that runs, so that another version's text differs a little.

    Source: the Python documentation (PSF licence), as every Python carries it for `help()`.

    Example:
        >>> prose().count("statement") > 50
        True
    """
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
