"""OTT-JAX's Monge gap on a pair of samples: its estimator, its Sinkhorn, its residual network, at the settings given.

The network is the one that ours have (three hidden layers of 256, SiLU, residual around the identity), the optimiser
Adam with a cosine decay. Both epsilons are in units of the mean cost, through the package's own `relative_epsilon`. The
step is compiled before the clock starts.

The published tutorial takes epsilon 0.1 for the fitting loss and 0.01 for the gap, at a weight of 1. `TRIED` is what
`maps_tune.py` tries besides; `maps_peer_settings.json` holds every trial, and what was chosen for each pair.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
CHOSEN = Path(__file__).with_name("maps_peer_settings.json")
HIDDEN = (256, 256, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class OttSettings:
    """What may be chosen in OTT's estimator.

    Args:
        fit: epsilon of the Sinkhorn divergence between T(X) and Y, in units of their mean cost.
        gap: epsilon of the Monge gap, in units of the mean cost between X and T(X).
        weight: of the gap beside the fitting loss.
        rate: the learning rate at the start; it decays to zero along a cosine.
    """

    fit: float
    gap: float
    weight: float = 1.0
    rate: float = 1e-3


TUTORIAL = OttSettings(fit=0.1, gap=0.01)
# fit, gap, weight, rate
CANDIDATES = (
    (1.0, 0.1, 0.1, 1e-3), (0.3, 0.1, 0.1, 1e-3), (0.1, 0.1, 0.1, 1e-3), (0.3, 0.1, 0.1, 3e-3), (0.3, 0.1, 0.3, 3e-3),
    (0.3, 0.3, 0.1, 3e-3), (0.3, 0.1, 0.1, 1e-2), (0.1, 0.03, 1.0, 3e-3), (0.03, 0.03, 1.0, 1e-3),
    (0.03, 0.03, 1.0, 3e-3), (0.03, 0.03, 3.0, 3e-3), (0.1, 0.03, 3.0, 3e-3), (0.03, 0.03, 10.0, 3e-3),
)  # fmt: skip
TRIED = [OttSettings(fit=fit, gap=gap, weight=weight, rate=rate) for fit, gap, weight, rate in CANDIDATES]


def chosen(pair: str) -> OttSettings:
    """What the search chose for this pair."""
    return OttSettings(**json.loads(CHOSEN.read_text())["chosen"][pair])


def ott_estimator(settings: OttSettings, *, dimension: int, steps: int, seed: int) -> Any:
    """The package's `MongeGapEstimator`, with its own losses, ready to step."""
    import jax
    import optax
    from ott.neural.methods import monge_gap
    from ott.neural.networks import potentials
    from ott.tools import sinkhorn_divergence

    def fitting_loss(mapped: Any, target: Any) -> tuple[Any, None]:
        return sinkhorn_divergence.sinkdiv(mapped, target, epsilon=settings.fit, relative_epsilon="mean")[0], None

    def regularizer(source: Any, mapped: Any) -> tuple[Any, None]:
        gap = monge_gap.monge_gap_from_samples(source, mapped, epsilon=settings.gap, relative_epsilon="mean")
        return gap, None

    return monge_gap.MongeGapEstimator(
        dim_data=dimension,
        model=potentials.PotentialMLP(dim_hidden=HIDDEN, is_potential=False, act_fn=jax.nn.silu),
        optimizer=optax.adam(optax.cosine_decay_schedule(settings.rate, steps)),
        fitting_loss=fitting_loss,
        regularizer=regularizer,
        regularizer_strength=settings.weight,
        num_train_iters=steps,
        rng=jax.random.PRNGKey(seed),
    )


def _batches(points: Points, size: int, draw: np.random.Generator) -> Iterator[Points]:
    """Batches without replacement; the points are shuffled anew when they are used up."""
    while True:
        order = draw.permutation(len(points))
        for start in range(0, len(points) - size + 1, size):
            yield points[order[start : start + size]]


def ott_monge_gap(
    x: Points, y: Points, *, settings: OttSettings, steps: int, batch_size: int, seed: int
) -> tuple[Callable[[Points], Points], float]:
    """The map that the package trains, and the CPU seconds that the training took, compilation left out."""
    import jax

    estimator = ott_estimator(settings, dimension=x.shape[1], steps=steps, seed=seed)
    draws = [np.random.default_rng([seed, side]) for side in (0, 1)]
    source, target = _batches(x, batch_size, draws[0]), _batches(y, batch_size, draws[1])
    first = {"source": x[:batch_size], "target": y[:batch_size]}
    jax.block_until_ready(estimator.step_fn(estimator.state_neural_net, first, None, False, 0))
    began = time.process_time()
    state, _ = estimator.train_map_estimator(source, target, source, target)
    jax.block_until_ready(state.params)
    seconds = time.process_time() - began
    apply = jax.jit(lambda points: state.apply_fn({"params": state.params}, points))
    return lambda points: np.asarray(apply(points)), seconds
