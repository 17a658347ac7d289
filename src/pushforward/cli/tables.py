"""Tables in text files -> columns of numbers. What can be read as two different things is refused.

heading      the first line, or the comment line right above the table, if it names the columns. Names may be whole
             numbers 0, 1, 2, ... (pandas without names) where the lines below show that they are no numbers
row labels   left out of the numbers: a first column of words; one without a heading, or headed `Unnamed: 0` (a data
             frame's index); one more column than headings (R's write.table)
refused      numbers that count the rows in the first column, and whole numbers under a name such as `id`: they may be
             labels or a coordinate. An empty heading makes them labels, a decimal point (1.0) makes them numbers
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pushforward.cli.errors import InputError
from pushforward.cli.table_text import Record, Text, is_missing, is_number, is_whole, is_word, read_text

__all__ = ["Table", "read_table"]

_UNNAMED = re.compile(r"(?:unnamed: \d+(?:\.\d+|_level_\d+)?)?", re.IGNORECASE)
_LABEL_NAME = re.compile(
    r"(?i:ids?|idx|index|ix|key|rows?|nr|no\.?|num|number|names?|obs|observation|sample|cell|barcode|level_\d+|rn|#|n|i|"
    r"row[._ ]?(?:id|names?|num|number)|.*[\s_.-](?:id|idx|index|nr|no|number))|.*[a-z]ID"
)
_CODE = re.compile(r"[+-]?0\d[\d.eE+-]*")
_COORDINATE_NAME = re.compile(r"[a-hj-mo-z][_.]?\d*", re.IGNORECASE)
# Up to here double precision holds every whole number.
_EXACT = 2.0**53
# Fewer rows than this count 0, 1, ... by chance.
_COUNTED = 3
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
        lines: Of the file, where the rows are.
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


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What stands where: heading, labels, columns of numbers, those of whole ones, cells that are codes; a doubt."""

    heading: list[str] | None
    in_comment: bool
    width: int
    labels: int
    columns: tuple[int, ...]
    whole: frozenset[int]
    coded: tuple[tuple[int, int, str], ...]
    doubt: str | None


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
    layout = _layout(text)
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


def _layout(text: Text) -> _Layout:
    """What stands where, as the first records show it."""
    rows = [[cell.strip() for cell in cells] for _, cells in text.shown]
    while len(rows) > 1 and not any(rows[0]):
        rows.pop(0)
    width = _width(rows[0], rows[1:])
    first, *body = (_cut(row, width) for row in rows if any(row)) if any(rows[0]) else (rows[0],)
    whole_body = [row for row in body if len(row) == width]
    heading, doubt = _heading(text, first, whole_body, width)
    comment = None if text.comment is None else _cut([cell.strip() for cell in text.comment], width)
    in_comment = (
        heading is None and comment is not None and len(comment) == width > 1 and not all(map(is_number, comment))
    )
    if in_comment:
        heading, doubt = comment, None
    if heading is None and len(first) == width:
        whole_body = [first, *whole_body]
    labels = _label_columns(heading, whole_body)
    return _Layout(
        heading=heading,
        in_comment=in_comment,
        width=width,
        labels=labels,
        columns=tuple(range(labels, width)),
        whole=frozenset(j for j in range(width) if whole_body and all(is_whole(row[j]) for row in whole_body)),
        coded=tuple(
            (line, j, cells[j].strip())
            for line, cells in text.shown[heading is not None and not in_comment :]
            for j in range(min(len(cells), width))
            if _CODE.fullmatch(cells[j].strip())
        ),
        doubt=doubt,
    )


def _cut(row: list[str], width: int) -> list[str]:
    """A row without the empty cells that separators behind its last one make."""
    return row[:width] if len(row) > width and not any(row[width:]) else row


def _width(first: list[str], body: list[list[str]]) -> int:
    """Columns, but for those at the end that are empty in every line: separators stand behind the last cell."""
    filled = [max((j + 1 for j, cell in enumerate(row) if cell), default=0) for row in (first, *body)]
    if not any(filled[1:]):
        return filled[0]
    longest = max(len(row) for row in body)
    return max(max(filled[1:]), min(filled[0], longest))


