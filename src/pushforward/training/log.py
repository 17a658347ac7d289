"""A run's log: one JSON object a line, which a kill at any moment leaves readable and a resumed run continues.

    {"step": 1, "loss": 0.6931471805599453}
    {"step": 2, "loss": "NaN"}

JSON has no word for numbers that are not finite: they are written as "NaN", "Infinity" and "-Infinity", and read back
as the numbers. A line is written with one call; if the last one of a file was cut short it is not a record.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pushforward._checks import check_count
from pushforward._typed import typed
from pushforward.errors import InvalidArgument
from pushforward.training.distributed import is_main

__all__ = ["Log", "Value", "read_log"]

Value = float | int | bool | str | None

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Log:
    """Writes a run's records, on rank 0; on the other ranks it does nothing.

    A full disk does not end the run: the record is lost, with a warning, and the file stays readable.

    Args:
        file: The log. Its folder is made if missing.
        resumed: The step of the checkpoint that the run goes on from: later records are dropped from the file, since
            their steps come again. None starts the file anew.
        tensorboard: A folder in which numbers are also written for TensorBoard, which must be installed; None for none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     with Log(Path(run) / "log.jsonl") as log:
        ...         log.write(1, {"loss": 0.5})
        ...         log.write(2, {"loss": 0.25})
        ...     with Log(Path(run) / "log.jsonl", resumed=1) as log:
        ...         log.write(2, {"loss": float("nan")})
        ...     read_log(Path(run) / "log.jsonl")
        [{'step': 1, 'loss': 0.5}, {'step': 2, 'loss': nan}]
    """

    @typed
    def __init__(self, file: Path, *, resumed: int | None = None, tensorboard: Path | None = None) -> None:
        if resumed is not None:
            check_count("resumed", resumed, least=0)
        self._stream: Any = None
        self._board: Any = None
        if not is_main():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = [] if resumed is None or not file.exists() else [r for r in read_log(file) if r["step"] <= resumed]
        # Replaced at once: a kill here leaves the old log or the new one.
        partial = file.with_name(f"{file.name}.partial")
        partial.write_text("".join(map(_line, kept)), encoding="utf-8")
        partial.replace(file)
        # Unbuffered, so that a record is in the file, and out of this process, when `write` returns.
        self._stream = file.open("ab", buffering=0)
        if tensorboard is not None:
            self._board = _board(tensorboard, resumed)

    @typed
    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Add a record.

        Args:
            step: The optimiser's step.
            values: Numbers, strings, booleans or None, by name.

        Raises:
            InvalidArgument: A value is something else; the message names it.
        """
        check_count("step", step, least=0)
        line = _line({"step": step} | {name: value for name, value in values.items() if name != "step"}).encode()
        if self._stream is None:
            return
        end = os.fstat(self._stream.fileno()).st_size
        try:
            if self._stream.write(line) < len(line):
                raise OSError("only a part could be written")
        except OSError as error:
            self._stream.truncate(end)
            warnings.warn(f"{self._stream.name}: the record of step {step} is lost: {error}", stacklevel=2)
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float | int) and not isinstance(value, bool):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the file; nothing can be written afterwards."""
        for open_one in (self._stream, self._board):
            if open_one is not None:
                open_one.close()
        self._stream = self._board = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@typed
def read_log(file: Path) -> list[dict[str, Any]]:
    """The records of a log, in order; a last line that was cut short is left out.

    Args:
        file: The log.

    Returns:
        One dict for each record, "step" among its keys.

    Raises:
        InvalidArgument: Another line is no record; the message names it.
    """
    whole_lines = file.read_bytes().split(b"\n")[:-1]
    return [_record(file, number, line) for number, line in enumerate(whole_lines, 1)]


def _line(record: Mapping[str, Any]) -> str:
    written: dict[str, Any] = {}
    for name, value in record.items():
        if not isinstance(value, float | int | str | None):
            raise InvalidArgument(
                f"values[{name!r}] is a {type(value).__name__}; a number, string, boolean or None is needed: "
                "a tensor's number is its .item()"
            )
        if isinstance(value, float) and not math.isfinite(value):
            written[name] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        else:
            written[name] = value
    return json.dumps(written, allow_nan=False) + "\n"


def _record(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        step = record["step"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidArgument(f"{file}, line {number} is no record of a log: {error!r}") from error
    if not isinstance(step, int):
        raise InvalidArgument(f"{file}, line {number} has the step {step!r}; an integer is needed")
    return {name: _NOT_FINITE.get(value, value) if isinstance(value, str) else value for name, value in record.items()}


def _board(folder: Path, resumed: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InvalidArgument("tensorboard= needs TensorBoard: pip install tensorboard") from error
    return SummaryWriter(str(folder), purge_step=None if resumed is None else resumed + 1)
