"""The thirty figures that this project holds itself to, measured and written to SCOREBOARD.md.

    python benchmarks/scoreboard.py            measure all, half an hour on two cores
    python benchmarks/scoreboard.py 7 8 23     measure these again
    python benchmarks/scoreboard.py --page     only write the page from the results

Each figure is measured by a function of `score_figures.py`: directly, by counting the tests that hold it, or from the
committed result of a benchmark that takes longer. `results/scoreboard.json` keeps what was measured, with date, commit
and machine; a figure that could not be measured says why, and one that misses its target is marked.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import score_figures as figures
from measure import conditions, say, write_json
from score_reached import RESULTS as FOLDER
from score_reached import ROOT, Reached

RESULTS = FOLDER / "scoreboard.json"
PAGE = ROOT / "SCOREBOARD.md"
MARKS = {True: "yes", False: "**no**", None: "not measured"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the scoreboard.

    Args:
        room: What the figure is about.
        what: What is measured.
        target: What is asked, in words.
        measure: Returns what was reached.
    """

    room: str
    what: str
    target: str
    measure: Callable[[], Reached]


# ruff: noqa: E501 - a table reads as one
FIGURES: dict[int, Figure] = {
    1: Figure("Input", "bad inputs x public entry points that end in an error naming the argument", "100 %", figures.bad_inputs),
    2: Figure("Input", "NaN or infinity under a good status, 10,000 problems", "0", figures.non_finite_converged),
    3: Figure("Input", "hopeless problems admitted as failed, 1,000", "100 %", figures.hopeless_admitted),
    4: Figure("Input", "CONVERGED while the recomputed error exceeds the tolerance, 10,000 problems", "0", figures.false_converged),
    5: Figure("Input", "callers' tensors or torch's global state changed", "0", figures.leaves_no_trace),
    6: Figure("Input", "bad flags, files and recipe keys: one line that names them, exit code 2", "100 %", figures.bad_flags),
    7: Figure("Correctness", "closed forms, worst relative error of the value, float64 / float32", "1e-8 / 1e-4", figures.closed_forms),
    8: Figure("Correctness", "against POT's exact cost as epsilon falls / OTT at epsilon > 0, relative", "1e-3 / 1e-6", figures.references),
    9: Figure("Correctness", "gradcheck over the public differentiable functions", "100 %", figures.gradchecks),
    10: Figure("Correctness", "metamorphic laws over 10,000 random problems", "100 %", figures.laws),
    11: Figure("Correctness", "divergences: integrand = definition; weight = r^2 f''(r)", "1e-12", figures.divergences),
    12: Figure("Correctness", "bfloat16 logits against float64, vocabulary 152,000: relative error; NaN", "1e-2; none", figures.half_precision_logits),
    13: Figure("Scale", "peak memory, 100,000 points of 64 numbers, float32", "2 GB", figures.peak_memory),
    14: Figure("Scale", "growth of memory from n to 2 n points", "2.2x", figures.memory_growth),
    15: Figure("Scale", "a dense plan that does not fit is refused before it is allocated, with its bytes", "yes", figures.dense_refused),
    16: Figure("Scale", "peak memory of a distillation loss over one float32 copy of the logits: KL, JS", "1.3x", figures.loss_memory),
    17: Figure("Training", "SIGKILL at a random step, 1 and 2 processes: resumed run bit-identical", "all", figures.killed_at_a_step),
    18: Figure("Training", "SIGKILL inside a save: resumed from the last whole checkpoint, bit-identical", "all", figures.killed_in_a_save),
    19: Figure("Training", "a file of a checkpoint deleted, cut short or altered: refused by name, or the one before used", "100 %", figures.damaged_checkpoints),
    20: Figure("Training", "disk full or read-only during a save: the run goes on, the last checkpoint is whole", "100 %", figures.full_disks),
    21: Figure("Training", "same seed twice; accumulation; 1 and 2 processes", "bitwise; 1e-6; 1e-6", figures.reproducible),
    22: Figure("Security", "hostile files in every slot that is loaded: code executed", "0", figures.hostile_files),
    23: Figure("Use", "`import pushforward` over torch's; `--help`; first result", "0.2 s; 0.7 s; 60 s", figures.first_use),
    24: Figure("Use", "README, examples and docstrings that run unchanged", "100 %", figures.examples),
    25: Figure("Outside", "not converged where Sinkhorn's iteration converges in 50,000 steps, 10,000 problems", "0", figures.left_unconverged),
    26: Figure("Outside", "exact, 1,000 problems in rationals: certificate above the optimum, marginals off, wrongly infeasible", "0", figures.exact_in_rationals),
    27: Figure("Outside", "kinds of ordinary table read wrong in silence", "0", figures.tables_read_wrong),
    28: Figure("Outside", "maps, students and generators that lose to doing nothing without a word", "0", figures.losers_reported),
    29: Figure("Outside", "every trainer, 1 against 2 processes, same global batch", "1e-6", figures.one_or_two_processes),
    30: Figure("Outside", "bytes that a memory check promised against bytes taken", "within 5 %", figures.memory_promises),
}  # fmt: skip


def page(results: dict[str, Any]) -> str:
    lines = [
        "# Scoreboard",
        "",
        "What this project holds itself to, measured by `python benchmarks/scoreboard.py`. A figure that misses its target",
        "says so; each line names the command that measures it by itself, the commit, and the day.",
        "",
        "| # | figure | target | reached | met | measured by |",
        "| ---: | --- | --- | --- | --- | --- |",
    ]
    room = None
    for number, figure in FIGURES.items():
        if figure.room != room:
            room = figure.room
            lines.append(f"| | **{room}** | | | | |")
        row = results.get(str(number))
        reached, met, by = (row["reached"], MARKS[row["met"]], _source(row)) if row else ("", MARKS[None], "")
        lines.append(f"| {number} | {figure.what} | {figure.target} | {reached} | {met} | {by} |")
    met = sum(row["met"] is True for row in results.values())
    machines = sorted({row["machine"] for row in results.values()})
    lines += ["", f"{met} of {len(FIGURES)} are met. {'; '.join(machines)}.", ""]
    return "\n".join(lines)


def _source(row: dict[str, Any]) -> str:
    return f"`{row['command']}`; {row['commit']}, {row['date'][:10]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="figures to measure")
    parser.add_argument("--page", action="store_true", help="only write the page")
    flags = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for number in [] if flags.page else flags.numbers or FIGURES:
        began = time.monotonic()
        reached = FIGURES[number].measure()
        here = conditions()
        results[str(number)] = {
            "reached": reached.text,
            "met": reached.met,
            "command": reached.command or f"python benchmarks/scoreboard.py {number}",
            "details": reached.details,
            "seconds": round(time.monotonic() - began, 1),
            "date": reached.date or here["date"],
            "commit": reached.commit or here["commit"],
            "machine": reached.machine or here["machine"]["processor"],
        }
        write_json(RESULTS, dict(sorted(results.items(), key=lambda item: int(item[0]))))
        say(f"{number:>3}  {MARKS[reached.met]:<12} {reached.text}")
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
