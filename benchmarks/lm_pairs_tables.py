"""The tables of the two pairs of language models on plain text, from results/lm_pairs.json."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from lib import Results, Row, Tables, difference, estimate, grouped, markdown, where

MEASURES = {"perplexity": (1, 2), "accuracy": (100, 2), "agreement": (100, 2), "kl": (1, 5)}  # scale, decimals
# Arms that were thought of after the protocol's own had run.
IDEAS = ("classes alone", "kl + batch of all", "kl, T = 0.5", "kl, T = 0.5, w = 0.9", "kl + classes, T = 0.5")
CONTROLS = (  # compared beside KL
    ("kl + l1", "kl, w = 0.9"),
    ("kl + published", "kl, w = 0.9"),
    ("kl + batch", "kl, w = 0.9"),
    ("kl + classes", "kl, w = 0.9"),
    ("kl + batch", "kl + l1"),
    ("classes alone", "kl, w = 0.9"),
    ("kl + batch of all", "kl, w = 0.9"),
    ("kl + classes, T = 0.5", "kl, T = 0.5, w = 0.9"),
)


def arms_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A line an arm: its setting and its means over seeds."""
    body = []
    for name in names:
        own = where(rows, arm=name)
        mean = {key: statistics.mean(row[key] for row in own) for key in (*MEASURES, "seconds")}
        line = [name, f"{own[0]['rate']:g}", f"{own[0]['weight']:g}", str(len(own)), f"{mean['perplexity']:.2f}"]
        line += [f"{100 * mean[key]:.2f}" for key in ("accuracy", "agreement")]
        body.append([*line, f"{mean['kl']:.4f}", f"{mean['seconds']:.1f}"])
    header = ["loss", "rate", "w", "seeds", "perplexity", "accuracy %", "agreement %", "KL", "CPU seconds"]
    return markdown(header, body)


def differences_table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Each arm less KL, and less its control, seed by seed; bold where the interval does not hold 0."""
    body = []
    pairs = [(name, "kl") for name in names if name != "kl"]
    for one, other in pairs + [pair for pair in CONTROLS if pair[0] in names]:
        found = [paired(rows, one, other, measure) for measure in MEASURES]
        if all(found):
            body.append([f"{one} - {other}", *found])
    header = ["difference, paired by seed", "perplexity", "accuracy, points", "agreement, points", "KL"]
    return markdown(header, body)


def paired(rows: Sequence[Row], one: str, other: str, measure: str) -> str:
    """The mean difference and its interval; nothing of fewer than two seeds."""
    scale, places = MEASURES[measure]
    values = [{row["seed"]: scale * row[measure] for row in where(rows, arm=name)} for name in (one, other)]
    found = estimate(difference(*values))
    return "" if found is None or found.half is None else found.bold(found.text(places, sign="+"))


def final(
    table: Callable[[Sequence[Row], Sequence[str]], str], pair: str, *, ideas: bool = False, stage: str = "final"
) -> Callable[[Results], str]:
    """A table of a pair's final runs, of the ideas or of all other arms."""

    def made(results: Results) -> str:
        rows = where(results["runs"], stage=stage, pair=pair)
        return table(rows, IDEAS if ideas else [name for name in grouped(rows, "arm") if name not in IDEAS])

    return made


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def teachers_table(results: Results) -> str:
    body = [
        [row["pair"], f"{row['perplexity']:.1f}", percent(row["accuracy"]), f"{row['seconds']:.0f}"]
        for row in where(results["runs"], stage="teacher")
    ]
    return markdown(["teacher", "perplexity", "accuracy", "CPU seconds"], body)


def diagonal_table(results: Results) -> str:
    body = [
        [str(row["positions"]), percent(row["share"]), f"{row['transport_cost']:.4f}", f"{row['mean l1']:.4f}"]
        for row in where(results["runs"], stage="diagonal")
    ]
    return markdown(["positions", "mass on the diagonal", "transport cost", "mean L1"], body)


def terms_table(results: Results) -> str:
    compared = ("gradient over kl's", "cosine with kl's")
    body = [
        [row["term"], f"{1e3 * row['seconds']:.1f}", *(f"{row[key]:.2g}" if key in row else "" for key in compared)]
        for row in results["runs"]
        if row["stage"] in ("term", "model")
    ]
    return markdown(["at weight 1", "milliseconds", "gradient over KL's", "cosine with KL's"], body)


FAITHFUL = "final by agreement"
MADE: dict[str, Callable[[Results], str]] = {
    "teachers": teachers_table,
    "diagonal": diagonal_table,
    "terms": terms_table,
    "decoder": final(arms_table, "decoder"),
    "differences": final(differences_table, "decoder"),
    "faithful": final(arms_table, "decoder", stage=FAITHFUL),
    "faithful-differences": final(differences_table, "decoder", stage=FAITHFUL),
    "ideas": final(arms_table, "decoder", ideas=True),
    "ideas-differences": final(differences_table, "decoder", ideas=True),
    "seq2seq": final(arms_table, "seq2seq"),
    "seq2seq-differences": final(differences_table, "seq2seq"),
}
TABLES: Tables = {f"lm-pairs-{name}": ("lm_pairs.json", made) for name, made in MADE.items()}
