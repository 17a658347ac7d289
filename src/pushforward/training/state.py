"""Nested state_dicts as two files: tensors in safetensors, all else in JSON. Nothing on this path can run code.

    {"step": 7, "optimizer": {"state": {0: {"exp_avg": T}}}}
      stem.json          {"step": 7, "optimizer": {"state": {"$": "dict", "items": [[0, {"exp_avg": {"$": "tensor",
                         "name": "optimizer/state/0/exp_avg"}}]]}}}
      stem.safetensors   optimizer/state/0/exp_avg -> T

What JSON has no word for is an object with the key "$": tensors, tuples, numbers that are not finite, and dicts with
keys other than strings. Every tensor comes back bit for bit, with its dtype and shape; one tensor under several names
(tied weights) is written once and is one tensor again when it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pushforward._typed import typed
from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.training.seal import share

__all__ = ["load_state", "save_state"]

_DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
    }
)
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@typed
def save_state(stem: Path, state: Any) -> None:
    """Write `state` to `stem`.json and `stem`.safetensors.

    Args:
        stem: Path of the two files without their endings; its folder exists.
        state: Dicts, lists and tuples, nested at will, of tensors, numbers, strings, booleans and None, as
            `state_dict()` gives them. Dicts' subclasses come back as dicts, parameters as tensors.

    Raises:
        InvalidArgument: Something else is in it; the message says under which key.
        OSError: The files cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(Path(folder) / "adam", {"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 0.95)})
        ...     load_state(Path(folder) / "adam")
        {'state': {0: {'step': tensor(3.)}}, 'betas': (0.9, 0.95)}
    """
    pack = _Pack()
    tree = pack.encode(state, ())
    try:
        save_file(pack.tensors, _tensors(stem))
    except SafetensorError as error:
        raise OSError(f"{_tensors(stem)}: {error}") from error
    _tree(stem).write_text(json.dumps(tree, allow_nan=False), encoding="utf-8")
    share(_tensors(stem), _tree(stem))


@typed
def load_state(stem: Path) -> Any:
    """Read what `save_state` wrote, with its tensors on the CPU.

    Args:
        stem: Path of the two files without their endings.

    Returns:
        The state.

    Raises:
        CheckpointError: A file is missing, or is not what `save_state` writes.
    """
    try:
        tensors = load_file(_tensors(stem))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{_tensors(stem)} cannot be read as safetensors: {error}") from error
    try:
        return _decode(json.loads(_tree(stem).read_text(encoding="utf-8")), tensors)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{_tree(stem)} is no state that was saved here: {error!r}") from error


def _tensors(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.safetensors")


def _tree(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.json")


@dataclass(slots=True)
class _Pack:
    """The tensors found so far, by name; the names of those found in several places; the memory already in use."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[tuple[Any, ...], tuple[str, Tensor]] = field(default_factory=dict)
    memory: set[int] = field(default_factory=set)

    def encode(self, value: Any, path: tuple[Any, ...]) -> Any:
        match value:
            case None | bool() | str():
                return value
            case int():
                return int(value)
            case float():
                return float(value) if math.isfinite(value) else {"$": "float", "value": str(float(value))}
            case Tensor():
                return {"$": "tensor", "name": self._name(value, path)}
            case list():
                return [self.encode(item, (*path, k)) for k, item in enumerate(value)]
            case tuple():
                return {"$": "tuple", "items": [self.encode(item, (*path, k)) for k, item in enumerate(value)]}
            case Mapping():
                return self._encode_items(value, path)
            case _:
                raise InvalidArgument(
                    f"{_spelt(path)} is a {type(value).__name__}; only tensors, numbers, strings, booleans, None, and "
                    "dicts, lists and tuples of them can be saved without pickle"
                )

    def _encode_items(self, mapping: Mapping[Any, Any], path: tuple[Any, ...]) -> dict[str, Any]:
        for key in mapping:
            if not isinstance(key, str | int):
                raise InvalidArgument(f"{_spelt(path)} has the key {key!r}; only strings and integers can be saved")
        items = [(key, self.encode(value, (*path, key))) for key, value in mapping.items()]
        if "$" not in mapping and all(isinstance(key, str) for key in mapping):
            return dict(items)
        return {"$": "dict", "items": [list(item) for item in items]}

    def _name(self, tensor: Tensor, path: tuple[Any, ...]) -> str:
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided or tensor.is_meta:
            raise InvalidArgument(
                f"{_spelt(path)} is a {type(tensor).__name__} of layout {tensor.layout} on {tensor.device}; only "
                "whole, dense tensors can be saved: gather a sharded one first, densify a sparse one"
            )
        if tensor.dtype not in _DTYPES:
            raise InvalidArgument(f"{_spelt(path)} is of {tensor.dtype}, which safetensors cannot hold")
        view = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj())
        if tensor.numel() and view in self.names:
            return self.names[view][0]
        name = "/".join(map(str, path)) or "state"
        while name in self.tensors:  # {"a": {"b": T}, "a/b": T}
            name += "'"
        self.names[view] = name, tensor  # kept, so that its address is nobody else's
        own = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        # Older safetensors refuse tensors that share memory: part of a larger one, or its whole seen anew, is copied.
        memory = own.untyped_storage()
        shared = memory.nbytes() != own.nbytes or memory.data_ptr() in self.memory
        self.memory.add(memory.data_ptr())
        self.tensors[name] = own.clone() if shared else own
        return name


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"$": "tensor", "name": name}:
            return tensors[name]
        case {"$": "float", "value": text}:
            return _NOT_FINITE[text]
        case {"$": "tuple", "items": items}:
            return tuple(_decode(item, tensors) for item in items)
        case {"$": "dict", "items": items}:
            return {key: _decode(item, tensors) for key, item in items}
        case {"$": kind}:
            raise ValueError(f"objects of kind {kind!r} are unknown")
        case dict():
            return {key: _decode(item, tensors) for key, item in value.items()}
        case list():
            return [_decode(item, tensors) for item in value]
        case _:
            return value


def _spelt(path: tuple[Any, ...]) -> str:
    return "state" + "".join(f"[{key!r}]" for key in path)
