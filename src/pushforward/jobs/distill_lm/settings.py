"""`pushforward distill-lm`: a language model into a smaller one, over several seeds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import interruption, make_folder
from pushforward.jobs.inputs.language import NONE, TASK, TaskName, quiet, source
from pushforward.jobs.recipes import as_json, check_resumed, read_recipe

__all__ = ["DistillLm", "Settings"]

_NEEDED = tyro.conf.arg(help_behavior_hint="(required)")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained, on what and how. A recipe holds the same under the same names, with _ in place of -."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # a key that is no setting is an error

    teacher: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), _NEEDED] = None
    """Model to learn from: a folder with its configuration, weights (safetensors) and tokenizer."""
    student: str = "layers:3"
    """layers:3 keeps three of the teacher's layers, spread evenly; layers:0,2,4 these; else a folder with a model."""
    task: Annotated[TaskName | None, TASK] = None
    """Sentence classification task."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), NONE] = None
    """Folder with the task's train and dev files."""
    text: Annotated[Path | None, tyro.conf.arg(metavar="FILE"), NONE] = None
    """In place of a task: plain text, of which decoder-only models learn to say the next token. Its last tenth is
    held out."""
    loss: str = "kd+sinkhorn"
    """A sum such as "0.9*kd+0.8*sinkhorn". Terms: ce (the labels), kd (= kl) or another divergence, sinkhorn,
    mse (of the logits; for a task whose label is a score), published-sinkhorn. Without numbers: 0.1 ce (always there
    unless 0*ce), 0.9 of a divergence or mse, 0.8 sinkhorn. A divergence is multiplied by the temperature squared."""
    epsilon: float = 0.1
    """Regularisation of the Sinkhorn terms."""
    temperature: float = 2.0
    """Of student's and teacher's probabilities."""
    sinkhorn_temperature: Annotated[float | None, tyro.conf.arg(metavar="FLOAT"), NONE] = None
    """Of the Sinkhorn terms, where it is to be another."""
    learning_rate: float = 5e-5
    """At the start; it falls to 0 linearly."""
    batch_size: int = 32
    """Rows a step, on all processes together."""
    epochs: float = 3.0
    """Passes over the training rows."""
    max_length: int = 128
    """Tokens after which a text is cut, or tokens of a block of --text; at most the positions of both models."""
    seeds: int = 1
    """How many students to train, with seeds 0, 1, ..."""
    lora_rank: Annotated[int | None, tyro.conf.arg(metavar="INT"), NONE] = None
    """Train low-rank adapters of this rank only; they are merged into the student at the end."""
    train_teacher: Annotated[float | None, tyro.conf.arg(metavar="EPOCHS"), NONE] = None
    """Fine-tune the teacher first, for so many epochs; it is saved as OUT/teacher."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), _NEEDED] = None
    """Folder for the students, the figures and a page that shows them."""


@dataclass(frozen=True, kw_only=True)
class DistillLm:
    """Distil a language model into a smaller one, and say how good it became.

    Give flags or a recipe, a YAML file of the same settings. The folder holds a student for each seed, results.json and
    index.html; an interrupted run goes on with --resume. Under torchrun the processes share each step's rows.

    Exit code 0: done. 2: a wrong flag, file or recipe key. 130: interrupted.
    """

    recipe: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[RECIPE]", help_behavior_hint="")] = (
        None
    )
    """YAML file of settings, in place of flags."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = Settings()
    """What is trained."""
    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Go on with the run in --out: seeds that are done are kept, the one in progress goes on from its checkpoint."""
    quiet: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Show no progress."""

    def run(self) -> int:
        """Check everything, then train, then write the run's folder."""
        if self.recipe is None:
            return self._distil(self.settings)
        try:
            return self._distil(read_recipe(self.recipe, self.settings, example="task: sst2"))
        except InputError as error:
            # Keys are named as the flags are.
            raise InputError(f"{self.recipe}: {error}") from None

    def _distil(self, settings: Settings) -> int:
        out = _check(settings)
        recipe = as_json(settings)
        check_resumed(out, recipe, resume=self.resume, free=("out", "seeds"), note=" (but for the number of seeds)")
        with quiet():
            from pushforward.jobs.distill_lm.run import prepare, run
            from pushforward.training.distributed import barrier, is_main, setup

            with setup():
                barrier()  # every process has checked the folder before one writes into it
                job = prepare(settings, out, progress=not self.quiet and is_main())
                if is_main():
                    make_folder(out)
                    (out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
                try:
                    summary = run(job)
                except KeyboardInterrupt:
                    again = f": pushforward distill-lm {out / 'recipe.json'} --resume"
                    raise KeyboardInterrupt(interruption(out, again)) from None
                if is_main():
                    print(summary)
        return OK


def _check(settings: Settings) -> Path:
    """Refuse settings that cannot be meant, before anything is loaded; the run's folder."""
    if settings.teacher is None:
        raise InputError("--teacher: is needed, the folder of the model to learn from")
    if settings.out is None:
        raise InputError("--out: is needed, the folder for the run")
    source(settings.task, settings.data, settings.text)
    for name in ("epsilon", "temperature", "sinkhorn_temperature", "learning_rate", "epochs", "train_teacher"):
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"--{name.replace('_', '-')} {value}: must be a finite number above 0")
    for name, least in (("batch_size", 1), ("max_length", 2), ("seeds", 1), ("lora_rank", 1)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
    return settings.out
