"""`pushforward evaluate`: the figures of one model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pushforward.cli.errors import OK, InputError
from pushforward.cli.lm_inputs import (
    NONE,
    TASK,
    TaskName,
    load_model,
    load_tokenizer,
    naming,
    quiet,
    read_task,
    read_text,
    source,
)

__all__ = ["Evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge a model on a task by the task's own metrics, or on a text by its perplexity.

    With a teacher, also by how near it is to that.

    Exit code 0: done. 2: a wrong flag or file.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """The model's folder, for instance RUN/seed-0/student."""
    task: Annotated[TaskName | None, TASK] = None
    """Sentence classification task."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), NONE] = None
    """Folder with the task's files."""
    split: Literal["train", "dev", "test"] = "dev"
    """Which of them."""
    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE"), NONE] = None
    """In place of a task: plain text for a decoder-only model, of which the last tenth is judged, as in distill-lm."""
    teacher: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), NONE] = None
    """A model to compare with: the share of equal answers, and the KL from it."""
    max_length: int = 128
    """Tokens after which a text is cut, or tokens of a block of --text."""
    batch_size: int = 32
    """Rows at a time."""
    json: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Print the figures as JSON."""

    def run(self) -> int:
        """Judge and print."""
        name, place = source(self.task, self.data, self.text)
        for flag, value, least in (("max-length", self.max_length, 2), ("batch-size", self.batch_size, 1)):
            if value < least:
                raise InputError(f"--{flag} {value}: must be at least {least}")
        with quiet():
            found = self._judge(name, place)
        if self.json:
            print(
                json.dumps({name: value if math.isfinite(value) else None for name, value in found.items()}, indent=2)
            )
        else:
            print("\n".join(f"{name:<18}{value:.6g}" for name, value in found.items()))
        return OK

    def _judge(self, name: TaskName | None, place: Path) -> dict[str, float]:
        from pushforward.lm.judge import judge
        from pushforward.lm.tasks import TASKS
        from pushforward.lm.vocab import check_same_tokenizer

        task = None if name is None else TASKS[name]
        tokenizer = load_tokenizer("MODEL", self.model)
        if task is None:
            _, rows = read_text(place, tokenizer, length=self.max_length)
        else:
            rows = read_task(task, place, self.split, tokenizer, max_length=self.max_length)
        teacher = None
        if self.teacher is not None:
            with naming(f"--teacher {self.teacher}"):
                check_same_tokenizer(tokenizer, load_tokenizer("--teacher", self.teacher))
            teacher = load_model("--teacher", self.teacher, task)
        model = load_model("MODEL", self.model, task)
        return judge(model, rows, teacher=teacher, batch_size=self.batch_size, vocab_size=len(tokenizer))
