"""The layout of a table in a text file: heading, row labels, columns of numbers.

heading      the first line, or the comment line right above the table, if it names the columns. Names may be whole
             numbers 0, 1, 2, ... (pandas without names) where the lines below show that they are no numbers
row labels   left out of the numbers: a first column of words; one without a heading, or headed `Unnamed: 0` (a data
             frame's index); one more column than headings (R's write.table)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.text import Text, is_number, is_whole, is_word

__all__ = ["COUNTED", "Layout", "cut_to", "layout_of"]

_UNNAMED = re.compile(r"(?:unnamed: \d+(?:\.\d+|_level_\d+)?)?", re.IGNORECASE)
_CODE = re.compile(r"[+-]?0\d[\d.eE+-]*")
# Fewer rows than this count 0, 1, ... by chance.
COUNTED = 3


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What stands where: heading, labels, columns of numbers, those of whole ones, cells that are codes; a doubt."""

    heading: list[str] | None
    in_comment: bool
    width: int
    labels: int
    columns: tuple[int, ...]
    whole: frozenset[int]
    coded: tuple[tuple[int, int, str], ...]
    doubt: str | None


def layout_of(text: Text) -> Layout:
    """The layout of a table, from its first records."""
    rows = [[cell.strip() for cell in cells] for _, cells in text.shown]
    while len(rows) > 1 and not any(rows[0]):
        rows.pop(0)
    width = _width(rows[0], rows[1:])
    first, *body = (cut_to(row, width) for row in rows if any(row)) if any(rows[0]) else (rows[0],)
    whole_body = [row for row in body if len(row) == width]
    heading, doubt = _heading(text, first, whole_body, width)
    comment = None if text.comment is None else cut_to([cell.strip() for cell in text.comment], width)
    in_comment = (
        heading is None and comment is not None and len(comment) == width > 1 and not all(map(is_number, comment))
    )
    if in_comment:
        heading, doubt = comment, None
    if heading is None and len(first) == width:
        whole_body = [first, *whole_body]
    labels = _label_columns(heading, whole_body)
    return Layout(
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


def cut_to(row: list[str], width: int) -> list[str]:
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
    unlike = len(body) >= COUNTED and (all(pointed) or _stands_apart(text, first, body))
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
