"""Where a command may write, and whether there is a run to go on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pushforward.cli.errors import InputError

__all__ = ["check_free", "holds_run", "make_folder"]


def check_free(out: Path, recipe: Mapping[str, Any], *, resume: bool) -> None:
    """See that the folder is free, or holds the run to be resumed, with these settings in its recipe.yaml.

    Raises:
        InputError: It does not.
    """
    import yaml

    file = out / "recipe.yaml"
    if not holds_run(out, file, resume=resume):
        return
    try:
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
        changed = [name for name, value in recipe.items() if before.get(name) != value]
        changed += [name for name in before if name not in recipe and name not in ("verb", "version")]
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"--resume: {file} cannot be read: {error}") from None
    if changed:
        name = changed[0]
        raise InputError(
            f"--resume: the run in {out} has {name} {before.get(name)}, not {recipe.get(name)}; "
            "a run is resumed with its own settings"
        )


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
