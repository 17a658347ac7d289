"""Recipes: YAML files of a verb's settings, under the same names as the flags, with _ in place of -."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pushforward.jobs.errors import InputError
from pushforward.jobs.folder import holds_run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)
else:
    Settings = TypeVar("Settings")

__all__ = ["as_json", "check_resumed", "read_recipe"]


def read_recipe(file: Path, flags: Settings, *, example: str) -> Settings:
    """The settings in a recipe.

    Args:
        file: YAML, or JSON, which is YAML.
        flags: What was given on the command line beside it, which must be nothing.
        example: A line that would be a setting.

    Raises:
        InputError: The file cannot be read, or a key in it is no setting, or a flag was given.
    """
    import yaml
    from pydantic import TypeAdapter, ValidationError

    given = [f.name for f in fields(flags) if getattr(flags, f.name) != f.default]
    if given:
        raise InputError(
            f"--{given[0].replace('_', '-')}: is given beside the recipe; give flags or a recipe, not both"
        )
    try:
        text = file.read_text(encoding="utf-8")
        content, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise InputError("there is no such file") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is no YAML: {error}") from None
    except RecursionError:
        raise InputError("is no recipe: its lists are nested without end") from None
    if not isinstance(content, dict) or not isinstance(tree, yaml.MappingNode):
        raise InputError(f"holds no settings; lines such as `{example}` are needed")
    keys = [key.value for key, _ in tree.value]
    twice = next((key for k, key in enumerate(keys) if key in keys[:k]), None)
    if twice is not None:
        raise InputError(f"{twice}: is set twice; keep one of the lines")
    _refuse_other_kinds(content, flags)
    try:
        return TypeAdapter(type(flags)).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        known = ", ".join(f.name for f in fields(flags))
        msg = f"{first['msg'][0].lower()}{first['msg'][1:]}, which {str(first['input'])[:80]} is not"
        message = f"is no setting; there are {known}" if first["type"] == "unexpected_keyword_argument" else msg
        raise InputError(f"{first['loc'][0]}: {message}") from None


def _refuse_other_kinds(content: dict[Any, Any], flags: DataclassInstance) -> None:
    """Raise for values that pydantic would convert: yes to the number 1, and nothing to the current folder."""
    truths = {f.name for f in fields(flags) if isinstance(f.default, bool)}
    for key, value in content.items():
        if isinstance(value, bool) and key not in truths and key in {f.name for f in fields(flags)}:
            raise InputError(
                f"{key}: holds {'yes' if value else 'no'}, or a word that YAML takes for it; a value is needed"
            )
        if isinstance(value, str) and not value.strip():
            raise InputError(f"{key}: is empty; give a value, or take the line out")


def as_json(settings: DataclassInstance) -> dict[str, Any]:
    """Settings as a dictionary that JSON can hold."""
    return json.loads(json.dumps({f.name: getattr(settings, f.name) for f in fields(settings)}, default=str))


def check_resumed(out: Path, recipe: dict[str, Any], *, resume: bool, free: tuple[str, ...], note: str = "") -> None:
    """Raise unless a run's folder is free, or holds the run to be resumed, whose settings are in its recipe.json.

    Args:
        out: The run's folder.
        recipe: The settings now, as `as_json` gives them.
        resume: Whether a run there is to be gone on with.
        free: Settings that may differ.
        note: What the message adds about those.

    Raises:
        InputError: It is not.
    """
    file = out / "recipe.json"
    if not holds_run(out, file, resume=resume):
        return
    try:
        before = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--resume: {file} cannot be read: {error}") from None
    changed = [name for name in recipe if name not in free and before.get(name) != recipe[name]]
    if changed:
        name = changed[0]
        raise InputError(
            f"--resume: the run in {out} has {name} {before.get(name)}, not {recipe[name]}; a run is resumed with "
            f"its own settings{note}"
        )
