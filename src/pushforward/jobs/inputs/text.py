"""The text of a table as its records: finds encoding, comment lines, separator and decimal comma.

encoding    UTF-8; UTF-16 and UTF-32 with their mark; else that of western Windows
comments    lines that start with # above or below the table, as numpy.savetxt writes them
separator   tab ; | , or blanks: the first of these that parts the lines into equally many cells with numbers in them;
            a first line `sep=;`, as Excel writes it, decides
decimal     a comma, where commas do not separate cells or stand within quotes
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pushforward.jobs.errors import InputError

__all__ = ["Record", "Text", "is_missing", "is_number", "is_whole", "is_word", "read_text"]

Record = tuple[int, list[str]]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BLANKS = None
_SEPARATORS = ("\t", ";", "|", ",", _BLANKS)
# So many cells, in at least so many records, show how a table is written.
_SHOWN_CELLS, _SHOWN_RECORDS = 20_000, 50
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_EXCEL_ERROR = re.compile(r"#(?:N/A|NV|[A-ZÄÖÜ/0-9]+[!?])", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:[.,]\d{3})+")
_WHOLE = re.compile(r"[+-]?\d+")
_QUOTED_OR_NOT = re.compile(r'"((?:[^"]|"")*)"|(\S+)')
_MISSING = {"", "na", "n/a", "null", "none", "nil", "missing", "-", "--", ".", "?"}


@dataclass(frozen=True, kw_only=True)
class Text:
    """A table's text, and how it is to be read.

    Args:
        file: Where it is from, for the messages.
        body: The table without the comments around it, lines ended by a newline.
        skipped: Lines of the file above the body.
        comment: The cells of the comment line right above the table; None without one.
        separator: Between cells; None for blanks.
        decimal_comma: Whether numbers have a decimal comma.
        shown: The first records.
    """

    file: Path
    body: str
    skipped: int
    comment: list[str] | None
    separator: str | None
    decimal_comma: bool
    shown: list[Record]

    def records(self) -> Iterator[Record]:
        """Line number and cells of every record; empty lines are passed over.

        Raises:
            InputError: Quotes do not pair.
        """
        return _records(self.file, self.body, self.separator, self.skipped)


def read_text(file: Path) -> Text:
    """The text of a table, with what decides how it is read.

    Raises:
        InputError: It is not text, or its numbers can be read in two ways.
    """
    text = _decoded(file)
    separator: str | None = ""
    skipped = 0
    first = re.match(r'"?sep=(.)"?[^\S\n]*\n', text, re.IGNORECASE)
    if first:
        separator, text, skipped = first[1], text[first.end() :], 1
    above, start, stop = _comments(text)
    body = text[start:stop]
    skipped += text.count("\n", 0, start)
    if not first:
        separator = _separator(file, body, skipped)
    shown = _shown(_records(file, body, separator, skipped))
    return Text(
        file=file,
        body=body,
        skipped=skipped,
        comment=_comment(file, above, separator),
        separator=separator,
        decimal_comma=_decimal_comma(file, separator, shown),
        shown=shown,
    )


def is_number(cell: str, *, decimal_comma: bool = False) -> bool:
    """Whether a cell holds a number; nan and inf are some."""
    if "_" in cell:  # which Python lets stand between digits
        return False
    if decimal_comma and "," in cell:
        return _DECIMAL_COMMA.fullmatch(cell.strip()) is not None
    try:
        float(cell)
    except ValueError:
        return False
    return True


def is_whole(cell: str) -> bool:
    """Whether a cell holds a number that is written without a decimal point or exponent."""
    return _WHOLE.fullmatch(cell.strip()) is not None


def is_missing(cell: str) -> bool:
    """Whether a cell is empty or says that there is no value."""
    plain = cell.strip()
    return plain.lower() in _MISSING or _EXCEL_ERROR.fullmatch(plain) is not None


def is_word(cell: str) -> bool:
    """Whether a cell holds a name or a label: neither a number, with comma or point, nor a sign that one is missing."""
    return not is_missing(cell) and not is_number(cell, decimal_comma=True)


def _decoded(file: Path) -> str:
    raw = file.read_bytes()
    code = next((code for mark, code in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(code)
    except UnicodeDecodeError:
        if code != "utf-8":
            raise InputError(f"{file}: starts as {code} text but does not go on as such; save it as UTF-8") from None
        # Excel and R on Windows write accents in this code; no byte is without meaning in the second.
        try:
            text = raw.decode("cp1252")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
    text = text.removesuffix("\x1a").replace("\r\n", "\n").replace("\r", "\n")
    if raw.startswith(b"PK\x03\x04") or _CONTROL.search(text):
        raise InputError(f"{file}: is not text, whatever its name says; save the table as CSV in UTF-8")
    return text


def _comments(text: str) -> tuple[list[str], int, int]:
    """The comment lines above a table; and where the table starts and stops in the text, without those below it."""
    above: list[str] = []
    start, stop = 0, len(text)
    while start < stop:
        end = text.find("\n", start) + 1 or stop
        line = text[start:end].strip()
        if line and not _is_comment(line):
            break
        above += [line] if line else []
        start = end
    while stop > start:
        begin = text.rfind("\n", start, stop - 1) + 1 or start
        line = text[begin:stop].strip()
        if line and not _is_comment(line):
            break
        stop = begin
    return above, start, stop


def _is_comment(line: str) -> bool:
    return line.startswith("#") and _EXCEL_ERROR.match(line) is None


def _comment(file: Path, above: list[str], separator: str | None) -> list[str] | None:
    if not above:
        return None
    try:
        found = next(_records(file, above[-1].lstrip("# \t"), separator, 0), None)
    except InputError:  # a remark with quotes of its own, and no heading
        return None
    return None if found is None else found[1]


def _records(file: Path, text: str, separator: str | None, skipped: int) -> Iterator[Record]:
    if separator is None:
        for number, line in enumerate(text.split("\n"), start=skipped + 1):
            cells = line.split() if '"' not in line else [a or b for a, b in _QUOTED_OR_NOT.findall(line)]
            if cells:
                yield number, cells
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num + skipped, cells
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num + skipped} cannot be read: {error}") from None


def _shown(records: Iterator[Record]) -> list[Record]:
    found: list[Record] = []
    cells = 0
    for record in records:
        found.append(record)
        cells += len(record[1])
        if cells >= _SHOWN_CELLS and len(found) >= _SHOWN_RECORDS:
            break
    return found


def _separator(file: Path, body: str, skipped: int) -> str | None:
    """What parts the lines into equally many cells with numbers in them; else the likeliest.

    Raises:
        InputError: Commas and blanks do so equally well.
    """
    start = body[:65536]
    there = [mark for mark in _SEPARATORS if (mark in start if mark else re.search(r"\S[ \t]+\S", start))]
    fits = {mark: _fit(file, body, mark, skipped) for mark in there}
    one = next((mark for mark in ("\t", ";", "|") if fits.get(mark)), None)
    if one is not None:
        return one
    commas, blanks = fits.get(",", 0), fits.get(_BLANKS, 0)
    if commas == blanks > 0:
        raise InputError(
            f"{file}: its cells may be separated by commas, or by blanks between numbers with a decimal comma; "
            "write decimal points, or semicolons between the cells"
        )
    if commas or blanks:
        return "," if commas > blanks else _BLANKS
    return next((mark for mark in (",", ";", "\t", "|") if mark in there), ",")


def _fit(file: Path, body: str, mark: str | None, skipped: int) -> int:
    """How well a separator fits: 2, if it gives as many headings as columns; 1, one heading less; 0, not at all."""
    try:
        rows = [cells for _, cells in islice(_records(file, body, mark, skipped), 100)]
    except InputError:  # quotes that do not pair where this mark parts the cells
        return 0
    return (1 + (len(rows[0]) == len(rows[-1]))) if _fits(rows, mark) else 0


def _fits(rows: list[list[str]], mark: str | None) -> bool:
    while rows and not any(rows[-1]):
        rows.pop()
    rest = rows[1:] or rows
    width = len(rest[0]) if rest else 0
    if width < 2 or any(len(row) != width for row in rest) or len(rows[0]) not in (width, width - 1):
        return False
    comma = mark != ","
    numbers = [
        all(is_number(cell, decimal_comma=comma) or is_missing(cell) for cell in column)
        and not all(is_missing(cell) for cell in column)
        for column in zip(*rest, strict=True)
    ]
    # Where blanks separate, no cell stands alone or ends in another mark: "1.5, 2.5" and "1.5 , 2.5" have a comma.
    return any(numbers) and (mark is not _BLANKS or not any(cell.endswith((",", ";")) for cell in rest[0]))


def _decimal_comma(file: Path, separator: str | None, shown: list[Record]) -> bool:
    """Whether numbers have a decimal comma.

    Raises:
        InputError: Commas or points may as well separate thousands.
    """
    body = [(line, cell.strip()) for line, cells in shown[1:] or shown for cell in cells]
    commas = [(line, cell) for line, cell in body if "," in cell and _DECIMAL_COMMA.fullmatch(cell)]
    advice = "write the numbers without separators of thousands, and with a decimal point"
    if commas and all(_THOUSANDS.fullmatch(cell) for _, cell in commas):
        line, cell = commas[0]
        raise InputError(f'{file}: line {line}: the comma of "{cell}" may be a decimal one or part thousands; {advice}')
    points = [(line, cell) for line, cell in body if "." in cell and is_number(cell)]
    if separator == ";" and not commas and points and all(_THOUSANDS.fullmatch(cell) for _, cell in points):
        line, cell = points[0]
        raise InputError(
            f'{file}: line {line}: the point of "{cell}" may be a decimal one or part thousands, where ; separates; '
            "separate by commas if it is decimal, or write the numbers without separators of thousands"
        )
    return bool(commas)
