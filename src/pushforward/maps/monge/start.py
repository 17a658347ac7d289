"""The maps that a network starts from: linear ones, with a shift that depends on the condition linearly.

    T(x, c) = A x + b + D c

symbol   meaning                                                     shape
A, b     matrix and shift                                            (d, d), (d,)
D        what a condition adds to the shift                          (d, k)
c        a condition, the same for all points of a group             (k,)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pushforward.maps.linear import Affine, bures_map
from pushforward.maps.monge.conditions import Group

__all__ = ["identity_start", "known_conditions", "linear_start", "shifts_under"]

# Singular values below this share of the largest are the rounding of conditions, which are float32.
ROUNDING = 1e-5


def linear_start(groups: Sequence[Group]) -> tuple[Affine, Tensor]:
    """The Gaussian map, with one matrix for all conditions and a shift that depends on them linearly.

        A from the points about their own condition's means,   b + D c = mean y - A mean x, by least squares over groups

    Returns:
        A and b, and D, (d, k).
    """
    x, y = (
        torch.cat([points.double() - points.double().mean(0) for points in side])
        for side in ([group.x for group in groups], [group.y for group in groups])
    )
    matrix = bures_map(x, y).matrix
    shifts = shifts_under(matrix, groups)
    shift = shifts.mean(0)
    if groups[0].c is None:
        return Affine(matrix=matrix, shift=shift), matrix.new_zeros(len(matrix), 0)
    c = known_conditions(groups)
    centre = c.mean(0)  # so that, where groups are few, the least slope is taken about their mean
    drift = (torch.linalg.pinv(c - centre, rtol=ROUNDING) @ (shifts - shift)).T
    return Affine(matrix=matrix, shift=shift - drift @ centre), drift


def identity_start(group: Group) -> tuple[Affine, Tensor]:
    """The identity, and a D of 0."""
    d = group.x.shape[1]
    drift = torch.zeros(d, 0 if group.c is None else len(group.c))
    return Affine(matrix=torch.eye(d), shift=torch.zeros(d)), drift


def shifts_under(matrix: Tensor, groups: Sequence[Group]) -> Tensor:
    """Mean y - A mean x of each group, (n, d)."""
    return torch.stack([group.y.double().mean(0) - matrix @ group.x.double().mean(0) for group in groups])


def known_conditions(groups: Sequence[Group]) -> Tensor:
    """The conditions of groups that have one, (n, k)."""
    return torch.stack([group.c.double() for group in groups if group.c is not None])
