"""Transport maps on pairs with known answers: ours, their rivals, OTT-JAX; error, CPU seconds, memory.

    python benchmarks/maps.py [--pairs NAME ...] [--methods NAME ...] [--seeds N ...] [--again] [--list] [--report]

Every row (a pair, a method, a seed) runs in a process of its own, on one core and one thread, and is written into
results/maps.json at once. A run that was ended goes on where it stopped: a row that is there is not run again but with
`--again`. Two runs, of different pairs or methods, may write at once, on two cores (`PUSHFORWARD_BENCH_CORE`).

Seconds are the process's CPU seconds in fitting; memory is the process's peak by the end of it, and what of that stood
before. Figures are those of `pushforward.metrics`, on points that were not fitted on (`maps_problems.py`). `--report`
only prints what the targets have come to, those on cells from what `map_cells.py` has measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lib import RESULTS, Row, Store, conditions, cpu_seconds, in_own_process, parsed, read, say, sources
from maps_methods import METHODS, SEEDS, seeds_of
from maps_problems import EXACT, PAIRS, Pair, load
from maps_step import STEPS, step_times
from maps_tables import target_lines

STEP = "step"  # the pair whose rows are times of one training step
MARKERS = 50
TRANSFORMED = 4096
KEY = ("pair", "method", "seed")


def memory_mib(field: str) -> float:
    """VmRSS or VmHWM (the peak) of this process; getrusage would count what the parent held before the exec."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def measured(pair_name: str, method: str, seed: int) -> Row:
    """One row. Runs in its own process."""
    if pair_name == STEP:
        return {"status": "ok"} | step_times(method, seed)
    pair = load(pair_name, seed)
    before = memory_mib("VmRSS")
    fitted = METHODS[method](pair_name, pair, seed)
    peak = memory_mib("VmHWM")
    mapped, seconds = cpu_seconds(lambda: fitted.transform(pair.x_test))
    return {
        "status": "ok",
        "seconds": fitted.seconds,
        "seconds_per_4096": seconds * TRANSFORMED / len(pair.x_test),
        "memory_mib": {"before": before, "peak": peak},
        "settings": fitted.settings,
        "notes": fitted.notes,
        "figures": figures(pair, mapped),
    }


def figures(pair: Pair, mapped: Any) -> dict[str, float]:
    """All figures of the images of the test points."""
    from pushforward.metrics import judge_map

    report = judge_map(
        pair.x_test, mapped, pair.y_test, true=pair.true, variance=pair.variance, other=pair.y_other, points=EXACT
    )
    every = report.figures() | ({} if pair.genes is None else gene_figures(pair, mapped))
    # What is undefined (the cosine of a map that moves nothing) has no place in JSON.
    return {name: value for name, value in every.items() if math.isfinite(value)}


def gene_figures(pair: Pair, mapped: Any) -> dict[str, float]:
    """In expression, which the 30 components give back of all cells alike."""
    from pushforward.metrics import gene_correlation, marker_genes, mmd

    components, mean = pair.genes
    control, predicted, treated = (points @ components + mean for points in (pair.x_test, mapped, pair.y_test))
    markers = marker_genes(control, treated, count=MARKERS)
    change = {"change_correlation": gene_correlation(predicted - control.mean(0), treated - control.mean(0))}
    return {
        "mmd": mmd(predicted[:, markers], treated[:, markers]),
        "gene_correlation": gene_correlation(predicted, treated),
    } | (change if (predicted != control).any() else {})


def wanted(pairs: Iterable[str], methods: Iterable[str], seeds: Sequence[int]) -> list[Row]:
    """What is to be run: the first seed of everything before the second of anything."""

    def runs(pair: str, method: str, seed: int) -> bool:
        if pair == STEP or method in STEPS:
            return pair == STEP and method in STEPS and seed == 0
        return seed in seeds_of(pair, method)

    every = itertools.product(seeds, pairs, methods)
    return [{"pair": pair, "method": method, "seed": seed} for seed, pair, method in every if runs(pair, method, seed)]


def about() -> Row:
    return conditions(["flax", "optax", "scikit-learn"])


def main() -> None:
    every_pair, every_method = (*PAIRS, STEP), (*METHODS, *STEPS)
    options = {"pairs": every_pair, "methods": every_method, "seeds": SEEDS, "again": False, "list": False}
    asked = parsed(__doc__, options | {"report": False, "limit": 1800.0, "out": RESULTS / "maps.json"})
    keys = wanted(every_pair, every_method, SEEDS)
    store = Store(
        path=asked.out,
        key=KEY,
        about=about,
        place=lambda row: next((n for n, key in enumerate(keys) if key.items() <= row.items()), len(keys)),
        # A row that raised or was killed is run again; one that came to an end, be it that of its time, is not.
        ended=lambda row: row["status"] in ("ok", "time limit", "out of memory"),
    )
    missing = store.missing(wanted(asked.pairs, asked.methods, asked.seeds), again=asked.again)
    if asked.list:
        say("\n".join(" ".join(map(str, key.values())) for key in missing))
        return
    for key in () if asked.report else missing:
        row, here = in_own_process(measured, *key.values(), wall_limit=asked.limit), conditions()
        origin = {"date": here["date"], "commit": here["commit"], "sources": sources()}
        store.add(key | row | origin | {"processor": here["machine"]["processor"]})
        shown = {name: round(value, 4) for name, value in row.get("figures", {}).items()}
        say(f"{' '.join(map(str, key.values()))}: {row['status']} {row.get('seconds', 0):.1f} s {shown}")
    for line in target_lines(store.rows(), read(RESULTS / "map_cells.json")["rows"]):
        say(line)


if __name__ == "__main__":
    main()
