"""Files -> a cost for every pair: .npy (n, m); .npz with `cost` and perhaps `a` and `b`; .csv .tsv."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.arrays import (
    TABLES,
    Array,
    first_bad,
    must_be_readable,
    read_arrays,
    two_dimensional,
    weights_of,
)
from pushforward.jobs.inputs.tables import Table, read_table

__all__ = ["CostMatrix", "read_cost"]


@dataclass(frozen=True, kw_only=True)
class CostMatrix:
    """A cost for each pair of points.

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


def read_cost(file: Path, *, sure: bool = True) -> CostMatrix:
    """A cost matrix, infinite where a pair is forbidden, with weights or without.

    Args:
        file: The file.
        sure: Whether it is known to hold costs; a matrix that looks like points is refused where it is not.

    Raises:
        InputError: The file cannot be read, or its content is no cost matrix.
    """
    must_be_readable(file)
    table = read_table(file, matrix=True) if file.suffix.lower() in TABLES else None
    found = {"cost": table.values} if table else read_arrays(file, {"cost", "a", "b"}, main="cost")
    cost = two_dimensional(file, found["cost"], "a cost matrix")
    if np.isnan(cost).any() or np.isneginf(cost).any():
        raise InputError(f"{file}: {first_bad(cost, np.isnan(cost) | np.isneginf(cost))}; a cost is a number or inf")
    n, m = cost.shape
    if not sure and not _says_cost(file):
        _refuse_points(file, cost, table)
    a, b = (weights_of(file, key, found.get(key), size) for key, size in (("a", n), ("b", m)))
    return CostMatrix(title=f"a cost matrix of {n} x {m}", cost=cost, a=a, b=b)


def _says_cost(file: Path) -> bool:
    """Whether an .npz file has an array named `cost`."""
    if file.suffix.lower() != ".npz":
        return False
    with zipfile.ZipFile(file) as held:
        return "cost.npy" in held.namelist()


def _refuse_points(file: Path, cost: Array, table: Table | None) -> None:
    """Raise for a cost matrix that may be points whose second file was forgotten."""
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
