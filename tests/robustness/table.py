"""The table of public doors x kinds of bad input, and what becomes of each call.

PYTHONPATH=tests python -m robustness.table                # all of it: good, total, and the failures, one a line
PYTHONPATH=tests python -m robustness.table "^Trainer"     # only the calls whose "door, parameter: kind" match
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from robustness.doors import NAN_IS_AN_ANSWER, PASSED_ON, Door, doors, is_legal, may_be_none, required, sort_of, usual
from robustness.kinds import Kind, kinds_of

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a name that is no folder would be asked for on the hub

import pushforward as pf
from pushforward.errors import NotConverged, PushforwardError, ShapeError, TooLargeError

__all__ = ["Entry", "count", "entries", "fault"]


@dataclass(frozen=True)
class Entry:
    """One call: a door, the parameter that gets the bad value, and the kind of that."""

    door: Door
    parameter: str
    kind: Kind

    def __str__(self) -> str:
        """Its line in a report."""
        return f"{self.door.name}, {self.parameter}: {self.kind.name}"


def entries() -> Iterator[Entry]:
    """The whole table."""
    for door in doors():
        for parameter in door.parameters:
            sort = sort_of(door, parameter)
            for kind in kinds_of(sort) if sort else ():
                if is_legal(door, parameter, kind.name):
                    yield Entry(door, parameter, dataclasses.replace(kind, wrong=False))
                elif kind.name == "five axes" and f"{door.name}.{parameter}" in PASSED_ON:
                    continue
                elif not (kind.name == "None" and may_be_none(door, parameter)):
                    yield Entry(door, parameter, kind)


def fault(entry: Entry) -> str | None:
    """What is wrong with the outcome of a call, or None: an error that names the argument, or the right answer."""
    given = required(entry.door)
    value = entry.kind.make(_usual(entry))
    try:
        outcome = _quietly(entry.door, given | {entry.parameter: value})
    except (NotConverged, TooLargeError):
        return None if not entry.kind.wrong else "is taken, and leads nowhere"
    except PushforwardError as error:
        named = re.search(rf"(?<![A-Za-z]){re.escape(entry.parameter)}(?![A-Za-z])", str(error))
        return (
            None if named or _names_path(value, error) or _contradicts(entry, error) else f"does not name it: {error}"
        )
    except Exception as error:  # noqa: BLE001  that is what is counted
        if isinstance(error, OSError) and _names_path(value, error):
            return None
        return f"raw {type(error).__name__}: {error}"
    if entry.kind.wrong:
        return "is taken"
    figures = _figures(outcome)
    if not all(np.isfinite(f).all() for f in figures) and entry.door.name not in NAN_IS_AN_ANSWER:
        return "gives numbers that are not finite"
    if entry.kind.same:
        expected = _figures(_quietly(entry.door, given | {entry.parameter: _usual(entry)}))
        close = [
            np.allclose(f, g, rtol=1e-4, atol=1e-6)
            for f, g in zip(figures, expected, strict=False)
            if f.shape == g.shape
        ]
        if len(figures) != len(expected) or not all(close):
            return "gives another answer"
    return None


def _contradicts(entry: Entry, error: PushforwardError) -> bool:
    """Whether an error names the other of two arguments whose shapes contradict each other."""
    others = "|".join(map(re.escape, entry.door.parameters))
    return isinstance(error, ShapeError) and re.match(rf"({others})\b", str(error)) is not None


def _names_path(value: Any, error: Exception) -> bool:
    """Whether an error gives the path that nothing can be read from or written to: the system's own errors do."""
    return isinstance(value, str | Path) and str(value)[:40] in str(error) and len(str(value)) > 20


def _usual(entry: Entry) -> Any:
    return usual(entry.door.name, entry.parameter, entry.door.parameters[entry.parameter].default)


def count(share: int = 1, first: int = 0, pattern: str = "") -> tuple[int, int, list[str]]:
    """How many calls end well, of how many, and a line for each that does not.

    Args:
        share: Only one of so many parts of the table; a line's part is by its words, and stays when others come.
        first: Which of the parts.
        pattern: What a line must match, as a regular expression.
    """
    chosen = [
        entry
        for entry in entries()
        if zlib.crc32(str(entry).encode()) % share == first and re.search(pattern, str(entry))
    ]
    found = [(entry, _fault_or_gap(entry)) for entry in chosen]
    failures = [f"{entry}: {' '.join(said.split())[:160]}" for entry, said in found if said]
    return len(chosen) - len(failures), len(chosen), failures


def _fault_or_gap(entry: Entry) -> str | None:
    try:
        return fault(entry)
    except Exception as error:  # noqa: BLE001  a gap in the table is counted as a fault, and said
        return f"the table has no such call: {type(error).__name__}: {error}"


def _quietly(door: Door, arguments: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  what a door might draw from
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        return door.call(**arguments)


def _figures(outcome: Any) -> list[np.ndarray]:
    """The numbers in an outcome."""
    if isinstance(outcome, torch.Tensor):
        outcome = outcome.to_dense()
        return [outcome.detach().double().numpy()] if outcome.is_floating_point() else []
    outcome = outcome.toarray() if scipy.sparse.issparse(outcome) else outcome
    if isinstance(outcome, np.ndarray | float | np.floating):
        array = np.asarray(outcome)
        return [array.astype(float)] if array.dtype.kind == "f" else []
    if isinstance(outcome, tuple | list):
        return [f for part in outcome for f in _figures(part)]
    if isinstance(outcome, pf.Solution):
        return _figures(outcome.value)
    if isinstance(outcome, pf.ExactSolution):
        return [np.asarray(float(outcome.cost))]
    return []


if __name__ == "__main__":
    good, total, failures = count(pattern=sys.argv[1] if len(sys.argv) > 1 else "")
    sys.stdout.write("\n".join([*failures, f"{good} of {total}\n"]))
