"""Checks on folders of language models, made before transformers reads them, so that no code of theirs runs.

Weights are read as safetensors, and no file makes the loader fetch anything from the hub: neither a model's own code
(`auto_map`, which is never trusted) nor compiled kernels (`_attn_implementation` with a repository's name).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.training.seal import check_seal

__all__ = ["BROKEN", "check_folder"]

# What transformers raises of a configuration or of weights that cannot be.
BROKEN = (
    *(OSError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, AttributeError, ImportError),
    *(AssertionError, MemoryError, SafetensorError),
)

_KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


def check_folder(folder: Path) -> None:
    """Raise where a folder asks for code or for pickled weights, or its files are not what was saved.

    Args:
        folder: The folder of a model.

    Raises:
        InvalidArgument: The message names the file and what it asks for.
    """
    for index in sorted(folder.glob("*.index.json")):
        files = _object(index).get("weight_map")
        names = files.values() if isinstance(files, dict) else [None]
        wrong = [name for name in names if not _is_weights(name)]
        if wrong:
            raise InvalidArgument(f"{index} names {wrong[0]!r} as weights; files of safetensors beside it are needed")
    for file in ("config.json", "generation_config.json"):
        if (folder / file).is_file():
            _refuse_kernels(folder / file, _object(folder / file))
    if (folder / "digests.json").is_file():
        try:
            check_seal(folder)
        except CheckpointError as error:
            raise InvalidArgument(str(error)) from None


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise InvalidArgument(f"{file} holds a {type(content).__name__}; a JSON object is needed")
    return content


def _is_weights(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _refuse_kernels(file: Path, content: Any) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            _refuse_kernels(file, value)
        if key in _KERNELS and any("/" in str(one) for one in (value.values() if isinstance(value, dict) else [value])):
            raise InvalidArgument(
                f"{file}: {key} {value!r} asks for code from the hub; a kind that is built in is needed"
            )
