"""The page of a fitted map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward import report
from pushforward.jobs.folder import LOG, write_page
from pushforward.report.maps import maps_table, moves_picture, photograph_picture
from pushforward.report.training import curves_picture
from pushforward.training.log import read_log

if TYPE_CHECKING:
    from pushforward.jobs.inputs.arrays import Array

__all__ = ["write"]

_TABLE = """On points held out. Divergence: the Sinkhorn divergence of the images from the target, in units of the cost,
0 for equal distributions. W2²: the exact transport cost between as many points of both, with the squared distance; two
samples of the target itself are {floor:.4g} apart, so no map can be asked for less. Gap: what the map pays more than
the cheapest rearrangement of its own image, 0 for an optimal map. Variance ratio: the image's total variance over
the target's, 1 at best: where it is not between 0.5 and 2, or W2² is below what two samples of the target are apart,
images are near to any sample because they are drawn together. Mean shift: the distance of the means in standard
deviations of the target. Stranded: the share of images where no target is, about 0 for a right map."""
# What a training's checks say, and how the page calls it.
_CURVES = {
    "divergence": (
        "Sinkhorn divergence / mean cost",
        "How far the images are from the target, on points kept aside in training; one line a stage of it.",
    ),
    "gap": (
        "Monge gap / mean cost",
        "What the map pays more than it must for its own image; about 0 where it is optimal.",
    ),
    "variance_ratio": ("variance ratio", "The image's total variance over the target's: 1 is right, less has shrunk."),
    "dual": ("dual objective", "What the potential is trained to lower, on points kept aside."),
    "mean_shift": ("mean shift", "Distance of the means, in standard deviations of the target."),
}


def write(
    folder: Path,
    result: dict[str, Any],
    *,
    moves: tuple[Array, Array, Array],
    photographs: tuple[Array, Array, Array] | None,
) -> Path:
    """Write the page of a map that is fitted and judged.

    Args:
        folder: The run's folder, with its log.
        result: What `result.json` holds.
        moves: Points held out, their images, and points of the target.
        photographs: Source, target and recoloured source, shapes (height, width, 3); None for no pictures.

    Returns:
        The page.
    """
    blocks: list[report.Block] = [_facts(result), *(report.Text(text=f"Warning: {it}.") for it in result["warnings"])]
    if photographs is not None:
        blocks += _photographs(folder, photographs)
    blocks.append(maps_table(result["figures"], caption=_TABLE.format(floor=result["floor"])))
    dimension = moves[0].shape[1]
    if dimension >= 2:
        plane = "" if dimension == 2 else f", in the plane in which these {dimension} coordinates vary most"
        caption = f"Where the map sends points held out{plane}. Green: points of the target."
        blocks.append(moves_picture(folder, "moves", moves, caption=caption))
    return write_page(
        folder,
        title="A transport map",
        lead=f"{result['problem'][0].upper()}{result['problem'][1:]}.",
        heading="The map",
        blocks=(*blocks, *_curves(folder, result["kept"])),
    )


def _facts(result: dict[str, Any]) -> report.Facts:
    points, settings = result["points"], result["settings"]
    facts = [
        ("method", result["method"]),
        *([("kept", _words(result["kept"]))] if result["kept"] else []),
        ("points", f"{points['source']} + {points['target']}"),
        ("held out", " + ".join(str(count) for count in points["held_out"])),
        *((name.replace("_", " "), str(value)) for name, value in settings.items() if name != "hold_out"),
        ("seconds", f"{result['seconds']:.1f}"),
    ]
    return report.Facts(facts=tuple(facts))


def _photographs(folder: Path, photographs: tuple[Array, Array, Array]) -> list[report.Picture]:
    pictures = (
        ("source", "The source picture.", "Before."),
        ("target", "The target picture.", "The picture whose colours are wanted."),
        ("recoloured", "The source picture in the target's colours.", "After: every colour of the source, mapped."),
    )
    return [
        photograph_picture(folder, name, colours, alt=alt, caption=caption)
        for (name, alt, caption), colours in zip(pictures, photographs, strict=True)
    ]


def _words(kept: dict[str, Any]) -> str:
    stage = f"stage {kept['stage']}, " if kept["stage"] else ""
    return f"{stage}step {kept['step']}"


def _curves(folder: Path, kept: dict[str, Any] | None) -> list[report.Picture]:
    """The checks of the training, one line a stage, with the check of the map that was kept marked."""
    checks = read_log(folder / LOG)
    lines = _stages(checks)
    mark = None if kept is None else (lines[kept["check"]], kept["step"])
    pictures: list[report.Picture] = []
    for name, (quantity, caption) in _CURVES.items():
        stages: dict[str, tuple[list[int], list[float]]] = {}
        for line, check in zip(lines, checks, strict=True):
            if name in check:
                steps, values = stages.setdefault(line, ([], []))
                steps.append(check["step"])
                values.append(check[name])
        if any(len(steps) > 1 for steps, _ in stages.values()):
            file = f"check-{name.replace('_', '-')}"
            pictures.append(curves_picture(folder, file, stages, quantity=quantity, caption=caption, kept=mark))
    return pictures


def _stages(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The line that each check belongs to: its stage, and which network where a second one was tried."""
    lines: list[str] = []
    second = ""
    for check in checks:
        stage = str(check.get("stage", ""))
        if stage == "start" and lines:
            second = ", second network"
        lines.append(stage + second)
    return lines
