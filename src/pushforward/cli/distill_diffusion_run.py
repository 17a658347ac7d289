"""What `pushforward distill-diffusion` does once its flags are read, and what it leaves behind.

recipe.json              the settings, with which a run is resumed
step-N/                  the last states of the training
log.jsonl                one line every few steps: the losses, and what tells how the matching goes
samples/step-N.png       what the student drew then
student/                 the student (`OneStepPipeline`)
results.json             the figures of student and teacher
report.json, index.html  the page
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pushforward import report
from pushforward.cli.errors import InputError
from pushforward.cli.image_inputs import Images, read_images
from pushforward.cli.teacher_inputs import classes_of, load_teacher
from pushforward.cli.versions import footer
from pushforward.diffusion import Denoiser, Distiller, Generator, Guided, OneStepPipeline, Teacher, Trainer
from pushforward.diffusion.judge import Judge
from pushforward.diffusion.samplers import STEPS, sample
from pushforward.errors import PushforwardError
from pushforward.report.generators import generators_table, judged_by, samples_picture, save_grid
from pushforward.report.training import curves_picture
from pushforward.training import read_log
from pushforward.training.distributed import is_main
from pushforward.training.random import generator, seeded

if TYPE_CHECKING:
    from pushforward.cli.distill_diffusion import Settings

__all__ = ["Job", "prepare", "run"]

# Images of a check on the way, and of a grid.
_CHECKED, _SHOWN = 2000, 40
_CURVES = {
    "check_frechet": ("Frechet distance", "The averaged student's, on {checked} images, while it trained."),
    "check_recall": ("recall", "How much of the data the student reaches: where it falls, modes are being lost."),
    "score_gap": ("score gap", "|teacher's answer - fake's| over |image - teacher's answer|, under noise."),
    "accuracy": ("discriminator's accuracy", "One half where data and student cannot be told apart."),
    "effective_share": ("effective share of a batch", "How many of its samples carry a step, under the weight h."),
    "mean_ratio": ("mean ratio", "Of data to student on the student's samples: 1 if the ratio is calibrated."),
    "student_norm": ("gradient's length", "Of the student, before it is clipped."),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run whose files have all been read and found to fit.

    Args:
        settings: As they were given.
        out: The run's folder.
        teacher: What is distilled.
        images: Its data.
        trainer: Ready to fit.
    """

    settings: Settings
    out: Path
    teacher: Teacher
    images: Images
    trainer: Trainer

    def conditions(self, count: int) -> Tensor | None:
        """Labels of so many images to be drawn, in the data's shares; None of an unconditional run."""
        if not self.settings.conditional or self.images.labels is None:
            return None
        rows = torch.randint(len(self.images.labels), (count,), generator=generator(self.settings.seed, "conditions"))
        return self.images.labels[rows]


def prepare(settings: Settings, out: Path, *, progress: bool) -> Job:
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
    told = _told(settings, teacher, images)
    try:
        with seeded(settings.seed, "weights"):  # of the discriminator
            distiller = Distiller(
                told,
                divergence=settings.divergence,
                steps=settings.generator_steps,
                gan_weight=settings.gan_weight,
                critic_steps=settings.critic_steps,
            )
        data = (images.samples, images.labels) if settings.conditional and images.labels is not None else images.samples
        trainer = Trainer(
            distiller,
            data,
            out=out,
            batch_size=min(settings.batch_size, len(images.samples)),
            learning_rate=settings.learning_rate,
            precision=settings.precision,
            every=settings.every,
            seed=settings.seed,
            progress=progress,
        )
    except PushforwardError as error:
        raise InputError(str(error)) from None
    return Job(settings=settings, out=out, teacher=told, images=images, trainer=trainer)


def run(job: Job) -> str:
    """Train, judge, write the folder; what to print.

    Raises:
        InputError: The checkpoint is of another run, or the training broke down.
        KeyboardInterrupt: With the command to go on with.
    """
    judge = Judge(job.images.samples, job.images.labels, seed=0)
    job.trainer.check = lambda step, student: _look(job, judge, step, student)
    began = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            student = job.trainer.fit(job.settings.steps)
    except PushforwardError as error:
        raise InputError(str(error)) from None
    if any("interrupted" in str(warning.message) for warning in said):
        raise KeyboardInterrupt(
            f"interrupted; go on with: pushforward distill-diffusion {job.out / 'recipe.json'} --resume"
        )
    if not is_main():
        return ""
    results = _results(job, judge, student, time.perf_counter() - began)
    results["warnings"] = sorted({str(warning.message) for warning in said})
    (job.out / "results.json").write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    page = _page(job, student, results)
    names = ("frechet", "frechet_floor", "precision", "recall", "evaluations", "seconds")
    lines = [f"{'':<12}" + "".join(f"{name.replace('_', ' '):>16}" for name in names)]
    for row in ("student", "teacher"):
        lines.append(f"{row:<12}" + "".join(f"{results[row].get(name, float('nan')):>16.4g}" for name in names))
    lines += [f"warning: {text}" for text in results["warnings"]]
    return "\n".join([*lines, f"student     {job.out / 'student'}", f"page        {page}"])


