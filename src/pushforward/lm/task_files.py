"""Rows of examples from files. The file name's end decides between three forms, in UTF-8 with or without a BOM.

.tsv .txt    a row a line, tab-separated, quotes are plain characters
.csv         comma-separated with quotes
.jsonl       a JSON object a line
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pushforward.errors import InvalidArgument

__all__ = ["ENDS", "Row", "read_rows"]

ENDS = (".tsv", ".txt", ".csv", ".jsonl")
Row = Mapping[str, Any]


def read_rows(
    file: Path, *, names: Sequence[str], header: Sequence[str] = ()
) -> Iterator[tuple[int, Row | InvalidArgument]]:
    """The rows of a file, with the numbers of the lines on which they start.

    Args:
        file: A file whose name ends in one of `ENDS`, which decides its form.
        names: Column names, one of which a first line of column names must hold.
        header: The columns of a file whose first line does not name them.

    Yields:
        (line counted from 1, values by column); in place of values the error, for a row that cannot be read.

    Raises:
        InvalidArgument: The file is not UTF-8, or does not name its columns.
    """
    if file.suffix == ".jsonl":
        yield from ((line, _json_row(text)) for line, text in _lines(file) if text.strip())
        return
    for k, (line, cells) in enumerate(_csv_cells(file) if file.suffix == ".csv" else _tsv_cells(file)):
        if isinstance(cells, InvalidArgument):
            yield line, cells
        elif k == 0 and not set(cells).isdisjoint(names):
            header = cells
        elif not header:
            raise InvalidArgument(f"{file}, line {line}: names of columns are needed, among them {' or '.join(names)}")
        elif len(cells) != len(header):
            yield line, InvalidArgument(f"columns: {len(cells)} given, {len(header)} needed ({', '.join(header)})")
        else:
            yield line, dict(zip(header, cells, strict=True))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    # Read as bytes, so that only a newline ends a line: some texts hold other characters that Python takes for one.
    with file.open("rb") as stream:
        for line, raw in enumerate(stream, 1):
            try:
                yield line, raw.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidArgument(f"{file}, line {line}: is not UTF-8 ({error.reason}); convert the file") from None


def _tsv_cells(file: Path) -> Iterator[tuple[int, list[str] | InvalidArgument]]:
    for line, text in _lines(file):
        if text.strip("\r\n"):
            yield line, text.rstrip("\r\n").split("\t")


def _csv_cells(file: Path) -> Iterator[tuple[int, list[str] | InvalidArgument]]:
    reader = csv.reader((text for _, text in _lines(file)), strict=True)
    while True:
        line = reader.line_num + 1  # a quoted cell may hold newlines: this is the row's first line
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, InvalidArgument(f"is no comma-separated row ({error}); is a quote missing?")
            continue
        if cells:
            yield line, cells


def _json_row(text: str) -> Row | InvalidArgument:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        return InvalidArgument(f"is no JSON ({error}); one object a line is needed")
    return row if isinstance(row, dict) else InvalidArgument("is JSON, but not an object with a value for each column")
