"""Manifests: JSON files that list the bytes and the SHA-256 of the files beside them, and carry their own digest.

    {"files": {"weights.safetensors": {"bytes": 4096, "sha256": "9f86..."}}, ..., "sha256": "60303a..."}

A checkpoint's is `manifest.json` (`checkpoint`), a saved map's `map.json` (`maps.saved`), a model folder's
`digests.json` (`seal`). Digests find accidents. Against a forger, what counts is that nothing that is loaded can run
code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pushforward.errors import CheckpointError

__all__ = [
    "check_files",
    "check_seal",
    "digest",
    "entries",
    "flush",
    "read_manifest",
    "replace_text",
    "seal",
    "sealed",
    "share",
]

_NAME = "digests.json"


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Flush a file's bytes, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems flush no folders; they would never have a checkpoint if that counted as failure.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(handle)


def share(weights: Path, beside: Path) -> None:
    """Give the weights the permissions of the file beside them: safetensors writes files for the owner alone."""
    shutil.copymode(beside, weights)


def replace_text(file: Path, text: str) -> None:
    """Write a text file in one step: a kill at any moment leaves the old text or the new one. One writer at a time.

    Raises:
        OSError: It cannot be written, and the old text stays; or it is there, but may not outlast a loss of power.
    """
    draft = file.with_name(f".{file.name}")
    try:
        draft.write_text(text, encoding="utf-8")
        flush(draft)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush(file.parent)


def sealed(content: dict[str, Any]) -> str:
    """The content as JSON text that holds its own digest."""
    own = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(content | {"sha256": own}, indent=1) + "\n"


def entries(files: Mapping[str, Path]) -> dict[str, Any]:
    """The entries of a manifest: bytes and SHA-256 of each file, by its name there."""
    return {name: {"bytes": file.stat().st_size, "sha256": digest(file)} for name, file in files.items()}


def read_manifest(file: Path, *, missing: str) -> dict[str, Any]:
    """The content of a manifest, if it is, byte for byte, the one that was written.

    Args:
        file: The manifest, as `sealed` wrote it, with its `entries` under "files".
        missing: What a missing manifest means, for the error.

    Returns:
        The content.

    Raises:
        CheckpointError: It is missing, truncated or altered.
    """
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
        untouched = text == sealed({key: value for key, value in content.items() if key != "sha256"})
        complete = all({"bytes", "sha256"} <= entry.keys() for entry in content["files"].values())
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing: {missing}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} was truncated or altered: {error!r}") from error
    if not (untouched and complete):
        raise CheckpointError(f"{file} was altered: its SHA-256 is not the one that was saved")
    return content


def check_files(folder: Path, listed: Mapping[str, Any]) -> None:
    """Check that the files of a folder are those of a manifest's `entries`; other files beside them are ignored.

    Raises:
        CheckpointError: A file is missing, truncated or altered; the message names it.
    """
    for name, entry in listed.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing")
        size = (folder / name).stat().st_size
        if size != entry["bytes"]:
            raise CheckpointError(f"{folder / name} has {size} bytes, but {entry['bytes']} were saved")
    for name, entry in listed.items():
        if digest(folder / name) != entry["sha256"]:
            raise CheckpointError(f"{folder / name} was altered: its SHA-256 is not the one that was saved")


def seal(folder: Path, names: list[str] | None = None) -> None:
    """Write the digests of a folder's files into its digests.json.

    Args:
        folder: The folder.
        names: The names of the files, relative to it; None for all files in it that are not hidden.
    """
    if names is None:
        inside = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
        names = [file.as_posix() for file in inside if not any(part.startswith(".") for part in file.parts)]
    listed = entries({name: folder / name for name in names if name != _NAME})
    replace_text(folder / _NAME, sealed({"files": listed}))
    for weights in (name for name in listed if name.endswith(".safetensors")):
        share(folder / weights, folder / _NAME)


def check_seal(folder: Path) -> None:
    """Check that a folder's files are what was saved; a folder without digests, of an older version, gives a warning.

    Files that were not there when the folder was sealed are ignored.

    Raises:
        CheckpointError: A file is missing, truncated or altered; the message names it.
    """
    file = folder / _NAME
    if not file.is_file():
        warnings.warn(f"{folder} has no {_NAME}: whether its files are what was saved is unknown", stacklevel=3)
        return
    check_files(folder, read_manifest(file, missing="the folder was never sealed")["files"])
