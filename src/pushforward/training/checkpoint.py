"""Checkpoints that a kill at any moment leaves whole.

    folder/
      step-80/  step-90/        published: complete, checked by their manifests
      .tmp-100-<uuid>/          being written; of no value to anyone but its writer
      .replaced-step-90/        the old step-90, for the moment in which a new one takes its place

A checkpoint is written aside, its files and then its `manifest.json` are flushed to the disk, and one rename publishes
it; only then are old ones deleted. The last checkpoint is the last whose manifest verifies: every file that it lists is
there with its size and SHA-256, and no other file is, because a loader that goes by name would read that one too. The
manifest carries its own digest. Digests find accidents; against a forger, what counts is that `load_state` runs no
code.

All ranks must see the same folder and call these functions together.
"""

from __future__ import annotations

import platform
import shutil
import uuid
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from pushforward import __version__
from pushforward._checks import check_count
from pushforward._typed import check_folder, typed
from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.training import distributed
from pushforward.training.seal import check_files, entries, flush, read_manifest, sealed, share

__all__ = ["latest", "publishing", "verify"]

_MANIFEST = "manifest.json"
_DRAFT, _REPLACED = ".tmp-", ".replaced-"


@contextmanager
@typed
def publishing(folder: Path, step: int, *, keep: int | None = 2, name: str = "step") -> Generator[Path, None, None]:
    """Publish what the block writes into the folder that it is given: all of it or nothing.

    A save that fails because the disk is full, read-only or forbidden does not end the run: rank 0 warns of the cause,
    the draft is deleted, and the checkpoints before it stay. Any other error in the block is raised, and nothing is
    published either.

    Args:
        folder: The folder of a run's checkpoints; made if missing.
        step: The optimiser's step that the checkpoint follows.
        keep: How many checkpoints up to this step to keep, the new one included; None keeps all. Later ones, which a
            run that was resumed from an earlier checkpoint finds, are kept until it comes to their step.
        name: Checkpoints are called `name`-`step`.

    Yields:
        A folder to write into, the same on every rank.

    Raises:
        InvalidArgument: `name` can be no beginning of a folder's name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     with publishing(Path(run), 10) as draft:
        ...         _ = (draft / "weights.txt").write_text("0.5")
        ...     latest(Path(run)).name
        'step-10'
    """
    _check_name(name)
    step = check_count("step", step, least=0)
    if keep is not None:
        check_count("keep", keep)
    draft = folder / distributed.gather_text(f"{_DRAFT}{step}-{uuid.uuid4().hex}")[0]
    trouble = _agreed(_attempt(lambda: draft.mkdir(parents=True)) if distributed.is_main() else "")
    try:
        yield draft
    except (OSError, SafetensorError) as error:
        trouble = trouble or _in_words(error)
    except Exception:
        # The other ranks wait to hear how this one fared.
        _agreed("an error that is no matter of the disk's")
        shutil.rmtree(draft, ignore_errors=True)
        raise
    trouble = _agreed(trouble)
    if not trouble:
        target = folder / f"{name}-{step}"
        trouble = _agreed(_attempt(lambda: _publish(draft, target, step)) if distributed.is_main() else "")
    if not distributed.is_main():
        return
    if trouble:
        shutil.rmtree(draft, ignore_errors=True)
        warnings.warn(f"no checkpoint of step {step} in {folder}: {trouble}; the run goes on", stacklevel=3)
        return
    unsure = _attempt(lambda: flush(folder))
    if unsure:
        # It is there, but a loss of power might take its name away: the ones before it stay, too.
        warnings.warn(f"the checkpoint of step {step} in {folder} may not outlast a crash: {unsure}", stacklevel=3)
    elif keep is not None:
        for _, old in [found for found in _published(folder, name) if found[0] <= step][:-keep]:
            _discard(old)


@typed
def verify(path: Path) -> None:
    """Check that a checkpoint is what was saved.

    Args:
        path: The checkpoint's folder.

    Raises:
        CheckpointError: It is not; the message names the first file that is missing, truncated, altered or strange.
    """
    listed = read_manifest(path / _MANIFEST, missing="the checkpoint is incomplete, or is not ours")["files"]
    check_files(path, listed)
    strange = sorted(_files(path).keys() - listed.keys() - {_MANIFEST})
    if strange:
        raise CheckpointError(f"{path / strange[0]} was not saved with the checkpoint; take it out")


