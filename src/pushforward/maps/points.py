"""A caller's points as tensors: what is taken, what is refused by name, and which columns belong together.

taken      numpy arrays, tensors, lists of rows, data frames: real and finite numbers, (n, d)
refused    whatever else, with the argument's name and the way out: AnnData, sparse and backed matrices, lists of
           clouds, text, dates, masked entries, tensors without numbers

Columns that have names are paired by their names, those without by their position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array
from torch import Tensor

from pushforward._interop import check_numbers, result_dtype
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError

__all__ = ["by_name", "column_names", "in_dtype", "read_points", "same_rows"]

# Names that a message lists.
_MOST_NAMED = 6
# Between these, squared lengths can be summed and divided in the dtype without overflow or loss; float64 statistics
# take squares of squares.
_SAFE = {torch.float32: (1e-16, 1e16), torch.float64: (1e-70, 1e70)}


class _WrongKind(InvalidArgument, TypeError):
    """Something that is no numbers: an `InvalidArgument`, and the TypeError that scikit-learn's contract asks for."""


def read_points(name: str, value: Any, *, precise: bool) -> Tensor:
    """Points (n, d) in the dtype that a map computes in, finite.

    Args:
        name: The argument's name, for the messages.
        value: What the caller passed.
        precise: Whether float64 is kept; otherwise everything becomes float32.

    Raises:
        InvalidArgument: They are no points; the message names the argument and says what would do.
    """
    points = _tensor(name, value) if isinstance(value, Tensor) else torch.from_numpy(_array(name, value))
    # Integers count as float64, and half precision as float32, which is the least that a map is computed in.
    own = result_dtype(points)
    return _checked(name, points.to(own if precise and own.itemsize > 4 else torch.float32))


