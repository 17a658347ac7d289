"""Conditions of a map: labels or numbers beside each point, and the groups of points that share one.

    labels      strings (or objects): one input a known label, 1 for the point's own; an unknown one is an error
    numbers     (n,) or (n, k): standardised over the groups, so that a dose or a descriptor in between, or beyond, is
                one more point of the same space; how far it is trusted there, `reading` judges

Points of source and target with the same condition belong to one transport problem, a group. Groups may also be given
without being conditions: then no network reads them.

symbol    meaning                                     shape
c         a condition as a network reads it           (k,)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward._interop import to_tensor
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.maps.reading import Reading

__all__ = ["Conditions", "Group", "groups_of", "read", "read_sides"]

# A number that varies by less than this share of its size is constant: float32 has no more digits.
VARIES = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The points of one condition.

    Args:
        name: The condition in words.
        x, y: Source and target points, (n, d) and (m, d).
        c: The condition's numbers, (k,), or None for a map without conditions.
    """

    name: str
    x: Tensor
    y: Tensor
    c: Tensor | None = None

    def conditions(self, count: int) -> Tensor | None:
        """The condition of so many points, (count, k)."""
        return None if self.c is None else self.c.expand(count, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """How conditions become numbers.

    Args:
        labels: Known labels in their order, or None where conditions are numbers.
        mean, scale: Of numbers, (k,).
        reading: How numbers other than those of the fit are read; None as they are.
    """

    labels: tuple[str, ...] | None
    mean: Tensor
    scale: Tensor
    reading: Reading | None = None

    @property
    def width(self) -> int:
        """K."""
        return len(self.mean) if self.labels is None else len(self.labels)

    @classmethod
    def of(cls, values: np.ndarray) -> Conditions:
        """The encoding that fits conditions as `read` gives them, one a point."""
        if values.dtype.kind == "U":
            return cls(labels=tuple(np.unique(values).tolist()), mean=torch.zeros(0), scale=torch.ones(0))
        # Over groups, not points: a condition does not count for more because it has more points.
        groups = torch.from_numpy(np.unique(values, axis=0))
        scale = groups.std(0, correction=0)
        return cls(
            labels=None,
            mean=groups.mean(0).float(),
            scale=torch.where(scale > VARIES * groups.abs().amax(0), scale, torch.ones_like(scale)).float(),
        )

    def encode(self, values: np.ndarray) -> Tensor:
        """Conditions as inputs, (n, k).

        Raises:
            InvalidArgument: A label is unknown.
            ShapeError: Numbers have another width.
        """
        if self.labels is not None:
            unknown = sorted({str(value) for value in values.reshape(-1)} - set(self.labels))
            if unknown or values.ndim != 1:
                named = ", ".join(map(repr, unknown)) or str(values)
                raise InvalidArgument(
                    f"condition {named} is unknown; the map was fitted with {', '.join(map(repr, self.labels))}. "
                    "Numbers that describe a condition, in place of labels, let a map predict for new ones"
                )
            at = torch.tensor([self.labels.index(str(value)) for value in values])
            return torch.nn.functional.one_hot(at, len(self.labels)).float()
        if values.dtype.kind == "U" or values.shape[1:] != (self.width,):
            raise ShapeError(
                f"condition has shape {values.shape}; the map was fitted with {self.width} numbers for each condition"
            )
        c = (torch.tensor(values, dtype=torch.float32) - self.mean) / self.scale
        return c if self.reading is None else self.reading(c)

    def state(self) -> dict[str, Any]:
        """As `save_state` takes it."""
        return {
            "labels": None if self.labels is None else list(self.labels),
            "mean": self.mean,
            "scale": self.scale,
            "reading": None if self.reading is None else self.reading.state(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Conditions:
        """What `state` gave."""
        labels, reading = state["labels"], state["reading"]
        return cls(
            labels=None if labels is None else tuple(labels),
            mean=state["mean"],
            scale=state["scale"],
            reading=None if reading is None else Reading.restore(reading),
        )


def read(name: str, value: Any, count: int) -> np.ndarray:
    """A caller's conditions of `count` points: strings (n,), or float64 numbers (n, k).

    One condition for all points may be given alone: a string, a number, or (k,) numbers where n is not k.

    Raises:
        InvalidArgument: They are not as many as the points, or hold no such thing.
    """
    if isinstance(value, torch.Tensor):
        value = to_tensor(name, value).detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        array = array.astype(str)
    else:
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise NonFiniteError(f"{name} has a NaN or an infinity; every point needs one")
    if array.ndim == 0 or (array.ndim == 1 and array.dtype.kind != "U" and len(array) != count):
        array = np.broadcast_to(array, (count, *array.shape))
    if len(array) != count or array.ndim > (1 if array.dtype.kind == "U" else 2):
        raise ShapeError(f"{name} has shape {array.shape} but there are {count} points; one a point is needed")
    return array if array.dtype.kind == "U" or array.ndim == 2 else array[:, None]


def read_sides(name: str, of_x: Any, of_y: Any, x: Tensor, y: Tensor) -> tuple[np.ndarray | None, np.ndarray]:
    """`read` of the source points' conditions, which may be None, and of the target points'.

    Raises:
        InvalidArgument: They are of two kinds.
    """
    values_x, values_y = None if of_x is None else read(name, of_x, len(x)), read(name, of_y, len(y))
    if values_x is not None and (values_x.dtype.kind, values_x.shape[1:]) != (values_y.dtype.kind, values_y.shape[1:]):
        kinds = ["strings" if v.dtype.kind == "U" else f"{v.shape[1]} numbers a point" for v in (values_x, values_y)]
        raise InvalidArgument(f"{name} of X is {kinds[0]} but of Y {kinds[1]}; both sides need the same kind")
    return values_x, values_y


def groups_of(
    x: Tensor, y: Tensor, of_x: np.ndarray | None, of_y: np.ndarray, encoding: Conditions | None
) -> list[Group]:
    """The points by condition, in the conditions' order.

    Args:
        x, y: Points of all conditions.
        of_x: Conditions of the source points; None where every group starts from all of them.
        of_y: Conditions of the target points.
        encoding: How a condition becomes numbers; None for groups that no map reads.

    Raises:
        InvalidArgument: A condition has too few points on one side; the message names it.
    """
    what = "group" if encoding is None else "condition"
    given = np.unique(of_y if of_x is None else np.concatenate([of_x, of_y]), axis=0)
    groups: list[Group] = []
    for value in given:
        name = value if isinstance(value, str) else ", ".join(f"{number:g}" for number in value)
        in_x, in_y = (
            np.ones(len(x), bool) if of_x is None else _same(of_x, value),
            _same(of_y, value),
        )
        for side, found in (("X", in_x), ("Y", in_y)):
            if found.sum() < 2:
                raise InvalidArgument(
                    f"{what} {name} has {int(found.sum())} points in {side}; each {what} needs at least 2 of both sides"
                )
        chosen_x, chosen_y = (torch.from_numpy(np.flatnonzero(found)).to(x.device) for found in (in_x, in_y))
        c = None if encoding is None else encoding.encode(np.asarray([value]))[0].to(x.device)
        groups.append(Group(name=str(name), x=x[chosen_x], y=y[chosen_y], c=c))
    return groups


def _same(values: np.ndarray, value: Any) -> np.ndarray:
    return values == value if values.ndim == 1 else (values == value).all(1)
