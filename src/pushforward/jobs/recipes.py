"""Recipes: YAML files of a verb's settings, under the same names as the flags, with _ in place of -."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import tyro

from pushforward.jobs.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)
else:
    Settings = TypeVar("Settings")

__all__ = ["load_recipe", "read_recipe", "recipe_among"]

ENDS = (".yaml", ".yml", ".json")
# What a recipe may say beside settings.
_ABOUT = ("verb", "version")


def recipe_among(words: Sequence[str], kind: type[DataclassInstance]) -> int | None:
    """Which of a command's words is its recipe: the first that ends as one and is no flag's value; None of none."""
    switches = {f"--{name.replace('_', '-')}" for name, hint in get_type_hints(kind).items() if hint is bool}
    for k, word in enumerate(words):
        before = words[k - 1] if k else ""
        is_value = before.startswith("--") and "=" not in before and before not in switches
        if not word.startswith("-") and word.lower().endswith(ENDS) and not is_value:
            return k
    return None


def read_recipe(file: Path, verb: str, kind: type[Settings]) -> Settings:
    """The settings in a recipe, and the defaults of all others; a positional argument may be left open.

    Args:
        file: YAML, or JSON, which is YAML.
        verb: The command's name.
        kind: Its settings.

    Raises:
        InputError: The file cannot be read, is another verb's recipe, or a key or value in it is wrong.
    """
    from pydantic import TypeAdapter, ValidationError

    content = load_recipe(file)
    if content.get("verb", verb) != verb:
        raise InputError(f"is a recipe of {content['verb']}, not of {verb}")
    hints, known = get_type_hints(kind), [f.name for f in fields(kind)]
    values: dict[str, Any] = {f.name: tyro.MISSING for f in fields(kind) if f.default is MISSING}
    for key, value in content.items():
        if key in _ABOUT:
            continue
        if key not in known:
            raise InputError(f"{key}: is no setting; there are {', '.join(known)}")
        _refuse_other_kinds(key, value, is_truth=hints[key] is bool)
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            wanted = f"{first['msg'][0].lower()}{first['msg'][1:]}"
            raise InputError(f"{key}: {wanted}, which {str(first['input'])[:80]} is not") from None
    return kind(**values)


def load_recipe(file: Path) -> dict[str, Any]:
    """What a recipe's file holds, by key.

    Raises:
        InputError: The file cannot be read, holds no settings, or one twice.
    """
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
        content, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        newer = file.with_suffix(".yaml")
        renamed = file.name == "recipe.json" and newer.is_file()  # 0.1's name in a run's folder
        hint = f"; the run's recipe is {newer} now" if renamed else ""
        raise InputError(f"there is no such file{hint}") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no text, or a date that is none
        raise InputError(f"is no YAML: {error}") from None
    except RecursionError:
        raise InputError("is no recipe: its lists are nested without end") from None
    if not isinstance(content, dict) or not isinstance(tree, yaml.MappingNode):
        raise InputError("holds no settings; lines such as `seed: 0` are needed")
    keys = [key.value for key, _ in tree.value]
    twice = next((key for k, key in enumerate(keys) if key in keys[:k]), None)
    if twice is not None:
        raise InputError(f"{twice}: is set twice; keep one of the lines")
    return content


def _refuse_other_kinds(key: str, value: Any, *, is_truth: bool) -> None:
    """Raise for values that pydantic would convert: yes to the number 1, and nothing to the current folder."""
    if isinstance(value, bool) and not is_truth:
        raise InputError(
            f"{key}: holds {'yes' if value else 'no'}, or a word that YAML takes for it; a value is needed"
        )
    if isinstance(value, str) and not value.strip():
        raise InputError(f"{key}: is empty; give a value, or take the line out")
