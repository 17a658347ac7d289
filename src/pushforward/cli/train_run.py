"""What `pushforward train-diffusion` does once its flags are read, and what it leaves behind.

recipe.json       the flags
step-N/           the last states of the training, from which --resume goes on
log.jsonl         the loss, every few steps
teacher/          the model: what `sample`, `evaluate` and a distillation read
samples.png       what it draws
result.json       its figures
"""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pushforward as pf
from pushforward.cli.generators import JUDGED, Source, judge_generator
from pushforward.diffusion.networks import MLP
from pushforward.diffusion.samplers import STEPS
from pushforward.diffusion.teacher_training import TeacherTrainer
from pushforward.report.generators import save_grid

if TYPE_CHECKING:
    from pushforward.cli.image_inputs import Images
    from pushforward.cli.train_diffusion import TrainDiffusion

__all__ = ["run"]

_BATCH = 256
_DRAWN = 64
_JUDGED_UNET = 1000


def run(flags: TrainDiffusion, out: Path, images: Images) -> dict[str, Any]:
    """Train, draw, judge, and write everything.

    Args:
        flags: As they were given.
        out: The run's folder.
        images: The data.

    Returns:
        What `result.json` holds.
    """
    recipe = {"verb": "train-diffusion", "version": pf.__version__, **flags.recipe()}
    (out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    start = time.perf_counter()
    told = flags.conditional and images.labels is not None
    with warnings.catch_warnings():
        # What the library ends with a warning and the model until then is, for a command, an interruption.
        warnings.filterwarnings("error", message="interrupted", category=UserWarning)
        try:
            teacher = TeacherTrainer(
                (images.samples, images.labels) if told and images.labels is not None else images.samples,
                out=out,
                batch_size=flags.batch_size or min(_BATCH, len(images.samples)),
                learning_rate=flags.learning_rate,
                seed=flags.seed,
                progress=not flags.quiet,
            ).fit(flags.steps)
        except UserWarning:
            raise KeyboardInterrupt from None
    seconds = time.perf_counter() - start
    shape = tuple(images.samples.shape[1:])
    source = Source(teacher, shape)
    save_grid(out / "samples.png", source.draw(_DRAWN, seed=flags.seed)[0])
    count = flags.judged or (JUDGED if isinstance(source.network, MLP) else _JUDGED_UNET)
    figures = judge_generator(source, images, count, seed=flags.seed + 1)
    result = {
        "images": len(images.samples),
        "shape": list(shape),
        "network": type(source.network).__name__,
        "parameters": sum(parameter.numel() for parameter in teacher.parameters()),
        "steps": flags.steps,
        "samples": figures.pop("samples"),
        "sampling_steps": STEPS,
        "features": figures.pop("features"),
        "figures": figures,
        "seconds": seconds,
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result
