"""The checks of point sets that all metrics share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pushforward._checks import check_points, check_same_device
from pushforward.errors import ShapeError

__all__ = ["clouds", "rows_alike"]


def clouds(*named: tuple[str, Any]) -> tuple[Tensor, ...]:
    """Point sets of one dimension, checked, in computing precision, without gradients."""
    (first, value), *others = named
    tensors = [check_points(first, value).detach()]
    for name, other in others:
        tensors.append(check_points(name, other, None if isinstance(other, Tensor) else tensors[0].device).detach())
        if tensors[-1].shape[1] != tensors[0].shape[1]:
            raise ShapeError(
                f"{name} has points of dimension {tensors[-1].shape[1]} but {first} of dimension {tensors[0].shape[1]}"
            )
    check_same_device(*((name, tensor) for (name, _), tensor in zip(named, tensors, strict=True)))
    return tuple(tensors)


def rows_alike(*named: tuple[str, Any]) -> tuple[Tensor, ...]:
    """Point sets of which row i of one belongs to row i of the others."""
    tensors = clouds(*named)
    for (name, _), tensor in zip(named, tensors, strict=True):
        if len(tensor) != len(tensors[0]):
            raise ShapeError(
                f"{name} has {len(tensor)} points but {named[0][0]} has {len(tensors[0])}; they go together row by row"
            )
    return tensors
