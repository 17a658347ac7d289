"""Conditions as numbers that a network reads, and the groups that they make."""

import numpy as np
import pytest
import torch

from pushforward.errors import InvalidArgument
from pushforward.maps.monge.conditions import Conditions, groups_of, read_sides

X, Y = torch.arange(6.0)[:, None], 10 + torch.arange(4.0)[:, None]


def test_numbers_are_standardised_over_conditions_not_points():
    c = Conditions.of(np.array([[0.0], [0.0], [0.0], [4.0]])).encode(np.array([[0.0], [2.0], [4.0]]))
    assert c.flatten().tolist() == [-1.0, 0.0, 1.0]


def test_a_coordinate_that_varies_by_its_rounding_is_not_blown_up():
    values = np.array([[0.7 * (1 + 1e-12 * dose), dose] for dose in range(7)])
    assert float(Conditions.of(values).encode(values + 0.1).abs().max()) < 2.0


def test_groups_that_no_map_reads():
    of_x, of_y = read_sides("groups", np.array(["a", "b"] * 3), ["b", "b", "a", "a"], X, Y)
    groups = groups_of(X, Y, of_x, of_y, None)
    assert [(g.name, g.c, g.x.flatten().tolist(), g.y.flatten().tolist()) for g in groups] == [
        ("a", None, [0, 2, 4], [12, 13]),
        ("b", None, [1, 3, 5], [10, 11]),
    ]
    with pytest.raises(InvalidArgument, match="group a has 1 points in Y; each group needs at least 2"):
        groups_of(X, Y, of_x, np.array(["b", "b", "b", "a"]), None)


def test_sides_of_two_kinds_are_named():
    with pytest.raises(InvalidArgument, match="groups of X is strings but of Y 1 numbers a point"):
        read_sides("groups", ["a"] * 6, [0.0] * 4, X, Y)
    of_x, of_y = read_sides("groups", ["long"] * 6, ["b"] * 4, X, Y)  # of whatever length
    assert (of_x[0], of_y[0]) == ("long", "b")
