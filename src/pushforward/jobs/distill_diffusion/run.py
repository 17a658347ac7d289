"""What `pushforward distill-diffusion` does with its settings, and what it leaves behind.

recipe.yaml              the settings, with which a run is repeated or resumed
step-N/                  the last states of the training
log.jsonl                one line every few steps: the losses, and what tells how the matching goes
samples/step-N.png       what the student drew then
student/                 the student (`OneStepPipeline`)
result.json              the figures of student and teacher
report.json, index.html  the page
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward.diffusion import Denoiser, Distiller, Generator, Guided, OneStepPipeline, Teacher, Trainer
from pushforward.diffusion.judge import SampleMetrics, comparison, remarks, written
from pushforward.diffusion.samplers import STEPS
from pushforward.errors import PushforwardError
from pushforward.jobs.distill_diffusion.page import CHECKED, SHOWN, write
from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import begin, check_resumed, interruptible, write_result
from pushforward.jobs.generators import count_for, draw, evenly, say_duration
from pushforward.jobs.inputs.images import Images, read_images
from pushforward.jobs.inputs.teachers import check_known, labels_of, load_teacher, null_of
from pushforward.jobs.settings import arguments_for
from pushforward.report.generators import save_grid
from pushforward.training.distributed import is_main
from pushforward.training.random import seeded

if TYPE_CHECKING:
    from pushforward.jobs.distill_diffusion.settings import DistillDiffusion

__all__ = ["Job", "run"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run whose files have all been read and found to fit.

    Args:
        settings: As they were given.
        out: The run's folder.
        teacher: The teacher, with labels or guidance where the settings say so.
        images: Its data.
        trainer: Ready to fit.
    """

    settings: DistillDiffusion
    out: Path
    teacher: Teacher
    images: Images
    trainer: Trainer

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, without the axis of samples."""
        return tuple(self.images.samples.shape[1:])

    @property
    def count(self) -> int:
        """How many images of student and teacher are judged."""
        network: Any = self.trainer.distiller.student.denoiser.network
        return self.settings.judged or count_for(getattr(network, "network", network))

    def draw(self, source: Generator | Teacher, count: int) -> Tensor:
        """Images of the student or the teacher, on the CPU, in the data's classes where the run is conditional."""
        labels = self.images.labels if self.settings.conditional else None
        return draw(
            OneStepPipeline(source, shape=self.shape) if isinstance(source, Generator) else source,
            count,
            self.shape,
            seed=self.settings.seed,
            labels=None if labels is None else evenly(labels, count),
            device=next(self.trainer.distiller.student.parameters()).device,
        ).cpu()


def _prepare(settings: DistillDiffusion) -> Job:
    """Read every file that the settings name, and see that they fit together.

    Raises:
        InputError: One is missing or does not fit; the message names the setting.
    """
    images = read_images(settings.data or Path())
    teacher, shape = load_teacher(settings.teacher or Path())
    if shape is not None and shape != tuple(images.samples.shape[1:]):
        raise InputError(
            f"--data {settings.data}: images are {tuple(images.samples.shape[1:])} (channels, height, width), but "
            f"the teacher's are {shape}"
        )
    teacher = _configured(settings, teacher, images)
    _probe(settings, teacher, images)
    progress, out = not settings.quiet, settings.out or Path()
    try:
        with seeded(settings.seed, "weights"):  # of the discriminator
            distiller = Distiller(teacher, **arguments_for(Distiller, settings, {"teacher": ""}))
        given = arguments_for(Trainer, settings, {"data": "", "batch_size": ""})
        trainer = Trainer(
            distiller,
            (images.samples, images.labels) if settings.conditional and images.labels is not None else images.samples,
            **given,
            batch_size=min(settings.batch_size, len(images.samples)),
            progress=progress,
            pace=say_duration(settings.steps * (settings.critic_steps + 1) + settings.warmup, settings.steps, progress),
        )
    except PushforwardError as error:
        raise InputError(str(error)) from None
    return Job(settings=settings, out=out, teacher=teacher, images=images, trainer=trainer)


