"""The page of a distilled generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward import report
from pushforward.diffusion import Generator
from pushforward.diffusion.samplers import STEPS
from pushforward.jobs.folder import LOG, write_page
from pushforward.report.generators import generators_table, judged_by, samples_picture
from pushforward.report.training import curves_picture
from pushforward.training import read_log

if TYPE_CHECKING:
    from pushforward.jobs.distill_diffusion.run import Job

__all__ = ["CHECKED", "SHOWN", "write"]

# Images of a check on the way, and of a grid.
CHECKED, SHOWN = 2000, 40

_CURVES = {
    "check_frechet": ("Frechet distance", "The averaged student's, on {checked} images, while it trained."),
    "check_recall": ("recall", "How much of the data the student reaches: where it falls, modes are being lost."),
    "score_gap": ("score gap", "|teacher's answer - fake's| over |image - teacher's answer|, under noise."),
    "accuracy": ("discriminator's accuracy", "One half where the discriminator cannot separate data and student."),
    "effective_share": ("effective share of a batch", "How many of its samples carry a step, under the weight h."),
    "mean_ratio": ("mean ratio", "Of data to student on the student's samples: 1 if the ratio is calibrated."),
    "student_norm": ("gradient's length", "Of the student, before it is clipped."),
}


def write(job: Job, student: Generator, result: dict[str, Any], rows: Mapping[str, Mapping[str, str]]) -> Path:
    """Write the page of a student that is trained and judged.

    Args:
        job: The run.
        student: The student.
        result: What `result.json` holds.
        rows: The figures of teacher and student as text.

    Returns:
        The page.
    """
    settings = job.settings
    judgement = judged_by(rows["student"], features=result["features"], count=result["images"], seed=settings.seed)
    facts = {
        "divergence": settings.divergence,
        "GAN weight": f"{settings.gan_weight:g}",
        "steps of the generator": str(len(student.times)),
        "at noise times": ", ".join(f"{t:.3g}" for t in student.times),
        "images to learn from": str(len(job.images.samples)),
        "steps of training": str(settings.steps),
        "batch": str(job.trainer.batch_size),
        "seconds": f"{result['training_seconds']:.1f}",
    }
    grids = (
        ("data", job.images.samples[:SHOWN], "The data."),
        ("teacher", job.draw(job.teacher, SHOWN), f"The teacher, {2 * STEPS - 1} evaluations an image."),
        ("student", job.draw(student, SHOWN), f"The student, {len(student.times)} an image."),
    )
    blocks: list[report.Block] = [
        report.Facts(facts=tuple(facts.items())),
        *(samples_picture(job.out, name, images, caption=caption) for name, images, caption in grids),
        generators_table(rows, caption=judgement),
        *(report.Text(text=text) for text in result["warnings"]),
    ]
    return write_page(
        job.out,
        title="A one-step generator" if len(student.times) == 1 else f"A generator of {len(student.times)} steps",
        lead=f"{job.images.name}, distilled by {settings.divergence.replace('_', ' ')}.",
        heading="The student",
        blocks=(*blocks, *_curves(job.out)),
    )


def _curves(out: Path) -> list[report.Picture]:
    records, pictures = read_log(out / LOG), list[report.Picture]()
    for name, (quantity, caption) in _CURVES.items():
        found = [(record["step"], record[name]) for record in records if name in record]
        if len(found) > 1:
            steps, values = zip(*found, strict=True)
            curve = {"student": (steps, values)}
            about = caption.format(checked=CHECKED)
            file = name.replace("_", "-")
            pictures.append(curves_picture(out, file, curve, quantity=quantity, caption=about))
    return pictures
