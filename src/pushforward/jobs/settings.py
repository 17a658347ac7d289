"""Settings: one dataclass a verb. Its fields are the flags, the keys of the recipe, and arguments of the library.

A field says once, in its annotation, what is to be known of it:

    FREE       may have another value when a run is resumed; all other fields tell runs apart
    COMMAND    says how the command behaves and not what the run is; it stands in no recipe
    Bound      the values that it may have
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro

from pushforward.jobs.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["AT_LEAST_ONE", "COMMAND", "FREE", "POSITIVE", "SEED", "Bound", "Mark", "Switch", "arguments_for"]
__all__ += ["check_bounds", "default_or", "first_difference", "recipe_of"]

Switch = Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")]


def default_or(words: str, metavar: str) -> Any:
    """How `--help` shows a flag whose default is not a value but what these words say."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=words if words.startswith("(") else f"(default: {words})")


class Mark(Enum):
    """What a field is (module docstring)."""

    FREE = "free"
    COMMAND = "command"


FREE, COMMAND = Mark.FREE, Mark.COMMAND


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The values that a number may have; a number must be finite, too.

    Args:
        least, most: Bounds that are allowed themselves.
        above, below: Bounds that are not.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether the value lies within the bounds."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def words(self, value: float) -> str:
        """What a value must be."""
        limits = (("at least", self.least), ("above", self.above), ("below", self.below), ("at most", self.most))
        parts = [f"{word} {limit:.10g}" for word, limit in limits if limit is not None]
        number = "a finite number " if isinstance(value, float) else ""
        return f"must be {number}{' and '.join(parts)}".rstrip()


POSITIVE = Bound(above=0)
AT_LEAST_ONE = Bound(least=1)
SEED = Bound(least=0, below=2**32)


def _marks(kind: type[DataclassInstance]) -> dict[str, tuple[Any, ...]]:
    """What each field is annotated with, by its name."""
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: getattr(hints[f.name], "__metadata__", ()) for f in fields(kind)}


def check_bounds(settings: DataclassInstance) -> None:
    """Refuse values outside their bounds.

    Raises:
        InputError: There is one; the message names its flag.
    """
    for name, marks in _marks(type(settings)).items():
        value = getattr(settings, name)
        for bound in (mark for mark in marks if isinstance(mark, Bound)):
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and not bound.holds(number):
                    raise InputError(f"--{name.replace('_', '-')} {number}: {bound.words(number)}")


def recipe_of(settings: DataclassInstance) -> dict[str, Any]:
    """The settings as a recipe holds them, in words that YAML and JSON have; those that are None are left out."""
    marks = _marks(type(settings))
    held = {name: getattr(settings, name) for name in marks if COMMAND not in marks[name]}
    return json.loads(json.dumps({name: value for name, value in held.items() if value is not None}, default=str))


def first_difference(settings: DataclassInstance, before: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first setting of a run that is not what its recipe says: name, value then, value now. None if there is none.

    A setting that the recipe does not have, since it is of an older version, had its default then.
    """
    marks, now = _marks(type(settings)), recipe_of(settings)
    for field in fields(settings):
        if FREE in marks[field.name] or COMMAND in marks[field.name]:
            continue
        default = None if field.default is MISSING else json.loads(json.dumps(field.default, default=str))
        then = before.get(field.name, default)
        if then != now.get(field.name):
            return field.name, then, now.get(field.name)
    return None


def arguments_for(
    taker: Callable[..., Any], settings: DataclassInstance, names: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Of the settings, those that a class of the library takes by the same name, and that are not None.

    Args:
        taker: The class.
        settings: The settings.
        names: What the class calls settings that have another name here; None as the name leaves out an argument.
    """
    names = names or {}
    known = {f.name for f in fields(settings)}
    found: dict[str, Any] = {}
    for argument in inspect.signature(taker).parameters:
        name = names.get(argument, argument)
        if name in known and getattr(settings, name) is not None:
            found[argument] = getattr(settings, name)
    return found