def _told(settings: Settings, teacher: Denoiser, images: Images) -> Teacher:
    """The teacher as it is asked: with labels, under guidance, or as it is."""
    if not settings.conditional:
        return teacher
    classes = classes_of(teacher)
    if images.labels is None:
        raise InputError(f"--conditional: {settings.data} has no labels")
    if classes is None:
        raise InputError(f"--conditional: the network of {settings.teacher} takes no labels")
    if images.classes is not None and images.classes > classes:
        raise InputError(
            f"--conditional: {settings.data} has {images.classes} classes, but the teacher knows {classes}"
        )
    if settings.guidance is None:
        return teacher
    return Guided(teacher=teacher, scale=settings.guidance)


def _draw(job: Job, student: Generator, count: int) -> Tensor:
    pipe = OneStepPipeline(student, shape=tuple(job.images.samples.shape[1:]))
    with seeded(job.settings.seed, f"drawing {count}"):
        condition = job.conditions(count)
        device = next(student.parameters()).device
        told = None if condition is None else condition.to(device)
        return pipe(count, told, output_type="raw", batch_size=1000).images.cpu()


def _ask(job: Job, count: int) -> Tensor:
    """The teacher's own images."""
    device = next(job.trainer.distiller.student.parameters()).device
    random = torch.Generator(device).manual_seed(job.settings.seed)
    shape, condition = tuple(job.images.samples.shape[1:]), job.conditions(count)
    told = None if condition is None else condition.to(device)
    return sample(job.teacher, count, shape, condition=told, generator=random).cpu()


def _look(job: Job, judge: Judge, step: int, student: Generator) -> dict[str, float]:
    drawn = _draw(job, student, min(_CHECKED, job.settings.judged))
    save_grid(job.out / "samples" / f"step-{step}.png", drawn[:_SHOWN])
    return judge(drawn)


def _results(job: Job, judge: Judge, student: Generator, seconds: float) -> dict[str, Any]:
    count = job.settings.judged
    began = time.perf_counter()
    theirs = _ask(job, count)
    slow = time.perf_counter() - began
    began = time.perf_counter()
    ours = _draw(job, student, count)
    fast = time.perf_counter() - began
    return {
        "student": judge(ours) | {"evaluations": len(student.times), "seconds": fast},
        "teacher": judge(theirs) | {"evaluations": 2 * STEPS - 1, "seconds": slow},
        "times": list(student.times),
        "images": count,
        "training_seconds": seconds,
        "steps": job.settings.steps,
    }


def _page(job: Job, student: Generator, results: dict[str, Any]) -> Path:
    settings, labels = job.settings, job.images.labels
    caption = judged_by(labels is not None, results["images"], results["student"]["frechet_floor"])
    facts = {
        "divergence": settings.divergence,
        "GAN weight": f"{settings.gan_weight:g}",
        "steps of the generator": str(len(student.times)),
        "at noise times": ", ".join(f"{t:.3g}" for t in student.times),
        "images to learn from": str(len(job.images.samples)),
        "steps of training": str(settings.steps),
        "batch": str(job.trainer.batch_size),
        "seconds": f"{results['training_seconds']:.1f}",
    }
    grids = (
        ("data", job.images.samples[:_SHOWN], "The data."),
        ("teacher", _ask(job, _SHOWN), f"The teacher, {2 * STEPS - 1} evaluations an image."),
        ("student", _draw(job, student, _SHOWN), f"The student, {len(student.times)} an image."),
    )
    blocks: list[report.Block] = [
        report.Facts(facts=tuple(facts.items())),
        *(samples_picture(job.out, name, images, caption=told) for name, images, told in grids),
        generators_table({row: results[row] for row in ("teacher", "student")}, caption=caption),
        *(report.Text(text=text) for text in results["warnings"]),
    ]
    page = report.Report(
        title="A one-step generator" if len(student.times) == 1 else f"A generator of {len(student.times)} steps",
        lead=f"{job.images.name}, distilled by {settings.divergence.replace('_', ' ')}.",
        sections=(report.Section(title="The student", blocks=(*blocks, *_curves(job.out))),),
        footer=footer(),
    )
    report.save(page, job.out)
    return report.render(job.out)


def _curves(out: Path) -> list[report.Picture]:
    records, pictures = read_log(out / "log.jsonl"), list[report.Picture]()
    for name, (quantity, caption) in _CURVES.items():
        found = [(record["step"], record[name]) for record in records if name in record]
        if len(found) > 1:
            steps, values = zip(*found, strict=True)
            curve = {"student": (steps, values)}
            told = caption.format(checked=_CHECKED)
            file = name.replace("_", "-")
            pictures.append(curves_picture(out, file, curve, quantity=quantity, caption=told))
    return pictures
