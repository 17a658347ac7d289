"""Distil language models: losses between logits, tasks, students, and the trainer.

The names below load on first use: losses need torch alone, the trainer transformers, tasks neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pushforward.lm.losses import KD, Context, DistillationLoss, SquaredError
    from pushforward.lm.sinkhorn import SinkhornKD, TokenCost
    from pushforward.lm.students import parse_student, student_from_layers, with_lora
    from pushforward.lm.tasks import TASKS, Examples, Task, from_dataset, metrics, read
    from pushforward.lm.trainer import DistillationArguments, DistillationTrainer
    from pushforward.lm.vocab import check_same_tokenizer, match_widths

_HOMES = {
    "losses": ("KD", "Context", "DistillationLoss", "SquaredError"),
    "sinkhorn": ("SinkhornKD", "TokenCost"),
    "students": ("parse_student", "student_from_layers", "with_lora"),
    "tasks": ("TASKS", "Examples", "Task", "from_dataset", "metrics", "read"),
    "trainer": ("DistillationArguments", "DistillationTrainer"),
    "vocab": ("check_same_tokenizer", "match_widths"),
}

__all__ = [
    "KD",
    "TASKS",
    "Context",
    "DistillationArguments",
    "DistillationLoss",
    "DistillationTrainer",
    "Examples",
    "SinkhornKD",
    "SquaredError",
    "Task",
    "TokenCost",
    "check_same_tokenizer",
    "from_dataset",
    "match_widths",
    "metrics",
    "parse_student",
    "read",
    "student_from_layers",
    "with_lora",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            try:
                value = getattr(importlib.import_module(f"pushforward.lm.{home}"), name)
            except ModuleNotFoundError as missing:
                if missing.name != "transformers":
                    raise
                raise ModuleNotFoundError(
                    f"pushforward.lm.{name} needs transformers: pip install 'pushforward[lm]'", name=missing.name
                ) from None
            globals()[name] = value
            return value
    raise AttributeError(f"module 'pushforward.lm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
