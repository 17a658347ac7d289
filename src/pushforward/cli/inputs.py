"""Files -> a transport problem. Whatever is wrong with a file is said in one line that starts with its name.

pictures   .png .jpg .jpeg .bmp .gif .tif .tiff .webp .pgm .ppm    mass = grey value, or darkness
points     .npy (n, d); .npz with `points` and perhaps `weights`; .csv .tsv, with a column named `weight` perhaps
cost       .npy (n, m); .npz with `cost` and perhaps `a` and `b`; .csv .tsv

What a table in a text file may look like is said in `tables.py`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pushforward.cli.errors import InputError
from pushforward.cli.tables import Table, read_table

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "ARRAYS",
    "PICTURES",
    "Array",
    "CostMatrix",
    "Ink",
    "Pictures",
    "TABLES",
    "WEIGHT_NAMES",
    "Points",
    "Problem",
    "Rows",
    "in_the_order_of",
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
Ink = Literal["light", "dark"]

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"}
TABLES = {".csv", ".tsv"}
ARRAYS = {".npy", ".npz"} | TABLES
WEIGHT_NAMES = {"weight", "weights"}
_TAKEN_NAMES = {"points", "cost", "images"}
_MOST_NAMED = 8


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


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Points of one file.

    Args:
        points: One a row, shape (n, d).
        weights: Shape (n,), of mass 1; None where the file has none.
        names: What the d coordinates are called; None where the file does not say.
        labels: What the n points are called; None where the file does not say.
        label_name: The heading above the labels.
        places: The columns of the file that the coordinates are; None of an array.
        left_out: Headings of columns that were not asked for.
    """

    points: Array
    weights: Array | None = None
    names: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    label_name: str = ""
    places: tuple[int, ...] | None = None
    left_out: tuple[str, ...] = ()


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


def read_pictures(first: Path, second: Path, *, background: float, ink: Ink | None = None) -> Pictures:
    """Two pictures of one size as distributions over the pixel grid.

    Args:
        first: The source.
        second: The target.
        background: Added to every pixel, as a share of the largest mass of a pixel; 0 leaves those of none without.
        ink: What is mass. light: the grey value, with transparent pixels on black. dark: how much darker a pixel is
            than the picture's lightest, with transparent ones on white. None: light, and a picture of dark ink on
            light paper is refused.

    Raises:
        InputError: A file cannot be read or holds no mass, the sizes differ, or it is not clear what is mass.
    """
    files, dark = (first, second), ink == "dark"
    grey = [_grey(file, ground=255 if dark else 0) for file in files]
    sizes = [f"{picture.shape[1]} x {picture.shape[0]}" for picture in grey]
    if sizes[0] != sizes[1]:
        raise InputError(f"{second}: is {sizes[1]} pixels but {first} is {sizes[0]}; both must have one size")
    _refuse_unclear_ink(files, grey, ink)
    weights: list[Array] = []
    for file, picture in zip(files, grey, strict=True):
        ink_only = picture.max() - picture if dark else picture
        mass = ink_only + background * ink_only.max()
        if mass.sum() <= 0:
            raise InputError(
                f"{file}: is {'of one grey' if dark else 'black (or transparent)'} everywhere, so there is no mass to "
                f"move{'' if dark else '; if it is dark ink on a transparent ground, say --ink dark'}"
            )
        weights.append((mass / mass.sum()).ravel())
    height, width = grey[0].shape
    title = f"two pictures of {sizes[0]} pixels, {'dark' if dark else 'light'} is mass"
    return Pictures(title=title, shape=(height, width), a=weights[0], b=weights[1])


def _refuse_unclear_ink(files: tuple[Path, Path], grey: list[Array], ink: Ink | None) -> None:
    """Refuse pictures on light paper, unless it was said what is mass, and pairs of which the one is on dark ground."""
    on_light = [_has_light_ground(picture) for picture in grey]
    on_dark = [_has_light_ground(picture.max() - picture) for picture in grey]
    for here, there in ((0, 1), (1, 0)):
        if on_light[here] and on_dark[there]:
            raise InputError(
                f"{files[here]}: is dark on a light ground but {files[there]} light on a dark one; invert one of them"
            )
        if on_light[here] and ink is None:
            raise InputError(
                f"{files[here]}: is dark on a light ground, and the light is what would be moved; --ink dark moves the "
                "dark, --ink light the light"
            )


def _has_light_ground(grey: Array) -> bool:
    """Whether most pixels, and nearly all at the border, are about as light as the lightest, and others much darker."""
    ground = grey >= 0.9 * grey.max()
    border = np.concatenate([ground[0], ground[-1], ground[1:-1, 0], ground[1:-1, -1]])
    return bool(ground.mean() >= 0.5 and border.mean() >= 0.8 and grey.min() < 0.5 * grey.max())


