"""One training step at batch 1024 in R^32, ours and OTT-JAX's: one process, in turns, on the same batches.

Both train the same residual network by Adam on the same loss, the Sinkhorn divergence plus the published (entropic)
gap, at the same epsilons, each to a marginal error of 1e-3 (the package's default, and what our training asks for; ours
solves in float64, the package in float32). The first steps, compilation among them, are not timed: a map that has not
moved yet is an easier problem than one that has. Then every batch is stepped on by one, and by the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from maps_peers import HIDDEN, OttSettings, ott_estimator

# Epsilons of fit and gap, in units of the mean cost.
STEPS = {
    "0.1 and 0.01 (tutorial)": OttSettings(fit=0.1, gap=0.01),
    "0.3 and 0.1": OttSettings(fit=0.3, gap=0.1),
    "0.03 and 0.03": OttSettings(fit=0.03, gap=0.03),
}
BATCH, DIMENSION = 1024, 32
UNTIMED, TIMED = 20, 15

Step = Callable[[Any, Any], None]


def our_step(settings: OttSettings, unit: float, seed: int) -> Step:
    import torch

    from pushforward.maps.costs import SquaredEuclidean
    from pushforward.maps.linear import Affine
    from pushforward.maps.monge.networks import MapNetwork
    from pushforward.maps.monge.objective import Objective

    identity = Affine(matrix=torch.eye(DIMENSION), shift=torch.zeros(DIMENSION))
    network = MapNetwork(
        form="residual", start=identity, drift=torch.zeros(DIMENSION, 0), centre=torch.zeros(DIMENSION),
        scale=1.0, cost=SquaredEuclidean(), hidden=HIDDEN, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    objective = Objective(
        cost=SquaredEuclidean(), fit_epsilon=settings.fit * unit, gap_epsilon=settings.gap * unit,
        weight=settings.weight, estimator="entropic",
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.rate)

    def step(x: Any, y: Any) -> None:
        source, target = torch.from_numpy(x), torch.from_numpy(y)
        fit, gap = objective(source, network(source), target)
        optimiser.zero_grad()
        (fit + settings.weight * gap).backward()
        optimiser.step()

    return step


def ott_step(settings: OttSettings, seed: int) -> Step:
    import jax

    estimator = ott_estimator(settings, dimension=DIMENSION, steps=10 * (UNTIMED + TIMED), seed=seed)
    state = estimator.state_neural_net

    def step(x: Any, y: Any) -> None:
        nonlocal state
        state, _ = estimator.step_fn(state, {"source": x, "target": y}, None, False, 0)
        jax.block_until_ready(state.params)

    return step


def step_times(method: str, seed: int) -> dict[str, Any]:
    """CPU milliseconds of both, repetition by repetition. Runs in its own process."""
    import torch

    from pushforward.maps.truths import GaussianPair

    truth, draw, settings = GaussianPair(dim=DIMENSION), torch.Generator().manual_seed(seed), STEPS[method]
    batches = [
        tuple(side(BATCH, draw).float().numpy() for side in (truth.sample, truth.target))
        for _ in range(UNTIMED + TIMED)
    ]
    unit = float(np.mean([((x[:, None] - y[None]) ** 2).sum(-1).mean() for x, y in batches[:1]]))
    steps = {"pushforward": our_step(settings, unit, seed), "ott-jax": ott_step(settings, seed)}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number, (x, y) in enumerate(batches):
        for name, step in steps.items():
            began = time.process_time()
            step(x, y)
            if number >= UNTIMED:
                taken[name].append(round(1000 * (time.process_time() - began), 3))
    return {
        "milliseconds": taken,
        "seconds": sum(map(sum, taken.values())) / 1000,
        "settings": {"fit": settings.fit, "gap": settings.gap, "weight": settings.weight, "batch_size": BATCH},
        "figures": {name.replace("-", "_"): float(np.median(values)) for name, values in taken.items()},
    }
