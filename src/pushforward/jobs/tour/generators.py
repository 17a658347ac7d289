"""Act four: a diffusion model of the digits, distilled into generators of one step, by two divergences."""

from __future__ import annotations

import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pushforward import samples
from pushforward.diffusion import Denoiser, Distiller, OneStepPipeline, Trainer
from pushforward.diffusion.judge import SampleMetrics
from pushforward.diffusion.samplers import STEPS, sample
from pushforward.diffusion.teacher_training import TeacherTrainer
from pushforward.jobs.tour.threads import one_thread
from pushforward.report import Block, Code, Picture, Section, Text
from pushforward.report.generators import generators_table, samples_picture
from pushforward.report.training import Curve, curves_picture
from pushforward.training import read_log
from pushforward.training.random import seeded

__all__ = ["generators"]

_TEACHER_STEPS, _STUDENT_STEPS, _BATCH = 1500, 300, 192
_RATE, _CRITIC_STEPS, _AVERAGE, _LOOKS = 6e-4, 3, 0.98, 4
_JUDGED, _LOOKED_AT, _SHOWN, _COLUMNS = 4000, 1000, 32, 16
_DIVERGENCES = {"reverse KL": "reverse_kl", "JS": "js"}

_QUESTION = f"""A diffusion model draws an image in many steps: it starts from noise, and takes a little of it away at a
time. Here that is a perceptron which learned, on scikit-learn's 1,797 handwritten digits, to say what a noised digit
was; {2 * STEPS - 1} times it is asked for each new one. Distillation makes a generator that is asked once."""
_WAY = """The student starts as the teacher, asked at one noise level only. A second copy of the teacher follows the
student, and learns to denoise what the student draws. Where the two denoisers disagree, the student's distribution is
not the data's yet, and their difference says which way each image has to go. The divergence says how much that counts
where the student draws too much or too little: the reverse KL treats all images alike; for JS a discriminator on the
teacher's features says how rare an image is beside the data."""
_TABLE = """On {count} images of each, in the features of a small classifier of the digits. Half of the digits are the
measure, and the other half is {floor:.2g} away from it. Precision: how many images lie where digits are. Recall: how
many digits have images near them. Class distance: between the shares of the ten digits, 0 at best. Evaluations: how
often the network is asked for one image; seconds, for all of them. One short run each: where two students differ by
little it means nothing."""


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Images, how they were judged, and how the Frechet distance fell while their generator was trained."""

    images: Tensor
    figures: dict[str, float]
    curve: Curve = ((), ())


def generators(folder: Path) -> Section:
    """Train a teacher on the digits, or find the one of an earlier tour, and distil it by two divergences.

    Args:
        folder: The tour's folder; the pictures and runs go there.

    Returns:
        The section.
    """
    # Networks this small are no faster on two threads, and much slower where other programs run.
    with one_thread():
        pixels, labels = samples.digits()
        data = torch.from_numpy(pixels * 2 - 1).float().permute(0, 3, 1, 2)
        judge = SampleMetrics(data, torch.from_numpy(labels))
        teacher = TeacherTrainer(data, out=folder / "generators-teacher", progress=False).fit(_TEACHER_STEPS)
        drawn = {f"teacher, {STEPS} steps": _teachers(teacher, judge)}
        for name, divergence in _DIVERGENCES.items():
            run = folder / f"generators-{divergence.replace('_', '-')}"
            shutil.rmtree(run, ignore_errors=True)
            drawn[f"one step, {name}"] = _students(run, teacher, data, judge, divergence)
    floor = next(iter(drawn.values())).figures["frechet_floor"]
    blocks: tuple[Block, ...] = (
        Text(text=_QUESTION),
        Text(text=_WAY),
        *_pictures(folder, data, drawn),
        generators_table(
            {name: one.figures for name, one in drawn.items()}, caption=_TABLE.format(count=_JUDGED, floor=floor)
        ),
        Text(text="The same from your own images, or from a pipeline of diffusers:"),
        Code(
            text="pushforward train-diffusion FOLDER --out runs/teacher\n"
            "pushforward distill-diffusion --teacher runs/teacher --data FOLDER --out runs/student\n"
            "pushforward sample runs/student --out samples.png"
        ),
    )
    return Section(label="Act four", title="Images in one step", blocks=blocks)


def _teachers(teacher: Denoiser, judge: SampleMetrics) -> _Drawn:
    began = time.perf_counter()
    images = sample(teacher, _JUDGED, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    seconds = time.perf_counter() - began
    return _Drawn(images=images, figures=judge(images) | {"evaluations": 2 * STEPS - 1, "seconds": seconds})


def _students(run: Path, teacher: Denoiser, data: Tensor, judge: SampleMetrics, divergence: str) -> _Drawn:
    def look(_step: int, student: torch.nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"frechet": judge(student(torch.randn(_LOOKED_AT, 1, 8, 8)))["frechet"]}

    with seeded(0, "students"), warnings.catch_warnings():
        # In so few steps a discriminator may well see all there is to see.
        warnings.filterwarnings("ignore", message="step")
        distiller = Distiller(teacher, divergence=divergence, gan_weight=0.0, critic_steps=_CRITIC_STEPS)
        student = Trainer(
            distiller,
            data,
            out=run,
            batch_size=_BATCH,
            learning_rate=_RATE,
            average=_AVERAGE,
            warmup=100,
            every=_STUDENT_STEPS // _LOOKS,
            check=look,
            progress=False,
        ).fit(_STUDENT_STEPS)
    pipe, random = OneStepPipeline(student, shape=(1, 8, 8)), torch.Generator().manual_seed(0)
    began = time.perf_counter()
    images = pipe(_JUDGED, generator=random, output_type="raw", batch_size=1000).images
    seconds = time.perf_counter() - began
    looks = [record for record in read_log(run / "log.jsonl") if "check_frechet" in record]
    return _Drawn(
        images=images,
        figures=judge(images) | {"evaluations": 1, "seconds": seconds},
        curve=([look["step"] for look in looks], [look["check_frechet"] for look in looks]),
    )


def _pictures(folder: Path, data: Tensor, drawn: dict[str, _Drawn]) -> tuple[Picture, ...]:
    grids = {"digits": data, **{name: one.images for name, one in drawn.items()}}
    return (
        *(
            samples_picture(
                folder,
                f"generators-{number}",
                images[:_SHOWN],
                caption=f"{name[0].upper()}{name[1:]}.",
                columns=_COLUMNS,
            )
            for number, (name, images) in enumerate(grids.items())
        ),
        curves_picture(
            folder,
            "generators-frechet",
            {name: one.curve for name, one in drawn.items() if len(one.curve[0])},
            quantity="Frechet distance",
            caption=f"How far {_LOOKED_AT} images of each student are from the data, while it learns.",
        ),
    )
