"""Tables of the digits' and MNIST's teachers and students, from results/. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
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
    where = f"{results['machine']['processor']}, one thread; {results['date'][:10]}, commit {results['commit']}"
    return f"{markdown([*header, 'CPU seconds'], body)}\n{about}. {where}.\n"


STUDENTS = {
    "reverse_kl": "reverse KL",
    "softened_reverse_kl": "softened reverse KL",
    "js": "JS",
    "squared_hellinger": "squared Hellinger",
    "jeffreys": "Jeffreys",
    "kl": "forward KL",
}


# Quantiles of Student's t at 97.5 %, by how many values the mean is of.
T_QUANTILES = {3: 4.303, 4: 3.182, 5: 2.776}
# At which the comparisons are made.
STEPS, GAN = 800, 1e-3
# What is compared seed by seed, and its decimals.
PLACES = {"FD": 2, "precision": 3, "recall": 3, "class_distance": 3, "modes": 1, "rare": 2}
COMMON = ("FD", "precision", "recall", "class_distance")
COMPARED = {"digits": COMMON, "imbalanced": (*COMMON, "modes", "rare"), "stacked": (*COMMON, "modes")}

Row = dict[str, Any]


def students_table(results: dict[str, Any], data: str) -> str:
    """A line a divergence, GAN weight and number of steps: means over seeds."""
    rows = rows_of(results, data)
    if not rows:
        return "Not measured yet.\n"
    own = {"imbalanced": {"rare": 2}, "stacked": {"class_distance": 3}}.get(data, {})
    header = ["generator", "GAN", "steps", "FD", "precision", "recall", "density", "coverage", "modes", *map(said, own)]
    body = [
        student_line(group, own)
        for divergence in ("teacher", *STUDENTS)
        for gan, steps in sorted({(row["gan"], row["steps"]) for row in rows})
        if (group := chosen(rows, divergence, gan, steps))
    ]
    setting = results["setting"]
    floor = rows[0].get("class_distance_floor")
    about = (
        f"FD: mean of {setting['draws']} draws of {setting['samples']:,} images, then over seeds, with a 95 % interval "
        "(t) from three seeds on. It is measured from half of the images that the judge has; their other half, real "
        f"against real, is {rows[0]['frechet_floor']:.2f} away. The teacher is asked 35 times an image."
    )
    if floor is not None:
        about += f" Of as many real images the shares are off by {floor:.3f}."
    return f"{markdown([*header, 'CPU s', 'seeds'], body)}\n{about} {stamp(results, rows)}.\n"


def student_line(group: list[Row], more: dict[str, int]) -> list[str]:
    """Of rows of one kind; `more` are figures of this data alone, and their decimals."""
    first = group[0]
    own = first["divergence"] == "teacher"
    figures = [f"{mean(row[name] for row in group):.2f}" for name in ("precision", "recall", "density", "coverage")]
    return [
        "the teacher" if own else STUDENTS[first["divergence"]],
        "" if own else f"{first['gan']:g}",
        f"{first['steps']:,}",
        interval([value_of(row, "FD") for row in group]),
        *figures,
        f"{mean(row['modes'] for row in group):.4g} of {first['of']:,}",
        *(f"{mean(row[name] for row in group):.{places}f}" for name, places in more.items()),
        f"{mean(row['seconds'] for row in group):.0f}",
        str(len(group)),
    ]


def paired_table(results: dict[str, Any], data: str) -> str:
    """Each divergence less the reverse KL of the same seed and GAN weight."""
    rows = rows_of(results, data)
    figures, body = COMPARED[data], []
    for gan in sorted({row["gan"] for row in rows}):
        base = chosen(rows, "reverse_kl", gan, STEPS)
        for divergence in list(STUDENTS)[1:]:
            pairs = matched(chosen(rows, divergence, gan, STEPS), base)
            if len(pairs) in T_QUANTILES:
                body.append([STUDENTS[divergence], f"{gan:g}", *(difference(pairs, name) for name in figures)])
    about = (
        f"Differences to the reverse KL of the same seed and GAN weight, after {STEPS} steps: mean with a 95 % "
        "interval (t, one comparison at a time), then how many of the seeds have the mean's sign."
    )
    return f"{markdown(['less reverse KL', 'GAN', *map(said, figures)], body)}\n{about}\n"


def gan_table(results: dict[str, Any]) -> str:
    """Each divergence with the GAN term less the same without it."""
    about = f"With the GAN term ({GAN}) less without it, same seed, {STEPS} steps, at the levels of the training"

    def pairs(data: str, divergence: str) -> list[tuple[Row, Row]]:
        rows = rows_of(results, data, levels="training")
        return matched(chosen(rows, divergence, GAN, STEPS), chosen(rows, divergence, 0.0, STEPS))

    return compared_table(pairs, about)


def levels_table(results: dict[str, Any]) -> str:
    """Each divergence matched at the distiller's levels of noise less the same at those of the teacher's training."""
    about = f"Raised levels less those of the training, same seed, {STEPS} steps, with the GAN term ({GAN})"

    def pairs(data: str, divergence: str) -> list[tuple[Row, Row]]:
        raised, training = (rows_of(results, data, levels=levels) for levels in ("raised", "training"))
        return matched(chosen(raised, divergence, GAN, STEPS), chosen(training, divergence, GAN, STEPS))

    return compared_table(pairs, about)


def compared_table(pairs_of: Callable[[str, str], list[tuple[Row, Row]]], about: str) -> str:
    """A line for each data and divergence of which there are pairs of rows enough."""
    body = []
    for data, divergence in product(("digits", "imbalanced"), STUDENTS):
        pairs = pairs_of(data, divergence)
        if len(pairs) in T_QUANTILES:
            body.append([data, STUDENTS[divergence], *(difference(pairs, name) for name in COMMON)])
    table = markdown(["data", "divergence", *map(said, COMMON)], body)
    return f"{table}\n{about}; intervals and counts as above.\n"


def said(name: str) -> str:
    """A figure's name, as a table's head has it."""
    return {"class_distance": "shares off"}.get(name, name)


def rows_of(results: dict[str, Any], data: str, *, levels: str = "raised") -> list[Row]:
    """The teacher's and the students' at some levels of noise that came to an end."""
    rows = [row for row in results["rows"] if row["data"] == data and row["status"] == "ok"]
    return [row for row in rows if row["divergence"] == "teacher" or row["levels"] == levels]


def chosen(rows: list[Row], divergence: str, gan: float, steps: int) -> list[Row]:
    return [row for row in rows if (row["divergence"], row["gan"], row["steps"]) == (divergence, gan, steps)]


def matched(group: list[Row], base: list[Row]) -> list[tuple[Row, Row]]:
    """Rows of one seed, of the one and of the other."""
    others = {row["seed"]: row for row in base}
    return [(row, others[row["seed"]]) for row in group if row["seed"] in others]


def value_of(row: Row, name: str) -> float:
    return mean(row["draws"]) if name == "FD" else row[name]


def difference(pairs: list[tuple[Row, Row]], name: str) -> str:
    """The mean difference and its interval, and in how many pairs it has the mean's sign."""
    differences = [value_of(one, name) - value_of(other, name) for one, other in pairs]
    same = sum(one * mean(differences) > 0 for one in differences)
    return f"{interval(differences, places=PLACES[name], signed=True)}, {same} of {len(pairs)}"


