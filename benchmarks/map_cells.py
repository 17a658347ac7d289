"""Glioblastoma cells: maps from control to drug, fitted on four patients and judged on the fifth, with care.

    python benchmarks/map_cells.py [--methods NAME ...] [--patients NAME ...] [--again]    runs what is missing
    python benchmarks/map_cells.py --tables            the JSON -> the tables of docs/map-cells.md

Each method is a list of recipes; which one predicts a patient is decided among the other four, each in turn predicted
from three, by the divergence that `MongeMap` is judged by (`maps.monge.judge`), which images drawn together do
not win. The fifth patient's treated cells are seen by nothing before the end: the coordinates (`maps_problems`) are the
other four's as well.

A seed draws which half of the fifth patient's control cells is mapped and against which half of the treated ones, and
all that a method draws; a method that draws nothing is fitted once. Every row is written at once, and a run that was
ended goes on where it stopped. One thread; CPU seconds.

"Within patients" couples each patient's control cells with that patient's treated cells alone; a pooled map may send
one patient's cells to another's. One network within patients is fitted so (`groups`), and does not read whose cells it
maps; one by description does (`condition`), and reads of a new patient's description what known patients advise.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import re
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from maps import figures
from maps_problems import COMPONENTS, PATIENTS, Pair, Points, load
from maps_tables import digits, estimate, markdown
from measure import conditions, say, write_json
from torch import Tensor, nn

from pushforward.maps import EntropicMap, ICNNMap, LinearMap, MongeMap, ProgressiveMap
from pushforward.maps.costs import SquaredEuclidean
from pushforward.maps.monge.judge import DIVERGENCE_EPSILON, crossed_divergence
from pushforward.metrics import wasserstein2

RESULTS = Path(__file__).with_name("results") / "map_cells.json"
PAGE = Path(__file__).parent.parent / "docs" / "map-cells.md"
SEEDS = (0, 1, 2, 3, 4)
HALVES = 8  # draws of halves where coordinates are compared
SHIFT, OWN = "mean shift", "own mean shift (peeks)"

Row = dict[str, Any]
Predict = Callable[[Points, Points], Points]  # control cells, and the patient's description -> predicted cells


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient:
    """A patient's cells, (n, 30) and (m, 30), and the mean of all control cells, (30,)."""

    control: Points
    treated: Points
    described: Points


Recipe = Callable[[Sequence[Patient], int], Predict]  # the patients that are known, and a seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """Recipes by name, from which the known patients choose, and whether the seed changes a fit."""

    recipes: Mapping[str, Recipe]
    draws: bool = False


@functools.cache
def pair_of(patient: str, seed: int) -> Pair:
    """Kept, since finding the coordinates is most of the cheap methods' time."""
    return load(f"cells-{patient}", seed)


def pooled(patients: Sequence[Patient]) -> tuple[Points, Points]:
    return np.concatenate([each.control for each in patients]), np.concatenate([each.treated for each in patients])


def shifted(shrink: float) -> Recipe:
    """The difference of means; with the cells drawn towards their mean, too, by which W2 can be won cheaply."""

    def fit(patients: Sequence[Patient], _seed: int) -> Predict:
        x, y = pooled(patients)
        shift = y.mean(0) - x.mean(0)
        return lambda cells, _: cells.mean(0) + shrink * (cells - cells.mean(0)) + shift

    return fit


def regressed(components: int, ridge: float) -> Recipe:
    """A shift linear in the first components of the patient's description, by ridge regression over patients."""

    def fit(patients: Sequence[Patient], _seed: int) -> Predict:
        shifts = np.stack([each.treated.mean(0) - each.control.mean(0) for each in patients])
        c = np.stack([each.described[:components] for each in patients])
        centre, mean = c.mean(0), shifts.mean(0)
        c = c - centre
        kernel = c @ c.T
        unit = np.trace(kernel) / len(c)
        slopes = c.T @ np.linalg.solve(kernel + ridge * unit * np.eye(len(c)), shifts - mean)
        return lambda cells, described: cells + mean + (described[:components] - centre) @ slopes

    return fit


