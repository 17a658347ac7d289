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

import argparse
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maps_methods import METHODS, SEEDS, seeds_of
from maps_problems import EXACT, PAIRS, Pair, load
from maps_step import STEPS, step_times
from maps_tables import target_lines
from measure import conditions, in_own_process, say, write_json

RESULTS = Path(__file__).with_name("results") / "maps.json"
CELLS = RESULTS.with_name("map_cells.json")
STEP = "step"  # the pair whose rows are times of one training step
MARKERS = 50
TRANSFORMED = 4096

Row = dict[str, Any]
Key = tuple[str, str, int]


def memory_mib(field: str) -> float:
    """VmRSS or VmHWM (the peak) of this process; getrusage would count what the parent held before the exec."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def measured(pair_name: str, method: str, seed: int) -> Row:
    """One row. Runs in its own process."""
    import torch

    torch.set_num_threads(1)
    if pair_name == STEP:
        return {"status": "ok"} | step_times(method, seed)
    pair = load(pair_name, seed)
    before = memory_mib("VmRSS")
    fitted = METHODS[method](pair_name, pair, seed)
    peak = memory_mib("VmHWM")
    began = time.process_time()
    mapped = fitted.transform(pair.x_test)
    transforming = (time.process_time() - began) * TRANSFORMED / len(pair.x_test)
    return {
        "status": "ok",
        "seconds": fitted.seconds,
        "seconds_per_4096": transforming,
        "memory_mib": {"before": before, "peak": peak},
        "settings": fitted.settings,
        "notes": fitted.notes,
        "figures": figures(pair, mapped),
    }


def figures(pair: Pair, mapped: Any) -> dict[str, float]:
    """Everything that is said of the images of the test points."""
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
    change = {
        "change_correlation": gene_correlation(predicted - control.mean(0), treated - control.mean(0)),
    }
    return {
        "mmd": mmd(predicted[:, markers], treated[:, markers]),
        "gene_correlation": gene_correlation(predicted, treated),
    } | (change if (predicted != control).any() else {})


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer at a time, for runs that share the work."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"rows": []}


def key_of(row: Row) -> Key:
    return row["pair"], row["method"], row["seed"]


def there(path: Path) -> set[Key]:
    """Rows that came to an end, be it that of their time or memory; one that raised or was killed is run again."""
    return {key_of(row) for row in read(path)["rows"] if row["status"] in ("ok", "time limit", "out of memory")}


def add(path: Path, row: Row) -> None:
    """The row into the results, in place of one of the same pair, method and seed."""
    with locked(path):
        known = read(path)["rows"]
        place = {key: number for number, key in enumerate(wanted([*PAIRS, STEP], [*METHODS, *STEPS], SEEDS))}
        rows = [other for other in known if key_of(other) != key_of(row)] + [row]
        rows.sort(key=lambda each: place.get(key_of(each), len(place)))
        run = conditions()
        run["versions"] |= {name: importlib.metadata.version(name) for name in ("flax", "optax", "scikit-learn")}
        write_json(path, {name: value for name, value in run.items() if name != "tolerance"} | {"rows": rows})


def wanted(pairs: list[str], methods: list[str], seeds: Sequence[int]) -> list[Key]:
    """What is to be run: the first seed of everything before the second of anything."""

    def runs(pair: str, method: str, seed: int) -> bool:
        if pair == STEP or method in STEPS:
            return pair == STEP and method in STEPS and seed == 0
        return seed in seeds_of(pair, method)

    every = itertools.product(seeds, pairs, methods)
    return [(pair, method, seed) for seed, pair, method in every if runs(pair, method, seed)]


def sources() -> str:
    """A digest of the room's modules: what a commit says of a clean tree only."""
    files = sorted(Path(importlib.util.find_spec("pushforward.maps").submodule_search_locations[0]).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:9]


def run(keys: list[Key], *, again: bool, limit: float, out: Path) -> None:
    for pair, method, seed in keys:
        if not again and (pair, method, seed) in there(out):
            continue
        here = conditions()
        stamp = {name: here[name] for name in ("date", "commit")} | {"sources": sources()}
        stamp["processor"] = here["machine"]["processor"]
        row = in_own_process(measured, pair, method, seed, wall_limit=limit)
        add(out, {"pair": pair, "method": method, "seed": seed} | row | stamp)
        said = {name: round(value, 4) for name, value in row.get("figures", {}).items()}
        say(f"{pair:12} {method:24} {seed} {row['status']} {row.get('seconds', 0):.1f} s {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=[*PAIRS, STEP], choices=[*PAIRS, STEP], metavar="NAME")
    every = [*METHODS, *STEPS]
    parser.add_argument("--methods", nargs="+", default=every, choices=every, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--again", action="store_true", help="run rows anew that are there")
    parser.add_argument("--list", action="store_true", help="only name the rows that are missing")
    parser.add_argument("--report", action="store_true", help="only print what the targets have come to")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that one row may take")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    keys = wanted(arguments.pairs, arguments.methods, arguments.seeds)
    if arguments.list:
        for key in sorted(set(keys) - there(arguments.out), key=keys.index):
            say(" ".join(map(str, key)))
    elif not arguments.report:
        run(keys, again=arguments.again, limit=arguments.limit, out=arguments.out)
    if not arguments.list:
        for line in target_lines(read(arguments.out)["rows"], read(CELLS)["rows"]):
            say(line)


if __name__ == "__main__":
    main()
