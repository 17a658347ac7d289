"""The problems that the solvers are compared on, with fixed seeds.

symbol    meaning                                    shape      unit
cost      cost matrix                                (n, m)     1, at most 1 (clouds, random) or 2 (images)
a, b      weights, positive, each of sum 1           (n,) (m,)  1
epsilon   entropic regularisation                    scalar     that of cost
grid      (shape, p): pixel grid of an image problem            cost = sum_k |i_k - j_k|^p / shape_k^p

Sources: the random and the image families with epsilon = 1/1200 are those of Tang et al. 2024 (arXiv 2401.12253,
section 5); the clouds are two different Gaussian samples with the squared Euclidean cost divided by its maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from lib import data_folder, say
from numpy.typing import NDArray

Array = NDArray[np.float64]
PAPER_EPSILON = 1 / 1200


class MissingData(Exception):
    """The problem needs a data file that is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One transport problem; the module's docstring holds the shapes."""

    name: str
    cost: Array
    a: Array
    b: Array
    epsilon: float
    grid: tuple[tuple[int, int], int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Many problems of one size: cost (B, n, m), uniform weights a (n,) and b (m,)."""

    name: str
    cost: Array
    a: Array
    b: Array
    epsilon: float


def uniform(n: int) -> Array:
    return np.full(n, 1.0 / n)


def squared_distances(x: Array, y: Array) -> Array:
    """Squared Euclidean distances divided by their maximum, (..., n, d) and (..., m, d) -> (..., n, m)."""
    squares = (x**2).sum(-1)[..., :, None] + (y**2).sum(-1)[..., None, :]
    cost = np.maximum(squares - 2 * x @ np.swapaxes(y, -1, -2), 0.0)
    return cost / cost.max(axis=(-1, -2), keepdims=True)


def random_costs(name: str, n: int) -> Problem:
    """Independent costs, uniform in [0, 1)."""
    cost = np.random.default_rng(n).random((n, n))
    return Problem(name=name, cost=cost, a=uniform(n), b=uniform(n), epsilon=PAPER_EPSILON)


def mnist_pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The first two test images of MNIST, a seven and a two, from `mnist/mnist.npz` below $PUSHFORWARD_DATA."""
    try:
        path = data_folder("mnist/mnist.npz") / "mnist" / "mnist.npz"
    except SystemExit as unset:
        raise MissingData(str(unset)) from None
    if not path.is_file():
        raise MissingData(f"{path} is not there")
    with np.load(path, allow_pickle=False) as arrays:
        images = arrays["x_test"][:2]
    return images[0], images[1]


def image_weights(image: NDArray[np.uint8]) -> Array:
    """Intensities over a background of 0.01 of the brightest pixel, normalised: no weight is zero."""
    intensity = image.astype(np.float64).ravel()
    weights = intensity + 0.01 * intensity.max()
    return weights / weights.sum()


def images(name: str, p: int) -> Problem:
    """Two 28 x 28 digits; pixel coordinates i/28; l1 (p = 1) or squared l2 (p = 2)."""
    first, second = mnist_pair()
    side = first.shape[0]
    axis = np.arange(side) / side
    along = np.abs(axis[:, None] - axis[None, :]) ** p
    ones = np.ones_like(along)
    cost = np.kron(along, ones) + np.kron(ones, along)
    a, b = image_weights(first), image_weights(second)
    return Problem(name=name, cost=cost, a=a, b=b, epsilon=PAPER_EPSILON, grid=((side, side), p))


def clouds(name: str, dimension: int, epsilon: float) -> Problem:
    """2000 standard normal points against 2000 whose coordinates have standard deviations from 0.5 to 1.5."""
    n = 2000
    rng = np.random.default_rng(dimension)
    x = rng.standard_normal((n, dimension))
    y = 0.5 + rng.standard_normal((n, dimension)) * np.linspace(0.5, 1.5, dimension)
    return Problem(name=name, cost=squared_distances(x, y), a=uniform(n), b=uniform(n), epsilon=epsilon)


def cloud_batch(name: str) -> Batch:
    rng = np.random.default_rng(1024)
    x, y = rng.standard_normal((1024, 64, 3)), 0.5 + 0.7 * rng.standard_normal((1024, 64, 3))
    return Batch(name=name, cost=squared_distances(x, y), a=uniform(64), b=uniform(64), epsilon=1e-2)


def random_batch(name: str) -> Batch:
    cost = np.random.default_rng(64).random((1024, 64, 64))
    return Batch(name=name, cost=cost, a=uniform(64), b=uniform(64), epsilon=1e-2)


PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "random-500": partial(random_costs, n=500),
    "random-2000": partial(random_costs, n=2000),
    "images-l2": partial(images, p=2),
    "images-l1": partial(images, p=1),
    "cloud-r3-1e-2": partial(clouds, dimension=3, epsilon=1e-2),
    "cloud-r3-1e-3": partial(clouds, dimension=3, epsilon=1e-3),
    "cloud-r64-1e-2": partial(clouds, dimension=64, epsilon=1e-2),
    "cloud-r64-1e-3": partial(clouds, dimension=64, epsilon=1e-3),
}
BATCHES: dict[str, Callable[[str], Batch]] = {"clouds-1024x64x64": cloud_batch, "random-1024x64x64": random_batch}


def load(name: str) -> Problem:
    """The problem called `name`. Raises MissingData where its data file is not at hand."""
    return PROBLEMS[name](name)


def available(name: str, skipped: dict[str, str] | None = None) -> Problem | None:
    """The problem, or None where its data file is not at hand: that is printed, and entered into `skipped`."""
    try:
        return load(name)
    except MissingData as missing:
        say(f"{name} skipped: {missing}")
        if skipped is not None:
            skipped[name] = str(missing)
        return None


def load_batch(name: str) -> Batch:
    """The batch called `name`: 1024 problems of 64 x 64."""
    return BATCHES[name](name)