def _heading(text: Text, first: list[str], body: list[list[str]], width: int) -> tuple[list[str] | None, str | None]:
    """The heading, if the first line is one; and what speaks against either reading, if anything does."""
    if not body:
        return (first if all(is_word(cell) for cell in first) else None), None
    if len(first) == width - 1 and _is_heading_of_row_names(text, first, body):
        return ["", *first], None
    if len(first) != width:
        if all(is_word(cell) for cell in first):
            raise InputError(
                f"{text.file}: line {text.shown[0][0]} has {len(first)} headings but the lines below have {width} cells"
            )
        return None, None
    numeric = [all(not is_word(row[j]) for row in body) for j in range(width)]
    words = [j for j, cell in enumerate(first) if is_word(cell)]
    digits = [cell for cell in first if is_whole(cell)]
    only_names = len(words) + len(digits) + first.count("") == width
    if any(numeric[j] for j in words):
        if only_names and (not digits or _goes_on(digits) or not first[0]):
            return first, None
        word, other = next(first[j] for j in words if numeric[j]), next(cell for cell in first if not is_word(cell))
        raise InputError(
            f'{text.file}: line {text.shown[0][0]}: "{word}" is not a number, and "{other}" beside it is no name; '
            "a heading has names alone, a row numbers alone"
        )
    # Nothing stands above the labels of a data frame without a name for them.
    if not first[0] and only_names and all(row[0] for row in body) and (not numeric[0] or _distinct(body)):
        return first, None
    at = int(not numeric[0])
    is_heading, doubt = _digit_heading(text, first[at:], [row[at:] for row in body], labelled=bool(at))
    return (first if is_heading else None), doubt


def _distinct(body: list[list[str]]) -> bool:
    return len({row[0] for row in body}) == len(body) and all(is_whole(row[0]) for row in body)


def _is_heading_of_row_names(text: Text, first: list[str], body: list[list[str]]) -> bool:
    """Whether a first line with one cell less than the others is R's heading, which has none above the row names."""
    names = [row[0] for row in body]
    if not all(is_word(cell) for cell in first) or len(set(names)) < len(names):
        return False
    if len(first) == 1 and text.separator == "," and all(is_whole(cell) for row in body for cell in row):
        raise InputError(
            f"{text.file}: line {text.shown[0][0]} has one heading above two columns of whole numbers, which may be "
            "row names and numbers, or numbers with a decimal comma; write a decimal point, or both headings"
        )
    return True


def _goes_on(cells: list[str]) -> bool:
    """Whether cells are 0, 1, 2, ... or 1, 2, 3, ..., at least two of them."""
    numbers = [int(cell) for cell in cells]
    return len(numbers) > 1 and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _digit_heading(text: Text, first: list[str], body: list[list[str]], *, labelled: bool) -> tuple[bool, str | None]:
    """Whether a first line of numbers names columns, as pandas names those without names; and what is unclear.

    Where all numbers below have a decimal point, whoever wrote them would have written one in the first line, too.
    """
    doubt = (
        f'line {text.shown[0][0]} ("{", ".join(first[:4])}{", ..." * (len(first) > 4)}") may be a heading or a row of '
        "numbers; write a heading line with words for names, and 0.0, 1.0, ... for numbers"
    )
    if not all(map(is_whole, first)):
        return False, doubt if labelled and all(map(is_number, first)) else None
    lines = text.body.lstrip().split("\n", 2)
    if lines[0].startswith('"') and len(lines) > 1 and '"' not in lines[1]:
        return True, None
    # nan and inf are written in one way alone.
    styles = [{is_whole(row[j]) for row in body if any(map(str.isdigit, row[j]))} for j in range(len(first))]
    pointed = [style == {False} for style in styles]
    mixed = any(len(style) > 1 for style in styles)
    counts = _goes_on(first)
    if counts and not mixed and any(pointed):
        return True, None
    if len(first) == 1:  # no heading, where the numbers below rise on from it
        column = [_value(text, row[0]) for row in body]
        counts = first[0] == "0" and not (np.diff([0.0, *column]) > 0).all()
    unlike = len(body) >= _COUNTED and (all(pointed) or _stands_apart(text, first, body))
    return False, doubt if labelled or counts or unlike else None


