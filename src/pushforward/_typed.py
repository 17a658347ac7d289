"""Arguments of the types that a signature names, checked at the door: what is wrong is an error that says which one.

    @typed
    def sample(teacher: Teacher, count: int, shape: Sequence[int], *, steps: int = 18) -> Tensor: ...

looks at each argument that is given, by its annotation:

annotation                            what is taken
Tensor                                a tensor of real numbers, which has memory
float                                 a real number, neither NaN nor -inf; numpy's and torch's single numbers, too
int                                   an integer, and no truth value; a seed is at least 0
bool, str, Path, Callable, Sequence   one of them; of int, float or str where the annotation says so
bool | int                            a truth value, for which 0 and 1 may stand
Mapping, dict                         a dict, or what behaves as one
a class of the module, or classes     an instance of it, or of one of them
a Literal's name                      one of its values; a function, too, where the name stands for Literal | Callable

A fraction, a decimal or a tensor without a graph is passed on as Python's own number. Ranges, shapes and other choices
are the function's own to check, as are arguments annotated with anything else.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from pushforward._checks import check_choice, check_count, check_instance, check_real, shortened
from pushforward._interop import check_numbers
from pushforward.errors import InvalidArgument

__all__ = ["check_flag", "check_folder", "check_path", "check_tensor", "typed", "typed_fields"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)
# Of a file or a folder, on all common file systems.
LONGEST_NAME = 255
Check = Callable[[str, Any], Any]
"""Takes an argument's name and value; returns the value that the function gets, or raises."""


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with a check that its arguments are what its annotations say."""
    names = [*inspect.signature(function).parameters]
    module = vars(sys.modules[function.__module__])
    annotations = {name: str(text) for name, text in function.__annotations__.items() if name != "return"}
    checks = {name: check for name, text in annotations.items() if (check := _check_of(text, module))}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        placed = [checks[name](name, value) if name in checks else value for name, value in zip(names, args)]  # noqa: B905
        named = {name: checks[name](name, value) if name in checks else value for name, value in kwargs.items()}
        return function(*placed, *args[len(placed) :], **named)  # pyright: ignore[reportCallIssue]

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
    check_numbers(name, check_instance(name, value, Tensor))
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

    return lambda name, value: None if value is None else check(name, value)


def _of_class(text: str, module: dict[str, Any]) -> Check | None:
    # The class is looked up when it is needed: it may be defined below, or be imported for the type checker alone.
    if text in ("Any", "Self", "Callable"):
        return None

    def check(name: str, value: Any) -> Any:
        kind = module.get(text)
        if isinstance(kind, type) and not getattr(kind, "_is_protocol", False):
            return check_instance(name, value, kind)
        classes = get_args(kind) if isinstance(kind, UnionType) else ()
        if classes and all(isinstance(one, type) for one in classes):
            if not isinstance(value, classes):
                names = " or a ".join(one.__name__ for one in classes)
                raise InvalidArgument(f"{name} must be a {names}, got a {type(value).__name__}: {shortened(value)}")
            return value
        choices, function_too = _choices_of(kind)
        return check_choice(name, value, choices) if choices and not (function_too and callable(value)) else value

    return check


def _choices_of(alias: Any) -> tuple[tuple[str, ...], bool]:
    """The values of an alias for a Literal, and whether it takes a function, too; no values for anything else."""
    parts = get_args(alias) if get_origin(alias) in (Union, UnionType) else (alias,)
    origins = {get_origin(part) for part in parts}
    if Literal not in origins or not origins <= {Literal, Callable}:
        return (), False
    values = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
    return tuple(values), Callable in origins


def _sequence_of(text: str) -> Check | None:
    match = re.fullmatch(r"Sequence\[(int|float|str)\]|tuple\[(int|float|str), \.\.\.\]", text)
    if match is None:
        return None
    check = _CHECKS[match[1] or match[2]]

    def each(name: str, value: Any) -> Any:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray | Tensor):
            raise InvalidArgument(f"{name} must be a sequence, got a {type(value).__name__}: {shortened(value)}")
        for k, item in enumerate(value):
            check(f"{name}[{k}]", item)
        return value

    return each


def _check_number(name: str, value: Any) -> Any:
    number = check_real(name, value)
    if number == -math.inf:
        raise InvalidArgument(f"{name} must be a number above minus infinity, got {shortened(value)}")
    keeps_graph = isinstance(value, Tensor) and value.requires_grad
    return value if isinstance(value, float | int | np.number) or keeps_graph else number


def _check_integer(name: str, value: Any) -> Any:
    number = check_count(name, value, least=0 if name == "seed" else None)
    return value if isinstance(value, int) else number


def check_flag(name: str, value: Any) -> bool:
    """The value as Python's truth value, if it is True or False, of Python or numpy.

    Raises:
        InvalidArgument: It is anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidArgument(f"{name} must be True or False, got {shortened(value)}")
    return bool(value)


def check_flag_or_bit(name: str, value: Any) -> bool:
    """The value as Python's truth value, if it is True, False, 1 or 0, of Python or numpy.

    Raises:
        InvalidArgument: It is anything else.
    """
    return bool(value) if isinstance(value, int | np.integer) and value in (0, 1) else check_flag(name, value)


def _check_text(name: str, value: Any) -> str:
    return check_instance(name, value, str)


def check_path(name: str, value: Any) -> Any:
    """`value`, which must be a path: text or an object of `pathlib`, without null characters.

    Raises:
        InvalidArgument: It is anything else.
    """
    if not isinstance(value, str | os.PathLike) or "\0" in str(value):
        raise InvalidArgument(f"{name} must be a path, got {shortened(value)}")
    return value


def check_folder(name: str, value: Any) -> Path:
    """`value` as a path where a folder is or can be made; nothing is made.

    Raises:
        InvalidArgument: It is no path, a file is there or above it, or a name in it is too long.
    """
    folder = Path(check_path(name, value))
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in folder.parts):
        raise InvalidArgument(f"{name} is {shortened(str(folder))}; a name in it is longer than {LONGEST_NAME} bytes")
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), None)
    if there is not None and not there.is_dir():
        raise InvalidArgument(f"{name} is {folder}, but {there} is a file; a folder is needed")
    return folder


def _check_pathlib_path(name: str, value: Any) -> Path:
    if not isinstance(check_path(name, value), Path):
        raise InvalidArgument(f"{name} must be a pathlib.Path, got {shortened(value)}")
    return value


def _check_mapping(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{name} must be a dict, got a {type(value).__name__}: {shortened(value)}")
    return value  # pyright: ignore[reportUnknownVariableType]


def _check_function(name: str, value: Any) -> Any:
    if not callable(value):
        raise InvalidArgument(f"{name} is a {type(value).__name__}; a function is needed: {shortened(value)}")
    return value


_CHECKS: dict[str, Check] = {
    "Tensor": check_tensor,
    "float": _check_number,
    "int": _check_integer,
    "bool": check_flag,
    "bool | int": check_flag_or_bit,
    "str": _check_text,
    "Path": _check_pathlib_path,
    "str | Path": check_path,
    "torch.dtype": lambda name, value: check_instance(name, value, torch.dtype),
    "torch.Generator": lambda name, value: check_instance(name, value, torch.Generator),
    "nn.Module": _check_function,
}
