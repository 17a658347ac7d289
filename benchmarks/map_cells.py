"""Glioblastoma cells: maps from control to drug, fitted on four patients and judged on the fifth, with care.

    python benchmarks/map_cells.py [--methods NAME ...] [--patients NAME ...] [--again]    runs what is missing

The methods are those of `map_cells_methods.py`, each a list of recipes. Which recipe predicts a patient is decided
among the other four, each in turn predicted from three, by the divergence that `MongeMap` is judged by
(`maps.monge.judge`), which images drawn together do not win. The fifth patient's treated cells are seen by
nothing before the end: the coordinates (`maps_problems`) are the other four's as well.

A seed draws which half of the fifth patient's control cells is mapped and against which half of the treated ones, and
all that a method draws; a method that draws nothing is fitted once. A method's rows on a patient are written at once,
and a run that was ended goes on where it stopped. One thread; CPU seconds.
"""

from __future__ import annotations

import functools
import statistics
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from lib import RESULTS, Row, Store, conditions, cpu_seconds, data_folder, estimate, parsed, read, say, stamp
from map_cells_methods import EVERY, METHODS, OWN, Method, Patient, Predict
from maps import figures
from maps_problems import COMPONENTS, PATIENTS, Pair, Points, expression_of, load

from pushforward.maps.costs import SquaredEuclidean
from pushforward.maps.monge.judge import DIVERGENCE_EPSILON, crossed_divergence
from pushforward.metrics import wasserstein2

SEEDS = (0, 1, 2, 3, 4)
HALVES = 8  # draws of halves where coordinates are compared


@functools.cache
def pair_of(patient: str, seed: int) -> Pair:
    """Kept, since finding the coordinates is most of the cheap methods' time."""
    return load(f"cells-{patient}", seed)


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


def rows_of(patient: str, name: str) -> Iterator[Row]:
    """One method's rows on one patient, of all seeds."""
    pairs = {seed: pair_of(patient, seed) for seed in SEEDS}
    known = patients_of(pairs[0])
    recipe, scores = chosen(METHODS[name], known)
    predict: Predict | None = None
    seconds = 0.0
    for seed, pair in pairs.items():
        if predict is None or METHODS[name].draws:
            predict, seconds = cpu_seconds(functools.partial(METHODS[name].recipes[recipe], known, seed))
        predicted = predict(pair.x_test, pair.condition[2][0]).astype(np.float32)
        found = {"seconds": seconds, "figures": judged(pair, predicted), "recipe": recipe, "scores": scores}
        yield {"patient": patient, "method": name, "seed": seed} | found


def own_shift(patient: str) -> Iterator[Row]:
    """What the patient's own means would give: of the treated cells, those that are not judged against."""
    for seed in SEEDS:
        pair = pair_of(patient, seed)
        figures_of = judged(pair, pair.x_test + (pair.y_other.mean(0) - pair.x_test.mean(0)))
        yield {"patient": patient, "method": OWN, "seed": seed, "seconds": 0.0, "figures": figures_of}


def coordinates() -> list[Row]:
    """W2^2 in coordinates that were found on more, and on fewer, cells: what the treated cells' share in them does."""
    expression, patients, control = expression_of(data_folder("cells/"))
    rows = []
    for patient in PATIENTS:
        own = patients == patient
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


def main() -> None:
    options = {"methods": EVERY, "patients": PATIENTS, "again": False, "out": RESULTS / "map_cells.json"}
    asked = parsed(__doc__, options)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    seen = read(asked.out).get("coordinates") or coordinates()
    store = Store(path=asked.out, key=("patient", "method", "seed"), about=lambda: conditions() | {"coordinates": seen})
    keys = [{"patient": p, "method": name, "seed": SEEDS[0]} for name in asked.methods for p in asked.patients]
    for key in store.missing(keys, again=asked.again):  # a method's rows of all seeds are written together
        patient, name = key["patient"], key["method"]
        here = stamp()
        found = [row | here for row in (own_shift(patient) if name == OWN else rows_of(patient, name))]
        store.add(*found)
        w2 = estimate(row["figures"]["w2"] for row in found)
        say(f"{patient} {name:34} {found[0].get('recipe', ''):24} {w2} in {found[0]['seconds']:.1f} s")


if __name__ == "__main__":
    main()
