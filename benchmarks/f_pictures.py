"""Draws the pictures of docs/f-divergences.md from results/f_modes.json and f_variance.json.

python benchmarks/f_pictures.py
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from f_mixtures import CLAIMED
from f_modes import CORNERS, DRAWN_AT
from f_tables import NAMES
from lib import RESULTS, ROOT, Results, Row, read, where

from pushforward import report

# Colour and dashes of a divergence, the same in every picture: colour alone does not tell lines apart for everyone.
LOOKS: dict[str, dict[str, Any]] = {
    "reverse_kl": {"color": "C5", "linestyle": "-"},
    "softened_reverse_kl": {"color": "C0", "linestyle": (0, (5, 1.5))},
    "js": {"color": "C1", "linestyle": "-"},
    "squared_hellinger": {"color": "C2", "linestyle": (0, (1.5, 1.2))},
    "jeffreys": {"color": "C3", "linestyle": (0, (6, 1.5, 1.5, 1.5))},
    "kl": {"color": "C4", "linestyle": "-"},
}
SCENARIOS = {"shift": "how far a mode is off", "share": "mass in the second mode", "width": "width of the modes"}
KINDS = {"weight": "Var h / (E h)²", "normalised": "gradient variance\nover reverse KL's"}


def legend(figure: Any, ax: Any) -> None:
    """One legend above all panels, from the lines of one."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, columnspacing=1.4, handlelength=2.2)


def variances(figure: Any, rows: list[Row]) -> None:
    """The weight's variance above, the normalised gradient's below, a column a scenario."""
    panels = figure.subplots(2, 3, sharex="col", squeeze=False)
    for line, (kind, label) in zip(panels, KINDS.items(), strict=True):
        line[0].set_ylabel(label)
        for ax, scenario in zip(line, SCENARIOS, strict=True):
            curves(ax, where(rows, scenario=scenario), kind)
    for ax, (scenario, label) in zip(panels[1], SCENARIOS.items(), strict=True):
        ax.set_xlabel(label)
        if scenario == "share":
            ax.set_xscale("log")
            ax.invert_xaxis()
            ax.set_xticks([0.5, 0.2, 0.1, 0.05, 0.02], ["0.5", "0.2", "0.1", "0.05", "0.02"])
            ax.minorticks_off()
    legend(figure, panels[1, 0])


def curves(ax: Any, rows: list[Row], kind: str) -> None:
    values = [row["value"] for row in rows]
    for name in CLAIMED:
        found = [row["divergences"][name][kind] for row in rows]
        exact = [row["divergences"][name]["exact"].get(kind) for row in rows]
        line = exact if None not in exact else [each["mean"] for each in found]
        ax.plot(values, line, label=NAMES[name], **LOOKS[name])
        low, high = ([each[side] for each in found] for side in ("low", "high"))
        ax.vlines(values, low, high, color=LOOKS[name]["color"], linewidth=3, alpha=0.6)
    if kind == "normalised":
        ax.axhline(1.0, linewidth=1, label=NAMES["reverse_kl"], **LOOKS["reverse_kl"])
    ax.set_yscale("log")
    if kind == "normalised":
        low, high = ax.get_ylim()
        ticks = [tick for tick in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if low <= tick <= high]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    ax.grid(axis="y")


def widths(figure: Any, results: Results) -> None:
    """The width of the fit to the pair."""
    ax = figure.subplots()
    for number, (name, look) in enumerate(LOOKS.items()):
        least = [results["minimisers"][name][str(a)][0]["width"][0] for a in DRAWN_AT]
        ax.plot(DRAWN_AT, least, label=NAMES[name], **look)
        rows = where(results["rows"], problem="pair", divergence=name)
        beside = [row["a"] + (number * 0.03 - 0.075) for row in rows]
        dots = {"marker": "o", "markersize": 4, "alpha": 0.6, "linestyle": "none"}
        ax.plot(beside, [row["width"][0] for row in rows], color=look["color"], **dots)
    ax.set(xlabel="half the distance of the modes", ylabel="width of the Gaussian")
    ax.grid(axis="y")
    legend(figure, ax)


def students(figure: Any, results: Results, seed: int = 0) -> None:
    """The students of the four modes."""
    from matplotlib.patches import Ellipse

    panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    for ax, (name, look) in zip(panels, LOOKS.items(), strict=True):
        for corner in CORNERS:
            ax.add_patch(Ellipse(corner, 2.0, 2.0, color="0.5", alpha=0.35, linewidth=0))
        for row in where(results["rows"], problem="four", divergence=name, seed=seed):
            for mean, covariance in zip(row["means"], row["covariances"], strict=True):
                values, axes = np.linalg.eigh(covariance)
                angle, lengths = np.degrees(np.arctan2(axes[1, 1], axes[0, 1])), 4 * np.sqrt(values)
                shape = {"angle": angle, "fill": False, "edgecolor": look["color"], "linewidth": 2}
                ax.add_patch(Ellipse(mean, lengths[1], lengths[0], **shape))
        held = results["summary"][name]["held"]["mean"]
        ax.set(xlim=(-4.6, 4.6), ylim=(-4.6, 4.6), title=f"{NAMES[name]}: {held:.1f} of 4", aspect="equal")


def main() -> None:
    modes, rows = read(RESULTS / "f_modes.json"), read(RESULTS / "f_variance.json")["rows"]
    pictures = {
        "f-width": (partial(widths, results=modes), (6.4, 4.2)),
        "f-modes": (partial(students, results=modes), (9.0, 6.4)),
        "f-variance": (partial(variances, rows=rows), (9.0, 5.6)),
    }
    for name, (paint, size) in pictures.items():
        report.draw(ROOT / "docs", name, paint, size=size, alt="")


if __name__ == "__main__":
    main()
