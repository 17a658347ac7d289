"""What `typed` takes, refuses, and hands on to the function."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from pushforward._typed import typed
from pushforward.errors import InvalidArgument


@dataclass(frozen=True)
class Square:
    side: int


@dataclass(frozen=True)
class Circle:
    radius: int


Shape = Square | Circle


@typed
def number(count: int, share: float, *rest: object, seed: int = 0) -> tuple[object, ...]:
    return count, share, rest, seed


@typed
def drawn(shape: Shape | None = None) -> object:
    return shape


@pytest.mark.parametrize("share", [Fraction(1, 2), Decimal("0.5"), torch.tensor(0.5)], ids=type)
@pytest.mark.parametrize("count", [np.int64(3), np.array(3), torch.tensor(3)], ids=type)
def test_numbers_of_other_libraries_arrive_as_pythons(count: int, share: float):
    given = number(count, share, "more", seed=count)
    assert given == (3, 0.5, ("more",), 3)
    assert [type(part) for part in given] == [int, float, tuple, int]


def test_numbers_of_python_stay_as_they_are_and_gradients_are_kept():
    assert type(number(3, 1)[1]) is int  # a record of a run's settings tells 1 from 1.0
    share = torch.tensor(0.5, requires_grad=True)
    assert number(3, share)[1] is share  # pyright: ignore[reportArgumentType]


def test_a_seed_is_not_negative():
    assert number(-1, 0.0)[0] == -1
    with pytest.raises(InvalidArgument, match="seed must be an integer of at least 0, got -1"):
        number(1, 0.0, seed=-1)


def test_one_of_several_classes_is_needed():
    assert drawn(Circle(1)) == Circle(1)
    assert drawn(None) is None
    with pytest.raises(InvalidArgument, match="shape must be a Square or a Circle, got a int: 3"):
        drawn(3)  # pyright: ignore[reportArgumentType]
