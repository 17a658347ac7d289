"""The base of every transport map: a scikit-learn transformer from the points of one distribution to another's.

    fit(X, Y)       X (n, d) and Y (m, d) are samples of the source and of the target; row i of one has nothing to do
                    with row i of the other
    transform(X)    T(x) for points seen or unseen, as numpy for numpy and as tensors for tensors

A subclass fits tensors (`_fit`), maps tensors (`_transform`) and says what of it is kept on disk (`_state`,
`_restore`); what callers pass in and get back is dealt with here.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pushforward._interop import like_input, result_dtype
from pushforward._typed import typed
from pushforward.errors import CheckpointError, InvalidArgument, ShapeError
from pushforward.maps import saved
from pushforward.maps.outliers import without_outliers
from pushforward.maps.points import by_name, column_names, in_dtype, read_points
from pushforward.ot.costs import GroundCost, pairwise_cost
from pushforward.ot.divergence import sinkhorn_divergence

__all__ = ["SCORE_EPSILON", "TransportMap", "score_images"]

# A score is a Sinkhorn divergence between at most so many points of each side; its cost grows with their product.
SCORED = 2048
# Marginal error to which a score is solved: the divergence then has three to four digits, more than sampling leaves it.
SCORE_TOL = 1e-4
# At most so many points of a side are compared with the simplest maps: a tenth of a score's cost. A score that is worse
# than theirs by less than this share of the mean cost is no worse.
COMPARED, MARGIN = 512, 1e-3
# The default of `sinkhorn_divergence`, too.
SCORE_EPSILON = 0.05


class TransportMap(OneToOneFeatureMixin, TransformerMixin, BaseEstimator, ABC):
    """The base class of this package's maps; see the module.

    Attributes:
        n_features_in_: Width of the points that it was fitted on.
        feature_names_in_: Their columns' names, where X was a data frame with such.
    """

    n_features_in_: int
    feature_names_in_: np.ndarray
    _columns: tuple[str, ...] | None
    """The names of X's columns, those that are no text included; None where it had none."""
    _shift: Tensor | None
    """Mean of Y less mean of X, (d,); None where a map has several, or where an older file does not say."""

    _precise: ClassVar[bool] = True
    """Whether it takes float64 points as they are; a network gets float32."""
    _rows: ClassVar[int] = 4096
    """Points that `_transform` gets at a time."""

    def fit(self, X: Any, Y: Any, *, condition: Any = None) -> Self:
        """Learn the map from samples of both distributions.

        Args:
            X: Source points, (n, d): numpy, a tensor, or a data frame.
            Y: Target points, (m, d), on the same device. Of two data frames columns are paired by name.
            condition: One condition a point, for maps that can depend on one (`MongeMap`).

        Returns:
            The map itself.

        Raises:
            InvalidArgument: An argument cannot be used; the message names it.

        Warns:
            UserWarning: Rows are so far from all others that they alone would set the map's scale (`outliers`); it is
                fitted without them.
        """
        if condition is not None:
            raise InvalidArgument(
                f"condition was given, but {type(self).__name__} learns one map for all; use MongeMap"
            )
        x, y = self._read_both(X, Y)
        x, y = x[without_outliers("X", x)], y[without_outliers("Y", y)]
        self._fit(x, y)
        self._shift = y.mean(0, dtype=torch.float64) - x.mean(0, dtype=torch.float64)
        self._fitted = True
        return self

    def transform(self, X: Any, *, condition: Any = None) -> Any:
        """The mapped points.

        Args:
            X: Points, (n, d), of the width that the map was fitted on. A data frame must have the columns of the fit's,
                in their order.
            condition: As in `fit`.

        Returns:
            (n, d), of X's kind, dtype and device.

        Raises:
            InvalidArgument: An argument cannot be used; the message names it.
            NotFittedError: The map was not fitted.
        """
        check_is_fitted(self)
        return self._like(X, self._images(self._read("X", X, reset=False), condition))

    def score(self, X: Any, Y: Any, *, condition: Any = None) -> float:
        """Minus the debiased Sinkhorn divergence between T(X) and Y: the higher, the nearer the mapped points are to Y.

        Its regularisation is 0.05 of the mean cost. Where there are more than 2048 points on a side, a fixed draw of
        them is compared. Where the identity, or the mean shift of the fitted points, scores higher on up to 512 points
        of a side, a warning says so.

        Args:
            X: Source points, (n, d), better unseen ones.
            Y: Target points, (m, d).
            condition: As in `transform`.

        Returns:
            At most 0, up to rounding, in units of the cost.
        """
        check_is_fitted(self)
        x, y = self._read("X", X, reset=False), self._read("Y", Y, reset=None)
        if x.shape[1] != y.shape[1]:
            raise ShapeError(f"Y has points of dimension {y.shape[1]} but X of dimension {x.shape[1]}")
        y = by_name("Y", y, column_names(Y), self._columns, "the fit's X")
        with torch.no_grad():
            images = self._images(x, condition)
            self._compare(x, images, y)
            return score_images(_some(images), _some(y), self._ground())

    def _compare(self, x: Tensor, images: Tensor, y: Tensor) -> None:
        """Warn where the identity or the mean shift has the higher score."""
        x, images, y = (_some(points, COMPARED).double() for points in (x, images, y))
        shift = None if self._shift is None else self._shift.to(x)
        unit = float(pairwise_cost(images, y, self._ground()).mean())
        if not unit > 0:
            return
        own = score_images(images, y, self._ground(), epsilon=SCORE_EPSILON * unit)
        for name, simple in (("identity", x), ("mean shift", None if shift is None else x + shift)):
            # One that is ten times as far away is no better, and hard to solve at this regularisation.
            if simple is None or float(pairwise_cost(simple, y, self._ground()).mean()) > 10 * unit:
                continue
            found = score_images(simple, y, self._ground(), epsilon=SCORE_EPSILON * unit)
            if found > own + MARGIN * unit:
                warnings.warn(
                    f"the {name} scores {found:.4g} where this {type(self).__name__} scores {own:.4g}, on {len(x)} and "
                    f"{len(y)} points: the map is worse than that",
                    stacklevel=3,
                )

    @typed
    def save(self, folder: str | Path) -> None:
        """Write the fitted map, as safetensors and JSON; an earlier one there is replaced in one step or not at all.

        A function or module of the caller's own among the parameters is not written: `load` asks for it. A
        `random_state` object is written as None, for a fitted map draws nothing.

        Args:
            folder: Made if missing; other files in it are left alone.

        Raises:
            NotFittedError: The map was not fitted.
            OSError: The files cannot be written; what was there stays.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        content = {
            "parameters": {key: saved.encode(key, value) for key, value in self.get_params(deep=False).items()},
            "fitted": self._state(),
            "width": int(self.n_features_in_),
            "names": None if names is None else [str(name) for name in names],
            "columns": None if self._columns is None else list(self._columns),
            "shift": self._shift,
        }
        saved.write(Path(folder), type(self).__name__, content)

    @classmethod
    @typed
    def load(cls, folder: str | Path, *, cost: Any = None, network: Any = None) -> Self:
        """The map that `save` wrote, on the CPU.

        Args:
            folder: Where it was saved.
            cost, network: The caller's own objects that it was fitted with, where it had such.

        Raises:
            CheckpointError: A file is missing, truncated, altered or another class's; the message names it.
            InvalidArgument: The map was fitted with a cost or network of the caller's own, which is not given here.
        """
        content = saved.read(Path(folder), cls.__name__)
        given = {"cost": cost, "network": network}
        try:
            parameters = {key: saved.decode(key, value, given.get(key)) for key, value in content["parameters"].items()}
            made = cls(**parameters)
            made.n_features_in_ = content["width"]
            if content["names"] is not None:
                made.feature_names_in_ = np.asarray(content["names"], dtype=object)
            made._shift = content.get("shift")
            columns = content.get("columns", content["names"])
            made._columns = None if columns is None else tuple(columns)
            made._restore(content["fitted"])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise CheckpointError(f"{folder} holds a {cls.__name__} of another version: {error!r}") from error
        made._fitted = True
        return made

    @abstractmethod
    def _fit(self, x: Tensor, y: Tensor) -> None:
        """Set the fitted attributes from points of both sides."""

    @abstractmethod
    def _transform(self, x: Tensor) -> Tensor:
        """The mapped points of a block of points; called without a graph."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What `_restore` needs beside the parameters: tensors, numbers, strings, and dicts and lists of them."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Any]) -> None:
        """Set the fitted attributes from what `_state` returned."""

    def _ground(self) -> GroundCost:
        """The cost that the score is measured in."""
        return "sqeuclidean"

    def __sklearn_is_fitted__(self) -> bool:
        return getattr(self, "_fitted", False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _read_both(self, X: Any, Y: Any) -> tuple[Tensor, Tensor]:
        if Y is None:
            raise InvalidArgument(
                f"{type(self).__name__} requires y to be passed, but the target y is None: fit(X, Y) takes the points "
                "of both distributions"
            )
        self._fitted = False
        x, y = self._read("X", X, reset=True), self._read("Y", Y, reset=None)
        if x.shape[1] != y.shape[1]:
            raise ShapeError(f"X has points of dimension {x.shape[1]} but Y of dimension {y.shape[1]}")
        self._columns = column_names(X)
        y = by_name("Y", y, column_names(Y), self._columns, "X")
        if isinstance(X, Tensor) and isinstance(Y, Tensor) and X.device != Y.device:
            raise InvalidArgument(f"Y is on {Y.device} but X is on {X.device}; move one of them")
        for name, points in (("X", x), ("Y", y)):
            if len(points) < 2:
                raise InvalidArgument(f"{name} has {len(points)} sample; a distribution needs at least 2 points")
        dtype = torch.promote_types(x.dtype, y.dtype)
        return x.to(dtype), y.to(x.device, dtype)

    def _read(self, name: str, value: Any, *, reset: bool | None) -> Tensor:
        """A caller's points in the dtype that the map computes in; `reset` stores their width, False compares it."""
        points = read_points(name, value, precise=self._precise)
        if reset is not None:
            self._compare_width(value, points.shape[1], reset=reset)
        return points

    def _compare_width(self, X: Any, width: int, *, reset: bool) -> None:
        if not reset and width != self.n_features_in_:
            raise ShapeError(
                f"X has {width} features, but {type(self).__name__} is expecting {self.n_features_in_} features as "
                "input: the width of the points that it was fitted on"
            )
        try:
            validate_data(self, X, reset=reset, skip_check_array=True)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"X has columns that cannot be used: {error}") from None
        names = None if reset else column_names(X)
        if names is not None and self._columns is not None and names != self._columns:
            raise InvalidArgument(
                f"X has the columns {', '.join(names[:6])} ..., but the map was fitted on "
                f"{', '.join(self._columns[:6])} ..., in this order"
            )

    def _images(self, x: Tensor, condition: Any) -> Tensor:
        """The mapped points of points (n, d); maps with conditions override this."""
        if condition is not None:
            raise InvalidArgument(f"condition was given, but {type(self).__name__} learned one map for all")
        return self._in_blocks(x)

    def _in_blocks(self, x: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return torch.cat([self._transform(part) for part in x.split(self._rows)])

    @staticmethod
    def _like(given: Any, result: Tensor) -> Any:
        if isinstance(given, Tensor):
            return in_dtype("X", result, result_dtype(given)).to(given.device)
        dtype = getattr(given, "dtype", None)
        kept = dtype if isinstance(dtype, np.dtype) and dtype.kind == "f" else np.dtype(np.float64)
        fits = in_dtype("X", result, torch.float16) if kept.itemsize == 2 else result
        return like_input(fits, as_numpy=True).astype(kept, copy=False)


def score_images(images: Tensor, y: Tensor, cost: GroundCost, *, epsilon: float | None = None) -> float:
    """Minus the Sinkhorn divergence between mapped points and targets, (n, d) and (m, d).

    Its `epsilon` is in units of the cost; None is `SCORE_EPSILON` of the mean cost between the two.
    """
    images, y = images.to(torch.float64), y.to(images.device, torch.float64)
    return -float(sinkhorn_divergence(images, y, cost=cost, epsilon=epsilon, tol=SCORE_TOL))


def _some(points: Tensor, most: int = SCORED) -> Tensor:
    """At most `most` of the points, the same in every call."""
    if len(points) <= most:
        return points
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:most].to(points.device)]
