"""The tables of f-divergences in the plane and of a step of distilling, from results/f_*.json.

An interval is the middle 95 % of a bootstrap over draws or seeds, as the benchmark wrote it.
"""

from __future__ import annotations

from collections import Counter

from lib import Results, Row, Tables, digits, grouped, markdown, measured_on, where

NAMES = {
    "reverse_kl": "reverse KL",
    "softened_reverse_kl": "softened reverse KL",
    "js": "Jensen-Shannon",
    "squared_hellinger": "squared Hellinger",
    "jeffreys": "Jeffreys",
    "kl": "forward KL",
}
WEIGHTS = {
    "reverse_kl": "1",
    "softened_reverse_kl": "1/(r + 1)",
    "js": "r/(r + 1)",
    "squared_hellinger": "sqrt(r)/4",
    "jeffreys": "r + 1",
    "kl": "r",
}
SEEKS = {
    "reverse_kl": "seeks",
    "softened_reverse_kl": "seeks",
    "js": "between",
    "squared_hellinger": "between",
    "jeffreys": "covers",
    "kl": "covers",
}
FIGURES = {"weight": "h", "gradient": "gradient, raw", "normalised": "gradient, normalised"}
# One point of each scenario at which the student is well off.
SHOWN = {
    "shift": (1.0, "a mode 1 off"),
    "share": (0.1, "a mode at 0.1"),
    "width": (0.5, "half as wide"),
}


def interval(found: dict[str, float]) -> str:
    """The mean, with its interval where that is wider than a rounding."""
    low, mean, high = (digits(found[name]) for name in ("low", "mean", "high"))
    return mean if low == high else f"{mean} [{low}, {high}]"


def note(results: Results, about: str) -> str:
    return f"\n{about}; {measured_on(results)}.\n"


def variance_table(results: Results) -> str:
    """The weight's and the normalised gradient's variance at one point of three scenarios."""
    header, columns = ["divergence", "h"], []
    for scenario, (value, said) in SHOWN.items():
        (row,) = where(results["rows"], scenario=scenario, value=value)
        for figure, name in (("weight", "h"), ("normalised", "gradient")):
            header.append(f"{name}: {said}")
            columns.append((row["divergences"], figure))
    body = []
    for name, label in NAMES.items():
        figures = [
            ("0" if figure == "weight" else "1") if name == "reverse_kl" else interval(found[name][figure])
            for found, figure in columns
        ]
        body.append([label, WEIGHTS[name], *figures])
    setting = results["setting"]
    about = f"mean and 95 % bootstrap interval of {setting['draws']} draws of {setting['batches'] * setting['batch']:,}"
    return markdown(header, body) + note(results, about)


def order_table(results: Results) -> str:
    """At how many points of a scenario the noisier neighbour is noisier, draw by draw."""
    claimed = results["setting"]["claimed"]
    pairs = [f"{NAMES[one]} < {NAMES[other]}" for one, other in zip(claimed, claimed[1:], strict=False)]
    body = []
    for scenario, own in grouped(({"student": _student(row)} | row for row in results["rows"]), "student").items():
        for figure, label in FIGURES.items():
            said = [Counter(row["in_order"][figure][k] for row in own) for k in range(len(pairs))]
            body.append([scenario, label, *map(_counted, said)])
    return markdown(["student", "variance of", *pairs], body)


def _student(row: Row) -> str:
    """The scenario; of widths, on which side of the teacher's."""
    if row["scenario"] != "width":
        return row["scenario"]
    return "narrower" if row["value"] < 1 else "wider"


def _counted(said: Counter[str]) -> str:
    parts = [f"{said[word]} {word}" for word in ("yes", "open", "no") if said[word]]
    return parts[0].replace("yes", "of " + parts[0].split()[0]) if list(said) == ["yes"] else ", ".join(parts)


def modes_table(results: Results) -> str:
    """The weight against the paper's, how far one Gaussian covers two modes, and how many of four are held."""
    header = [
        "divergence", "h in the paper", "h derived, differs by", "in the paper", "one Gaussian covers to a =",
        "modes held of 4", "more than reverse KL", "mass on none",
    ]  # fmt: skip
    body = []
    for name, label in NAMES.items():
        summary = results["summary"][name]
        held = [interval(summary[key]) for key in ("held", "more_than_reverse_kl", "stray")]
        covered = covers_to(results["minimisers"][name])
        body.append([label, WEIGHTS[name], f"{results['weights'][name]:.0e}", SEEKS[name], covered, *held])
    seeds = len({row["seed"] for row in results["rows"]})
    return markdown(header, body) + note(results, f"mean and 95 % bootstrap interval of {seeds} paired seeds")


def covers_to(least: dict[str, list[Row]]) -> str:
    """The largest half distance at which the least minimiser lies over both modes: as wide as half of it, or wider."""
    covering = [a for a in least if least[a][0]["width"][0] > 0.5 * float(a)]
    ended = max(covering, key=float)
    return f"{float(ended):g}" + (" or more" if ended == max(least, key=float) else "")


def gaps_table(results: Results) -> str:
    """Width of the least minimiser and of the trained students, and how near these came to a minimiser."""
    body = []
    for a in results["summary"]["kl"]["pair"]:
        for name, label in NAMES.items():
            found = results["summary"][name]["pair"][a]
            least = digits(results["minimisers"][name][a][0]["width"][0])
            at_least = f"{found['global']} of {found['runs']}"
            body.append([label, f"{float(a):g}", least, interval(found["width"]), interval(found["gap"]), at_least])
    return markdown(["divergence", "a", "least width", "trained width", "gap", "at the least"], body)


def step_table(results: Results) -> str:
    """Time, operations and memory of one step, ours and the published algorithm's."""
    header = ["data", "step", "ours, ms", "published, ms", "published / ours", "ours, MFLOP", "published, MFLOP"]
    header += ["ours, peak MiB", "published, peak MiB"]
    cells: dict[tuple[str, str], Row] = {}
    for row in results["rows"]:
        cells.setdefault((row["problem"], row["step"]), {})[row["who"]] = row
    body = []
    for (problem, step), by_who in cells.items():
        rows = by_who["ours"], by_who["published"]
        times = [digits(1000 * row["seconds"]) for row in rows]
        flops = [f"{row['flops'] / 1e6:,.0f}" for row in rows]
        peaks = [digits(row["peak"] / 2**20) for row in rows]
        body.append([problem, step, *times, interval(rows[0]["faster"]), *flops, *peaks])
    return markdown(header, body) + note(results, f"median CPU time of {results['setting']['turns']} turns")


TABLES: Tables = {
    "f-variance": ("f_variance.json", variance_table),
    "f-order": ("f_variance.json", order_table),
    "f-modes": ("f_modes.json", modes_table),
    "f-gaps": ("f_modes.json", gaps_table),
    "f-step": ("f_step.json", step_table),
}
