"""The table of the digits' teachers, from results/digits_teacher.json. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from maps_tables import markdown

__all__ = ["TABLES"]


def teacher_table(results: dict[str, Any]) -> str:
    """A line a number of steps, averaged over seeds, with what the draws and seeds lay between."""
    header = ["trained on", "steps", "FD, 10,000 samples", "FD, 1,400", "precision", "recall", "density", "coverage"]
    kinds = sorted({(row["half"], row["steps"]) for row in results["rows"]})
    body, floors, copying = [], set(), []
    for half, steps in kinds:
        rows = [row for row in results["rows"] if (row["half"], row["steps"]) == (half, steps)]
        floors |= {row["frechet_floor"] for row in rows}
        copying += [row["copying"] for row in rows if "copying" in row]
        figures = [f"{mean(row[name] for row in rows):.2f}" for name in ("precision", "recall", "density", "coverage")]
        seeds = f" ({len(rows)} seeds)" if len(rows) > 1 else ""
        body.append(
            [
                "the half not measured by" if half else "all digits",
                f"{steps:,}{seeds}",
                spread([value for row in rows for value in row["draws"]]),
                spread([value for row in rows for value in row["small"]]),
                *figures,
                f"{mean(row['seconds'] for row in rows):.0f}",
            ]
        )
    floor = ", ".join(f"{value:.2f}" for value in sorted(floors))
    near = f"; its samples are {mean(copying):.2f} times as far from its data as unseen digits are" if copying else ""
    about = f"The floor, real against real, is {floor}{near}. One seed where no number of seeds is given"
    stamp = f"{results['machine']['processor']}, one thread; {results['date'][:10]}, commit {results['commit']}"
    return f"{markdown([*header, 'CPU seconds'], body)}\n{about}. {stamp}.\n"


def spread(values: list[float]) -> str:
    """The mean, and between what the values lie."""
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "digits-teacher": ("digits_teacher.json", teacher_table)
}
