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
from pushforward.maps.monge.reading import ConditionReading
from pushforward.maps.points import by_name, column_names, same_rows

__all__ = ["Conditions", "Given", "Group", "groups_of", "read", "read_given", "read_sides"]

# A number that varies by less than this share of its size is constant: float32 has no more digits.
VARIES = 1e-6
# Where more numbers than this are different from nearly every other, they were measured point by point.
FEWEST_BINNED = 10


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
        """The condition repeated for `count` points, (count, k)."""
        return None if self.c is None else self.c.expand(count, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The encoding of conditions as numbers.

    Args:
        labels: Known labels in their order, or None where conditions are numbers.
        mean, scale: Mean and scale of the numbers, (k,).
        reading: How numbers other than those of the fit are read; None as they are.
        names: The numbers' names, where they came as a data frame's columns.
    """

    labels: tuple[str, ...] | None
    mean: Tensor
    scale: Tensor
    reading: ConditionReading | None = None
    names: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        """The number k of values that a map's network takes for one condition."""
        return len(self.mean) if self.labels is None else len(self.labels)

    @classmethod
    def of(cls, values: np.ndarray, names: tuple[str, ...] | None = None) -> Conditions:
        """The encoding for conditions as `read` returns them, one for each point."""
        if values.dtype.kind == "U":
            return cls(labels=tuple(np.unique(values).tolist()), mean=torch.zeros(0), scale=torch.ones(0))
        # Over groups, not points: a condition does not count for more because it has more points.
        groups = torch.from_numpy(np.unique(values, axis=0))
        scale = groups.std(0, correction=0)
        return cls(
            labels=None,
            mean=groups.mean(0).float(),
            scale=torch.where(scale > VARIES * groups.abs().amax(0), scale, torch.ones_like(scale)).float(),
            names=names,
        )

    def encode(self, values: np.ndarray) -> Tensor:
        """Conditions as inputs of a network, (n, k).

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
        """The encoding as `save_state` takes it."""
        return {
            "labels": None if self.labels is None else list(self.labels),
            "mean": self.mean,
            "scale": self.scale,
            "reading": None if self.reading is None else self.reading.state(),
            "names": None if self.names is None else list(self.names),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Conditions:
        """The encoding from the state that `state` returned."""
        labels, reading, names = state["labels"], state["reading"], state.get("names")
        return cls(
            labels=None if labels is None else tuple(labels),
            mean=state["mean"],
            scale=state["scale"],
            reading=None if reading is None else ConditionReading.restore(reading),
            names=None if names is None else tuple(names),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Conditions or groups as a caller gave them, one a point.

    Args:
        of_x, of_y: As `read` gives them; None on X's side where every group starts from all points, and on both where
            there are none.
        encoding: How a condition becomes numbers; None for groups that no map reads.
    """

    of_x: np.ndarray | None = None
    of_y: np.ndarray | None = None
    encoding: Conditions | None = None

    def groups(self, x: Tensor, y: Tensor, kept_x: Tensor, kept_y: Tensor) -> list[Group]:
        """The rows of x and y that are kept, by condition or group."""
        if self.of_y is None:
            return [Group(name="all", x=x[kept_x], y=y[kept_y])]
        of_x = None if self.of_x is None else self.of_x[kept_x.cpu().numpy()]
        return groups_of(x[kept_x], y[kept_y], of_x, self.of_y[kept_y.cpu().numpy()], self.encoding)


def read_given(condition: Any, groups: Any, X: Any, Y: Any) -> Given:
    """The conditions or groups that `MongeMap.fit` got, for the points of X and Y.

    Raises:
        InvalidArgument: Both were given, or they do not go with the points.
    """
    if groups is not None:
        if condition is not None:
            raise InvalidArgument("condition and groups were both given; conditions are groups already: give one")
        if not (isinstance(groups, tuple) and len(groups) == 2):
            raise InvalidArgument("groups must be a pair: the groups of X's points and those of Y's")
        of_x, of_y = read_sides("groups", groups[0], groups[1], X, Y)
        return Given(of_x=of_x, of_y=of_y)
    if condition is None:
        return Given()
    one, other = condition if isinstance(condition, tuple) and len(condition) == 2 else (None, condition)
    of_x, of_y = read_sides("condition", one, other, X, Y)
    names = column_names(one) or column_names(other)
    encoding = Conditions.of(of_y if of_x is None else np.concatenate([of_x, of_y]), names)
    return Given(of_x=of_x, of_y=of_y, encoding=encoding)


def read(name: str, value: Any, count: int, *, names: tuple[str, ...] | None = None) -> np.ndarray:
    """A caller's conditions of `count` points: strings (n,), or float64 numbers (n, k).

    One condition for all points may be given alone: a string, a number, or (k,) numbers where n is not k. The columns
    of a data frame are put in the order of `names`.

    Raises:
        InvalidArgument: They are not as many as the points, or hold no such thing.
    """
    if isinstance(value, torch.Tensor):
        value = to_tensor(name, value).detach().cpu().numpy()
    array = _labels_or_numbers(name, value)
    if array.ndim == 0 or (array.ndim == 1 and array.dtype.kind != "U" and len(array) != count):
        array = np.broadcast_to(array, (count, *array.shape))
    if len(array) != count or array.ndim > (1 if array.dtype.kind == "U" else 2):
        raise ShapeError(f"{name} has shape {array.shape} but there are {count} points; one a point is needed")
    if array.dtype.kind == "U":
        return array
    if array.ndim == 1:
        return array[:, None]
    return by_name(name, array, column_names(value), names, "the other conditions")


def _labels_or_numbers(name: str, value: Any) -> np.ndarray:
    """Text or float64 numbers, whatever the caller's own type of either."""
    array = np.asarray(value)
    if array.dtype.kind == "O":
        missing = [k for k, item in enumerate(array.reshape(-1)) if not isinstance(item, str) and _is_missing(item)]
        if missing:
            raise NonFiniteError(f"{name} has {len(missing)} missing values, the first at row {missing[0]}")
        if array.size and all(isinstance(item, int | float | np.number) for item in array.reshape(-1)):
            array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        return array.astype(str)
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{name} has a NaN or an infinity; every point needs one")
    return array


def _is_missing(item: Any) -> bool:
    """Whether an entry stands for none: None, NaN, and what data frames have for it."""
    return str(item) in ("None", "nan", "NaT", "<NA>")


def read_sides(name: str, of_x: Any, of_y: Any, X: Any, Y: Any) -> tuple[np.ndarray | None, np.ndarray]:
    """`read` of the source points' conditions, which may be None, and of the target points'.

    Raises:
        InvalidArgument: They are of two kinds, or belong to other rows.
    """
    names = None if of_x is None else column_names(of_x)
    if of_x is not None:
        same_rows(f"{name} of X", of_x, "X", X)
    same_rows(f"{name} of Y", of_y, "Y", Y)
    values_x = None if of_x is None else read(name, of_x, len(X))
    values_y = read(name, of_y, len(Y), names=names)
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
    numbers = given.ndim == 2
    count = len(of_y) + (0 if of_x is None else len(of_x))
    if numbers and len(given) > FEWEST_BINNED and 2 * len(given) > count:
        raise InvalidArgument(
            f"{what} has {len(given)} different values for {count} points: nearly every point has its own, but "
            f"each {what} needs at least 2 points of both sides. Numbers that vary from point to point are put into "
            "bins first, each read as its mean: bins = np.digitize(c, np.quantile(c, [0.25, 0.5, 0.75])). A map that "
            "was fitted with numbers answers for those in between, too"
        )
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
