"""A run's folder: who writes there, whether there is a run to go on with, and the files that every run has.

recipe.yaml              the settings, with which the run is repeated or resumed
result.json              what came out
log.jsonl                one line a step or check of a training
report.json, index.html  the page

A folder belongs to one command at a time. The first process of a run holds a lock on `.lock` in it, which the system
lets go when the process ends, in whatever way; where a file system has no locks, nothing is locked.

Version 0.1 had other names for some of these files. They are read, and given their new names when a run is resumed.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pushforward.jobs.errors import InputError
from pushforward.jobs.settings import first_difference, recipe_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from pushforward.report import Block

__all__ = ["LOG", "RECIPE", "RESULT", "begin", "check_resumed", "drafted", "held", "holds_run", "interruptible"]
__all__ += ["interruption", "make_folder", "release", "write_page", "write_result"]

RECIPE, RESULT, LOG = "recipe.yaml", "result.json", "log.jsonl"
_OLD_RECIPE = "recipe.json"
# Version 0.1's names.
_OLD = {_OLD_RECIPE: RECIPE, "results.json": RESULT, "figures.json": RESULT, "metrics.jsonl": LOG}
_LOCK = ".lock"
_held: dict[Path, TextIO] = {}


def holds_run(out: Path, *, resume: bool) -> Path | None:
    """The recipe of the run that is to be resumed; None where there is none, and the folder is free.

    A run that ended before its first record or checkpoint, even one that was killed, left nothing but its recipe and
    empty files: the folder is free.

    Raises:
        InputError: There is a run and it is not to be resumed, or the other way round.
    """
    recipe = next((out / name for name in (RECIPE, _OLD_RECIPE) if (out / name).is_file()), None)
    if recipe is not None and not resume:
        if not _has_records(out):
            return None
        raise InputError(f"--out {out}: holds a run already; --resume goes on with it, or name another folder")
    if resume and recipe is None:
        raise InputError(f"--resume: {out} holds no run to go on with")
    return recipe


def check_resumed(out: Path, settings: DataclassInstance, *, resume: bool) -> None:
    """Raise unless a run's folder is free, or holds the run to be resumed, with settings that are the same now.

    Raises:
        InputError: It is not.
    """
    file = holds_run(out, resume=resume)
    if file is None:
        return
    from pushforward.jobs.recipes import load_recipe

    try:
        before = load_recipe(file)
    except InputError as error:
        raise InputError(f"--resume: {file} {error}") from None
    changed = first_difference(settings, before)
    if changed is not None:
        name, then, now = changed
        raise InputError(
            f"--resume: the run in {out} has {name} {then}, not {now}; a run is resumed with its own settings"
        )


def begin(out: Path, verb: str, settings: DataclassInstance, *, resume: bool = False) -> None:
    """Take a run's folder and write its recipe; where a run is resumed, files of version 0.1 get their new names."""
    make_folder(out)
    import yaml

    import pushforward

    for path in sorted(out.rglob("*")) if resume else ():
        if path.name in _OLD and path.is_file():
            path.replace(path.with_name(_OLD[path.name]))
    recipe = {"verb": verb, "version": pushforward.__version__, **recipe_of(settings)}
    with drafted(out / RECIPE) as draft:
        draft.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def write_result(folder: Path, result: Mapping[str, Any], *, allow_nan: bool = True) -> None:
    """Write what came out of a run, whole or not at all."""
    with drafted(folder / RESULT) as draft:
        draft.write_text(json.dumps(result, indent=2, allow_nan=allow_nan) + "\n", encoding="utf-8")


def write_page(folder: Path, *, title: str, lead: str, heading: str, blocks: Sequence[Block]) -> Path:
    """Write a run's page, of one section, with the versions and the machine at its end.

    Returns:
        The page.
    """
    from pushforward import report
    from pushforward.jobs.versions import footer

    section = report.Section(title=heading, blocks=tuple(blocks))
    report.save(report.Report(title=title, lead=lead, sections=(section,), footer=footer()), folder)
    return report.render(folder)


@contextmanager
def drafted(file: Path) -> Generator[Path]:
    """A place to write a file, which gets its name when the block ends well: a file of this name is always whole."""
    draft = file.with_name(f".partial-{file.name}")
    try:
        yield draft
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def interruptible(out: Path, verb: str) -> Generator[None]:
    """Ctrl-C within the block ends the command, and the message says how to go on with the run.

    What the library ends with a warning and the best model until then is, for a command, an interruption.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    from pushforward.errors import Interrupted

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Interrupted)
            yield
    except (KeyboardInterrupt, Interrupted):
        raise KeyboardInterrupt(interruption(out, f"pushforward {verb} {out / RECIPE} --resume")) from None


def interruption(out: Path, command: str) -> str:
    """The message for a run that was interrupted, with the command to resume it if there is a checkpoint."""
    if _has_checkpoint(out):
        return f"interrupted; go on with: {command}"
    return f"interrupted before the first checkpoint; nothing is lost but time: the run starts anew with: {command}"


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
        if not _has_records(folder):
            for name in (RECIPE, _OLD_RECIPE):
                (folder / name).unlink(missing_ok=True)
    while _held:
        folder, handle = _held.popitem()
        (folder / _LOCK).unlink(missing_ok=True)
        handle.close()


def _has_records(folder: Path) -> bool:
    """Whether there is anything in the folder beside recipes, hidden files and empty files."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return any(path.stat().st_size for path in files if path.name not in (RECIPE, _OLD_RECIPE))


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
