"""How cells of a patient who was never treated may be predicted: methods, each a list of recipes.

"Within patients" couples each patient's control cells with that patient's treated cells alone; a pooled map may send
one patient's cells to another's. One network within patients is fitted so (`groups`), and does not read whose cells it
maps; one by description does (`condition`), and reads of a new patient's description what known patients advise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from map_cells_tables import SHIFT
from maps_problems import Points
from torch import Tensor, nn

from pushforward.maps import EntropicMap, ICNNMap, LinearMap, MongeMap, ProgressiveMap

OWN = "own mean shift (peeks)"

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
EVERY = (*METHODS, OWN)