def interval(values: list[float], *, places: int = 2, signed: bool = False) -> str:
    """The mean, with a 95 % interval where there are values enough."""
    shown = f"{mean(values):{'+' if signed else ''}.{places}f}"
    if len(values) not in T_QUANTILES:
        return shown
    return f"{shown} ± {T_QUANTILES[len(values)] * stdev(values) / len(values) ** 0.5:.{places}f}"


def stamp(results: dict[str, Any], rows: list[Row]) -> str:
    commits = ", ".join(sorted({str(row["commit"])[:7] for row in rows}))
    return f"{results['machine']['processor']}, one thread; {results['date'][:10]}, commit {commits}"


def spread(values: list[float]) -> str:
    """The mean, and between what the values lie."""
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "digits-teacher": ("digits_teacher.json", teacher_table),
    "digits-students": ("digits_students.json", partial(students_table, data="digits")),
    "digits-students-paired": ("digits_students.json", partial(paired_table, data="digits")),
    "digits-imbalanced": ("digits_students.json", partial(students_table, data="imbalanced")),
    "digits-imbalanced-paired": ("digits_students.json", partial(paired_table, data="imbalanced")),
    "digits-levels": ("digits_students.json", levels_table),
    "digits-gan": ("digits_students.json", gan_table),
    "digits-stacked": ("digits_students.json", partial(students_table, data="stacked")),
    "digits-stacked-paired": ("digits_students.json", partial(paired_table, data="stacked")),
    "mnist-students": ("mnist_students.json", partial(students_table, data="mnist")),
}
