"""The thirty figures that this project holds itself to, measured and written to SCOREBOARD.md.

    python benchmarks/scoreboard.py            measure all, half an hour on two cores
    python benchmarks/scoreboard.py 7 8 23     measure these again
    python benchmarks/scoreboard.py --page     only write the page from the results

Each figure is measured directly (`score_figures.py`), by counting the tests that hold it, or from the committed result
of a benchmark that takes longer. `results/scoreboard.json` keeps what was measured, with date, commit
and machine; a figure that could not be measured says why, and one that misses its target is marked.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import score_figures as figures
from lib import RESULTS, ROOT, Results, conditions, read, say, write_json
from score_reached import Reached, held_by

FILE = RESULTS / "scoreboard.json"
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


def held(*selection: str) -> Callable[[], Reached]:
    """A figure that is measured by counting the tests of a selection, as pytest takes it."""
    return partial(held_by, *selection)


LAWS = partial(
    held_by,
    "tests/properties/test_laws.py",
    environment={"HYPOTHESIS_PROFILE": "thousand"},
    what="laws of 1,000 problems each",
)
# ruff: noqa: E501 - a table reads as one
FIGURES: dict[int, Figure] = {
    1: Figure("Input", "bad inputs x public entry points that end in an error naming the argument", "100 %", figures.bad_inputs),
    2: Figure("Input", "NaN or infinity under a good status, 10,000 problems", "0", partial(figures.of_hostile, "not finite")),
    3: Figure("Input", "hopeless problems admitted as failed, 1,000", "100 %", figures.hopeless_admitted),
    4: Figure("Input", "CONVERGED while the recomputed error exceeds the tolerance, 10,000 problems", "0", partial(figures.of_hostile, "lies")),
    5: Figure("Input", "callers' tensors or torch's global state changed", "0", held("tests/properties/test_leaves_no_trace.py")),
    6: Figure("Input", "bad flags, files and recipe keys: one line that names them, exit code 2", "100 %", held("tests/cli/test_bad_input.py")),
    7: Figure("Correctness", "closed forms, worst relative error of the value, float64 / float32", "1e-8 / 1e-4", figures.closed_forms),
    8: Figure("Correctness", "against POT's exact cost as epsilon falls / OTT at epsilon > 0, relative", "1e-3 / 1e-6", figures.references),
    9: Figure("Correctness", "gradcheck over the public differentiable functions", "100 %", held("tests/ot/test_gradients.py", "tests/maps/test_gap.py", "tests/lm/test_losses.py")),
    10: Figure("Correctness", "metamorphic laws over 10,000 random problems", "100 %", LAWS),
    11: Figure("Correctness", "divergences: integrand = definition; weight = r^2 f''(r)", "1e-12", figures.divergences),
    12: Figure("Correctness", "bfloat16 logits against float64, vocabulary 152,000: relative error; NaN", "1e-2; none", figures.half_precision_logits),
    13: Figure("Scale", "peak memory, 100,000 points of 64 numbers, float32", "2 GB", figures.peak_memory),
    14: Figure("Scale", "growth of memory from n to 2 n points", "2.2x", figures.memory_growth),
    15: Figure("Scale", "a dense plan that does not fit is refused before it is allocated, with its bytes", "yes", held("tests/ot", "-k", "do_not_fit or what_was_promised or too_large or before_it_is")),
    16: Figure("Scale", "peak memory of a distillation loss over one float32 copy of the logits: KL, JS", "1.3x", figures.loss_memory),
    17: Figure("Training", "SIGKILL at a random step, 1 and 2 processes: resumed run bit-identical", "all", partial(figures.kills, "step")),
    18: Figure("Training", "SIGKILL inside a save: resumed from the last whole checkpoint, bit-identical", "all", partial(figures.kills, "call", "moment")),
    19: Figure("Training", "a file of a checkpoint deleted, cut short or altered: refused by name, or the one before used", "100 %", held("tests/robustness/test_damaged_files.py")),
    20: Figure("Training", "disk full or read-only during a save: the run goes on, the last checkpoint is whole", "100 %", held("tests/robustness/test_full_disks.py")),
    21: Figure("Training", "same seed twice; accumulation; 1 and 2 processes", "bitwise; 1e-6; 1e-6", held("tests/resume", "tests/distributed", "tests/lm/test_trainer.py", "-k", "same or identical or accumul or whole_batch or bit")),
    22: Figure("Security", "hostile files in every slot that is loaded: code executed", "0", held("tests/robustness/test_hostile_files.py")),
    23: Figure("Use", "`import pushforward` over torch's; `--help`; first result", "0.2 s; 0.7 s; 60 s", figures.first_use),
    24: Figure("Use", "README, examples and docstrings that run unchanged", "100 %", held("src/pushforward", "tests/test_house.py", "--doctest-modules", "-k", "not layout and not imports")),
    25: Figure("Outside", "not converged where Sinkhorn's iteration converges in 50,000 steps, 10,000 problems", "0", partial(figures.of_hostile, "unconverged where Sinkhorn's iteration converges")),
    26: Figure("Outside", "exact, 1,000 problems in rationals: certificate above the optimum, marginals off, wrongly infeasible", "0", figures.exact_in_rationals),
    27: Figure("Outside", "kinds of ordinary table read wrong in silence", "0", figures.tables_read_wrong),
    28: Figure("Outside", "maps, students and generators that lose to doing nothing without a word", "0", held("tests/maps", "tests/cli", "tests/diffusion", "-k", "loses or worse or floor or noise_is or beats")),
    29: Figure("Outside", "every trainer, 1 against 2 processes, same global batch", "1e-6", held("tests/distributed", "tests/resume", "tests/lm/test_trainer.py", "-k", "process or whole_batch")),
    30: Figure("Outside", "bytes that a memory check promised against bytes taken", "within 5 %", held("tests/ot/test_memory.py", "tests/ot/test_points.py", "-k", "promised or memory")),
}  # fmt: skip


def page(results: Results) -> str:
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


def _source(row: Results) -> str:
    return f"`{row['command']}`; {row['commit']}, {row['date'][:10]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help="figures to measure")
    parser.add_argument("--page", action="store_true", help="only write the page")
    flags = parser.parse_args()
    results = read(FILE)
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
        write_json(FILE, dict(sorted(results.items(), key=lambda item: int(item[0]))))
        say(f"{number:>3}  {MARKS[reached.met]:<12} {reached.text}")
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
