"""Files -> a transport problem. Whatever is wrong with a file is said in one line that starts with its name.

pictures   .png .jpg .jpeg .bmp .gif .tif .tiff .webp .pgm .ppm    grey value = mass; colour is turned to grey
points     .npy (n, d); .npz with `points` and perhaps `weights`; .csv, with a column named `weight` perhaps
cost       .npy (n, m); .npz with `cost` and perhaps `a` and `b`; .csv
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pushforward.cli.errors import InputError

__all__ = [
    "ARRAYS",
    "PICTURES",
    "Array",
    "CostMatrix",
    "Pictures",
    "Points",
    "Problem",
    "is_number",
    "is_picture",
    "must_be_readable",
    "read_arrays",
    "read_cloud",
    "read_colours",
    "read_cost",
    "read_pictures",
    "read_points",
]

Array = NDArray[np.float64]

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
ARRAYS = {".npy", ".npz", ".csv"}


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Two pictures of one size.

    Args:
        title: The problem in a few words.
        shape: (height, width) in pixels.
        a: Source weights, shape (height * width,), of mass 1.
        b: Target weights, shape (height * width,), of mass 1.
    """

    title: str
    shape: tuple[int, int]
    a: Array
    b: Array


@dataclass(frozen=True, kw_only=True)
class Points:
    """Two clouds of points.

    Args:
        title: The problem in a few words.
        x: Source points, shape (n, d).
        y: Target points, shape (m, d).
        a: Source weights, shape (n,), of mass 1; None for uniform.
        b: Target weights, shape (m,), of mass 1; None for uniform.
    """

    title: str
    x: Array
    y: Array
    a: Array | None
    b: Array | None


@dataclass(frozen=True, kw_only=True)
class CostMatrix:
    """A cost for every pair.

    Args:
        title: The problem in a few words.
        cost: Shape (n, m), infinite where a pair is forbidden.
        a: Source weights, shape (n,), of mass 1; None for uniform.
        b: Target weights, shape (m,), of mass 1; None for uniform.
    """

    title: str
    cost: Array
    a: Array | None
    b: Array | None


Problem = Pictures | Points | CostMatrix


def is_picture(file: Path) -> bool:
    """Whether a file's name says that it is a picture.

    Raises:
        InputError: The name's end is none that is known.
    """
    end = file.suffix.lower()
    if end not in PICTURES | ARRAYS:
        raise InputError(
            f'{file}: "{end}" is no known kind of file; pictures {_list(PICTURES)}, numbers {_list(ARRAYS)}'
        )
    return end in PICTURES


def read_pictures(first: Path, second: Path, *, background: float) -> Pictures:
    """Two pictures of one size as distributions over the pixel grid.

    Args:
        first: The source.
        second: The target.
        background: Added to every pixel, as a share of the picture's largest grey value; 0 leaves black without mass.

    Raises:
        InputError: A file cannot be read or holds no mass, or the sizes differ.
    """
    grey = [_grey(file) for file in (first, second)]
    sizes = [f"{picture.shape[1]} x {picture.shape[0]}" for picture in grey]
    if sizes[0] != sizes[1]:
        raise InputError(f"{second}: is {sizes[1]} pixels but {first} is {sizes[0]}; both must have one size")
    weights: list[Array] = []
    for file, picture in zip((first, second), grey, strict=True):
        mass = picture + background * picture.max()
        if mass.sum() <= 0:
            raise InputError(f"{file}: is black everywhere, so there is no mass to move")
        weights.append((mass / mass.sum()).ravel())
    height, width = grey[0].shape
    return Pictures(title=f"two pictures of {sizes[0]} pixels", shape=(height, width), a=weights[0], b=weights[1])


def read_points(first: Path, second: Path) -> Points:
    """Two clouds of points, weighted or not; weights are normalised to mass 1.

    Raises:
        InputError: A file cannot be read, is not a table of finite numbers, or the dimensions differ.
    """
    (x, a), (y, b) = read_cloud(first), read_cloud(second)
    if x.shape[1] != y.shape[1]:
        raise InputError(f"{second}: its points have {y.shape[1]} coordinates but those of {first} have {x.shape[1]}")
    return Points(title=f"{len(x)} and {len(y)} points in {x.shape[1]} dimensions", x=x, y=y, a=a, b=b)


def read_cost(file: Path) -> CostMatrix:
    """A cost matrix, infinite where a pair is forbidden, with weights or without.

    Raises:
        InputError: The file cannot be read, or its content is no cost matrix.
    """
    found = read_arrays(file, {"cost", "a", "b"}, main="cost")
    cost = _two_dimensional(file, found["cost"], "a cost matrix")
    if np.isnan(cost).any() or np.isneginf(cost).any():
        raise InputError(f"{file}: {_first_bad(cost, np.isnan(cost) | np.isneginf(cost))}; a cost is a number or inf")
    n, m = cost.shape
    a, b = (_weights(file, key, found.get(key), size) for key, size in (("a", n), ("b", m)))
    return CostMatrix(title=f"a cost matrix of {n} x {m}", cost=cost, a=a, b=b)


