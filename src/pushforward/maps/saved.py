"""Fitted maps on disk: what `TransportMap.save` writes, and how it is read back.

    folder/
      map.json                 class, versions, and the size and SHA-256 of the two files that it names
      map-<uuid>.json          parameters and fitted state   } written by `training.save_state`:
      map-<uuid>.safetensors   their tensors                 } nothing in them can run code

The two files are written under names that nobody reads yet; one rename of `map.json` publishes them, and only then are
those of an earlier save deleted. A kill at any moment leaves the old map or the new one, and the folder may hold
other files, which are left alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward import __version__
from pushforward._typed import typed
from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.maps import costs
from pushforward.training.seal import check_files, entries, flush, read_manifest, replace_text, sealed
from pushforward.training.state import load_state, save_state

if TYPE_CHECKING:
    from pushforward.maps.base import TransportMap

__all__ = ["decode", "encode", "load_map", "read", "write"]

# Only these classes are made from a name in a file.
MAPS = {
    "EntropicMap": "pushforward.maps.entropic",
    "ICNNMap": "pushforward.maps.icnn",
    "LinearMap": "pushforward.maps.linear",
    "MongeMap": "pushforward.maps.monge",
    "ProgressiveMap": "pushforward.maps.progressive",
}

# Likewise: the classes of costs, all but the one that wraps a caller's function.
COSTS = frozenset(costs.__all__) - {"CallableCost", "Cost", "StructuredCost", "TranslationCost", "resolve"}
# Parameters that a map needs after fitting, too, and that may be code: what no file holds, `load` is given.
OWN = ("cost", "network")

_ENTRY = "map.json"
_SUFFIXES = (".json", ".safetensors")
_OURS = re.compile(r"map-[0-9a-f]{32}\.(json|safetensors)|\.map-[0-9a-f]{32}\.json")


@typed
def load_map(folder: str | Path) -> TransportMap:
    """Load a map that any class's `save` wrote, onto the CPU.

    Args:
        folder: The folder it was saved to.

    Returns:
        The map, of the class that was saved.

    Raises:
        CheckpointError: There is no map, or a file of it is missing, truncated or altered; the message names it.
        InvalidArgument: It was fitted with a function or module of the caller's own: use its class's `load`.
    """
    name = _entry(Path(folder))["class"]
    if name not in MAPS:
        raise CheckpointError(
            f"{Path(folder) / _ENTRY} holds a map of class {name!r}; those of this library are "
            f"{', '.join(sorted(MAPS))}: load one of your own with its class's load(folder)"
        )
    kind: type[TransportMap] = getattr(importlib.import_module(MAPS[name]), name)
    return kind.load(folder)


def write(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Publish `content` as the map in this folder.

    Args:
        folder: Made if missing.
        name: The map's class.
        content: What `training.save_state` takes.

    Raises:
        InvalidArgument: Something in it cannot be saved.
        OSError: The files cannot be written; what was there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    stem = folder / f"map-{mark}"
    files = [stem.with_suffix(suffix) for suffix in _SUFFIXES]
    try:
        save_state(stem, content)
        for file in files:
            flush(file)
        flush(folder)  # after a loss of power, too, the entry must name files that are there
        listed = entries({file.name: file for file in files})
        content = {"class": name, "pushforward": __version__, "state": stem.name, "files": listed}
        replace_text(folder / _ENTRY, sealed(content))
    except BaseException:  # an interrupt, too, takes its half-written files away
        if not _is_published(folder, stem.name):
            for file in files:
                file.unlink(missing_ok=True)
        raise
    for old in folder.iterdir():
        if _OURS.fullmatch(old.name) and old not in files:
            old.unlink(missing_ok=True)


def read(folder: Path, name: str) -> dict[str, Any]:
    """What `write` published there for a map of this class.

    Raises:
        CheckpointError: It is another class's, or a file is missing, truncated, altered or not ours.
    """
    entry = _entry(folder)
    if entry["class"] != name:
        raise CheckpointError(f"{folder / _ENTRY} holds a {entry['class']}, not a {name}; load_map takes either")
    check_files(folder, entry["files"])
    return load_state(folder / entry["state"])


def encode(name: str, value: Any) -> Any:
    """A parameter as `save_state` takes it: costs by class and fields; code of the caller's own as a note of it."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return type(value)(encode(name, item) for item in value)
    kind = type(value).__name__
    if type(value) is getattr(costs, kind, None) and kind in COSTS:
        return {"cost": kind, "fields": {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}}
    # The rest of what may be an object (a random_state, a hook) serves fitting alone.
    return {"own": getattr(value, "__qualname__", kind)} if name in OWN else None


def decode(name: str, value: Any, given: Any) -> Any:
    """The parameter that `encode` wrote, or the caller's own one, which is then needed.

    Raises:
        InvalidArgument: It is needed and not given, or given and not needed.
        CheckpointError: It is nothing that `encode` writes.
    """
    match value:
        case {"own": kind}:
            if given is None:
                raise InvalidArgument(
                    f"the map was fitted with a {name} of the caller's own ({kind}), which no file holds; "
                    f"pass it again: load(folder, {name}=...)"
                )
            return given
        case _ if given is not None:
            raise InvalidArgument(f"{name} was given, but the map's own was saved with it; leave it out")
        case {"cost": kind, "fields": fields} if kind in COSTS:
            return getattr(costs, kind)(**fields)
        case dict():
            raise CheckpointError(f"the saved map's {name} is nothing that is written there: {value!r}")
        case _:
            return value


def _is_published(folder: Path, state: str) -> bool:
    """Whether `map.json` names these files: then they stay, though the disk may have refused what came after."""
    entry = folder / _ENTRY
    return entry.is_file() and state in entry.read_text(encoding="utf-8", errors="replace")


def _entry(folder: Path) -> dict[str, Any]:
    """What `map.json` says, if it is, byte for byte, the one that was written."""
    path = folder / _ENTRY
    entry = read_manifest(path, missing="no map was saved there")
    parts = [f"{entry.get('state')}{suffix}" for suffix in _SUFFIXES]
    if "class" not in entry or sorted(entry["files"]) != parts or not all(_OURS.fullmatch(part) for part in parts):
        raise CheckpointError(f"{path} was altered: it is not the one that was saved")
    return entry