def run(settings: DistillDiffusion) -> int:
    """Train, judge, write the folder, and print the figures; returns the exit code.

    Raises:
        InputError: A file does not fit, the checkpoint is of another run, or the training broke down.
        KeyboardInterrupt: With the command to go on with.
    """
    check_resumed(settings.out or Path(), settings, resume=settings.resume)
    job = _prepare(settings)
    begin(job.out, "distill-diffusion", settings, resume=settings.resume)
    judge = SampleMetrics(job.images.samples, job.images.labels, seed=0)
    job.trainer.check = lambda step, student: _check_samples(job, judge, step, student)
    began = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with interruptible(job.out, "distill-diffusion"):
                student = job.trainer.fit(settings.steps)
    except PushforwardError as error:
        raise InputError(str(error)) from None
    if not is_main():
        return OK
    result = _result(job, judge, student, time.perf_counter() - began)
    result["warnings"] = [*sorted({str(warning.message) for warning in caught}), *result.pop("remarks")]
    write_result(job.out, result, allow_nan=False)
    rows = _rows(job, result)
    page = write(job, student, result, rows)
    names = ("frechet", "frechet_floor", "frechet_noise", "precision", "recall", "evaluations", "seconds")
    lines = [f"{'':<12}" + "".join(f"{name.replace('_', ' '):>16}" for name in names)]
    for row, figures in rows.items():
        lines.append(f"{row:<12}" + "".join(f"{figures[name]:>16}" for name in names))
    lines.append(f"figures in  {result['features']}; {result['images']} images of each, seed {result['seed']}")
    lines += [f"warning: {text}" for text in result["warnings"]]
    print("\n".join([*lines, f"student     {job.out / 'student'}", f"page        {page}"]))
    return OK


def _configured(settings: DistillDiffusion, teacher: Denoiser, images: Images) -> Teacher:
    """The teacher with the settings' labels and guidance, as the distiller calls it."""
    if not settings.conditional:
        return teacher
    known = labels_of(teacher)
    if images.labels is None:
        raise InputError(f"--conditional: {settings.data} has no labels")
    if known is None:
        raise InputError(f"--conditional: the network of {settings.teacher} takes no labels")
    check_known(f"--conditional: {settings.data}", images.labels, known)
    if settings.guidance is None:
        return teacher
    return Guided(teacher=teacher, scale=settings.guidance, null=null_of(teacher))


def _probe(settings: DistillDiffusion, teacher: Teacher, images: Images) -> None:
    """Check that the teacher can denoise these images, before the training.

    Raises:
        InputError: It cannot; in the network's own message.
    """
    x = images.samples[:2]
    labels = images.labels[:2] if settings.conditional and images.labels is not None else None
    try:
        with torch.no_grad():
            teacher.x0(x, teacher.process.timesteps(1)[0], labels)
    except (PushforwardError, ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
        message = " ".join(str(error).split())[:300]
        if "class_labels should be provided" in message and labels is None:
            raise InputError(f"--teacher {settings.teacher}: was trained with labels; give --conditional") from None
        if "class_labels should be provided" in message:
            raise InputError(
                f"--guidance: {settings.teacher} knows no label that stands for none, so it cannot be guided"
            ) from None
        raise InputError(
            f"--teacher {settings.teacher}: cannot denoise images of {tuple(x.shape[1:])}: {message}"
        ) from None


def _rows(job: Job, result: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The figures as text, by row, the teacher first."""
    rows = min(len(job.images.samples) // 2, result["images"])
    return {row: written(result[row], rows=rows) for row in ("teacher", "student")}


def _check_samples(job: Job, judge: SampleMetrics, step: int, student: Generator) -> dict[str, float]:
    drawn = job.draw(student, min(CHECKED, job.count))
    save_grid(job.out / "samples" / f"step-{step}.png", drawn[:SHOWN])
    return judge(drawn)


def _result(job: Job, judge: SampleMetrics, student: Generator, seconds: float) -> dict[str, Any]:
    evaluations = {"teacher": 2 * STEPS - 1, "student": len(student.times)}
    rows: dict[str, dict[str, float]] = {}
    for name, source in (("teacher", job.teacher), ("student", student)):
        began = time.perf_counter()
        drawn = job.draw(source, job.count)
        took = time.perf_counter() - began
        rows[name] = judge(drawn) | {"evaluations": evaluations[name], "seconds": took}
    theirs, ours = rows["teacher"], rows["student"]
    notes = [*remarks(ours, name="the student"), *remarks(theirs, name="the teacher")]
    return {
        "student": ours,
        "teacher": theirs,
        "remarks": notes or comparison(ours, theirs),
        "features": judge.name,
        "seed": job.settings.seed,
        "times": list(student.times),
        "images": job.count,
        "training_seconds": seconds,
        "steps": job.settings.steps,
    }
