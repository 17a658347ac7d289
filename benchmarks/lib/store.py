"""Rows of results: read, written at once, found by key, and measured only where they are missing."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.machine import BENCHMARKS, conditions

RESULTS = BENCHMARKS / "results"
Row = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """The content of a results file; one without rows where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {"rows": []}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes through a temporary file, so that a run that is killed leaves the last whole result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """The rows of a results file. Runs that measure different rows may write at once.

    Args:
        path: The file.
        key: The fields that tell rows apart.
        about: Returns what stands beside the rows: conditions, and the benchmark's settings.
        place: What rows are sorted by; None keeps the order in which they came.
        ended: Which rows need not be measured again.
    """

    path: Path
    key: Sequence[str]
    about: Callable[[], dict[str, Any]] = conditions
    place: Callable[[Row], Any] | None = None
    ended: Callable[[Row], bool] = lambda _: True

    def key_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.key)

    def rows(self) -> list[Row]:
        return read(self.path)["rows"]

    def missing(self, keys: Iterable[Row], *, again: bool = False) -> Iterator[Row]:
        """Those of the keys without a row that ended, asked anew before each, as another run may write; or all."""
        for key in keys:
            if again or self.key_of(key) not in {self.key_of(row) for row in self.rows() if self.ended(row)}:
                yield key

    def add(self, *new: Row) -> None:
        """The rows into the file, in place of those with the same keys."""
        keys = {self.key_of(row) for row in new}
        with self._locked():
            rows = [row for row in self.rows() if self.key_of(row) not in keys] + list(new)
            if self.place is not None:
                rows.sort(key=self.place)
            write_json(self.path, self.about() | {"rows": rows})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True)
class Lines:
    """Rows of a run that lasts days, appended to a file of lines as they come."""

    path: Path

    def rows(self) -> list[Row]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def find(self, wanted: Row) -> Row | None:
        """The first row that has all the fields wanted."""
        return next((row for row in self.rows() if wanted.items() <= row.items()), None)

    def add(self, row: Row) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
