"""Costs other than the squared Euclidean one: maps learned for them, beside maps that are known to be optimal.

    python benchmarks/map_costs.py [--problems NAME ...] [--methods NAME ...] [--seeds N ...] [--again] [--pictures]

The problems are those of `map_costs_truths.py`. Every method runs in a process of its own, on one core and one thread;
its row goes into results/map_costs.json at once, and those that are there are not run again but with `--again`.
`--pictures` runs nothing: it draws the pictures of docs/map-costs.md from that file.

Figures of a map, on 4096 points that were not fitted on:

excess             what it pays over what the truth pays, less 1, in percent: a map that falls short of the target pays
                   less than the truth, so that only both together say something
w2, w2_floor       exact W2^2 from the image to the target, and between two samples of the target (1024 points)
exact_gap          what it pays over the cheapest rearrangement of its image, in percent of what the truth pays
l2_uvp             squared distance from the truth in percent of the target's variance. For the Euclidean and geodesic
                   costs optimal maps are many, and another one than the truth is no fault
still_recall       of the coordinates that the truth leaves where they are, the share that the map does, to the bit
still_precision    of those that the map leaves, the share that the truth does
off_sphere         mean distance of the images from the sphere
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib import RESULTS, ROOT, Row, Store, conditions, cpu_seconds, parsed, read, result_of, say, stamp
from map_costs_truths import EXACT, FITTED_ON, JUDGED_ON, PROBLEMS, Sample, drawn
from torch import Tensor

from pushforward import metrics
from pushforward.maps import MongeMap
from pushforward.maps.costs import ElasticL1, Geodesic, resolve
from pushforward.maps.truths import KnownMap

SEEDS = (0, 1, 2, 3, 4)
DRAWN = 90
BUDGET = {"steps": 500, "batch_size": 256}
KEY = ("problem", "method", "seed")

Transform = Callable[[Tensor], Tensor]


def identity(_truth: KnownMap, _sample: Sample, _seed: int) -> Transform:
    return lambda points: points


def mean_shift(_truth: KnownMap, sample: Sample, _seed: int) -> Transform:
    shift = sample.y.mean(0) - sample.x.mean(0)
    return lambda points: points + shift


def learned(**parameters: Any) -> Callable[[KnownMap, Sample, int], MongeMap]:
    """`MongeMap` for the problem's own cost, unless the parameters name another."""

    def fit(truth: KnownMap, sample: Sample, seed: int) -> MongeMap:
        settings = {"cost": truth.cost} | BUDGET | parameters
        return MongeMap(**settings, random_state=seed).fit(sample.x, sample.y)

    return fit


METHODS: dict[str, Callable[[KnownMap, Sample, int], Any]] = {
    "identity": identity,
    "mean shift": mean_shift,
    "monge": learned(),
    "debiased gap": learned(start="linear", estimator="debiased"),
    "fit alone": learned(start="linear", gap_weight=0.0),
    "squared cost": learned(cost="sqeuclidean", start="linear"),
}


def row_of(problem: str, method: str, seed: int) -> Row:
    """One method on one sample. Runs in its own process."""
    truth, sample = PROBLEMS[problem], drawn(problem, seed)
    fitted, seconds = cpu_seconds(lambda: METHODS[method](truth, sample, seed))
    images = (fitted.transform if isinstance(fitted, MongeMap) else fitted)(sample.x_test)
    row: Row = {"seconds": seconds, "figures": figures(truth, sample, images)}
    if isinstance(fitted, MongeMap):
        row["stage"], row["epsilon"] = fitted.stage_, fitted.epsilon_
    if seed == SEEDS[0]:
        row["moves"] = np.stack([sample.x_test[:DRAWN], images[:DRAWN]], 1).round(3).astype(float).tolist()
    return row


def figures(truth: KnownMap, sample: Sample, images: Tensor) -> dict[str, float]:
    """The figures of the module's table."""
    cost, x = resolve(truth.cost), sample.x_test.double()
    images, true = images.double(), truth.map(x)
    least = float(cost.paired(x, true).mean())
    report = metrics.judge_map(x, images, sample.y_test, cost=cost, true=true, other=sample.y_other, points=EXACT)
    found = {name: value for name, value in report.figures().items() if name != "cosine"}
    found["exact_gap"] *= 100.0 / least
    found["excess"] = 100.0 * (float(cost.paired(x, images).mean()) / least - 1.0)
    if isinstance(cost, Geodesic):
        found["off_sphere"] = float((images.norm(dim=1) - 1.0).abs().mean())
    return found | (stillness(x, images, true) if isinstance(cost, ElasticL1) else {})


def stillness(x: Tensor, images: Tensor, true: Tensor) -> dict[str, float]:
    """Recall and precision of the coordinates that do not move; a map that moves all of them has no precision."""
    still, should = images == x, true == x
    both = float((still & should).sum())
    recall = {"still_recall": both / float(should.sum())}
    return recall | ({"still_precision": both / float(still.sum())} if bool(still.any()) else {})


def about() -> Row:
    setting = {"fitted_on": FITTED_ON, "judged_on": JUDGED_ON, "exact": EXACT, **BUDGET}
    return conditions(["scikit-learn"]) | {"setting": setting}


def draw(rows: list[Row], folder: Path) -> None:
    """Arrows of the truth, of the map learned, and of that for the squared cost, a picture a problem."""
    from pushforward import plots, report

    for problem in ("petals", "sphere", "elastic"):
        truth = PROBLEMS[problem]
        moves = {row["method"]: np.array(row["moves"]) for row in rows if row["problem"] == problem and "moves" in row}
        x = moves["monge"][:, 0]
        panels = {
            "the truth": truth.map(torch.tensor(x)).numpy(),
            "learned": moves["monge"][:, 1],
            "learned for the squared cost": moves["squared cost"][:, 1],
        }
        target = truth.target(400, torch.Generator().manual_seed(1)).numpy()

        def paint(figure: Any, x: Any = x, panels: Any = panels, target: Any = target) -> None:
            for ax, (name, images) in zip(figure.subplots(1, 3), panels.items(), strict=True):
                plots.moves(ax, x[:, :2], images[:, :2], target[:, :2], most=DRAWN)
                ax.set_xlabel(name)

        report.draw(folder, f"map-costs-{problem}", paint, size=(9.0, 3.4), alt="")


def main() -> None:
    options = {"problems": PROBLEMS, "methods": METHODS, "seeds": SEEDS, "again": False, "pictures": False}
    asked = parsed(__doc__, options | {"out": RESULTS / "map_costs.json"})
    if asked.pictures:
        draw(read(asked.out)["rows"], ROOT / "docs")
        return
    order = [(problem, method, seed) for problem in PROBLEMS for seed in SEEDS for method in METHODS]
    place = {key: number for number, key in enumerate(order)}
    store = Store(
        path=asked.out, key=KEY, about=about, place=lambda row: place.get(tuple(row[name] for name in KEY), len(place))
    )
    keys = [(p, m, seed) for seed in asked.seeds for p in asked.problems for m in asked.methods]
    for key in store.missing((dict(zip(KEY, values, strict=True)) for values in keys), again=asked.again):
        row, _ = result_of(row_of, *key.values(), wall_limit=3600.0)
        store.add(key | row | {"commit": stamp()["commit"]})
        shown = {name: round(value, 3) for name, value in row["figures"].items()}
        say(f"{' '.join(map(str, key.values()))}: {row['seconds']:.1f} s {row.get('stage', '')} {shown}")


if __name__ == "__main__":
    main()