def read_cloud(file: Path) -> tuple[Array, Array | None]:
    """Points (n, d), and their weights (n,) of mass 1 where the file has them.

    Raises:
        InputError: The file cannot be read, or is not a table of finite numbers.
    """
    found = read_arrays(file, {"points", "weights"}, main="points")
    points = _two_dimensional(file, found["points"], "points, one a row,")
    bad = ~np.isfinite(points)
    if bad.any():
        rows = int(bad.any(axis=1).sum())
        raise InputError(
            f"{file}: {_first_bad(points, bad)}, the first of {rows} such row{'s' * (rows > 1)}; "
            "a coordinate is a finite number"
        )
    return points, _weights(file, "weights", found.get("weights"), len(points))


def read_colours(file: Path) -> Array:
    """A picture's colours in [0, 1], shape (height, width, 3): grey ones too; transparency is dropped.

    Raises:
        InputError: The file cannot be read, or holds more than 8 bits a channel.
    """
    return _pixels(file, "RGB") / 255.0


def _grey(file: Path) -> Array:
    values = _pixels(file, "L")
    if not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"{file}: holds grey values that are negative or not finite")
    return values


def _pixels(file: Path, mode: Literal["L", "RGB"]) -> Array:
    from PIL import Image, ImageOps, UnidentifiedImageError

    must_be_readable(file)
    try:
        with Image.open(file) as picture:
            # 16-bit and float pictures are grey already, and conversion would cut them to 8 bits.
            deep = picture.mode.startswith(("I", "F"))
            if deep and mode == "RGB":
                raise InputError(f"{file}: is grey with more than 8 bits; a picture in colour is needed")
            return np.asarray(ImageOps.exif_transpose(picture if deep else picture.convert(mode)), dtype=np.float64)
    except UnidentifiedImageError:
        raise InputError(f"{file}: is not a picture, whatever its name says") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: cannot be read as a picture: {error}") from None


def _weights(file: Path, name: str, weights: NDArray[np.generic] | None, size: int) -> Array | None:
    if weights is None:
        return None
    values = _numbers(file, weights)
    if values.shape != (size,):
        raise InputError(f"{file}: {name} has shape {values.shape}; one weight for each of the {size} points is needed")
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        raise InputError(f"{file}: {name}[{int(bad.argmax())}] is {values[bad.argmax()]:g}; a weight is at least 0")
    if values.sum() <= 0:
        raise InputError(f"{file}: {name} sum to 0, so there is no mass to move")
    return values / values.sum()


def read_arrays(file: Path, known: set[str], *, main: str) -> dict[str, NDArray[np.generic]]:
    """The file's arrays by name; a file with one array without a known name holds the main one.

    Raises:
        InputError: It cannot be read, lacks the main one, or has others than those known.
    """
    must_be_readable(file)
    if file.suffix.lower() == ".csv":
        return _csv(file, main)
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
    if len(arrays) == 1 and not known & arrays.keys():
        return {main: next(iter(arrays.values()))}
    if main not in arrays or not arrays.keys() <= known:
        raise InputError(f"{file}: holds {_list(arrays)}; `{main}` is needed, and {_list(known - {main})} may be there")
    return arrays


def _csv(file: Path, main: str) -> dict[str, NDArray[np.generic]]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not text, whatever its name says") from None
    header = (
        [] if not lines or is_number(lines[0].split(",")[0]) else [cell.strip().lower() for cell in lines[0].split(",")]
    )
    rows: list[list[float]] = []
    for number, line in enumerate(lines[bool(header) :], start=1 + bool(header)):
        cells = line.split(",")
        wrong = next((cell.strip() for cell in cells if not is_number(cell)), None)
        if wrong is not None:
            raise InputError(f'{file}: line {number}: "{wrong}" is not a number')
        if rows and len(cells) != len(rows[0]):
            raise InputError(f"{file}: line {number} has {len(cells)} columns but the first has {len(rows[0])}")
        rows.append([float(cell) for cell in cells])
    if not rows:
        raise InputError(f"{file}: holds no numbers")
    table = np.array(rows)
    if main == "points" and "weight" in header and len(header) == table.shape[1]:
        at = header.index("weight")
        return {"points": np.delete(table, at, axis=1), "weights": table[:, at]}
    return {main: table}


def _two_dimensional(file: Path, found: NDArray[np.generic], what: str) -> Array:
    values = _numbers(file, found)
    if values.ndim != 2:
        raise InputError(f"{file}: has shape {values.shape}; {what} need two dimensions")
    if not values.size:
        raise InputError(f"{file}: has shape {values.shape}, so it is empty")
    return values


def _numbers(file: Path, found: NDArray[np.generic]) -> Array:
    if found.dtype.kind not in "biuf":
        raise InputError(f"{file}: holds {found.dtype} where real numbers are expected")
    return np.asarray(found, dtype=np.float64)


def must_be_readable(file: Path) -> None:
    """Refuse a file that is missing, empty or not for us to read.

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


def _first_bad(values: Array, bad: NDArray[np.bool_]) -> str:
    row, column = (int(index) for index in np.argwhere(bad)[0])
    return f"row {row + 1}, column {column + 1} is {values[row, column]}"


def is_number(cell: str) -> bool:
    """Whether a cell of a .csv holds a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