def in_dtype(name: str, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Images in the caller's dtype, which must be wide enough for them.

    Raises:
        NonFiniteError: They overflow in it.
    """
    cast = images.to(dtype)
    if dtype.itemsize < images.dtype.itemsize and not bool(torch.isfinite(cast).all()):
        raise NonFiniteError(
            f"{name} is {str(dtype).removeprefix('torch.')}, which cannot hold its images: they go up to "
            f"{float(images.abs().max()):.3g}. Pass {name} in a wider dtype"
        )
    return cast


def column_names(value: Any) -> tuple[str, ...] | None:
    """A data frame's column names, as text; None for what has none, such as arrays and frames numbered from 0."""
    labels = None if isinstance(value, Tensor | np.ndarray) else getattr(value, "columns", None)
    if labels is None or callable(labels):
        return None
    names = list(labels)
    return None if names == list(range(len(names))) else tuple(map(str, names))


def by_name(name: str, points: Any, names: Sequence[str] | None, wanted: Sequence[str] | None, whose: str) -> Any:
    """Columns in the order of those they belong to, where both sides have names; else as they are.

    Args:
        name: The argument's name, for the message.
        points: (n, d), a tensor or an array.
        names: The names of its columns, or None.
        wanted: Names in the order that is needed, or None.
        whose: What has them in that order, for the message.

    Raises:
        InvalidArgument: The names are not the same, or in another order with one of them twice.
    """
    if names is None or wanted is None or tuple(names) == tuple(wanted):
        return points
    lacks, extra = ([n for n in one if n not in set(other)] for one, other in ((wanted, names), (names, wanted)))
    if lacks or extra:
        parts = [f"{verb} {_listed(found)}" for verb, found in (("lacks", lacks), ("has also", extra)) if found]
        raise InvalidArgument(f"{name} must have the columns of {whose}, but {' and '.join(parts)}")
    if len(set(names)) < len(names) or len(names) != len(wanted):
        raise InvalidArgument(f"{name} has columns of one name, in another order than {whose}; rename them")
    place = {column: k for k, column in enumerate(names)}
    return points[:, [place[column] for column in wanted]]


def same_rows(name: str, value: Any, points_name: str, points: Any) -> None:
    """A frame beside the points must have the points' own index, where both have one that says something.

    Raises:
        InvalidArgument: They have the labels of other rows, or of the same rows in another order.
    """
    one, other = _index(value), _index(points)
    if one is not None and other is not None and len(one) == len(other) and one != other:
        how = "in another order" if sorted(map(str, one)) == sorted(map(str, other)) else "of other rows"
        raise InvalidArgument(
            f"{name} has row labels {how} than {points_name}'s: row {_first_difference(one, other)} is not of the same "
            f"point. Pass {name}.loc[{points_name}.index], or {name}.to_numpy() if they belong together by position"
        )


def _index(value: Any) -> list[Any] | None:
    index = None if isinstance(value, Tensor | np.ndarray | list | tuple) else getattr(value, "index", None)
    if index is None or callable(index):
        return None
    labels = list(index)
    return None if labels == list(range(len(labels))) else labels


def _first_difference(one: list[Any], other: list[Any]) -> int:
    return next(k for k, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)


def _tensor(name: str, value: Tensor) -> Tensor:
    check_numbers(name, value)
    if value.ndim != 2 or 0 in value.shape:
        raise ShapeError(f"{name} has shape {tuple(value.shape)}; points are needed, as (how many, dimension)")
    if value.layout is not torch.strided:
        raise InvalidArgument(f"{name} is a sparse tensor; pass {name}.to_dense()")
    return value.detach()


def _array(name: str, value: Any) -> np.ndarray:
    _refuse_by_kind(name, value)
    try:
        array = check_array(value, ensure_all_finite=False, input_name=name)
    except TypeError as error:
        raise _WrongKind(f"{name} cannot be used as points: {error}") from None
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise InvalidArgument(f"{name} cannot be used as points: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InvalidArgument(
            f"{name} has dtype {array.dtype}; real numbers are needed. Of dates take the time since one of them, as "
            "(dates - dates.min()) / np.timedelta64(1, 'D')"
        )
    long = array.dtype.kind == "f" and array.dtype.itemsize > 8  # torch has no longer floats
    return np.array(array, dtype=np.float64 if long else array.dtype.newbyteorder("="))


def _refuse_by_kind(name: str, value: Any) -> None:
    """Things that hold points, but of which it is not plain which, or that would be read for something else."""
    kind, module = type(value).__name__, type(value).__module__
    if hasattr(value, "obs") and hasattr(value, "var_names"):
        raise InvalidArgument(
            f"{name} is an {kind}; pass its numbers: {name}.obsm['X_pca'], or {name}.to_df() for genes by name"
        )
    if module.startswith("anndata"):
        raise InvalidArgument(
            f"{name} is a matrix on disk ({kind}); read it with {name}.to_memory(), and make it dense"
        )
    if isinstance(value, np.ma.MaskedArray) and bool(np.ma.getmaskarray(value).any()):
        raise InvalidArgument(f"{name} is a masked array with masked entries; fill them in, or leave their rows out")
    if isinstance(value, list | tuple) and any(getattr(item, "ndim", 0) >= 2 for item in value):
        raise InvalidArgument(
            f"{name} is a list of {len(value)} arrays, but a map takes one sample of one distribution, (n, d). Put "
            "them into one array; which rows belong together, MongeMap takes as condition= or groups="
        )


def _checked(name: str, points: Tensor) -> Tensor:
    bad = ~torch.isfinite(points).all(1)
    if bool(bad.any()):
        rows = bad.nonzero()[:, 0]
        raise NonFiniteError(
            f"{name} has {len(rows)} of {len(points)} rows with a NaN, an infinity or a number beyond {points.dtype}, "
            f"the first of them row {int(rows[0])}; leave those points out or fill in what they lack"
        )
    largest, (least, most) = float(points.abs().max()), _SAFE[points.dtype]
    if largest > most or 0 < largest < least:
        dtype = str(points.dtype).removeprefix("torch.")
        raise InvalidArgument(
            f"{name} has coordinates up to {largest:.3g}, whose squares {dtype} cannot hold, which this map computes "
            "in. Change the unit: divide the points of both distributions by one number"
        )
    return points


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (f" and {rest} more" if rest > 0 else "")
