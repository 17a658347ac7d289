"""`pushforward evaluate`: the metrics of one model, of language or of images."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.generators import find_generator
from pushforward.jobs.inputs.language import (
    TASK,
    TaskName,
    check_length,
    for_model,
    load_model,
    load_tokenizer,
    naming,
    quiet,
    read_task,
    read_text,
    source,
)
from pushforward.jobs.settings import AT_LEAST_ONE, SEED, Bound, Switch, check_bounds, default_or

__all__ = ["Evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge a language model on a task by the task's own metrics, or on a text by its perplexity.

    With a teacher, also by how near it is to that. A generator of images is judged by how near its samples come to
    --data: Frechet distance between its floor and that of noise, precision, recall, density, coverage; in a small
    classifier's features where the data has labels, in principal components of the pixels where not.

    Exit code 0: done. 2: a wrong flag or file.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """The model's folder, for instance RUN/seed-0/student; or a generator, as `sample` takes it."""
    task: Annotated[TaskName | None, TASK] = None
    """Sentence classification task."""
    data: Annotated[Path | None, default_or("none", "DATA")] = None
    """Folder with the task's files; of a generator, images as train-diffusion takes them."""
    split: Literal["train", "dev", "test"] = "dev"
    """Which of them."""
    text: Annotated[Path | None, default_or("none", "FILE")] = None
    """In place of a task: plain text for a decoder-only model, of which the last tenth is judged, as in distill-lm."""
    teacher: Annotated[Path | None, default_or("none", "FOLDER")] = None
    """A model to compare with: the share of equal answers, and the KL from it."""
    max_length: Annotated[int, Bound(least=2)] = 128
    """Tokens after which a text is cut, or tokens of a block of --text."""
    batch_size: Annotated[int, AT_LEAST_ONE] = 32
    """Rows at a time."""
    num: Annotated[int | None, default_or("10000, of a U-Net 1000", "INT"), Bound(least=8)] = None
    """Of a generator: samples that are judged."""
    steps: Annotated[int | None, default_or("18", "INT"), AT_LEAST_ONE] = None
    """Of a generator that is a teacher: steps of its sampler."""
    seed: Annotated[int, SEED] = 0
    """Of a generator: of its samples."""
    json: Switch = False
    """Print the figures as JSON."""

    def run(self) -> int:
        """Compute and print the metrics; returns the exit code."""
        check_bounds(self)
        if not self.model.is_dir():
            raise InputError(f"MODEL {self.model}: there is no such folder")
        if find_generator(self.model) is not None:
            return self._generator()
        name, place = source(self.task, self.data, self.text)
        with quiet():
            found = self._judge(name, place)
        if self.json:
            print(
                json.dumps({name: value if math.isfinite(value) else None for name, value in found.items()}, indent=2)
            )
        else:
            print("\n".join(f"{name:<18}{value:.6g}" for name, value in found.items()))
        return OK

    def _generator(self) -> int:
        for flag, value in (("task", self.task), ("text", self.text), ("teacher", self.teacher)):
            if value is not None:
                raise InputError(f"--{flag}: is for language models; {self.model} holds a generator of images")
        if self.data is None:
            raise InputError("--data: is needed, the images that the samples should be like")

        from pushforward.jobs.generators import judge_generator, load_generator
        from pushforward.jobs.inputs.images import read_images

        images = read_images(self.data)
        found = judge_generator(load_generator(self.model), images, self.num, seed=self.seed, steps=self.steps)
        if self.json:
            print(json.dumps(found, indent=2))
            return OK
        from pushforward.diffusion.judge import written

        notes, about = found.pop("remarks"), ("features", "samples", "seed")
        figures = {name: value for name, value in found.items() if name not in about}
        lines = {name: str(found[name]) for name in about}
        lines |= written(figures, rows=min(len(images.samples) // 2, found["samples"]))
        print("\n".join(f"{name:<18}{text}" for name, text in [*lines.items(), *(("warning", one) for one in notes)]))
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
            check_length(teacher, "--teacher", [rows], self.max_length)
        model = load_model("MODEL", self.model, task)
        rows = for_model(rows, model, max_length=self.max_length)
        check_length(model, "MODEL", [rows], self.max_length)
        return judge(model, rows, teacher=teacher, batch_size=self.batch_size, vocab_size=len(tokenizer))
