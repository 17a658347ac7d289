"""Tables in markdown, and their places in the pages.

Between the lines `<!-- table:NAME -->` and `<!-- /table:NAME -->` of a page stands the table NAME.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.store import Row, read

MARKED = re.compile(r"(?P<open><!-- table:(?P<name>[\w-]+) -->\n).*?(?P<close><!-- /table:(?P=name) -->)", re.DOTALL)
Results = dict[str, Any]  # the content of a results file
Tables = Mapping[str, tuple[str, Callable[[Results], str]]]  # name: the results' file, and what it becomes


def filled(text: str, tables: Tables, results: Path) -> str:
    """The text with every marked table written from the results. Raises KeyError for a name that is no table."""

    def table(match: re.Match[str]) -> str:
        source, make = tables[match["name"]]
        file = results / source
        # A benchmark that has not been run yet leaves its table alone.
        return match["open"] + make(read(file)) + match["close"] if file.exists() else match[0]

    return MARKED.sub(table, text)


def markdown(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def where(rows: Iterable[Row], **fields: Any) -> list[Row]:
    """The rows that have these fields' values."""
    return [row for row in rows if fields.items() <= row.items()]


def grouped(rows: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    """The rows by one field's value, or by those of several, in the order in which they come."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        groups.setdefault(key if len(names) > 1 else key[0], []).append(row)
    return groups


def listed(rows: Iterable[Row], name: str, length: int | None = None) -> str:
    """The different values of a field, cut to a length."""
    return ", ".join(sorted({str(row[name])[:length] for row in rows}))


def measured_on(results: Results, commits: str = "") -> str:
    """Processor, thread, day and commit of a result, for the line below a table."""
    commits = commits or results["commit"] or "not committed"
    return f"{results['machine']['processor']}, one thread; {results['date'][:10]}, commit {commits}"
