"""The folder that a command writes to: its lock, and whether it holds a run to resume.

A run's folder belongs to one command at a time. The first process of a run holds a lock on `.lock` in it, which the
system lets go when the process ends, in whatever way; where a file system has no locks, nothing is locked.
"""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path
from typing import TextIO

from pushforward.jobs.errors import InputError

__all__ = ["held", "holds_run", "interruption", "make_folder", "release"]

_LOCK = ".lock"
_held: dict[Path, TextIO] = {}


def holds_run(out: Path, recipe: Path, *, resume: bool) -> bool:
    """Whether the folder holds a run to resume; the file `recipe` shows that it does.

    A run that ended before its training began left its recipe alone: the folder is free.

    Raises:
        InputError: There is one and it is not to be resumed, or the other way round.
    """
    if recipe.is_file() and not resume:
        if not any(path != recipe for path in _inside(out)):
            return False
        raise InputError(f"--out {out}: holds a run already; --resume goes on with it, or name another folder")
    if resume and not recipe.is_file():
        raise InputError(f"--resume: {out} holds no run to go on with")
    return resume


def interruption(out: Path, again: str) -> str:
    """The message for a run that was interrupted, with the command to resume it if there is a checkpoint."""
    if _has_checkpoint(out):
        return f"interrupted; go on with{again}"
    return f"interrupted before the first checkpoint; nothing is lost but time: the run starts anew with{again}"


def make_folder(folder: Path) -> None:
    """Make a run's folder, and check before any work that it can be written to and that no other process writes there.

    Raises:
        InputError: It cannot, or another process does; the message names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
        if os.environ.get("RANK", "0") == "0":  # the other processes of a run write with the first one's leave
            _lock(folder)
    except OSError as error:
        raise InputError(f"--out {folder}: is no folder that can be written to: {error.strerror}") from None


def held() -> list[Path]:
    """The folders that this process has made or locked."""
    return [*_held]


def release(*, failed: bool = False) -> None:
    """Unlock all folders.

    Args:
        failed: The command ended in an error. One before the first record or checkpoint leaves nothing to go on from:
            the recipe is taken away, so that the folder is free.
    """
    for folder in _held if failed else ():
        if not any(path.stat().st_size for path in _inside(folder) if path.stem != "recipe"):
            for name in ("recipe.json", "recipe.yaml"):
                (folder / name).unlink(missing_ok=True)
    while _held:
        folder, handle = _held.popitem()
        (folder / _LOCK).unlink(missing_ok=True)
        handle.close()


def _inside(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


def _lock(folder: Path) -> None:
    place = folder.resolve()
    if place in _held:
        return
    try:
        import fcntl
    except ImportError:  # Windows has none of this
        return
    while True:
        handle = (place / _LOCK).open("a+", encoding="utf-8")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            handle.close()
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise InputError(
                    f"--out {folder}: {holder} is writing there; wait until it has ended, or name another folder"
                ) from None
            return
        if _is_file_of(handle, place / _LOCK):
            break
        handle.close()  # its holder ended, and took it away, between the two calls
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {platform.node()}\n")
    handle.flush()
    _held[place] = handle


def _is_file_of(handle: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _has_checkpoint(out: Path) -> bool:
    # Each has a manifest, whoever wrote it (`training.checkpoint`).
    return any(not path.parent.name.startswith(".") for path in out.rglob("manifest.json"))
