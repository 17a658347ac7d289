"""The blocks of a page about training runs: curves over their steps, and a table of their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pushforward import plots
from pushforward.report.model import Picture, Table
from pushforward.report.pictures import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Curve", "curves_picture", "figures_table", "metric_label"]

Curve = tuple[Sequence[int], Sequence[float]]

# What the figures' names mean to somebody who has not read the code.
_LABELS = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "kl": "KL to teacher",
    "seconds_per_step": "s a step",
}


def metric_label(name: str) -> str:
    """A metric's name in the words that the reader sees."""
    return _LABELS.get(name, name.replace("_", " "))


def curves_picture(  # noqa: PLR0913 - three of data, three of words, and one mark
    folder: Path,
    name: str,
    curves: Mapping[str, Curve],
    *,
    quantity: str,
    caption: str,
    kept: tuple[str, int] | None = None,
) -> Picture:
    """A quantity against the steps of training, one line a run.

    Args:
        folder: The run's folder.
        name: The picture's file name without its end.
        curves: For each run's name its steps and values.
        quantity: The name of the values.
        caption: What the picture means.
        kept: The run and the step whose model was kept, which is marked instead of the ends of the lines.

    Returns:
        The block for the page.
    """

    def paint(figure: Figure) -> None:
        plots.training(figure.subplots(), curves, quantity=quantity, kept=kept)

    last = ", ".join(f"{run} {values[-1]:.3g}" for run, (_, values) in curves.items() if len(values))
    if kept is not None:
        caption = f"{caption} The ring is the one that was kept: {kept[0]}, step {kept[1]}."
    return draw(
        folder,
        name,
        paint,
        alt=f"{quantity} against steps of training; at the end: {last}.",
        caption=caption,
    )


def figures_table(rows: Mapping[str, Mapping[str, float | str]], *, caption: str = "") -> Table:
    """A table of models and their metrics; the cell of a metric that a model lacks is empty.

    Args:
        rows: For each model's name its metrics by name.
        caption: What the table shows.

    Returns:
        The block for the page.
    """
    names = list(dict.fromkeys(name for figures in rows.values() for name in figures))
    return Table(
        columns=("model", *(metric_label(name) for name in names)),
        rows=tuple((model, *(_cell(figures.get(name, "")) for name in names)) for model, figures in rows.items()),
        caption=caption,
    )


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
