"""Tables in text files as columns of numbers. A table that can be read in two ways is refused.

What is a heading and what are row labels is decided in `layout.py`. Numbers that count the rows in the first column are
refused, and whole numbers under a name such as `id`: they may be labels or a coordinate. An empty heading makes them
labels, a decimal point (1.0) makes them numbers.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.arrays import quoted
from pushforward.jobs.inputs.layout import COUNTED, Layout, cut_to, layout_of
from pushforward.jobs.inputs.text import Record, Text, is_missing, is_number, is_whole, is_word, read_text

__all__ = ["Table", "read_table"]

_LABEL_NAME = re.compile(
    r"(?i:ids?|idx|index|ix|key|rows?|nr|no\.?|num|number|names?|obs|observation|sample|cell|barcode|level_\d+|rn|#|n|i|"
    r"row[._ ]?(?:id|names?|num|number)|.*[\s_.-](?:id|idx|index|nr|no|number))|.*[a-z]ID"
)
_COORDINATE_NAME = re.compile(r"[a-hj-mo-z][_.]?\d*", re.IGNORECASE)
# Up to here double precision holds every whole number.
_EXACT = 2.0**53
# And in fewer than these no two whole numbers are equal by chance.
_UNLIKE = 5


@dataclass(frozen=True, kw_only=True)
class Table:
    """The numbers of a table.

    Args:
        values: One row a line, shape (n, d).
        names: The d columns' headings; None without a heading.
        labels: The n rows' labels; None without any.
        label_name: The heading above the labels.
        lines: The line in the file of each row.
        places: The columns of the file that the d columns are.
        left_out: Headings of columns that were not asked for.
    """

    values: NDArray[np.float64]
    names: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    label_name: str
    lines: Sequence[int]
    places: tuple[int, ...]
    left_out: tuple[str, ...] = ()

    def place(self, row: int, column: int) -> str:
        """Where a number stands in the file, in words that go behind its row and column."""
        name = "" if self.names is None else f', "{self.names[column]}"'
        return f" (line {self.lines[row]}{name})"


def read_table(file: Path, *, matrix: bool = False, columns: Iterable[str] | None = None) -> Table:
    """The numbers of a table, with headings and row labels where it has any.

    Args:
        file: The text file.
        matrix: Whether the table is a matrix, as costs are, in which columns are no coordinates: a square one is taken
            as it stands, whatever its first line or column count.
        columns: Headings that are taken in this order, whatever else there is; None takes all. A table without a
            heading has none to choose from, and is taken whole.

    Raises:
        InputError: The table holds something else than numbers, or can be read in two ways.
    """
    text = read_text(file)
    if not text.shown:
        raise InputError(f"{file}: holds no numbers")
    layout = layout_of(text)
    left_out: tuple[str, ...] = ()
    named = columns is not None and layout.heading is not None
    if columns is not None and layout.heading is not None:
        layout, left_out = _chosen(file, layout, list(columns))
    values, labels, lines = _numbers(text, layout)
    if not values.size:
        raise InputError(f"{file}: holds no numbers" + (" besides row labels" if labels else ""))
    table = Table(
        values=values,
        names=None if layout.heading is None else tuple(layout.heading[column] for column in layout.columns),
        labels=tuple(labels) if layout.labels else None,
        label_name=layout.heading[0] if layout.heading is not None and layout.labels else "",
        lines=lines,
        places=layout.columns,
        left_out=left_out,
    )
    _refuse_missing(file, table)
    doubt = layout.doubt or (None if named else _label_doubt(layout, table))
    if doubt and not (matrix and values.shape[0] == values.shape[1]):
        raise InputError(f"{file}: {doubt}")
    if not matrix:
        _refuse_inexact(text, layout, table)
    return table


def _chosen(file: Path, layout: Layout, wanted: list[str]) -> tuple[Layout, tuple[str, ...]]:
    """The layout with the columns of these headings alone; and the headings of the others."""
    heading = layout.heading or []
    here = heading[layout.labels :]
    missing = [name for name in wanted if name not in here]
    if missing:
        raise InputError(f"{file}: has no column {quoted(missing)}; its columns are {quoted(here)}")
    twice = next((name for name in wanted if here.count(name) > 1), None)
    if twice is not None:
        raise InputError(f'{file}: has several columns "{twice}"; make the headings differ')
    places = tuple(layout.labels + here.index(name) for name in wanted)
    return replace(layout, columns=places, doubt=None), tuple(name for name in here if name not in wanted)


def _rows(text: Text, layout: Layout) -> Iterator[Record]:
    """Line number and cells of every row below the heading, all of one width."""
    records, width = text.records(), layout.width
    if layout.heading is not None and not layout.in_comment:
        next(record for record in records if any(record[1]))
    begun, blank = False, 0
    for line, cells in records:
        row = cells if len(cells) == width else cut_to(cells, width)
        if not any(row):
            blank = blank or line
            continue
        if len(row) != width:
            raise InputError(f"{text.file}: line {line} has {len(row)} columns but the table has {width}")
        if blank and begun:  # above and below the numbers, empty cells have no meaning
            raise InputError(f"{text.file}: line {blank} is a row of empty cells; fill it in or take it out")
        begun, blank = True, 0
        yield line, row


def _numbers(text: Text, layout: Layout) -> tuple[NDArray[np.float64], list[str], array[int]]:
    """The numbers of the columns that are taken, the labels of the rows, and the lines of the file they are in."""
    values, labels, lines = array("d"), list[str](), array("q")
    columns, comma = layout.columns, text.decimal_comma
    start = layout.labels if columns == tuple(range(layout.labels, layout.width)) else None
    for line, row in _rows(text, layout):
        taken = [row[column] for column in columns] if start is None else row[start:]
        try:
            values.extend(map(float, _plain(taken, comma)))
        except ValueError:
            raise InputError(f"{text.file}: {_bad_cell(line, taken, layout, comma)}") from None
        lines.append(line)
        if layout.labels:
            labels.append(row[0].strip())
    return np.asarray(values, dtype=np.float64).reshape(len(lines), len(columns)), labels, lines


def _plain(cells: list[str], comma: bool) -> list[str]:
    """Cells with a decimal point.

    Raises:
        ValueError: A cell is no number, which Python would take for one.
    """
    together = "".join(cells)
    if "_" in together or (comma and "." in together):
        raise ValueError
    return [cell.replace(",", ".") for cell in cells] if comma else cells


def _bad_cell(line: int, cells: list[str], layout: Layout, comma: bool) -> str:
    bad = (k for k, cell in enumerate(cells) if not is_number(cell, decimal_comma=comma) or (comma and "." in cell))
    k = next(bad)
    column, cell = layout.columns[k], cells[k].strip()
    where = f"column {column + 1}" + ("" if layout.heading is None else f' "{layout.heading[column]}"')
    if not cell:
        return f"line {line}: {where} is empty; fill it in, or take its row or column out"
    if is_missing(cell):
        return f'line {line}: "{cell}" is not a number ({where}): a value is missing; take its row or column out'
    if is_number(cell) and comma:
        return f'line {line}: "{cell}" has a decimal point ({where}), but other numbers a decimal comma; write one'
    advice = ""
    if re.fullmatch(r"[+-]?[\d.,\s']+", cell):
        advice = "; write numbers without separators of thousands, and with a decimal point"
    elif is_word(cell) and column:
        advice = "; take columns of words out: only the first may hold them, as row labels"
    return f'line {line}: "{cell}" is not a number ({where}){advice}'


def _refuse_missing(file: Path, table: Table) -> None:
    bad = np.isnan(table.values)
    if not bad.any():
        return
    row, column = (int(index) for index in np.argwhere(bad)[0])
    rows = int(bad.any(axis=1).sum())
    raise InputError(
        f"{file}: row {row + 1}, column {column + 1} is nan{table.place(row, column)}, the first of {rows} such "
        f"row{'s' * (rows > 1)}; a value is missing: take its row or column out"
    )


def _refuse_inexact(text: Text, layout: Layout, table: Table) -> None:
    large = {table.lines[int(row)] for row in np.flatnonzero((np.abs(table.values) >= _EXACT).any(axis=1))}
    for line, row in _rows(text, layout) if large else ():
        for column in layout.columns if line in large else ():
            cell = row[column]
            if is_whole(cell) and int(cell) != int(float(cell)):
                raise InputError(
                    f"{text.file}: line {line}: {cell.strip()} (column {column + 1}) has more digits than double "
                    "precision holds; a coordinate is a smaller number, an identifier is a row label"
                )


def _label_doubt(layout: Layout, table: Table) -> str | None:
    """What may be labels as well as numbers: whole numbers that count the rows, or under a label's name."""
    for line, column, cell in layout.coded:
        if column in layout.columns:
            return (
                f'line {line}: "{cell}" (column {column + 1}) starts with a zero: it is no number, but what stands '
                "behind a decimal comma, or a label; write a decimal point, or leave the heading of labels empty"
            )
    if len(layout.columns) < 2:
        return None
    for k, column in enumerate(layout.columns):
        name = None if layout.heading is None else layout.heading[column]
        if column not in layout.whole or not _may_be_labels(layout, table.values, k, name):
            continue
        what = f"column {column + 1}" + ("" if name is None else f' "{name}"')
        shown = ", ".join(f"{number:g}" for number in table.values[:3, k])
        labels = "write a heading line that is empty above them" if name is None else "leave its heading empty"
        return (
            f"{what} holds whole numbers {shown}, ..., which may be row labels or a coordinate; {labels} (and first) "
            "if they are labels, and write them as 0.0, 1.0, ... if they are a coordinate"
        )
    return None


def _may_be_labels(layout: Layout, values: NDArray[np.float64], k: int, name: str | None) -> bool:
    """Whether column k, of whole numbers, may be row labels: no two are equal, and its name or the rest says so."""
    numbers = values[:, k]
    if len(np.unique(numbers)) < len(numbers):
        return False
    if name is not None and _LABEL_NAME.fullmatch(name):
        return True
    if layout.columns[k] != 0 or numbers.min() < 0:
        return False
    counts = numbers[0] in (0, 1) and bool((numbers - numbers[0] == np.arange(len(numbers))).all())
    if name is not None:
        return counts and len(numbers) > 1 and _COORDINATE_NAME.fullmatch(name) is None
    alone = len(layout.whole) == 1
    if len(numbers) < COUNTED:
        return alone and counts and len(numbers) > 1
    # All others have what labels have not: equal numbers, or negative ones.
    others = np.delete(values, k, axis=1).T
    unlike = len(numbers) >= _UNLIKE and all(len(np.unique(of)) < len(of) or of.min() < 0 for of in others)
    return alone or counts or unlike
