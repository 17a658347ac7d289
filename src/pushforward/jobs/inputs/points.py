"""Files -> points, one a row: .npy (n, d); .npz with `points` and perhaps `weights`; .csv .tsv, perhaps with `weight`.

`tables.py` says what a table in a text file may look like.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.arrays import (
    TABLES,
    Array,
    first_bad,
    must_be_readable,
    quoted,
    read_arrays,
    two_dimensional,
    weights_of,
)
from pushforward.jobs.inputs.tables import Table, read_table

__all__ = ["WEIGHT_NAMES", "Points", "Rows", "in_the_order_of", "read_cloud", "read_points"]

WEIGHT_NAMES = {"weight", "weights"}


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
        parts = [f"{what} {quoted(names)}" for what, names in (("lacks", lacking), ("has beyond it", beyond)) if names]
        raise InputError(
            f"{second}: its columns are not those of {first}: it {' and '.join(parts)}; columns are paired by their "
            "headings, so give both files the same ones, or take the heading out of one to pair them by position"
        )
    order = [target.names.index(name) for name in source.names]
    return replace(target, points=target.points[:, order], names=source.names)


def read_cloud(file: Path, *, columns: Iterable[str] | None = None) -> Rows:
    """Read points (n, d), with their weights and names where the file has them.

    Args:
        file: The file.
        columns: For a table with a heading, the columns to be taken, in this order; None for all.

    Raises:
        InputError: The file cannot be read, or is not a table of finite numbers.
    """
    if file.suffix.lower() in TABLES:
        must_be_readable(file)
        table = read_table(file, columns=columns)
        _refuse_infinite(file, table.values, table)
        return _weighed(file, table)
    found = read_arrays(file, {"points", "weights"}, main="points")
    points = two_dimensional(file, found["points"], "points, one a row,")
    _refuse_infinite(file, points, None)
    if found["points"].dtype.kind in "iu":
        _refuse_inexact(file, points, found["points"])
    return Rows(points=points, weights=weights_of(file, "weights", found.get("weights"), len(points)))


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
            raise InputError(f"{file}: has several columns of weights: {quoted(names[j] for j in at)}; keep one")
        if at:
            weights = weights_of(file, names[at[0]], points[:, at[0]], len(points))
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
            f"{file}: {first_bad(points, bad)}{place}, the first of {rows} such row{'s' * (rows > 1)}; "
            "a coordinate is a finite number"
        )