@typed
def latest(folder: Path, *, name: str = "step") -> Path | None:
    """The last checkpoint that verifies, the same on every rank. One that does not is skipped with a warning.

    Call it when a run starts and no other process writes there: it deletes the drafts of a killed run.

    Args:
        folder: The folder of a run's checkpoints, which need not exist.
        name: As in `publishing`.

    Returns:
        The checkpoint's folder, or None where there is none.

    Raises:
        InvalidArgument: `folder` can be no folder, or `name` is none, as in `publishing`.
    """
    check_folder("folder", folder)
    _check_name(name)
    chosen = ""
    if distributed.is_main():
        _sweep(folder)
        for _, path in reversed(_published(folder, name)):
            try:
                verify(path)
            except (CheckpointError, OSError) as error:
                warnings.warn(f"checkpoint {path.name} is passed over: {error}", stacklevel=2)
            else:
                chosen = path.name
                break
    chosen = distributed.gather_text(chosen)[0]
    return folder / chosen if chosen else None


def _check_name(name: str) -> None:
    if not name or Path(name).name != name or name.startswith("."):
        raise InvalidArgument(
            f"name is {name!r}; the beginning of a folder's name is needed, without / and not with a dot first"
        )


def _publish(draft: Path, target: Path, step: int) -> None:
    files = _files(draft)
    for file in files.values():
        flush(file)
    content: dict[str, Any] = {
        "step": step,
        "world_size": distributed.world_size(),
        "versions": {"pushforward": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "files": entries(files),
    }
    (draft / _MANIFEST).write_text(sealed(content), encoding="utf-8")
    for file in files.values():
        if file.suffix == ".safetensors":
            share(file, draft / _MANIFEST)
    flush(draft / _MANIFEST)
    for inner in [*(path for path in draft.rglob("*") if path.is_dir()), draft]:
        flush(inner)
    _put_in_place(draft, target)


def _put_in_place(draft: Path, target: Path) -> None:
    if not target.exists():
        draft.rename(target)
        return
    # No system call of Python's puts one folder in another's place. A kill between the two renames is mended by the
    # next `latest`.
    aside = target.with_name(f"{_REPLACED}{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    try:
        draft.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _published(folder: Path, name: str) -> list[tuple[int, Path]]:
    steps = [
        (path.name.removeprefix(f"{name}-"), path) for path in folder.glob("*") if path.name.startswith(f"{name}-")
    ]
    return sorted((int(step), path) for step, path in steps if step.isdecimal() and path.is_dir())


def _discard(path: Path) -> None:
    # Renamed first: a kill in the middle of the deletion must not leave half a checkpoint under its name.
    doomed = path.with_name(f"{_DRAFT}{path.name}-{uuid.uuid4().hex}")
    trouble = _attempt(lambda: path.rename(doomed)) or _attempt(lambda: shutil.rmtree(doomed))
    if trouble:
        warnings.warn(f"the old checkpoint {path} could not be deleted: {trouble}", stacklevel=4)


def _sweep(folder: Path) -> None:
    for aside in folder.glob(f"{_REPLACED}*"):
        original = aside.with_name(aside.name.removeprefix(_REPLACED))
        if original.exists() or _attempt(lambda old=aside, new=original: old.rename(new)):
            shutil.rmtree(aside, ignore_errors=True)
    for draft in folder.glob(f"{_DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)


def _files(path: Path) -> dict[str, Path]:
    # A link to a folder is no folder of ours, and its inside is not walked: it counts as a file, which nobody saved.
    inside = [file for file in sorted(path.rglob("*")) if file.is_symlink() or not file.is_dir()]
    return {file.relative_to(path).as_posix(): file for file in inside}


def _attempt(action: Callable[[], object]) -> str:
    """The error of the disk that an action meets, in words; empty where there is none."""
    try:
        action()
    except OSError as error:
        return _in_words(error)
    return ""


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _agreed(trouble: str) -> str:
    """The first error that any rank has, on every rank; empty where there is none."""
    return next(filter(None, distributed.gather_text(trouble)), "")
