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
from pushforward.diffusion import Denoiser, Distiller, Generator, Guided, OneStepPipeline, Teacher, Trainer
from pushforward.diffusion.judge import SampleMetrics, comparison, remarks, written
from pushforward.diffusion.samplers import STEPS
from pushforward.errors import PushforwardError
from pushforward.jobs.errors import InputError
from pushforward.jobs.folder import interruption
from pushforward.jobs.generators import draw, evenly, judged_of, say_duration
from pushforward.jobs.inputs.images import Images, read_images
from pushforward.jobs.inputs.teachers import check_known, labels_of, load_teacher, null_of
from pushforward.jobs.versions import footer
from pushforward.report.generators import generators_table, judged_by, samples_picture, save_grid
from pushforward.report.training import curves_picture
from pushforward.training import read_log
from pushforward.training.distributed import is_main
from pushforward.training.random import seeded

if TYPE_CHECKING:
    from pushforward.jobs.distill_diffusion.settings import Settings

__all__ = ["Job", "prepare", "run"]

# Images of a check on the way, and of a grid.
_CHECKED, _SHOWN = 2000, 40
# The critics' steps before the student's first: `Trainer`'s own number.
_WARMUP = 200
_CURVES = {
    "check_frechet": ("Frechet distance", "The averaged student's, on {checked} images, while it trained."),
    "check_recall": ("recall", "How much of the data the student reaches: where it falls, modes are being lost."),
    "score_gap": ("score gap", "|teacher's answer - fake's| over |image - teacher's answer|, under noise."),
    "accuracy": ("discriminator's accuracy", "One half where the discriminator cannot separate data and student."),
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

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image, without the axis of samples."""
        return tuple(self.images.samples.shape[1:])

    @property
    def judged(self) -> int:
        """How many images of student and teacher are judged."""
        network: Any = self.trainer.distiller.student.denoiser.network
        return self.settings.judged or judged_of(getattr(network, "network", network))

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
    configured = _configured(settings, teacher, images)
    _probe(settings, configured, images)
    try:
        with seeded(settings.seed, "weights"):  # of the discriminator
            distiller = Distiller(
                configured,
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
            pace=say_duration(settings.steps * (settings.critic_steps + 1) + _WARMUP, settings.steps, progress),
        )
    except PushforwardError as error:
        raise InputError(str(error)) from None
    return Job(settings=settings, out=out, teacher=configured, images=images, trainer=trainer)


def run(job: Job) -> str:
    """Train, judge, write the folder; what to print.

    Raises:
        InputError: The checkpoint is of another run, or the training broke down.
        KeyboardInterrupt: With the command to go on with.
    """
    judge = SampleMetrics(job.images.samples, job.images.labels, seed=0)
    job.trainer.check = lambda step, student: _look(job, judge, step, student)
    began = time.perf_counter()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            student = job.trainer.fit(job.settings.steps)
    except PushforwardError as error:
        raise InputError(str(error)) from None
    if any("interrupted" in str(warning.message) for warning in caught):
        again = f": pushforward distill-diffusion {job.out / 'recipe.json'} --resume"
        raise KeyboardInterrupt(interruption(job.out, again))
    if not is_main():
        return ""
    results = _results(job, judge, student, time.perf_counter() - began)
    results["warnings"] = [*sorted({str(warning.message) for warning in caught}), *results.pop("remarks")]
    (job.out / "results.json").write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    page = _page(job, student, results)
    names = ("frechet", "frechet_floor", "frechet_noise", "precision", "recall", "evaluations", "seconds")
    lines = [f"{'':<12}" + "".join(f"{name.replace('_', ' '):>16}" for name in names)]
    for row, figures in _written(job, results).items():
        lines.append(f"{row:<12}" + "".join(f"{figures[name]:>16}" for name in names))
    lines.append(f"figures in  {results['features']}; {results['images']} images of each, seed {results['seed']}")
    lines += [f"warning: {text}" for text in results["warnings"]]
    return "\n".join([*lines, f"student     {job.out / 'student'}", f"page        {page}"])


def _configured(settings: Settings, teacher: Denoiser, images: Images) -> Teacher:
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


def _probe(settings: Settings, teacher: Teacher, images: Images) -> None:
    """Check that the teacher can denoise these images, before the training.

    Raises:
        InputError: It cannot; in the network's own words.
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


def _written(job: Job, results: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The figures as text, by row, the teacher first."""
    rows = min(len(job.images.samples) // 2, results["images"])
    return {row: written(results[row], rows=rows) for row in ("teacher", "student")}


def _look(job: Job, judge: SampleMetrics, step: int, student: Generator) -> dict[str, float]:
    drawn = job.draw(student, min(_CHECKED, job.judged))
    save_grid(job.out / "samples" / f"step-{step}.png", drawn[:_SHOWN])
    return judge(drawn)


def _results(job: Job, judge: SampleMetrics, student: Generator, seconds: float) -> dict[str, Any]:
    evaluations = {"teacher": 2 * STEPS - 1, "student": len(student.times)}
    rows: dict[str, dict[str, float]] = {}
    for name, source in (("teacher", job.teacher), ("student", student)):
        began = time.perf_counter()
        drawn = job.draw(source, job.judged)
        took = time.perf_counter() - began
        rows[name] = judge(drawn) | {"evaluations": evaluations[name], "seconds": took}
    theirs, ours = rows["teacher"], rows["student"]
    found = [*remarks(ours, name="the student"), *remarks(theirs, name="the teacher")]
    return {
        "student": ours,
        "teacher": theirs,
        "remarks": found or comparison(ours, theirs),
        "features": judge.name,
        "seed": job.settings.seed,
        "times": list(student.times),
        "images": job.judged,
        "training_seconds": seconds,
        "steps": job.settings.steps,
    }


def _page(job: Job, student: Generator, results: dict[str, Any]) -> Path:
    settings, rows = job.settings, _written(job, results)
    caption = judged_by(rows["student"], features=results["features"], count=results["images"], seed=settings.seed)
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
        ("teacher", job.draw(job.teacher, _SHOWN), f"The teacher, {2 * STEPS - 1} evaluations an image."),
        ("student", job.draw(student, _SHOWN), f"The student, {len(student.times)} an image."),
    )
    blocks: list[report.Block] = [
        report.Facts(facts=tuple(facts.items())),
        *(samples_picture(job.out, name, images, caption=text) for name, images, text in grids),
        generators_table(rows, caption=caption),
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
            text = caption.format(checked=_CHECKED)
            file = name.replace("_", "-")
            pictures.append(curves_picture(out, file, curve, quantity=quantity, caption=text))
    return pictures
