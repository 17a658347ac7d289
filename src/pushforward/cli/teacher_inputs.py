"""Folders -> teachers: what `train-diffusion` left, or a pipeline of diffusers."""

from __future__ import annotations

from pathlib import Path

from pushforward.cli.errors import InputError
from pushforward.diffusion import Denoiser, teachers
from pushforward.diffusion.teacher_training import load_teacher as load_trained
from pushforward.errors import PushforwardError

__all__ = ["classes_of", "load_teacher", "shape_of"]


def load_teacher(folder: Path, *, flag: str = "--teacher ") -> tuple[Denoiser, tuple[int, ...] | None]:
    """The teacher in a folder or in its folder `teacher`, and the shape of its samples, where the folder says so.

    Args:
        folder: Where it is.
        flag: What stands before the folder in an error.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{flag}{folder}: there is no such folder")
    own = next((place for place in (folder, folder / "teacher") if (place / "teacher.json").is_file()), None)
    try:
        return load_trained(own) if own is not None else (teachers.from_diffusers(folder), None)
    except ImportError:
        raise InputError(
            f"{flag}{folder}: diffusers is needed to read it: pip install pushforward[diffusion]"
        ) from None
    except PushforwardError as error:
        raise InputError(f"{flag}{folder}: {error}") from None


def classes_of(teacher: Denoiser) -> int | None:
    """How many labels a teacher's network knows; None where it takes none."""
    for module in teacher.modules():
        config = getattr(module, "config", None)
        known = getattr(config, "classes", None) or getattr(config, "num_class_embeds", None)
        if known:
            return int(known)
    return None


def shape_of(teacher: Denoiser) -> tuple[int, ...] | None:
    """The shape of its samples, (C, H, W), by the config of a model of diffusers; None where that does not say."""
    for module in teacher.modules():
        config = getattr(module, "config", None)
        channels, size = getattr(config, "in_channels", None), getattr(config, "sample_size", None)
        if channels and size:
            return (channels, size, size) if isinstance(size, int) else (channels, *size)
    return None
