"""What `pushforward distill-lm` does with its settings, and what it leaves behind.

recipe.yaml              the settings, with which a run is repeated or resumed
teacher/                 with --train-teacher: the teacher and its tokenizer
seed-K/checkpoint-N/     the last state of the training
seed-K/log.jsonl         one line every few steps: the losses; the student's figures on held-out rows
seed-K/student/          the student (safetensors) and its tokenizer
seed-K/result.json       the student's figures, written last: a seed that has them is done
result.json              the figures of all, their means and 95 % intervals over the seeds
report.json, index.html  the page
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, set_seed

from pushforward.errors import CheckpointError
from pushforward.jobs.distill_lm.loss import parse_loss
from pushforward.jobs.distill_lm.page import write
from pushforward.jobs.distill_lm.watch import Watch
from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import LOG, RESULT, begin, check_resumed, interruptible, write_result
from pushforward.jobs.inputs.language import (
    check_length,
    for_model,
    load_model,
    load_tokenizer,
    naming,
    read_task,
    read_text,
)
from pushforward.lm.data import Rows
from pushforward.lm.judge import judge
from pushforward.lm.losses import Context, DistillationLoss
from pushforward.lm.students import parse_student, with_lora
from pushforward.lm.tasks import TASKS
from pushforward.lm.trainer import DistillationArguments, DistillationTrainer
from pushforward.lm.vocab import check_same_tokenizer
from pushforward.training.distributed import barrier, is_main, world_size
from pushforward.training.seal import seal

if TYPE_CHECKING:
    from pushforward.jobs.distill_lm.settings import DistillLm

__all__ = ["Job", "run"]

# A student is checked so often in a training, on at most so many held-out rows: enough for a curve, and cheap.
_CHECKS, _CHECKED = 10, 256


@dataclass(kw_only=True)
class Job:
    """A run whose files have all been read and found to fit.

    Args:
        settings: As they were given.
        out: The run's folder.
        teacher: The model to learn from.
        tokenizer: The tokenizer of teacher and student.
        train, dev: Rows to learn from and to judge by.
        label_weight, loss: What is minimised; a loss of None is no distillation.
        progress: Whether to show it.
    """

    settings: DistillLm
    out: Path
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Rows
    dev: Rows
    label_weight: float
    loss: DistillationLoss | None
    progress: bool

    def arguments(self, folder: Path, *, epochs: float, seed: int = 0, pads: bool = False) -> DistillationArguments:
        """How a model is trained; `pads` says that its logits are wider or narrower than the teacher's."""
        settings = self.settings
        steps = math.ceil(math.ceil(len(self.train) / settings.batch_size) * epochs)
        return DistillationArguments(
            output_dir=str(folder),
            per_device_train_batch_size=settings.batch_size // world_size(),
            num_train_epochs=epochs,
            learning_rate=settings.learning_rate,
            seed=seed,
            label_weight=self.label_weight,
            vocab_size=len(self.tokenizer) if pads else None,
            logging_steps=max(1, steps // 50),
            save_strategy="steps",
            save_steps=max(1, steps // _CHECKS),
            save_total_limit=1,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            # Asked for by name, or transformers would leave each process of several to itself.
            use_cpu=world_size() > 1 and not torch.cuda.is_available(),
        )

    def judge(self, model: torch.nn.Module, rows: Rows | None = None) -> dict[str, float]:
        """A student's figures, those beside the teacher among them."""
        rows = self.dev if rows is None else rows
        return judge(
            model, rows, teacher=self.teacher, batch_size=self.settings.batch_size, vocab_size=len(self.tokenizer)
        )


class _LabelsOnly(DistillationLoss):
    """The distillation loss of "ce" alone, which learns from labels and not from the teacher's logits."""

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """Return 0, (), whatever the logits are."""
        return student_logits.new_zeros(())


def _prepare(settings: DistillLm, out: Path, *, progress: bool) -> Job:
    """Read every file that the settings name, and see that they fit together.

    Raises:
        InputError: One is missing or does not fit; the message names the setting.
    """
    label_weight, loss = parse_loss(
        settings.loss,
        temperature=settings.temperature,
        epsilon=settings.epsilon,
        sinkhorn_temperature=settings.sinkhorn_temperature,
    )
    task = None if settings.task is None else TASKS[settings.task]
    if task is not None and not task.labels and loss is not None and loss.of_classes:
        raise InputError(
            f"--task {task.name}: its label is a score, of which there is no distribution; "
            f"--loss {settings.loss} needs one, --loss mse is the squared distance of the two scores"
        )
    if settings.batch_size % world_size():
        raise InputError(f"--batch-size {settings.batch_size}: is no multiple of the {world_size()} processes")
    folder = settings.teacher or Path()
    tokenizer = load_tokenizer("--teacher", folder)
    if task is None:
        train, dev = read_text(settings.text or Path(), tokenizer, length=settings.max_length)
    else:
        data = settings.data or Path()
        train = read_task(task, data, "train", tokenizer, max_length=settings.max_length)
        dev = read_task(task, data, "dev", tokenizer, max_length=settings.max_length)
    trained = out / "teacher"
    if settings.train_teacher is not None and trained.is_dir():
        teacher = load_model("--resume", trained, task)
    else:
        set_seed(0)  # of a head that is made anew
        teacher = load_model("--teacher", folder, task, new_head=settings.train_teacher is not None)
    train, dev = (for_model(rows, teacher, max_length=settings.max_length) for rows in (train, dev))
    if not settings.student.startswith("layers:"):
        place = Path(settings.student)
        with naming(f"--student {place}"):
            check_same_tokenizer(load_tokenizer("--student", place), tokenizer)
    job = Job(
        settings=settings,
        out=out,
        teacher=teacher,
        tokenizer=tokenizer,
        train=train,
        dev=dev,
        label_weight=label_weight,
        loss=loss,
        progress=progress,
    )
    student = _student(job, seed=0)  # made once before any training, to see that it can be
    for model, flag in ((teacher, "--teacher"), (student, "--student")):
        check_length(model, flag, (train, dev), settings.max_length)
    return job


def run(settings: DistillLm, out: Path) -> int:
    """Train the teacher if asked to, then a student for each seed; write the folder, print the figures.

    Of several processes the first alone writes and prints.

    Returns:
        The exit code.

    Raises:
        InputError: A flag or file does not fit, or the folder holds another run.
        KeyboardInterrupt: With the command to go on with.
    """
    check_resumed(out, settings, resume=settings.resume)
    barrier()  # every process has checked the folder before one writes into it
    job = _prepare(settings, out, progress=not settings.quiet and is_main())
    if is_main():
        begin(out, "distill-lm", settings, resume=settings.resume)
    barrier()  # the files of an older run have their new names
    with interruptible(out, "distill-lm"):
        if settings.train_teacher is not None and not (out / "teacher").is_dir():
            _train_teacher(job, settings.train_teacher)
        teacher = judge(job.teacher, job.dev, batch_size=settings.batch_size)
        seeds = [_train_seed(job, seed) for seed in range(settings.seeds)]
    result = {"teacher": teacher, "seeds": seeds, "mean": _over_seeds([seed["after"] for seed in seeds])}
    if is_main():
        write_result(out, result)
        page = write(out, settings, result)
        print(f"{_block(result)}\n{'page':<18}{page}")
    return OK


def _student(job: Job, seed: int) -> PreTrainedModel:
    """The student before its training; what is new in it depends on the seed alone."""
    set_seed(seed)
    with naming(f"--student {job.settings.student}"):
        student = parse_student(job.settings.student, job.teacher)
    if student.config.pad_token_id is None:
        student.config.pad_token_id = job.tokenizer.pad_token_id
    return student


def _train_teacher(job: Job, epochs: float) -> None:
    folder = job.out / "teacher.partial"
    set_seed(0)
    watch = Watch("teacher", folder / LOG, progress=job.progress)
    trainer = Trainer(
        model=job.teacher,
        args=replace(job.arguments(folder, epochs=epochs), save_strategy="no"),
        train_dataset=job.train,  # pyright: ignore[reportArgumentType]  anything with a length and rows will do
        data_collator=job.train.collate,  # pyright: ignore[reportArgumentType]
    )
    watch.over(trainer, trainer.train)
    if is_main():
        job.teacher.save_pretrained(folder)
        job.tokenizer.save_pretrained(folder)
        seal(folder)
        folder.rename(job.out / "teacher")
    barrier()


def _train_seed(job: Job, seed: int) -> dict[str, Any]:
    folder = job.out / f"seed-{seed}"
    done = folder / RESULT
    if done.is_file():
        return json.loads(done.read_text())
    student = _student(job, seed)
    before = job.judge(student)
    learner = student if job.settings.lora_rank is None else with_lora(student, job.settings.lora_rank)
    pads = student.config.vocab_size != job.teacher.config.vocab_size and job.dev.task is None
    arguments = job.arguments(folder, epochs=job.settings.epochs, seed=seed, pads=pads)
    trainer = DistillationTrainer(
        learner,
        job.teacher,
        args=arguments,
        distillation_loss=_LabelsOnly() if job.loss is None else job.loss,
        train_dataset=job.train,
        processing_class=job.tokenizer,
        teacher_processing_class=job.tokenizer,  # a student from a folder was compared before
        data_collator=job.train.collate,
    )
    some = job.dev.some(_CHECKED)
    watch = Watch(
        f"seed {seed}",
        folder / LOG,
        progress=job.progress,
        check=lambda: job.judge(learner, some),
        every=int(arguments.save_steps),
    )
    watch.over(trainer, lambda: _go_on(trainer))
    merged: Any = learner if job.settings.lora_rank is None else learner.merge_and_unload()  # pyright: ignore[reportCallIssue]
    found = {"seed": seed, "before": before, "after": job.judge(merged), "seconds_per_step": watch.seconds_per_step}
    if is_main():
        merged.save_pretrained(folder / "student")
        job.tokenizer.save_pretrained(folder / "student")
        seal(folder / "student")
        write_result(folder, found)
    barrier()
    return found


def _go_on(trainer: DistillationTrainer) -> None:
    """Train from the last whole checkpoint, or from the start where there is none."""
    try:
        trainer.train(resume_from_checkpoint=True)
    except CheckpointError:
        trainer.train()


def _over_seeds(figures: list[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """Mean of each figure, and half the width of its 95 % interval, by Student's t; None of a single seed."""
    from scipy import stats

    found: dict[str, dict[str, float | None]] = {}
    n = len(figures)
    for name in figures[0]:
        values = torch.tensor([each[name] for each in figures], dtype=torch.float64)
        half = float(stats.t.ppf(0.975, n - 1) * values.std() / math.sqrt(n)) if n > 1 else None
        found[name] = {"mean": float(values.mean()), "interval": half}
    return found


def _block(result: Mapping[str, Any]) -> str:
    lines = [f"{'':<18}{'teacher':>10}{'before':>10}{'student':>10}"]
    for name, mean in result["mean"].items():
        before = sum(seed["before"][name] for seed in result["seeds"]) / len(result["seeds"])
        teacher = result["teacher"].get(name)
        shown = "" if teacher is None else f"{teacher:.4g}"
        half = "" if mean["interval"] is None else f" +- {mean['interval']:.2g}"
        lines.append(f"{name:<18}{shown:>10}{before:>10.4g}{mean['mean']:>10.4g}{half}")
    return "\n".join(lines)
