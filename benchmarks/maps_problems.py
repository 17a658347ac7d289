"""The pairs of measures on which transport maps are compared, each with what its maps are judged on.

name              source -> target                                    true map   fitted on, of each side
gaussian-32       two Gaussians in R^32 (`truths.GaussianPair`)       known      512,000 fresh points
mixture           five Gaussians -> four (`truths.FiveToFour`)        unknown    512,000 fresh points
w2-2, -16, -64    Wasserstein-2 benchmark, Korotin et al. 2021        known      16,384 points
cells-PATIENT     glioblastoma cells, control -> panobinostat         unknown    2,000 cells of four patients

512,000 is 2000 batches of 256: a map that takes so many sees no point twice. Cells are judged on the fifth patient, of
whom no cell is seen in fitting, nor in choosing the coordinates: the 30 principal components of log1p(1000 counts / row
sum) are those of the four patients' cells. The seed draws samples, the order of the fifth patient's cells, and whatever
a method draws; the W2 benchmark's points are fixed, there it is the methods' alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lib import data_folder
from numpy.typing import NDArray

from pushforward.maps.truths import FiveToFour, GaussianPair, w2_benchmark

Points = NDArray[np.float32]
PATIENTS = ("PW030", "PW032", "PW034", "PW036", "PW040")
PAIRS = ("gaussian-32", "w2-2", "w2-16", "w2-64", "mixture")  # and cells-PATIENT, of `map_cells.py`
STEPS, BATCH = 2000, 256
TEST = 4096  # points that a map is judged on, where they can be drawn
EXACT = 2048  # of them, between exact transport is solved
COMPONENTS = 30
FRESH = STEPS * BATCH


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A source, a target, and points of both that no method sees before it is judged.

    Args:
        x, y: What is fitted on, (n, d) and (m, d).
        x_test, true: Points of the source, (k, d), and where the optimal map sends them, if that is known.
        y_test, y_other: Two disjoint samples of the target, for W2^2 and its floor.
        variance: tr Cov of the target, if it is known.
        condition: Of each row of x and of y, and of the rows judged: what describes the patient, or None.
        genes: How points become expression: (components (30, genes), mean (genes,)), for cells.
    """

    x: Points
    y: Points
    x_test: Points
    y_test: Points
    y_other: Points
    true: Points | None = None
    variance: float | None = None
    condition: tuple[Points, Points, Points] | None = None
    genes: tuple[Points, Points] | None = None


def load(name: str, seed: int) -> Pair:
    """The pair of this name, sampled anew for each seed where it can be sampled."""
    if name == "gaussian-32":
        return _gaussian(seed)
    if name == "mixture":
        return _mixture(seed)
    if name.startswith("w2-"):
        return _w2(int(name.removeprefix("w2-")))
    return _cells(name.removeprefix("cells-"), seed)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(tensor: Any) -> Points:
    return np.asarray(tensor, dtype=np.float32)


def _gaussian(seed: int) -> Pair:
    truth, draw = GaussianPair(dim=32), _generator(seed)
    x, y, x_test = truth.sample(FRESH, draw), truth.target(FRESH, draw), truth.sample(TEST, draw)
    y_test, y_other = truth.target(EXACT, draw), truth.target(EXACT, draw)
    return Pair(
        x=_points(x), y=_points(y), x_test=_points(x_test), true=_points(truth.map(x_test)), y_test=_points(y_test),
        y_other=_points(y_other), variance=truth.target_variance,
    )  # fmt: skip


def _mixture(seed: int) -> Pair:
    pair, draw = FiveToFour(), _generator(seed)
    x, y, x_test = pair.sample(FRESH, draw), pair.target(FRESH, draw), pair.sample(EXACT, draw)
    y_test, y_other = pair.target(EXACT, draw), pair.target(EXACT, draw)
    return Pair(x=_points(x), y=_points(y), x_test=_points(x_test), y_test=_points(y_test), y_other=_points(y_other))


def _w2(dimension: int) -> Pair:
    pair = w2_benchmark(data_folder("w2_benchmark/") / "w2_benchmark", dimension)
    # The true map of the test points is a sample of the target, independent of `target`: its second half stands against
    # the image of the first, and against the first for the floor.
    true = pair.map_test
    return Pair(
        x=pair.source, y=pair.target, x_test=pair.source_test, true=true, y_test=true[EXACT:], y_other=true[:EXACT],
        variance=pair.target_variance,
    )  # fmt: skip


def expression_of(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.bool_]]:
    """Expression of all cells (n, genes), whose they are (n,), and which of them are control (n,)."""
    arrays = np.load(folder / "cells" / "gbm_panobinostat.npz")
    counts = arrays["counts"].astype(np.float64)
    return np.log1p(1000 * counts / counts.sum(1, keepdims=True)), arrays["patient"], arrays["condition"] == "ctrl"


def _cells(held_out: str, seed: int) -> Pair:
    expression, patients, control = expression_of(data_folder("cells/"))
    own = patients == held_out
    mean = expression[~own].mean(0)
    components = np.linalg.svd(expression[~own] - mean, full_matrices=False)[2][:COMPONENTS]
    cells = _points((expression - mean) @ components.T)
    # A patient is described by the mean of the control cells, which exist for a patient who was never treated.
    described = np.stack([cells[control & (patients == patient)].mean(0) for patient in patients])
    draw = np.random.default_rng(seed)
    source, target = draw.permutation(np.flatnonzero(own & control)), draw.permutation(np.flatnonzero(own & ~control))
    half = len(source) // 2
    rows = np.flatnonzero(~own & control), np.flatnonzero(~own & ~control), source[:half]
    return Pair(
        x=cells[rows[0]], y=cells[rows[1]], x_test=cells[rows[2]], y_test=cells[target[:half]],
        y_other=cells[target[half:]], condition=tuple(_points(described[row]) for row in rows),
        genes=(_points(components), _points(mean)),
    )  # fmt: skip
