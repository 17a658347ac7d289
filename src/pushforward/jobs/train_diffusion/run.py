"""What `pushforward train-diffusion` does with its settings, and what it leaves behind.

recipe.yaml       the settings, with which a run is repeated or resumed
step-N/           the last states of the training, from which --resume goes on
log.jsonl         the loss, every few steps
teacher/          the model: what `sample`, `evaluate` and a distillation read
samples.png       what it draws
result.json       its figures
report.json, index.html    the page
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward.diffusion.judge import FEWEST, written
from pushforward.diffusion.samplers import STEPS
from pushforward.diffusion.teacher_training import TeacherTrainer
from pushforward.errors import PushforwardError
from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import begin, check_resumed, interruptible, write_result
from pushforward.jobs.generators import Source, judge_generator, say_duration
from pushforward.jobs.inputs.images import Images, read_images
from pushforward.jobs.settings import arguments_for
from pushforward.jobs.train_diffusion.page import write
from pushforward.report.generators import save_grid

if TYPE_CHECKING:
    from pushforward.jobs.train_diffusion.settings import TrainDiffusion

__all__ = ["run"]

_BATCH = 256
_DRAWN = 64


def run(settings: TrainDiffusion, out: Path) -> int:
    """Train, draw, judge, write everything, and print the result; returns the exit code.

    Raises:
        InputError: The data does not fit the settings, the folder holds another run, or the training broke down.
        KeyboardInterrupt: With the command to go on with.
    """
    images = _read(settings)
    check_resumed(out, settings, resume=settings.resume)
    begin(out, "train-diffusion", settings, resume=settings.resume)
    try:
        with interruptible(out, "train-diffusion"):
            result = _train(settings, out, images)
    except PushforwardError as error:
        raise InputError(f"{settings.data}: {error}") from None
    print(json.dumps(result, indent=2) if settings.json else _block(result, out))
    return OK


def _read(settings: TrainDiffusion) -> Images:
    images = read_images(settings.data)
    count = len(images.samples)
    if settings.conditional and images.labels is None:
        raise InputError(f"--conditional: {settings.data} has no labels")
    if count < FEWEST:
        raise InputError(f"{settings.data}: holds {count} images; {FEWEST} are the least to be judged by")
    if settings.batch_size is not None and settings.batch_size > count:
        raise InputError(f"--batch-size {settings.batch_size}: {settings.data} has {count} images")
    return images


def _train(settings: TrainDiffusion, out: Path, images: Images) -> dict[str, Any]:
    """Train, draw, judge, and write everything; what `result.json` holds."""
    start = time.perf_counter()
    given: dict[str, Any] = {"batch_size": min(_BATCH, len(images.samples))}
    given |= arguments_for(TeacherTrainer, settings, {"data": ""})
    teacher = TeacherTrainer(
        (images.samples, images.labels) if settings.conditional and images.labels is not None else images.samples,
        **given,
        progress=not settings.quiet,
        pace=say_duration(settings.steps, settings.steps, not settings.quiet),
    ).fit(settings.steps)
    seconds = time.perf_counter() - start
    shape = tuple(images.samples.shape[1:])
    source = Source(teacher, shape)
    drawn, _ = source.draw(_DRAWN, seed=settings.seed)
    save_grid(out / "samples.png", drawn)
    figures = judge_generator(source, images, settings.judged, seed=settings.seed)
    result = {
        "images": len(images.samples),
        "shape": list(shape),
        "network": type(source.network).__name__,
        "parameters": sum(parameter.numel() for parameter in teacher.parameters()),
        "steps": settings.steps,
        "samples": figures.pop("samples"),
        "sampling_steps": STEPS,
        "features": figures.pop("features"),
        "seed": figures.pop("seed"),
        "remarks": figures.pop("remarks"),
        "figures": figures,
        "seconds": seconds,
    }
    write_result(out, result)
    write(out, result, images, drawn)
    return result


def _block(result: dict[str, Any], out: Path) -> str:
    lines = [
        f"{'data':<18}{result['images']} images of {' x '.join(map(str, result['shape']))}",
        f"{'network':<18}{result['network']}, {result['parameters']:,} parameters",
        f"{'samples':<18}{result['samples']}, in {result['sampling_steps']} steps, seed {result['seed']}",
        f"{'figures in':<18}{result['features']}",
    ]
    figures = written(result["figures"], rows=min(result["images"] // 2, result["samples"]))
    lines += [f"{name:<18}{text}" for name, text in figures.items()]
    lines += [f"{'warning':<18}{remark}" for remark in result["remarks"]]
    lines += [f"{'seconds':<18}{result['seconds']:.1f}", f"{'teacher':<18}{out / 'teacher'}"]
    return "\n".join([*lines, f"{'pictures':<18}{out / 'samples.png'}", f"{'page':<18}{out / 'index.html'}"])