def one_for_all(make: Callable[[int], Any]) -> Recipe:
    """One map from all control cells to all treated ones."""

    def fit(patients: Sequence[Patient], seed: int) -> Predict:
        fitted = make(seed).fit(*pooled(patients))
        return lambda cells, _: fitted.transform(cells)

    return fit


def averaged(make: Callable[[int], Any]) -> Recipe:
    """A map for each patient, and the mean of their images."""

    def fit(patients: Sequence[Patient], seed: int) -> Predict:
        fitted = [make(seed).fit(each.control, each.treated) for each in patients]
        return lambda cells, _: np.mean([each.transform(cells) for each in fitted], axis=0)

    return fit


class Shared(nn.Module):
    """x + shift + V(x): it starts at the mean shift, where `MongeMap`'s own would at a linear map."""

    def __init__(self, patients: Sequence[Patient], *, width: int, seed: int) -> None:
        super().__init__()
        x, y = pooled(patients)
        self.register_buffer("shift", torch.from_numpy(y.mean(0) - x.mean(0)))
        self.register_buffer("scale", torch.tensor(float(x.std())))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(x.shape[1], width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.last = nn.Linear(width, x.shape[1])
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift + self.scale * self.last(self.layers(x / self.scale))


# 2000 cells of four patients: a network of defaults' size, trained for as long, is fitted to whose cells they are.
SMALL = {"hidden": (64, 64), "steps": 300, "batch_size": 250, "learning_rate": 2e-3}


def monge(start: str, seed: int) -> MongeMap:
    return MongeMap(**SMALL, start=start, random_state=seed)


def of_cells(patients: Sequence[Patient], components: int) -> tuple[Points, Points]:
    """So many components of each one's description: of the control cells, and of the treated ones."""
    sides = ([(p, p.control) for p in patients], [(p, p.treated) for p in patients])
    return tuple(np.concatenate([np.tile(p.described[:components], (len(cells), 1)) for p, cells in s]) for s in sides)


def within_patients(start: str) -> Recipe:
    """One network, learned on each patient's cells in turn, that does not know whose they are."""

    def fit(patients: Sequence[Patient], seed: int) -> Predict:
        fitted = monge(start, seed).set_params(network=Shared(patients, width=64, seed=seed))
        fitted.fit(*pooled(patients), groups=of_cells(patients, 1))
        return lambda cells, _: fitted.transform(cells)

    return fit


def by_description(start: str, components: int) -> Recipe:
    """The same, but it reads so many components of the patient's description."""

    def fit(patients: Sequence[Patient], seed: int) -> Predict:
        fitted = monge(start, seed).fit(*pooled(patients), condition=of_cells(patients, components))
        return lambda cells, asked: fitted.transform(cells, condition=np.tile(asked[:components], (len(cells), 1)))

    return fit


def components_of(start: str) -> dict[str, Recipe]:
    return {f"{k} component{'s' * (k > 1)}": by_description(start, k) for k in (1, 30)}


def entropic(epsilon: float, debias: bool, _seed: int) -> EntropicMap:
    return EntropicMap(epsilon, debias=debias)


def icnn(seed: int) -> ICNNMap:
    return ICNNMap(hidden=(64, 64), steps=300, batch_size=256, random_state=seed)


EPSILONS = (0.0125, 0.025, 0.05, 0.1, 0.2)
ENTROPIC, DEBIASED = (
    {f"epsilon {e:g}": functools.partial(entropic, e, debias) for e in EPSILONS} for debias in (False, True)
)
METHODS: dict[str, Method] = {
    "identity": Method(recipes={"": lambda _patients, _seed: lambda cells, _: cells}),
    SHIFT: Method(recipes={"": shifted(1.0)}),
    "mean shift, cells drawn together": Method(recipes={f"by {f:g}": shifted(f) for f in (0.7, 0.8, 0.9)}),
    "mean shift by description": Method(
        recipes={f"{k} components, ridge {r:g}": regressed(k, r) for k in (2, 30) for r in (0.3, 1.0, 3.0)}
    ),
    "`LinearMap`": Method(
        recipes={f"shrinkage {s}": one_for_all(lambda _, s=s: LinearMap(s)) for s in ("auto", 0.3, 0.9)}
    ),
    "`EntropicMap`, pooled": Method(recipes={name: one_for_all(make) for name, make in ENTROPIC.items()}),
    "`EntropicMap`, within patients": Method(recipes={name: averaged(make) for name, make in ENTROPIC.items()}),
    "the same, debiased": Method(recipes={name: averaged(make) for name, make in DEBIASED.items()}),
    "`ProgressiveMap`, within patients": Method(
        recipes={f"epsilon {e:g}": averaged(lambda _, e=e: ProgressiveMap(epsilon=e)) for e in EPSILONS[:4]}
    ),
    "`ICNNMap`": Method(recipes={"": one_for_all(icnn)}, draws=True),
    "`MongeMap`, pooled": Method(recipes={"": one_for_all(functools.partial(monge, "entropic"))}, draws=True),
    "`MongeMap`, pooled, gap alone": Method(recipes={"": one_for_all(functools.partial(monge, "linear"))}, draws=True),
    "`MongeMap`, within patients": Method(
        recipes={
            "one network": within_patients("entropic"),
            "a map each": averaged(functools.partial(monge, "entropic")),
        },
        draws=True,
    ),
    "`MongeMap`, within patients, gap alone": Method(recipes={"": within_patients("linear")}, draws=True),
    "`MongeMap`, by description": Method(recipes=components_of("entropic"), draws=True),
    "`MongeMap`, by description, gap alone": Method(recipes=components_of("linear"), draws=True),
}


def patients_of(pair: Pair) -> list[Patient]:
    """The known patients; cells of one have one description."""
    on_x, on_y, _ = pair.condition
    return [
        Patient(control=pair.x[(on_x == c).all(1)], treated=pair.y[(on_y == c).all(1)], described=c)
        for c in np.unique(on_x, axis=0)
    ]


def divergence(control: Points, predicted: Points, treated: Points) -> float:
    """D(T x, y) of `maps.monge.judge`, over the mean cost between x and y; its halves are drawn at random."""
    draw = np.random.default_rng(0)
    x, images, y = (
        torch.from_numpy(points[draw.permutation(len(points))]).double() for points in (control, predicted, treated)
    )
    unit = float(torch.cdist(x, y).square().mean())
    return crossed_divergence(images, y, SquaredEuclidean(), DIVERGENCE_EPSILON * unit) / unit


def chosen(method: Method, patients: Sequence[Patient]) -> tuple[str, dict[str, float]]:
    """The recipe that predicts known patients best, each from the others, and what all came to."""
    if len(method.recipes) == 1:
        return next(iter(method.recipes)), {}
    scores: dict[str, float] = {}
    for name, recipe in method.recipes.items():
        each = []
        for k, asked in enumerate(patients):
            predict = recipe([other for n, other in enumerate(patients) if n != k], 0)
            each.append(divergence(asked.control, predict(asked.control, asked.described), asked.treated))
        scores[name] = statistics.fmean(each)
    return min(scores, key=lambda name: scores[name]), scores


def judged(pair: Pair, predicted: Points) -> dict[str, float]:
    """The figures of `maps.py`, the divergence, and |difference of means|^2, which is part of W2^2."""
    apart = predicted.mean(0) - pair.y_test.mean(0)
    return figures(pair, predicted) | {
        "divergence": divergence(pair.x_test, predicted, pair.y_test),
        "mean_error": float(apart @ apart),
    }


def rows_of(patient: str, name: str) -> list[Row]:
    """One method's rows on one patient, of all seeds."""
    method, pairs = METHODS[name], {seed: pair_of(patient, seed) for seed in SEEDS}
    known = patients_of(pairs[0])
    recipe, scores = chosen(method, known)
    rows, predict, seconds = [], None, 0.0
    for seed, pair in pairs.items():
        if predict is None or method.draws:
            began = time.process_time()
            predict = method.recipes[recipe](known, seed)
            seconds = time.process_time() - began
        predicted = predict(pair.x_test, pair.condition[2][0]).astype(np.float32)
        row = {"patient": patient, "method": name, "seed": seed, "seconds": seconds, "figures": judged(pair, predicted)}
        rows.append(row | {"recipe": recipe, "scores": scores})
    return rows


def own_shift(patient: str) -> list[Row]:
    """What the patient's own means would give: of the treated cells, those that are not judged against."""
    rows = []
    for seed in SEEDS:
        pair = pair_of(patient, seed)
        predicted = pair.x_test + (pair.y_other.mean(0) - pair.x_test.mean(0))
        rows.append(
            {"patient": patient, "method": OWN, "seed": seed, "seconds": 0.0, "figures": judged(pair, predicted)}
        )
    return rows


def coordinates() -> list[Row]:
    """W2^2 in coordinates that were found on more, and on fewer, cells: what the treated cells' share in them does."""
    arrays = np.load(Path(os.environ["PUSHFORWARD_DATA"]) / "cells" / "gbm_panobinostat.npz")
    counts, control = arrays["counts"].astype(np.float64), arrays["condition"] == "ctrl"
    expression = np.log1p(1000 * counts / counts.sum(1, keepdims=True))
    rows = []
    for patient in PATIENTS:
        own = arrays["patient"] == patient
        systems = {"all cells": own | ~own, "four patients, own control": ~own | control, "four patients": ~own}
        for name, fitted_on in systems.items():
            mean = expression[fitted_on].mean(0)
            axes = np.linalg.eigh(np.cov(expression[fitted_on].T))[1][:, : -COMPONENTS - 1 : -1]
            cells = (expression - mean) @ axes
            known = cells[~own & ~control].mean(0) - cells[~own & control].mean(0)
            each = [_four_distances(cells[own & control], cells[own & ~control], known, seed) for seed in range(HALVES)]
            figures_of = {key: statistics.fmean(one[key] for one in each) for key in each[0]}
            rows.append({"patient": patient, "coordinates": name, "figures": figures_of})
    return rows


def _four_distances(control: Points, treated: Points, known: Points, seed: int) -> dict[str, float]:
    draw, half = np.random.default_rng(seed), len(treated) // 2
    x, y = draw.permutation(control)[:half], draw.permutation(treated)
    y, other = y[:half], y[half:]
    own = treated.mean(0) - control.mean(0)  # of all cells, those judged against too: so were the reference values
    images = {"control": x, "floor": other, "own shift": x + own, "mean shift": x + known}
    return {name: wasserstein2(points, y) for name, points in images.items()}


# ---- tables


def values(rows: Sequence[Row], method: str, name: str, patient: str | None = None) -> list[float]:
    """A figure, seed by seed, of one patient or of all in their order."""
    found = [row for row in rows if row["method"] == method and patient in (None, row["patient"])]
    found.sort(key=lambda row: (row["patient"], row["seed"]))
    return [row["figures"][name] for row in found if name in row["figures"]]


def gains(rows: Sequence[Row], method: str, name: str, patient: str) -> list[float]:
    """By how much the mean shift's figure is larger, on the same cells, seed by seed."""
    pairs = zip(values(rows, SHIFT, name, patient), values(rows, method, name, patient), strict=True)
    return [shift - own for shift, own in pairs]


def methods_in(rows: Sequence[Row]) -> list[str]:
    """Those that have every patient and seed, in the order of `METHODS`."""
    return [m for m in (*METHODS, OWN) if len(values(rows, m, "w2")) == len(PATIENTS) * len(SEEDS)]


def distance_table(rows: Sequence[Row]) -> str:
    body = []
    for method in methods_in(rows):
        each = [str(estimate(values(rows, method, "w2", patient))) for patient in PATIENTS]
        field = [statistics.fmean(found) if (found := values(rows, method, n)) else math.nan for n in FIELD]
        r = values(rows, method, "gene_correlation")
        body.append(
            [
                method,
                *each,
                *("" if math.isnan(v) else digits(v) for v in field),
                digits(statistics.fmean(v * v for v in r)),
            ]
        )
    floor = [str(estimate(values(rows, "identity", "w2_floor", patient))) for patient in PATIENTS]
    body.append(["floor: drug against drug", *floor, *[""] * (len(FIELD) + 1)])
    return markdown(["map", *(f"{patient}, W2²" for patient in PATIENTS), *FIELD.values(), "r²"], body)


def gain_table(rows: Sequence[Row], name: str) -> str:
    """Gains over the mean shift: of each patient over seeds, and over patients, each a mean of its seeds."""
    body = []
    for method in methods_in(rows):
        if method == SHIFT:
            continue
        each = {patient: estimate(gains(rows, method, name, patient)) for patient in PATIENTS}
        clear = sum(gain.mean > (gain.half or 0.0) for gain in each.values() if gain)
        over = estimate(gain.mean for gain in each.values() if gain)
        body.append([method, *(bold(gain) for gain in each.values()), f"{clear} of {len(PATIENTS)}", bold(over)])
    return markdown(["gain over the mean shift", *PATIENTS, "clear in", "over patients"], body)


def bold(gain: Any) -> str:
    """Bold where the interval does not hold 0."""
    return f"**{gain}**" if gain.half is not None and abs(gain.mean) > gain.half else str(gain)


def recipe_table(rows: Sequence[Row]) -> str:
    body = []
    for method in methods_in(rows):
        first = {row["patient"]: row for row in rows if row["method"] == method and row["seed"] == SEEDS[0]}
        if method in METHODS and len(METHODS[method].recipes) > 1:
            body.append([method, *(first[patient]["recipe"] for patient in PATIENTS)])
    return markdown(["recipe chosen by the other four", *PATIENTS], body)


FIELD = {
    "divergence": "divergence",
    "mean_error": "means apart²",
    "variance_ratio": "variance ratio",
    "mmd": "MMD",
    "change_correlation": "change r",
}


def coordinate_table(rows: Sequence[Row]) -> str:
    """Control / floor / own shift / mean shift of the other four; and the share of the way that the last leaves."""
    body = []
    for name in dict.fromkeys(row["coordinates"] for row in rows):
        found = [row["figures"] for row in rows if row["coordinates"] == name]
        left = statistics.fmean((f["mean shift"] - f["floor"]) / (f["control"] - f["floor"]) for f in found)
        body.append([name, *(" / ".join(f"{value:.1f}" for value in f.values()) for f in found), f"{100 * left:.0f} %"])
    return markdown(["components of", *PATIENTS, "left by the mean shift"], body)


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "distances": distance_table,
    "gains-w2": lambda rows: gain_table(rows, "w2"),
    "gains-divergence": lambda rows: gain_table(rows, "divergence"),
    "recipes": recipe_table,
}


