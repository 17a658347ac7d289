"""Tables of the digits' teachers and students, from results/digits_*.json. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import mean, stdev
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
    near = (
        f"; samples of the half's teacher are {mean(copying):.2f} times as far from that half as unseen digits are"
        if copying
        else ""
    )
    about = f"The floor, real against real, is {floor}{near}. One seed where no number of seeds is given"
    stamp = f"{results['machine']['processor']}, one thread; {results['date'][:10]}, commit {results['commit']}"
    return f"{markdown([*header, 'CPU seconds'], body)}\n{about}. {stamp}.\n"


STUDENTS = {
    "reverse_kl": "reverse KL",
    "softened_reverse_kl": "softened reverse KL",
    "js": "JS",
    "squared_hellinger": "squared Hellinger",
    "jeffreys": "Jeffreys",
    "kl": "forward KL",
}


def students_table(results: dict[str, Any], data: str) -> str:
    """A line a divergence and GAN weight: means over seeds, and what the paired difference to the reverse KL is."""
    rows = [row for row in results["rows"] if row["data"] == data and row["status"] == "ok"]
    if not rows:
        return "Not measured yet.\n"
    rare = data == "imbalanced"
    header = ["generator", "GAN", "steps", "FD", "beside reverse KL", "precision", "recall", "coverage", "modes"]
    header += ["rare"] * rare + ["CPU s", "seeds"]
    body = [
        student_line(group, rows, rare=rare)
        for divergence in ("teacher", *STUDENTS)
        for gan, steps in sorted({(row["gan"], row["steps"]) for row in rows})
        if (group := [row for row in rows if (row["divergence"], row["gan"], row["steps"]) == (divergence, gan, steps)])
    ]
    commits = ", ".join(sorted({str(row["commit"])[:7] for row in rows}))
    about = (
        "FD of three draws of 10,000 images from half of the data, whose other half is "
        f"{rows[0]['frechet_floor']:.2f} away. Beside reverse KL: the mean difference in FD to the reverse KL of the "
        "same seed and GAN weight, with a 95 % interval (t) from three seeds on."
    )
    stamp = f"{results['machine']['processor']}, one thread; {results['date'][:10]}, commit {commits}"
    return f"{markdown(header, body)}\n{about} {stamp}.\n"


def student_line(group: list[dict[str, Any]], rows: list[dict[str, Any]], *, rare: bool) -> list[str]:
    first = group[0]
    base = {
        row["seed"]: mean(row["draws"])
        for row in rows
        if (row["divergence"], row["gan"], row["steps"]) == ("reverse_kl", first["gan"], first["steps"])
    }
    own = first["divergence"] == "teacher"
    pairs = [mean(row["draws"]) - base[row["seed"]] for row in group if row["seed"] in base]
    figures = [f"{mean(row[name] for row in group):.2f}" for name in ("precision", "recall", "coverage")]
    return [
        "the teacher, 35 evaluations" if own else STUDENTS[first["divergence"]],
        "" if own else f"{first['gan']:g}",
        f"{first['steps']:,}",
        spread([mean(row["draws"]) for row in group]) if len(group) > 1 else f"{mean(first['draws']):.2f}",
        "" if own or first["divergence"] == "reverse_kl" else difference(pairs),
        *figures,
        f"{mean(row['modes'] for row in group):.4g} of {first['of']}",
        *([f"{mean(row['rare'] for row in group):.2f}"] if rare else []),
        f"{mean(row['seconds'] for row in group):.0f}",
        str(len(group)),
    ]


# Quantiles of Student's t at 97.5 %, by the number of pairs.
T_QUANTILES = {3: 4.303, 4: 3.182, 5: 2.776}


def difference(pairs: list[float]) -> str:
    """The mean of paired differences, with its interval where there are pairs enough."""
    if not pairs:
        return ""
    if len(pairs) not in T_QUANTILES:
        return f"{mean(pairs):+.2f}"
    half = T_QUANTILES[len(pairs)] * stdev(pairs) / len(pairs) ** 0.5
    return f"{mean(pairs):+.2f} ± {half:.2f}"


def spread(values: list[float]) -> str:
    """The mean, and between what the values lie."""
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "digits-teacher": ("digits_teacher.json", teacher_table),
    "digits-students": ("digits_students.json", partial(students_table, data="digits")),
    "digits-imbalanced": ("digits_students.json", partial(students_table, data="imbalanced")),
    "digits-stacked": ("digits_students.json", partial(students_table, data="stacked")),
}
