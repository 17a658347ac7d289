"""Where a command may write."""

from __future__ import annotations

from pathlib import Path

from pushforward.cli.errors import InputError

__all__ = ["make_folder"]


def make_folder(folder: Path) -> None:
    """Make a run's folder, and see now, before any work, whether it can be written to.

    Raises:
        InputError: It cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out {folder}: is no folder that can be written to: {error.strerror}") from None