def _stands_apart(text: Text, first: list[str], body: list[list[str]]) -> bool:
    """Whether whole numbers rise from left to right, in equal steps or each far from all the numbers below it."""
    numbers = np.array(first, dtype=np.float64)
    steps = np.diff(numbers)
    if (steps <= 0).any():
        return False
    below = np.array([[_value(text, cell) for cell in row] for row in body])
    low, high = below.min(axis=0), below.max(axis=0)
    far = (numbers < 2 * low - high) | (numbers > 2 * high - low)
    return bool(far.all()) or (len(steps) > 1 and bool((steps == steps[0]).all()))


def _value(text: Text, cell: str) -> float:
    """A cell's number; nan where it holds none."""
    plain = cell.replace(",", ".") if text.decimal_comma else cell
    return float(plain) if is_number(plain) else np.nan


def _label_columns(heading: list[str] | None, body: list[list[str]]) -> int:
    """How many columns at the left are row labels."""
    if heading is not None:
        named = (j for j, name in enumerate(heading) if not _UNNAMED.fullmatch(name))
        unnamed = next(named, len(heading))
        if unnamed:
            return unnamed
    first = [row[0] for row in body]
    truths = {cell.lower() for cell in first} <= {"true", "false"}
    return int(bool(body) and len(body[0]) > 1 and not truths and all(map(is_word, first)))


def _chosen(file: Path, layout: _Layout, wanted: list[str]) -> tuple[_Layout, tuple[str, ...]]:
    """The layout with the columns of these headings alone; and the headings of the others."""
    heading = layout.heading or []
    here = heading[layout.labels :]
    missing = [name for name in wanted if name not in here]
    if missing:
        raise InputError(f"{file}: has no column {_quoted(missing)}; its columns are {_quoted(here)}")
    twice = next((name for name in wanted if here.count(name) > 1), None)
    if twice is not None:
        raise InputError(f'{file}: has several columns "{twice}"; make the headings differ')
    places = tuple(layout.labels + here.index(name) for name in wanted)
    return replace(layout, columns=places, doubt=None), tuple(name for name in here if name not in wanted)


def _rows(text: Text, layout: _Layout) -> Iterator[Record]:
    """Line number and cells of every row below the heading, all of one width."""
    records, width = text.records(), layout.width
    if layout.heading is not None and not layout.in_comment:
        next(record for record in records if any(record[1]))
    begun, blank = False, 0
    for line, cells in records:
        row = cells if len(cells) == width else _cut(cells, width)
        if not any(row):
            blank = blank or line
            continue
        if len(row) != width:
            raise InputError(f"{text.file}: line {line} has {len(row)} columns but the table has {width}")
        if blank and begun:  # above and below the numbers, empty cells have no meaning
            raise InputError(f"{text.file}: line {blank} is a row of empty cells; fill it in or take it out")
        begun, blank = True, 0
        yield line, row


def _numbers(text: Text, layout: _Layout) -> tuple[NDArray[np.float64], list[str], array[int]]:
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


def _bad_cell(line: int, cells: list[str], layout: _Layout, comma: bool) -> str:
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


def _refuse_inexact(text: Text, layout: _Layout, table: Table) -> None:
    large = {table.lines[int(row)] for row in np.flatnonzero((np.abs(table.values) >= _EXACT).any(axis=1))}
    for line, row in _rows(text, layout) if large else ():
        for column in layout.columns if line in large else ():
            cell = row[column]
            if is_whole(cell) and int(cell) != int(float(cell)):
                raise InputError(
                    f"{text.file}: line {line}: {cell.strip()} (column {column + 1}) has more digits than double "
                    "precision holds; a coordinate is a smaller number, an identifier is a row label"
                )


def _label_doubt(layout: _Layout, table: Table) -> str | None:
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


def _may_be_labels(layout: _Layout, values: NDArray[np.float64], k: int, name: str | None) -> bool:
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
    if len(numbers) < _COUNTED:
        return alone and counts and len(numbers) > 1
    # All others have what labels have not: equal numbers, or negative ones.
    others = np.delete(values, k, axis=1).T
    unlike = len(numbers) >= _UNLIKE and all(len(np.unique(of)) < len(of) or of.min() < 0 for of in others)
    return alone or counts or unlike


def _quoted(names: Iterable[str], most: int = 12) -> str:
    words = [f'"{name}"' for name in names]
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest} more" if rest > 0 else "") or "none"
