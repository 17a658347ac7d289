"""The settings of `pushforward distill-lm`: its flags and its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.language import TASK, TaskName, quiet, source
from pushforward.jobs.settings import AT_LEAST_ONE, COMMAND, FREE, POSITIVE, Bound, Switch, check_bounds, default_or

__all__ = ["DistillLm"]


@dataclass(frozen=True, kw_only=True)
class DistillLm:
    """Distil a language model into a smaller one, and say how good it became.

    Give flags, a recipe (a YAML file of the same settings, with _ in place of -), or both: flags override the recipe.
    The folder holds a student for each seed, result.json and index.html; an interrupted run goes on with --resume.
    Under torchrun the processes share each step's rows.

    Exit code 0: done. 2: a wrong flag, file or recipe key. 130: interrupted.
    """

    teacher: Annotated[Path | None, default_or("(required)", "FOLDER")] = None
    """Model to learn from: a folder with its configuration, weights (safetensors) and tokenizer."""
    student: str = "layers:3"
    """layers:3 keeps three of the teacher's layers, spread evenly; layers:0,2,4 these; else a folder with a model."""
    task: Annotated[TaskName | None, TASK] = None
    """Sentence classification task."""
    data: Annotated[Path | None, default_or("none", "FOLDER")] = None
    """Folder with the task's train and dev files."""
    text: Annotated[Path | None, default_or("none", "FILE")] = None
    """In place of a task: plain text, of which decoder-only models learn to say the next token. Its last tenth is
    held out."""
    loss: str = "kd+sinkhorn"
    """A sum such as "0.9*kd+0.8*sinkhorn". Terms: ce (the labels), kd (= kl) or another divergence, sinkhorn,
    mse (of the logits; for a task whose label is a score), published-sinkhorn. Without numbers: 0.1 ce (always there
    unless 0*ce), 0.9 of a divergence or mse, 0.8 sinkhorn. A divergence is multiplied by the temperature squared."""
    epsilon: Annotated[float, POSITIVE] = 0.1
    """Regularisation of the Sinkhorn terms."""
    temperature: Annotated[float, POSITIVE] = 2.0
    """Of student's and teacher's probabilities."""
    sinkhorn_temperature: Annotated[float | None, default_or("none", "FLOAT"), POSITIVE] = None
    """Of the Sinkhorn terms, where it is to be another."""
    learning_rate: Annotated[float, POSITIVE] = 5e-5
    """At the start; it falls to 0 linearly."""
    batch_size: Annotated[int, AT_LEAST_ONE] = 32
    """Rows a step, on all processes together."""
    epochs: Annotated[float, POSITIVE] = 3.0
    """Passes over the training rows."""
    max_length: Annotated[int, Bound(least=2)] = 128
    """Tokens after which a text is cut, or tokens of a block of --text; at most the positions of both models."""
    seeds: Annotated[int, AT_LEAST_ONE, FREE] = 1
    """How many students to train, with seeds 0, 1, ..."""
    lora_rank: Annotated[int | None, default_or("none", "INT"), AT_LEAST_ONE] = None
    """Train low-rank adapters of this rank only; they are merged into the student at the end."""
    train_teacher: Annotated[float | None, default_or("none", "EPOCHS"), POSITIVE] = None
    """Fine-tune the teacher first, for so many epochs; it is saved as OUT/teacher."""
    out: Annotated[Path | None, default_or("(required)", "FOLDER"), FREE] = None
    """Folder for the students, the figures and a page that shows them."""
    resume: Annotated[Switch, COMMAND] = False
    """Go on with the run in --out: seeds that are done are kept, the one in progress goes on from its checkpoint."""
    quiet: Annotated[Switch, COMMAND] = False
    """Show no progress."""

    def run(self) -> int:
        """Check everything, then train, then write the run's folder; returns the exit code."""
        if self.teacher is None:
            raise InputError("--teacher: is needed, the folder of the model to learn from")
        if self.out is None:
            raise InputError("--out: is needed, the folder for the run")
        source(self.task, self.data, self.text)
        check_bounds(self)
        with quiet():
            from pushforward.jobs.distill_lm.run import run
            from pushforward.training.distributed import setup

            with setup():
                return run(self, self.out)
