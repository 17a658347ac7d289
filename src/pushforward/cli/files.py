"""Where a command may write, and whether there is a run to go on with."""

from __future__ import annotations

from pathlib import Path

from pushforward.cli.errors import InputError

__all__ = ["holds_run", "make_folder"]


def holds_run(out: Path, recipe: Path, *, resume: bool) -> bool:
    """Whether there is a run to be resumed, of which `recipe` is the sign.

    Raises:
        InputError: There is one and it is not to be resumed, or the other way round.
    """
    if recipe.is_file() and not resume:
        raise InputError(f"--out {out}: holds a run already; --resume goes on with it, or name another folder")
    if resume and not recipe.is_file():
        raise InputError(f"--resume: {out} holds no run to go on with")
    return resume


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