def read_points(first: Path, second: Path) -> Points:
    """Two clouds of points, weighted or not; weights are normalised to mass 1. Named coordinates pair by their names.

    Raises:
        InputError: A file cannot be read, is not a table of finite numbers, or the coordinates are not the same.
    """
    source, target = read_cloud(first), read_cloud(second)
    x, y = source.points, in_the_order_of(source, target, first=first, second=second).points
    if x.shape[1] != y.shape[1]:
        raise InputError(f"{second}: its points have {y.shape[1]} coordinates but those of {first} have {x.shape[1]}")
    counts = [f"{len(rows.points)}{' weighted' * (rows.weights is not None)}" for rows in (source, target)]
    title = f"{counts[0]} and {counts[1]} points in {x.shape[1]} dimension{'s' * (x.shape[1] > 1)}"
    return Points(title=title, x=x, y=y, a=source.weights, b=target.weights)


def in_the_order_of(source: Rows, target: Rows, *, first: Path, second: Path) -> Rows:
    """The target with its coordinates in the order of the source's, by their names where both files give some.

    Raises:
        InputError: Both files name their coordinates, and not by the same names.
    """
    if source.names is None or target.names is None or source.names == target.names:
        return target
    lacking = [name for name in source.names if name not in target.names]
    beyond = [name for name in target.names if name not in source.names]
    if lacking or beyond:
        parts = [f"{what} {_quoted(names)}" for what, names in (("lacks", lacking), ("has beyond it", beyond)) if names]
        raise InputError(
            f"{second}: its columns are not those of {first}: it {' and '.join(parts)}; columns are paired by their "
            "headings, so give both files the same ones, or take the heading out of one to pair them by position"
        )
    order = [target.names.index(name) for name in source.names]
    return replace(target, points=target.points[:, order], names=source.names)


def read_cost(file: Path, *, sure: bool = True) -> CostMatrix:
    """A cost matrix, infinite where a pair is forbidden, with weights or without.

    Args:
        file: The file.
        sure: Whether it is known to hold costs; a matrix that looks like points is refused where it is not.

    Raises:
        InputError: The file cannot be read, or its content is no cost matrix.
    """
    table = read_table(_readable(file), matrix=True) if file.suffix.lower() in TABLES else None
    found = {"cost": table.values} if table else read_arrays(file, {"cost", "a", "b"}, main="cost")
    cost = _two_dimensional(file, found["cost"], "a cost matrix")
    if np.isnan(cost).any() or np.isneginf(cost).any():
        raise InputError(f"{file}: {_first_bad(cost, np.isnan(cost) | np.isneginf(cost))}; a cost is a number or inf")
    n, m = cost.shape
    if not sure and not _says_cost(file):
        _refuse_points(file, cost, table)
    a, b = (_weights(file, key, found.get(key), size) for key, size in (("a", n), ("b", m)))
    return CostMatrix(title=f"a cost matrix of {n} x {m}", cost=cost, a=a, b=b)


def _says_cost(file: Path) -> bool:
    """Whether an .npz calls an array `cost`."""
    if file.suffix.lower() != ".npz":
        return False
    with zipfile.ZipFile(file) as held:
        return "cost.npy" in held.namelist()


def _refuse_points(file: Path, cost: Array, table: Table | None) -> None:
    """Refuse as a cost matrix what may as well be points, of which the second file was forgotten."""
    n, m = cost.shape
    signs = {
        "headings above its columns": table is not None and table.names is not None and table.names != table.labels,
        "negative numbers": bool((cost < 0).any()),
        f"the shape {n} x {m}, with far more rows than columns": n >= 2 * m or m <= 3 < n,
    }
    sign = next((words for words, there in signs.items() if there), None)
    if sign is not None:
        raise InputError(
            f"{file}: is the only file and has {sign}, so that it may hold points or costs; name a second file of "
            "points, or say --cost matrix if it holds the cost of every pair"
        )


def read_cloud(file: Path, *, columns: Iterable[str] | None = None) -> Rows:
    """Points (n, d), with their weights and names where the file has them.

    Args:
        file: The file.
        columns: Of a table with a heading, the columns to be taken, in this order; None for all.

    Raises:
        InputError: The file cannot be read, or is not a table of finite numbers.
    """
    if file.suffix.lower() in TABLES:
        table = read_table(_readable(file), columns=columns)
        _refuse_infinite(file, table.values, table)
        return _weighed(file, table)
    found = read_arrays(file, {"points", "weights"}, main="points")
    points = _two_dimensional(file, found["points"], "points, one a row,")
    _refuse_infinite(file, points, None)
    if found["points"].dtype.kind in "iu":
        _refuse_inexact(file, points, found["points"])
    return Rows(points=points, weights=_weights(file, "weights", found.get("weights"), len(points)))


def _refuse_inexact(file: Path, points: Array, whole: NDArray[np.generic]) -> None:
    for row, column in np.argwhere(np.abs(points) >= 2.0**53):
        if int(points[row, column]) != int(whole[row, column]):
            raise InputError(
                f"{file}: row {row + 1}, column {column + 1} is {whole[row, column]}, which has more digits than "
                "double precision holds; take an offset away"
            )


