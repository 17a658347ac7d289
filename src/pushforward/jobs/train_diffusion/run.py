"""What `pushforward train-diffusion` does once its flags are read, and what it leaves behind.

recipe.json       the flags
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
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pushforward as pf
from pushforward import report
from pushforward.diffusion.judge import written
from pushforward.diffusion.samplers import STEPS
from pushforward.diffusion.teacher_training import TeacherTrainer
from pushforward.jobs.generators import Source, judge_generator, say_duration
from pushforward.jobs.versions import footer
from pushforward.report.generators import generators_table, judged_by, samples_picture, save_grid
from pushforward.report.training import curves_picture
from pushforward.training import read_log

if TYPE_CHECKING:
    from torch import Tensor

    from pushforward.jobs.inputs.images import Images
    from pushforward.jobs.train_diffusion.settings import TrainDiffusion

__all__ = ["run"]

_BATCH = 256
_DRAWN = 64


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
    conditional = flags.conditional and images.labels is not None
    with warnings.catch_warnings():
        # What the library ends with a warning and the model until then is, for a command, an interruption.
        warnings.filterwarnings("error", message="interrupted", category=UserWarning)
        try:
            teacher = TeacherTrainer(
                (images.samples, images.labels) if conditional and images.labels is not None else images.samples,
                out=out,
                batch_size=flags.batch_size or min(_BATCH, len(images.samples)),
                learning_rate=flags.learning_rate,
                seed=flags.seed,
                progress=not flags.quiet,
                pace=say_duration(flags.steps, flags.steps, not flags.quiet),
            ).fit(flags.steps)
        except UserWarning:
            raise KeyboardInterrupt from None
    seconds = time.perf_counter() - start
    shape = tuple(images.samples.shape[1:])
    source = Source(teacher, shape)
    drawn, _ = source.draw(_DRAWN, seed=flags.seed)
    save_grid(out / "samples.png", drawn)
    figures = judge_generator(source, images, flags.judged, seed=flags.seed)
    result = {
        "images": len(images.samples),
        "shape": list(shape),
        "network": type(source.network).__name__,
        "parameters": sum(parameter.numel() for parameter in teacher.parameters()),
        "steps": flags.steps,
        "samples": figures.pop("samples"),
        "sampling_steps": STEPS,
        "features": figures.pop("features"),
        "seed": figures.pop("seed"),
        "remarks": figures.pop("remarks"),
        "figures": figures,
        "seconds": seconds,
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _page(result, out, images, drawn)
    return result


def _page(result: dict[str, Any], out: Path, images: Images, drawn: Tensor) -> None:
    facts = {
        "network": f"{result['network']}, {result['parameters']:,} parameters",
        "images to learn from": f"{result['images']} of {' x '.join(map(str, result['shape']))}",
        "steps of training": str(result["steps"]),
        "seconds": f"{result['seconds']:.1f}",
    }
    records = read_log(out / "log.jsonl")
    evaluations = 2 * STEPS - 1
    figures = written(result["figures"], rows=min(len(images.samples) // 2, result["samples"]))
    caption = judged_by(figures, features=result["features"], count=result["samples"], seed=result["seed"])
    blocks: list[report.Block] = [
        report.Facts(facts=tuple(facts.items())),
        samples_picture(out, "data", images.samples[:_DRAWN], caption="The data."),
        samples_picture(out, "model", drawn, caption=f"The model's, {evaluations} evaluations an image."),
        generators_table({"model": figures | {"evaluations": str(evaluations)}}, caption=caption),
        *(report.Text(text=f"Warning: {remark}.") for remark in result["remarks"]),
        curves_picture(
            out,
            "loss",
            {"model": ([record["step"] for record in records], [record["loss"] for record in records])},
            quantity="loss",
            caption="Of denoising, over all levels of noise alike; 1 is what an untrained network has.",
        ),
    ]
    page = report.Report(
        title="A diffusion model",
        lead=f"{images.name}: to be sampled, or distilled into a generator of one step.",
        sections=(report.Section(title="The model", blocks=tuple(blocks)),),
        footer=footer(),
    )
    report.save(page, out)
    report.render(out)
