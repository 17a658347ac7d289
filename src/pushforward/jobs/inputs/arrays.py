"""Files of numbers as arrays, and the kind of content that a file's name implies. An error names the file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pushforward.jobs.errors import InputError

__all__ = [
    "ARRAYS",
    "PICTURES",
    "TABLES",
    "Array",
    "first_bad",
    "is_picture",
    "listed",
    "must_be_readable",
    "quoted",
    "read_arrays",
    "real_numbers",
    "two_dimensional",
    "weights_of",
]

Array = NDArray[np.float64]
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
TABLES = {".csv", ".tsv"}
ARRAYS = {".npy", ".npz"} | TABLES
_TAKEN_NAMES = {"points", "cost", "images"}
_MOST_NAMED = 8


def is_picture(file: Path) -> bool:
    """Whether a file's name is that of a picture.

    Raises:
        InputError: The name's end is none that is known.
    """
    end = file.suffix.lower()
    if end not in PICTURES | ARRAYS:
        raise InputError(
            f'{file}: "{end}" is no known kind of file; pictures {listed(PICTURES)}, numbers {listed(ARRAYS)}'
        )
    return end in PICTURES


def must_be_readable(file: Path) -> None:
    """Raise for a file that is missing, empty or not readable.

    Raises:
        InputError: It is one of these.
    """
    try:
        if not file.exists():
            raise InputError(f"{file}: there is no such file")
        if not file.is_file():
            raise InputError(f"{file}: is not a file")
        if not file.stat().st_size:
            raise InputError(f"{file}: is empty")
        file.open("rb").close()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None


def read_arrays(file: Path, known: set[str], *, main: str) -> dict[str, NDArray[np.generic]]:
    """The file's arrays by name; a file with one array without a known name holds the main one.

    Raises:
        InputError: It cannot be read, lacks the main one, or has others than those known.
    """
    must_be_readable(file)
    try:
        # Pickled objects run code when they are loaded: they are refused, never opened.
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {main: found}
        with found:
            arrays = {key: found[key] for key in found.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, KeyError, MemoryError) as error:
        if "allow_pickle" in str(error) or "pickle" in str(error):
            raise InputError(f"{file}: holds pickled objects, which are never loaded; save plain numbers") from None
        raise InputError(f"{file}: cannot be read as {file.suffix}: {error or 'not enough memory'}") from None
    # One array may have any name, but for those that other kinds of files give theirs.
    if len(arrays) == 1 and not (known | _TAKEN_NAMES) & arrays.keys():
        return {main: next(iter(arrays.values()))}
    if main not in arrays or not arrays.keys() <= known:
        raise InputError(
            f"{file}: holds {listed(arrays)}; `{main}` is needed, and {listed(known - {main})} may be there"
        )
    return arrays


def two_dimensional(file: Path, found: NDArray[np.generic], what: str) -> Array:
    """The numbers of a table, (n, m), as float64.

    Args:
        file: Where they are from.
        found: The array.
        what: What it holds, for the message.

    Raises:
        InputError: It has another number of axes, no entries, or no real numbers.
    """
    values = real_numbers(file, found)
    if values.ndim != 2:
        raise InputError(f"{file}: has shape {values.shape}; {what} need two dimensions")
    if not values.size:
        raise InputError(f"{file}: has shape {values.shape}, so it is empty")
    return values


def real_numbers(file: Path, found: NDArray[np.generic]) -> Array:
    """An array as float64.

    Raises:
        InputError: It holds something else than real numbers.
    """
    if found.dtype.kind not in "biuf":
        raise InputError(f"{file}: holds {found.dtype} where real numbers are expected")
    return np.asarray(found, dtype=np.float64)


def weights_of(file: Path, name: str, weights: NDArray[np.generic] | None, size: int) -> Array | None:
    """Weights, (size,), normalised to mass 1; None where there are none.

    Raises:
        InputError: They have another shape, are negative or not finite, or sum to 0.
    """
    if weights is None:
        return None
    values = real_numbers(file, weights)
    if values.shape != (size,):
        raise InputError(f"{file}: {name} has shape {values.shape}; one weight for each of the {size} points is needed")
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise InputError(f"{file}: {name}[{int(bad.argmax())}] is {values[bad.argmax()]:g}; a weight is at least 0")
    if values.sum() <= 0:
        raise InputError(f"{file}: {name} sum to 0, so there is no mass to move")
    return values / values.sum()


def first_bad(values: Array, bad: NDArray[np.bool_]) -> str:
    """Row, column and value of the first entry of a table that is marked in `bad`, in words."""
    row, column = (int(index) for index in np.argwhere(bad)[0])
    return f"row {row + 1}, column {column + 1} is {values[row, column]}"


def listed(names: Iterable[str]) -> str:
    """The names in alphabetical order, with commas."""
    return ", ".join(sorted(names))


def quoted(names: Iterable[str]) -> str:
    """The names in quotes, with commas; of many names the first few and the number of the others."""
    words = [f'"{name}"' for name in names]
    rest = len(words) - _MOST_NAMED
    return ", ".join(words[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
