"""Files with digests: what shows whether they are what was saved, and sees to it that they are on the disk.

    folder/digests.json    of each file that was there when the folder was sealed: bytes and SHA-256; and its own digest

Digests find accidents. Against a forger, what counts is that nothing that is loaded can run code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from pushforward.errors import CheckpointError

__all__ = ["check_seal", "digest", "flush", "seal", "sealed", "share", "unsealed"]

_NAME = "digests.json"


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """See to it that a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems flush no folders; they would never have a checkpoint if that counted as failure.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(handle)


def sealed(content: dict[str, Any]) -> str:
    """The content as JSON that carries its own digest."""
    own = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(content | {"sha256": own}, indent=1) + "\n"


def unsealed(text: str) -> tuple[dict[str, Any], bool]:
    """The content of what `sealed` wrote, and whether it is that, byte for byte.

    Raises:
        ValueError, AttributeError, RecursionError: It is no JSON object.
    """
    content = json.loads(text)
    return content, text == sealed({key: value for key, value in content.items() if key != "sha256"})


def share(weights: Path, beside: Path) -> None:
    """Let all read the weights who may read the file beside them: safetensors writes for the owner alone."""
    shutil.copymode(beside, weights)


def seal(folder: Path, names: list[str] | None = None) -> None:
    """Write the digests of a folder's files.

    Args:
        folder: The folder.
        names: Of the files, relative to it; None for all that are in it, hidden ones apart.
    """
    if names is None:
        inside = [file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file()]
        names = [file.as_posix() for file in inside if not any(part.startswith(".") for part in file.parts)]
    names = [name for name in names if name != _NAME]
    entries = {name: {"bytes": (folder / name).stat().st_size, "sha256": digest(folder / name)} for name in names}
    draft = folder / f".{_NAME}"
    draft.write_text(sealed({"files": entries}), encoding="utf-8")
    for weights in (name for name in names if name.endswith(".safetensors")):
        share(folder / weights, draft)
    draft.replace(folder / _NAME)


def check_seal(folder: Path) -> None:
    """Make sure that a folder's files are what was saved; a folder of an older version is taken with a warning.

    Files that were not there when the folder was sealed are let pass.

    Raises:
        CheckpointError: One is missing, truncated or altered; the message names it.
    """
    file = folder / _NAME
    if not file.is_file():
        warnings.warn(f"{folder} has no {_NAME}: whether its files are what was saved cannot be said", stacklevel=3)
        return
    try:
        content, untouched = unsealed(file.read_text(encoding="utf-8"))
        listed = {name: (entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} was truncated or altered: {error!r}") from error
    if not untouched:
        raise CheckpointError(f"{file} was altered: its SHA-256 is not the one that was saved")
    for name, (size, known) in listed.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if path.stat().st_size != size:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes, but {size} were saved")
        if digest(path) != known:
            raise CheckpointError(f"{path} was altered: its SHA-256 is not the one that was saved")
