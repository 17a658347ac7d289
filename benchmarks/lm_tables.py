"""The tables of distilling language models: the losses' costs, and the registered benchmark."""

from __future__ import annotations

from collections.abc import Iterator

from lib import Results, Row, Tables, grouped, markdown

TITLES = {
    "ce": "CE", "kl": "KL", "reverse_kl": "reverse KL", "js": "JS", "total_variation": "TV",
    "published": "KL + published Sinkhorn term", "corrected": "KL + corrected Sinkhorn term",
    "corrected_representations": "KL + corrected, with a cost on representations", "mean_l1": "KL + mean L1 (control)",
}  # fmt: skip
PLACES = {
    "dev": "SST-2, 872 dev sentences",
    "held_out": "SST-2, 1,000 held-out phrases",
    "test": "MRPC, 1,725 test pairs",
}
HEADS = {"accuracy": ("accuracy", 2), "f1": ("F1", 2), "agreement": ("agreement %", 2), "kl": ("KL", 4)}
EQUIVALENT = 0.5  # points of accuracy


def losses_table(results: Results) -> str:
    """Milliseconds and bytes of the published loss and ours, a line a size."""
    body = []
    for (samples, classes), rows in grouped(results["rows"], "samples", "classes").items():
        by_loss = {row["loss"]: row for row in rows}
        theirs, ours = by_loss["published"], by_loss["divergence"]
        times = [f"{row['milliseconds']:.3g}" for row in (theirs, ours)]
        kept = [f"{row['kept_bytes'] / 2**20:.3g}" for row in (theirs, ours)]
        faster = theirs["milliseconds"] / ours["milliseconds"]
        body.append([str(samples), f"{classes:,}", *times, f"{faster:.1f}x", *kept])
    header = ["samples", "classes", "published, ms", "ours, ms", "faster", "published keeps, MiB", "ours keeps, MiB"]
    note = f"one thread, median CPU time; {results['date']}; commit {results['commit']}"
    return f"{markdown(header, body)}\n{results['machine']['processor']}; {note}.\n"


def registered_tables(results: Results) -> str:
    """A table for each test set, the settings chosen, and what each addition weighs and costs."""
    pieces: list[str] = []
    for task, places in results["summary"].items():
        for place, found in places.items():
            pieces += _test_set(place, found, results["teachers"][task][place])
    pieces += ["| loss | rate | alpha | beta |", "|---|---|---|---|"]
    settings, measured = results["settings"], results["measured"]
    for loss, chosen in settings.items():
        cells = [TITLES[loss], *(f"{chosen[name]:g}" if name in chosen else "" for name in ("rate", "alpha", "beta"))]
        pieces.append(f"| {' | '.join(cells)} |")
    norms, more = measured["gradient_norms"], measured["steps"]["more_percent"]
    pieces += ["", "| addition | beta | gradient over KL's, start | half way | a step over KL's |"]
    pieces.append("|---|---|---|---|---|")
    for loss in more:
        ratios = [f"{norms[when][loss]:.3f}" for when in ("start", "half way")]
        cells = [TITLES[loss].removeprefix("KL + "), f"{settings[loss]['beta']:g}", *ratios, f"{more[loss]:+.1f} %"]
        pieces.append(f"| {' | '.join(cells)} |")
    return "\n".join(pieces) + "\n"


def _test_set(place: str, found: Row, teacher: Row) -> Iterator[str]:
    """Every quantity's mean over seeds, its paired difference to KL, and what is equivalent."""
    shown = {what: HEADS[what] for what in found}
    yield f"**{PLACES[place]}**, the teacher's accuracy is {teacher['accuracy']:.1f}"
    yield ""
    yield f"| loss | seeds | {' | '.join(f'{head} | against KL' for head, _ in shown.values())} |"
    yield "|---" * (2 + 2 * len(shown)) + "|"
    for loss, accuracy in found["accuracy"].items():
        cells = [TITLES[loss], str(accuracy["seeds"])]
        for what, (_, places) in shown.items():
            one = found[what][loss]
            against = f"{one['difference']:+.{places}f} ± {one['half_width_95']:.{places}f}"
            cells += [f"{one['mean']:.{places}f}", "" if loss == "kl" else against]
        yield f"| {' | '.join(cells)} |"
    yield ""
    p_values = {loss: one["tost_p"] for loss, one in found["accuracy"].items() if "tost_p" in one}
    shown_p = (f"{TITLES[loss]} {'< 0.001' if p < 0.001 else f'{p:.3f}'}" for loss, p in p_values.items())
    yield f"Equivalent to KL within {EQUIVALENT} points of accuracy, TOST p: {'; '.join(shown_p)}."
    yield ""


TABLES: Tables = {
    "lm-losses": ("lm_losses.json", losses_table),
    "lm-registered": ("lm_registered.json", registered_tables),
}
