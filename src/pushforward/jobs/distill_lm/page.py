"""The page of a distillation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward import report
from pushforward.jobs.distill_lm.watch import read_curve
from pushforward.jobs.folder import LOG, write_page
from pushforward.report.training import curves_picture, figures_table, metric_label

if TYPE_CHECKING:
    from pushforward.jobs.distill_lm.settings import DistillLm

__all__ = ["write"]

_LEAD = {
    True: "The interval is of the mean, by Student's t over the seeds.",
    False: "One seed says nothing of how much chance there is in it: --seeds 5 does.",
}


def write(folder: Path, settings: DistillLm, result: Mapping[str, Any]) -> Path:
    """Write the page of a run whose seeds are done.

    Args:
        folder: The run's folder.
        settings: As they were given.
        result: What `result.json` holds.

    Returns:
        The page.
    """
    data = settings.task or (settings.text and settings.text.name)
    blocks = (_facts(settings, result), _table(result), *_pictures(folder, result))
    return write_page(
        folder,
        title=f"Distillation: {data}",
        lead=f"{settings.student} of {settings.teacher and settings.teacher.name}, by {settings.loss}. "
        + _LEAD[len(result["seeds"]) > 1],
        heading="What came out",
        blocks=blocks,
    )


def _facts(settings: DistillLm, result: Mapping[str, Any]) -> report.Facts:
    seconds = [seed["seconds_per_step"] for seed in result["seeds"]]
    return report.Facts(
        facts=(
            ("student", settings.student),
            ("loss", settings.loss),
            ("seeds", str(len(result["seeds"]))),
            ("epochs", f"{settings.epochs:g}"),
            ("batch size", str(settings.batch_size)),
            ("learning rate", f"{settings.learning_rate:g}"),
            ("seconds a step", f"{sum(seconds) / len(seconds):.3g}"),
        )
    )


def _table(result: Mapping[str, Any]) -> report.Table:
    seeds = result["seeds"]
    before = {name: sum(seed["before"][name] for seed in seeds) / len(seeds) for name in seeds[0]["before"]}
    rows: dict[str, Mapping[str, float | str]] = {
        f"seed {seed['seed']}": seed["after"] for seed in seeds if len(seeds) > 1
    }
    mean = {
        name: f"{found['mean']:.4g}" + ("" if found["interval"] is None else f" ± {found['interval']:.2g}")
        for name, found in result["mean"].items()
    }
    rows = {"student, distilled": mean, "student, before": before, "teacher": result["teacher"], **rows}
    return figures_table(rows, caption="On the held-out rows. Agreement and KL are with the teacher.")


def _pictures(folder: Path, result: Mapping[str, Any]) -> list[report.Picture]:
    logs = {f"seed {seed['seed']}": folder / f"seed-{seed['seed']}" / LOG for seed in result["seeds"]}
    pictures: list[report.Picture] = []
    for figure in result["seeds"][0]["after"]:
        curves = {name: read_curve(log, f"held_out_{figure}") for name, log in logs.items()}
        label = metric_label(figure)
        pictures.append(
            curves_picture(
                folder,
                f"held-out-{figure.replace('_', '-')}",
                curves,
                quantity=label,
                caption=f"{label[0].upper()}{label[1:]} on held-out rows, a sample of 256 at most.",
            )
        )
    losses = {name: read_curve(log, "loss") for name, log in logs.items()}
    caption = "The loss that is minimised, a mean over the steps since the point before."
    return [*pictures, curves_picture(folder, "loss", losses, quantity="loss", caption=caption)]
