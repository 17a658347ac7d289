"""Tables of the digits' and MNIST's teachers and students, from results/digits_*.json and mnist_students.json."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import mean

from lib import Results, Row, Tables, estimate, grouped, listed, markdown, measured_on, where


def teacher_table(results: Results) -> str:
    """A line a number of steps, averaged over seeds, with what the draws and seeds lay between."""
    rows = results["rows"]
    body = [teacher_line(group) for _, group in sorted(grouped(rows, "half", "steps").items())]
    floor = ", ".join(f"{value:.2f}" for value in sorted(grouped(rows, "frechet_floor")))
    copying = [row["copying"] for row in rows if "copying" in row]
    if copying:
        far = f"{mean(copying):.2f} times as far"
        floor += f"; samples of the half's teacher are {far} from that half as unseen digits are"
    about = f"The floor, real against real, is {floor}. One seed where no number of seeds is given"
    header = ["trained on", "steps", "FD, 10,000 samples", "FD, 1,400", *JUDGED, "CPU seconds"]
    return f"{markdown(header, body)}\n{about}. {measured_on(results)}.\n"


def teacher_line(rows: list[Row]) -> list[str]:
    return [
        "the half not measured by" if rows[0]["half"] else "all digits",
        f"{rows[0]['steps']:,}" + (f" ({len(rows)} seeds)" if len(rows) > 1 else ""),
        *(spread([value for row in rows for value in row[name]]) for name in ("draws", "small")),
        *(averaged(rows, name) for name in JUDGED),
        averaged(rows, "seconds", 0),
    ]


def averaged(rows: list[Row], name: str, places: int = 2) -> str:
    return f"{mean(row[name] for row in rows):.{places}f}"


JUDGED = ("precision", "recall", "density", "coverage")
STUDENTS = {
    "reverse_kl": "reverse KL",
    "softened_reverse_kl": "softened reverse KL",
    "js": "JS",
    "squared_hellinger": "squared Hellinger",
    "jeffreys": "Jeffreys",
    "kl": "forward KL",
}


LEAST = 3  # seeds: of fewer there is no interval
# At which the comparisons are made.
STEPS, GAN = 800, 1e-3
# What is compared seed by seed, and its decimals.
PLACES = {"FD": 2, "precision": 3, "recall": 3, "class_distance": 3, "modes": 1, "rare": 2}
COMMON = ("FD", "precision", "recall", "class_distance")
COMPARED = {"digits": COMMON, "imbalanced": (*COMMON, "modes", "rare"), "stacked": (*COMMON, "modes")}


def students_table(results: Results, data: str) -> str:
    """A line a divergence, GAN weight and number of steps: means over seeds."""
    rows = rows_of(results, data)
    if not rows:
        return "Not measured yet.\n"
    own = {"imbalanced": {"rare": 2}, "stacked": {"class_distance": 3}}.get(data, {})
    body = [
        student_line(group, own)
        for divergence in ("teacher", *STUDENTS)
        for gan, steps in sorted({(row["gan"], row["steps"]) for row in rows})
        if (group := chosen(rows, divergence, gan, steps))
    ]
    setting = results["setting"]
    about = (
        f"FD: mean of {setting['draws']} draws of {setting['samples']:,} images, then over seeds, with a 95 % interval "
        "(t) from three seeds on. It is measured from half of the images that the judge has; their other half, real "
        f"against real, is {rows[0]['frechet_floor']:.2f} away. The teacher is asked 35 times an image."
    )
    if (floor := rows[0].get("class_distance_floor")) is not None:
        about += f" Of as many real images the shares are off by {floor:.3f}."
    header = ["generator", "GAN", "steps", "FD", *JUDGED, "modes", *map(heading, own), "CPU s", "seeds"]
    return f"{markdown(header, body)}\n{about} {measured_on(results, listed(rows, 'commit', 7))}.\n"


def student_line(group: list[Row], more: dict[str, int]) -> list[str]:
    """Of rows of one kind; `more` are figures of this data alone, and their decimals."""
    first = group[0]
    own = first["divergence"] == "teacher"
    return [
        "the teacher" if own else STUDENTS[first["divergence"]],
        "" if own else f"{first['gan']:g}",
        f"{first['steps']:,}",
        interval([value_of(row, "FD") for row in group]),
        *(averaged(group, name) for name in JUDGED),
        f"{mean(row['modes'] for row in group):.4g} of {first['of']:,}",
        *(averaged(group, name, places) for name, places in more.items()),
        averaged(group, "seconds", 0),
        str(len(group)),
    ]


def paired_table(results: Results, data: str) -> str:
    """Each divergence less the reverse KL of the same seed and GAN weight."""
    rows = rows_of(results, data)
    figures, body = COMPARED[data], []
    for gan in sorted({row["gan"] for row in rows}):
        base = chosen(rows, "reverse_kl", gan, STEPS)
        for divergence in list(STUDENTS)[1:]:
            pairs = matched(chosen(rows, divergence, gan, STEPS), base)
            if len(pairs) >= LEAST:
                body.append([STUDENTS[divergence], f"{gan:g}", *(difference(pairs, name) for name in figures)])
    about = (
        f"Differences to the reverse KL of the same seed and GAN weight, after {STEPS} steps: mean with a 95 % "
        "interval (t, one comparison at a time), then how many of the seeds have the mean's sign."
    )
    return f"{markdown(['less reverse KL', 'GAN', *map(heading, figures)], body)}\n{about}\n"


def gan_table(results: Results) -> str:
    """Each divergence with the GAN term less the same without it."""
    about = f"With the GAN term ({GAN}) less without it, same seed, {STEPS} steps, at the levels of the training"

    def pairs(data: str, divergence: str) -> list[tuple[Row, Row]]:
        rows = rows_of(results, data, levels="training")
        return matched(chosen(rows, divergence, GAN, STEPS), chosen(rows, divergence, 0.0, STEPS))

    return compared_table(pairs, about)


def levels_table(results: Results) -> str:
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
        if len(pairs) >= LEAST:
            body.append([data, STUDENTS[divergence], *(difference(pairs, name) for name in COMMON)])
    table = markdown(["data", "divergence", *map(heading, COMMON)], body)
    return f"{table}\n{about}; intervals and counts as above.\n"


def heading(name: str) -> str:
    """A figure's name, as a table's head has it."""
    return {"class_distance": "shares off"}.get(name, name)


def rows_of(results: Results, data: str, *, levels: str = "raised") -> list[Row]:
    """The teacher's and the students' at some levels of noise that came to an end."""
    rows = where(results["rows"], data=data, status="ok")
    return [row for row in rows if row["divergence"] == "teacher" or row["levels"] == levels]


def chosen(rows: list[Row], divergence: str, gan: float, steps: int) -> list[Row]:
    return where(rows, divergence=divergence, gan=gan, steps=steps)


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
    return f"{interval(differences, places=PLACES[name], sign='+')}, {same} of {len(pairs)}"


def interval(values: list[float], *, places: int = 2, sign: str = "") -> str:
    """The mean, with a 95 % interval where there are values enough."""
    found = estimate(values, least=LEAST)
    return "" if found is None else found.text(places, sign=sign)


def spread(values: list[float]) -> str:
    """The mean, and between what the values lie."""
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


TABLES: Tables = {
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
