"""Arguments of the types that a signature names, checked at the door: what is wrong is an error that says which one.

    @typed
    def sample(teacher: Teacher, count: int, shape: Sequence[int], *, steps: int = 18) -> Tensor: ...

looks at each argument that is given, by its annotation:

annotation                            what is taken
Tensor                                a tensor of real numbers, which has memory
float                                 a real number, not NaN; numpy's and torch's single numbers, too
int                                   an integer, and no truth value
bool, str, Path, Callable, Sequence   one of them; of int, float or str where the annotation says so
Mapping, dict                         a dict, or what behaves as one
a class of the module                 an instance of it

Ranges, shapes and choices are the function's own to check, as are arguments annotated with anything else.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from pushforward._checks import check_count, check_has_memory, check_instance, check_real, shortened
from pushforward.errors import InvalidArgument

__all__ = ["check_flag", "check_tensor", "typed", "typed_fields"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
Check = Callable[[str, Any], object]


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with a check that its arguments are what its annotations say."""
    names = [*inspect.signature(function).parameters]
    module = vars(sys.modules[function.__module__])
    annotations = {name: text for name, text in function.__annotations__.items() if name != "return"}
    checks = {name: check for name, text in annotations.items() if (check := _check_of(str(text), module))}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in zip(names, args, strict=False):
            if name in checks:
                checks[name](name, value)
        for name, value in kwargs.items():
            if name in checks:
                checks[name](name, value)
        return function(*args, **kwargs)

    return checked


def typed_fields(kind: C) -> C:
    """The dataclass, with a check that its fields are what its annotations say."""
    init = kind.__init__
    init.__module__ = kind.__module__
    kind.__init__ = typed(init)
    return kind


def check_tensor(name: str, value: Any) -> Tensor:
    """`value`, which must be a tensor of real numbers.

    Raises:
        InvalidArgument: It is something else, or holds no real numbers.
    """
    check_instance(name, value, Tensor)
    if value.is_complex() or value.is_quantized:
        raise InvalidArgument(f"{name} has dtype {value.dtype}; real numbers are needed")
    check_has_memory(name, value)
    return value


def _check_of(annotation: str, module: dict[str, Any]) -> Check | None:
    """The check that an annotation implies, or None."""
    text = annotation.removesuffix(" | None")
    found = _CHECKS.get(text) or _sequence_of(text)
    if found is None and text.startswith("Callable["):
        found = _check_function
    if found is None and text.startswith(("Mapping[", "dict[")):
        found = _check_mapping
    if found is None and re.fullmatch(r"\w+", text):
        found = _of_class(text, module)
    if found is None or text == annotation:
        return found
    check = found

    def optional(name: str, value: Any) -> None:
        if value is not None:
            check(name, value)

    return optional


def _of_class(text: str, module: dict[str, Any]) -> Check | None:
    # The class is looked up when it is needed: it may be defined below, or be imported for the type checker alone.
    if text in ("Any", "Self", "Callable"):
        return None

    def check(name: str, value: Any) -> None:
        kind = module.get(text)
        if isinstance(kind, type) and not getattr(kind, "_is_protocol", False):
            check_instance(name, value, kind)

    return check


def _sequence_of(text: str) -> Check | None:
    match = re.fullmatch(r"Sequence\[(int|float|str)\]|tuple\[(int|float|str), \.\.\.\]", text)
    if match is None:
        return None
    check = _CHECKS[match[1] or match[2]]

    def each(name: str, value: Any) -> None:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray | Tensor):
            raise InvalidArgument(f"{name} must be a sequence, got a {type(value).__name__}: {shortened(value)}")
        for k, item in enumerate(value):
            check(f"{name}[{k}]", item)

    return each


def _check_integer(name: str, value: Any) -> None:
    check_count(name, value, least=None)


def check_flag(name: str, value: Any) -> None:
    """Raise unless a value is True or False, of Python or numpy."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidArgument(f"{name} must be True or False, got {shortened(value)}")


def _check_text(name: str, value: Any) -> None:
    check_instance(name, value, str)


def _check_path(name: str, value: Any) -> None:
    if not isinstance(value, str | os.PathLike) or "\0" in str(value):
        raise InvalidArgument(f"{name} must be a path, got {shortened(value)}")


def _check_pathlib_path(name: str, value: Any) -> None:
    _check_path(name, value)
    if not isinstance(value, Path):
        raise InvalidArgument(f"{name} must be a pathlib.Path, got {shortened(value)}")


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{name} must be a dict, got a {type(value).__name__}: {shortened(value)}")


def _check_function(name: str, value: Any) -> None:
    if not callable(value):
        raise InvalidArgument(f"{name} is a {type(value).__name__}; a function is needed: {shortened(value)}")


_CHECKS: dict[str, Check] = {
    "Tensor": check_tensor,
    "float": check_real,
    "int": _check_integer,
    "bool": check_flag,
    "str": _check_text,
    "Path": _check_pathlib_path,
    "str | Path": _check_path,
    "torch.Generator": lambda name, value: check_instance(name, value, torch.Generator),
    "nn.Module": _check_function,
}
