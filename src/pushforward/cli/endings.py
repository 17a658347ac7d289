"""How a command ends when the system ends it: a signal, or a disk that takes no more."""

from __future__ import annotations

import errno
import re
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["kept", "refusal", "terminating"]


@contextmanager
def terminating(received: list[int]) -> Generator[None]:
    """Make SIGTERM act like Ctrl-C within the block, and record it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        received.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# What a disk that is full, past its quota, read-only or failing says: as an error's number, or in a library's words.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)
_OF_TORCH = "PytorchStreamWriter|inline_container|iostream error"  # as `lm.trainer.FULL`, which needs transformers


def refusal(error: Exception) -> str | None:
    """The reason why something could not be written, if the error is about that; else None."""
    words = f"{error} {error.__cause__ or error.__context__ or ''}"
    number = error.errno if isinstance(error, OSError) else None
    named = re.search(r"os error (\d+)", words)
    if number in _REFUSALS or (named and int(named[1]) in _REFUSALS) or re.search(_OF_TORCH, words):
        return f"cannot be written: {error}"
    return None


def kept(folder: Path) -> str:
    """What a run's folder still holds, without the last file, which may be the one that could not be written."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    inside.sort(key=lambda path: path.stat().st_mtime)
    names = sorted(path.name for path in inside[:-1])
    last = f"; {inside[-1].name}, the last one written, may be incomplete" if inside else ""
    return f"; {folder} keeps {', '.join(names) or 'nothing'}{last}"
