"""Every way to a map that is compared, behind one call: (pair's name, pair, seed) -> the map, its CPU seconds.

Ours run at their defaults, but for steps and batch on the pairs whose budget is given (2000 batches of 256). "Monge gap
alone" starts at the linear map and skips the distillation of an entropic one; "from the identity" starts there; "like
OTT" does so with OTT's residual network in place of the gradient of a potential, "large epsilon" with 0.3 for the fit
from first to last, which suits Gaussians; "plain network" is a residual network from the linear map with no weight on
the gap. The peer runs at its tutorial's epsilons, and at the best that `maps_tune.py` found, always 2000 batches
of 256.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from lib import cpu_seconds
from maps_peers import TUTORIAL, OttSettings, chosen, ott_monge_gap
from maps_problems import BATCH, STEPS, Pair, Points

NOTED = ("epsilon_", "share_", "stage_")  # what an estimator chose itself
BUDGETED = ("gaussian-32", "mixture")
SEEDS = (0, 1, 2, 3, 4)
OTT_SEEDS = {
    "gaussian-32": {"ott tutorial": 2, "ott best": 5},
    "w2-2": {"ott tutorial": 1, "ott best": 3},
    "w2-16": {"ott tutorial": 2, "ott best": 5},
    "w2-64": {"ott tutorial": 1, "ott best": 3},
    "mixture": {"ott tutorial": 1, "ott best": 5},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A fitted map, the CPU seconds it took, how it was asked for, and what it chose itself."""

    transform: Callable[[Points], Points]
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


Method = Callable[[str, Pair, int], Fitted]


def identity(_name: str, _pair: Pair, _seed: int) -> Fitted:
    return Fitted(transform=lambda points: points, seconds=0.0)


def shifted(_name: str, pair: Pair, _seed: int) -> Fitted:
    """Everything moved by the difference of the means."""
    shift, seconds = cpu_seconds(lambda: pair.y.mean(0) - pair.x.mean(0))
    return Fitted(transform=lambda points: points + shift, seconds=seconds)


def ours(kind: str, **parameters: Any) -> Method:
    """An estimator of `pushforward.maps`, by name; a network gets the pair's budget where that is given."""

    def method(name: str, pair: Pair, seed: int) -> Fitted:
        from pushforward import maps

        budget = {"steps": STEPS, "batch_size": BATCH} if kind == "MongeMap" and name in BUDGETED else {}
        drawn = {} if kind == "LinearMap" else {"random_state": seed}
        settings = parameters | budget | drawn
        estimator = getattr(maps, kind)(**settings)
        _, seconds = cpu_seconds(lambda: estimator.fit(pair.x, pair.y))
        notes = _plain({name: getattr(estimator, name, None) for name in NOTED})
        asked = _plain(estimator.get_params())
        return Fitted(transform=estimator.transform, seconds=seconds, settings=asked, notes=notes)

    return method


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Those that JSON can hold."""
    return {name: value for name, value in values.items() if isinstance(value, int | float | str | tuple | list)}


def ott(choose: Callable[[str], OttSettings]) -> Method:
    def method(name: str, pair: Pair, seed: int) -> Fitted:
        settings = choose(name)
        transform, seconds = ott_monge_gap(pair.x, pair.y, settings=settings, steps=STEPS, batch_size=BATCH, seed=seed)
        asked = asdict(settings) | {"steps": STEPS, "batch_size": BATCH}
        return Fitted(transform=transform, seconds=seconds, settings=asked)

    return method


METHODS: dict[str, Method] = {
    "identity": identity,
    "mean shift": shifted,
    "linear": ours("LinearMap"),
    "entropic": ours("EntropicMap"),
    "progressive": ours("ProgressiveMap"),
    "icnn": ours("ICNNMap"),
    "plain network": ours("MongeMap", start="linear", network="residual", gap_weight=0.0),
    "monge": ours("MongeMap"),
    "monge gap alone": ours("MongeMap", start="linear"),
    "monge from the identity": ours("MongeMap", start="identity"),
    "monge from the identity, large epsilon": ours("MongeMap", start="identity", epsilon=(0.3, 0.03)),
    "monge like ott": ours("MongeMap", start="identity", network="residual"),
    "ott tutorial": ott(lambda _: TUTORIAL),
    "ott best": ott(chosen),
}
VARIANTS = ("monge gap alone", "monge from the identity", "monge like ott")  # of our own estimator: three seeds
LINES = ("identity", "mean shift", "linear")  # draw nothing; of 512,000 points every draw gives them the same figures


def seeds_of(pair: str, method: str) -> tuple[int, ...]:
    """The seeds with which a method runs on a pair: one where nothing is drawn, fewer where a row takes minutes."""
    if method.startswith("ott"):
        return SEEDS[: OTT_SEEDS[pair][method]]
    if method == "monge from the identity, large epsilon" and pair != "gaussian-32":
        return ()
    if method in VARIANTS:
        return SEEDS[:3]
    return SEEDS[:1] if method in LINES else SEEDS