def _weighed(file: Path, table: Table) -> Rows:
    """A table's coordinates, and its weights, which are no coordinate."""
    names, points, weights, places = table.names, table.values, None, table.places
    if names is not None:
        bare = next((j for j, name in enumerate(names) if not name), None)
        if bare is not None:
            raise InputError(f"{file}: a column behind the first has no heading; give it one, or take it out")
        twice = next((name for j, name in enumerate(names) if name in names[:j]), None)
        if twice is not None:
            raise InputError(f'{file}: has several columns "{twice}"; make the headings differ')
        at = [j for j, name in enumerate(names) if name.lower() in WEIGHT_NAMES]
        if len(at) > 1:
            raise InputError(f"{file}: has several columns of weights: {_quoted(names[j] for j in at)}; keep one")
        if at:
            weights = _weights(file, names[at[0]], points[:, at[0]], len(points))
            points = np.delete(points, at[0], axis=1)
            names = names[: at[0]] + names[at[0] + 1 :]
            places = places[: at[0]] + places[at[0] + 1 :]
            if not points.size:
                raise InputError(f"{file}: holds weights and no points")
    return Rows(
        points=points,
        weights=weights,
        names=names,
        labels=table.labels,
        label_name=table.label_name,
        places=places,
        left_out=table.left_out,
    )


def _refuse_infinite(file: Path, points: Array, table: Table | None) -> None:
    bad = ~np.isfinite(points)
    if bad.any():
        rows = int(bad.any(axis=1).sum())
        place = "" if table is None else table.place(*(int(index) for index in np.argwhere(bad)[0]))
        raise InputError(
            f"{file}: {_first_bad(points, bad)}{place}, the first of {rows} such row{'s' * (rows > 1)}; "
            "a coordinate is a finite number"
        )


# White, of 16 bits.
_WHITE = 65535


def read_colours(file: Path) -> Array:
    """A picture's colours in [0, 1], shape (height, width, 3): grey ones too; transparent pixels lie on white.

    Raises:
        InputError: The file cannot be read, or its grey values are neither of 8 nor of 16 bits.
    """
    return _pixels(file, "RGB", ground=255) / 255.0


def _grey(file: Path, *, ground: int) -> Array:
    values = _pixels(file, "L", ground=ground)
    if not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"{file}: holds grey values that are negative or not finite")
    return values


def _pixels(file: Path, mode: Literal["L", "RGB"], *, ground: int) -> Array:
    from PIL import Image, ImageOps, UnidentifiedImageError

    must_be_readable(file)
    try:
        with Image.open(file) as picture:
            # Telephones put two pictures into one file (MPO), of which the first is the photograph.
            if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
                raise InputError(
                    f"{file}: holds {getattr(picture, 'n_frames', 1)} pictures; save the one that is meant"
                )
            # 16-bit and float pictures are grey already, and conversion would cut them to 8 bits.
            if picture.mode.startswith(("I", "F")):
                values = _deep(ImageOps.exif_transpose(picture), picture.info.get("transparency"), ground)
                return values if mode == "L" else _as_colours(file, values)
            if picture.has_transparency_data:
                # What a pixel hides behind its transparency is no colour of the picture.
                layer = Image.new("RGBA", picture.size, (ground, ground, ground, 255))
                shown = Image.alpha_composite(layer, picture.convert("RGBA")).convert(mode)
                shown.info["exif"] = picture.info.get("exif", b"")
            else:
                shown = picture.convert(mode)
            return np.asarray(ImageOps.exif_transpose(shown), dtype=np.float64)
    except UnidentifiedImageError:
        raise InputError(f"{file}: is not a picture, whatever its name says") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: cannot be read as a picture: {error}") from None


def _as_colours(file: Path, values: Array) -> Array:
    """Grey values of 16 bits as colours of 8, with their fractions."""
    if not (values >= 0).all() or (values > _WHITE).any() or not (values == values.round()).all():
        raise InputError(
            f"{file}: holds grey values between {values.min():g} and {values.max():g}; of pictures with more than 8 "
            f"bits those of 16, integers from 0 to {_WHITE}, can be read as colours"
        )
    return np.repeat(values[..., None] * (255 / _WHITE), 3, axis=-1)


def _deep(picture: Image, clear: object, ground: int) -> Array:
    """Grey values of more than 8 bits, of which one may be declared transparent."""
    values = np.asarray(picture, dtype=np.float64)
    return np.where(values == clear, values.max() if ground else 0.0, values) if isinstance(clear, int) else values


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
        raise InputError(f"{file}: holds {_list(arrays)}; `{main}` is needed, and {_list(known - {main})} may be there")
    return arrays


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


def _readable(file: Path) -> Path:
    must_be_readable(file)
    return file


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _quoted(names: Iterable[str]) -> str:
    words = [f'"{name}"' for name in names]
    rest = len(words) - _MOST_NAMED
    return ", ".join(words[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
