"""The data of a page: a report has sections, a section has blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

__all__ = ["Block", "Code", "Facts", "Picture", "Report", "Section", "Table", "Text", "load", "save"]

FILE = "report.json"


class _Strict:
    """A key that is not a field is an error."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Text(_Strict):
    """A paragraph of plain text.

    Args:
        text: The text.
        kind: The block's kind in `report.json`.
    """

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True, kw_only=True)
class Code(_Strict):
    """Lines of code or commands, shown as they are.

    Args:
        text: The lines.
        kind: The block's kind in `report.json`.
    """

    text: str
    kind: Literal["code"] = "code"


@dataclass(frozen=True, kw_only=True)
class Facts(_Strict):
    """A list of named values.

    Args:
        facts: (name, value) pairs, in the words that the reader sees.
        kind: The block's kind in `report.json`.
    """

    facts: tuple[tuple[str, str], ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, kw_only=True)
class Table(_Strict):
    """Rows under named columns.

    Args:
        columns: The columns' names; the first column names the row.
        rows: One tuple of cells for each row, in the words that the reader sees.
        caption: What the table shows.
        words: The names of the columns that hold words, which are set flush left; the others hold numbers.
        kind: The block's kind in `report.json`.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    words: tuple[str, ...] = ()
    kind: Literal["table"] = "table"

    def __post_init__(self) -> None:
        """Raise where a row does not fit the columns."""
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells but there are {len(self.columns)} columns")


@dataclass(frozen=True, kw_only=True)
class Picture(_Strict):
    """A picture in a light and a dark variant.

    Args:
        light: File for light pages, relative to the run's folder.
        dark: File for dark pages.
        alt: A description for readers who do not see the picture.
        caption: What it means.
        wide: Whether it takes the page's full width.
        kind: The block's kind in `report.json`.
    """

    light: str
    dark: str
    alt: str
    caption: str = ""
    wide: bool = False
    kind: Literal["picture"] = "picture"


Block = Annotated[Text | Code | Facts | Table | Picture, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class Section(_Strict):
    """One part of the page, for instance one act of the tour.

    Args:
        title: Its heading.
        blocks: Its blocks from top to bottom; pictures that follow one another are placed side by side.
        label: A few words above the heading, for instance "Act one".
    """

    title: str
    blocks: tuple[Block, ...]
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Report(_Strict):
    """A whole page.

    Args:
        title: Its heading.
        lead: The paragraph under the heading.
        sections: Its parts.
        footer: Lines that say what it was made with: versions, machine, date.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    footer: tuple[str, ...] = ()


_report = TypeAdapter(Report)


def save(report: Report, folder: Path) -> Path:
    """Write `report.json` into a run's folder, making the folder if it is not there.

    Args:
        report: The page.
        folder: The run's folder.

    Returns:
        The file written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FILE
    file.write_bytes(_report.dump_json(report, indent=1))
    return file


def load(folder: Path) -> Report:
    """Read a run's `report.json`.

    Args:
        folder: The run's folder.

    Returns:
        The page.

    Raises:
        FileNotFoundError: The folder holds no `report.json`.
        ValueError: The file is not a report; the message names the first key that is wrong.
    """
    file = folder / FILE
    try:
        return _report.validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(f"{file}: {where}: {first['msg']}") from None
