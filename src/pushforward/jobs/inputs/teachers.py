"""Folders as teachers: a run of `train-diffusion`, or a pipeline of diffusers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pushforward.diffusion import Denoiser, teachers
from pushforward.diffusion.teacher_training import load_teacher as load_trained
from pushforward.errors import PushforwardError
from pushforward.jobs.errors import InputError

# Where the networks of this library, UNets and transformers of diffusers have their number of classes.
_CLASSES = ("classes", "num_class_embeds", "num_embeds_ada_norm")

__all__ = ["check_known", "classes_of", "labels_of", "load_teacher", "null_of", "shape_of", "spans"]


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
    """The number of labels that a teacher's network takes; None where it takes none."""
    for module in teacher.modules():
        config = getattr(module, "config", None)
        known = next((found for name in _CLASSES if (found := getattr(config, name, None))), None)
        if known:
            return int(known)
    return None


def labels_of(teacher: Denoiser) -> Tensor | None:
    """The labels that a teacher or student was trained on, or else all that its network knows; None of neither."""
    if teacher.labels is not None:
        return torch.tensor(teacher.labels) if teacher.labels else None
    classes = classes_of(teacher)
    return None if classes is None else torch.arange(classes)


def null_of(teacher: Denoiser) -> int | None:
    """The label that a class-conditional transformer was trained on as none; None where none is needed."""
    for module in teacher.modules():
        classes = getattr(getattr(module, "config", None), "num_embeds_ada_norm", None)
        if classes:
            return int(classes)
    return None


def check_known(name: str, labels: Tensor, known: Tensor) -> None:
    """Raise for labels that a generator was not trained on.

    Raises:
        InputError: There are some; the message names them after `name`.
    """
    strange = labels[~torch.isin(labels, known)].unique().tolist()
    if strange:
        raise InputError(f"{name}: has the labels {spans(strange)}, but the model knows {spans(known.tolist())}")


def spans(labels: list[int]) -> str:
    """Sorted labels in words: runs of neighbours as `0 to 9`."""
    ends = [k for k, label in enumerate(labels) if k + 1 == len(labels) or labels[k + 1] != label + 1]
    found = [(labels[before + 1], labels[end]) for before, end in zip([-1, *ends], ends, strict=False)]
    return ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in found)


def shape_of(teacher: Denoiser) -> tuple[int, ...] | None:
    """The shape of its samples, (C, H, W), by the config of a model of diffusers; None where that does not say."""
    for module in teacher.modules():
        config = getattr(module, "config", None)
        channels, size = getattr(config, "in_channels", None), getattr(config, "sample_size", None)
        if channels and size:
            return (channels, size, size) if isinstance(size, int) else (channels, *size)
    return None
