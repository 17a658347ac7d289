"""The page of a diffusion model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward import report
from pushforward.diffusion.judge import written
from pushforward.diffusion.samplers import STEPS
from pushforward.jobs.folder import LOG, write_page
from pushforward.report.generators import generators_table, judged_by, samples_picture
from pushforward.report.training import curves_picture
from pushforward.training import read_log

if TYPE_CHECKING:
    from torch import Tensor

    from pushforward.jobs.inputs.images import Images

__all__ = ["write"]


def write(folder: Path, result: dict[str, Any], images: Images, drawn: Tensor) -> Path:
    """Write the page of a model that is trained and judged.

    Args:
        folder: The run's folder, with its log.
        result: What `result.json` holds.
        images: The data.
        drawn: Samples of the model, (N, C, H, W).

    Returns:
        The page.
    """
    facts = {
        "network": f"{result['network']}, {result['parameters']:,} parameters",
        "images to learn from": f"{result['images']} of {' x '.join(map(str, result['shape']))}",
        "steps of training": str(result["steps"]),
        "seconds": f"{result['seconds']:.1f}",
    }
    records = read_log(folder / LOG)
    evaluations = 2 * STEPS - 1
    figures = written(result["figures"], rows=min(len(images.samples) // 2, result["samples"]))
    caption = judged_by(figures, features=result["features"], count=result["samples"], seed=result["seed"])
    blocks: list[report.Block] = [
        report.Facts(facts=tuple(facts.items())),
        samples_picture(folder, "data", images.samples[: len(drawn)], caption="The data."),
        samples_picture(folder, "model", drawn, caption=f"The model's, {evaluations} evaluations an image."),
        generators_table({"model": figures | {"evaluations": str(evaluations)}}, caption=caption),
        *(report.Text(text=f"Warning: {remark}.") for remark in result["remarks"]),
        curves_picture(
            folder,
            "loss",
            {"model": ([record["step"] for record in records], [record["loss"] for record in records])},
            quantity="loss",
            caption="Of denoising, over all levels of noise alike; 1 is what an untrained network has.",
        ),
    ]
    return write_page(
        folder,
        title="A diffusion model",
        lead=f"{images.name}: to be sampled, or distilled into a generator of one step.",
        heading="The model",
        blocks=blocks,
    )