def write_tables() -> None:
    results, page = json.loads(RESULTS.read_text()), PAGE.read_text()
    made = {name: table(results["rows"]) for name, table in TABLES.items()}
    for name, text in (made | {"coordinates": coordinate_table(results["coordinates"])}).items():
        around = re.compile(rf"(<!-- map_cells:{name} -->\n).*?(<!-- /map_cells:{name} -->)", re.DOTALL)
        page = around.sub(lambda found, text=text: found[1] + text + found[2], page)
    PAGE.write_text(page)


def run(patients: Sequence[str], methods: Sequence[str], *, again: bool) -> None:
    """Method by method, the cheap ones first; what is there is left."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seen = json.loads(RESULTS.read_text())["coordinates"] if RESULTS.exists() else coordinates()
    for name in methods:
        for patient in patients:
            known = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
            if not again and any((row["patient"], row["method"]) == (patient, name) for row in known):
                continue
            stamp = {key: value for key, value in conditions().items() if key in ("date", "commit")}
            found = own_shift(patient) if name == OWN else rows_of(patient, name)
            kept = [row for row in known if (row["patient"], row["method"]) != (patient, name)]
            machine = {key: value for key, value in conditions().items() if key != "tolerance"}
            write_json(RESULTS, machine | {"coordinates": seen, "rows": [*kept, *(row | stamp for row in found)]})
            w2 = estimate(row["figures"]["w2"] for row in found)
            say(f"{patient} {name:34} {found[0].get('recipe', ''):24} {w2} in {found[0]['seconds']:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*METHODS, OWN]
    parser.add_argument("--methods", nargs="+", default=every, choices=every, metavar="NAME")
    parser.add_argument("--patients", nargs="+", default=list(PATIENTS), choices=PATIENTS, metavar="NAME")
    parser.add_argument("--again", action="store_true", help="run anew what is there")
    parser.add_argument("--tables", action="store_true", help="write the tables of docs/map-cells.md and run nothing")
    arguments = parser.parse_args()
    if arguments.tables:
        write_tables()
    else:
        run(arguments.patients, arguments.methods, again=arguments.again)


if __name__ == "__main__":
    main()
