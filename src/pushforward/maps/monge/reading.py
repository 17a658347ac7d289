"""How a map reads conditions that it was not fitted on: drawn to the known ones, as far as those speak for it.

A map is trained at n known conditions; elsewhere it answers whatever its network does there. Where conditions are many
numbers each, and few, a new one is far from all of them, and so is the answer. Hence c is read as

    r(c) = k(c, C) (K + ridge I)^-1 C,      K = k(C, C)

unless it is one of C, which are read as they are. There are three readings:

    none      r(c) = 0, the known conditions' mean: the description is not used
    linear    k(c, c') = <c, c'>. Of principal direction i of C, of singular value s_i, the share s_i^2/(s_i^2 + ridge)
              is kept. A small ridge changes little, and goes on beyond the known conditions
    near      k(c, c') = exp(-|c - c'|^2/(2 h^2)), h the median distance in C: little is changed among the known
              conditions, and far from them r = 0

The reading is chosen by what it would have done for the known conditions. Each is left out in turn, and its shift is
predicted from the others' by

    shift(c) = m + k(c, C) (K + ridge I)^-1 (S - m),      m the mean of S,

which, for the linear reading, is what the linear part of the map gives, b + D r(c). The reading with the least squared
error is taken if it beats "none" by more than the standard error of the difference, else "none". Two conditions cannot
be judged: between them one may interpolate, far from them not, so the reading is "near".

symbol    meaning                                                          shape     unit
C         known conditions, standardised                                   (n, k)
S         mean of y - A x in each, A the matrix of the map's linear part   (n, d)    length
ridge     given over the mean of K's diagonal

Source: Breiman, Friedman, Olshen and Stone 1984, section 3.4.3, for the rule of one standard error; the rest is ours.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["ConditionReading", "chosen_reading"]

Kind = Literal["none", "linear", "near"]

# The smallest for "near" is no smaller, since a smooth curve through two close conditions may be steep.
RIDGES: dict[Kind, tuple[float, ...]] = {
    "none": (0.0,),
    "linear": (1e-6, 1e-2, 1e-1, 1.0, 10.0),
    "near": (1e-2, 1e-1, 1.0),
}
FEWEST_TO_JUDGE = 3
# Of more conditions than this, several are left out at once.
FOLDS = 30
# Conditions that differ by less, in standard deviations, are one: they are float32.
SAME = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionReading:
    """r of the module.

    Args:
        kind: Which of the three.
        ridge: Over the mean of K's diagonal.
        known: C, (n, k).
    """

    kind: Kind
    ridge: float
    known: Tensor

    def __call__(self, c: Tensor) -> Tensor:
        """Conditions (m, k) as they are read, in their dtype; it warns where nothing is read of new ones."""
        asked, known = c.double(), self.known.double()
        distance, nearest = torch.cdist(asked, known, p=math.inf).min(1)
        same = distance < SAME
        if self.kind == "none" and not bool(same.all()):
            warnings.warn(
                "condition has values that the map was not fitted on, and those that it was fitted on do not foretell "
                "each other's shifts: all new ones have the same images, as for the mean of the known ones",
                stacklevel=2,
            )
        read = _weights(self.kind, self.ridge, known, asked) @ known
        return torch.where(same[:, None], known[nearest], read).to(c)

    def state(self) -> dict[str, Any]:
        """As `save_state` takes it."""
        return {"kind": self.kind, "ridge": self.ridge, "known": self.known}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> ConditionReading:
        """The reading from the state that `state` returned."""
        return cls(kind=state["kind"], ridge=state["ridge"], known=state["known"])


def chosen_reading(c: Tensor, shifts: Tensor) -> ConditionReading:
    """The reading that the known conditions choose.

    Args:
        c: C, (n, k), their mean 0.
        shifts: S, (n, d).

    Returns:
        The reading, which keeps C.

    Example:
        >>> doses = torch.tensor([[-1.5], [-0.5], [0.0], [2.0]])
        >>> chosen_reading(doses, 3 * doses)(torch.tensor([[1.0]])).round(decimals=3)
        tensor([[1.]])
        >>> chosen_reading(doses, torch.tensor([[0.0], [1.0], [-1.0], [0.0]])).kind
        'none'
    """
    if len(c) < FEWEST_TO_JUDGE:
        kind: Kind = "near" if len(c) == 2 else "none"
        return ConditionReading(kind=kind, ridge=RIDGES[kind][0], known=c)
    choices: list[tuple[Kind, float]] = [(kind, ridge) for kind, ridges in RIDGES.items() for ridge in ridges]
    errors = _errors_left_out(c.double(), shifts.double(), choices)
    best = int(errors.mean(1).argmin())
    gain = errors[0] - errors[best]
    if gain.mean() <= gain.std() / math.sqrt(len(gain)):
        best = 0
    kind, ridge = choices[best]
    return ConditionReading(kind=kind, ridge=ridge, known=c)


def _errors_left_out(c: Tensor, shifts: Tensor, choices: list[tuple[Kind, float]]) -> Tensor:
    """Squared errors of the shifts of conditions that were left out, (choices, n)."""
    errors = c.new_zeros(len(choices), len(c))
    fold = torch.arange(len(c)) % FOLDS
    for out in (fold == f for f in range(min(FOLDS, len(c)))):
        # Standardised without it: a new condition's distance in units of the known ones is what makes it dangerous.
        centre, scale = c[~out].mean(0), c[~out].std(0, correction=0)
        scale = torch.where(scale > SAME, scale, 1.0)
        known, asked = (c[~out] - centre) / scale, (c[out] - centre) / scale
        mean = shifts[~out].mean(0)
        for row, (kind, ridge) in zip(errors, choices, strict=True):
            predicted = mean + _weights(kind, ridge, known, asked) @ (shifts[~out] - mean)
            row[out] = (predicted - shifts[out]).square().sum(1)
    return errors


def _weights(kind: Kind, ridge: float, known: Tensor, asked: Tensor) -> Tensor:
    """k(c, C) (K + ridge I)^-1 at conditions (m, k), (m, n)."""
    if kind == "none" or not bool(known.any()):
        return asked.new_zeros(len(asked), len(known))
    if kind == "linear":
        kernel, across = known @ known.T, asked @ known.T
    else:
        h = torch.pdist(known).median().clamp_min(SAME)
        kernel, across = (torch.exp(-0.5 * (torch.cdist(c, known) / h).square()) for c in (known, asked))
    kernel.diagonal().add_(ridge * kernel.diagonal().mean())
    return torch.linalg.solve(kernel, across.T).T
