"""The command line of a benchmark, from what its options are by default."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

HELP = {
    "again": "run anew what is there",
    "keep": "keep what an earlier file has and is not run again",
    "limit": "CPU seconds that one call may take",
    "out": "file of the results",
    "list": "only name the rows that are missing",
    "pictures": "draw the pictures of what is there, run nothing",
    "work": "folder that keeps what is trained",
}


def parsed(doc: str | None, options: Mapping[str, Any], *, given: list[str] | None = None) -> argparse.Namespace:
    """The options as given on the command line.

    Args:
        doc: The script's docstring, which `--help` shows.
        options: By name, the default. Of a dict or tuple of names some may be chosen; of a tuple of numbers others may
            be given; False is a flag; a type stands for an option that has no default.
        given: The arguments, for tests; None takes those of the process.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in options.items():
        flag, known = f"--{name}", HELP.get(name)
        if default is False:
            parser.add_argument(flag, action="store_true", help=known)
        elif isinstance(default, type):
            parser.add_argument(flag, type=default, help=known)
        elif isinstance(default, Collection) and not isinstance(default, str):
            values = list(default)
            kind = type(values[0])
            choices = values if kind is str else None
            parser.add_argument(flag, nargs="+", type=kind, default=values, choices=choices, metavar="NAME", help=known)
        else:
            kind = Path if isinstance(default, Path) else type(default)
            parser.add_argument(flag, type=kind, default=default, help=known)
    return parser.parse_args(given)
