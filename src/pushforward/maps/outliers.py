"""Rows so far from all others that they alone would set the scale of a map.

    r_i = |x_i - m|,   q = the 9/10 quantile of r        far:   r_i > 20 q, where such rows hold 2/3 of sum r^2

symbol   meaning                                              shape    unit
m        median of each coordinate                            (d,)     length
r        distance of each point from it                       (n,)     length

Maps measure everything by the data's own scale: the regularisation by the mean cost, a linear map and a network by the
variance. One point at 10,000 times the spread of all others is most of either, and every image then falls on one point.
Scales are therefore those of the other rows: a map is fitted without its far rows, and a warning names them. More than
five of them, and 1 % of all, that lie together are a group of points that may well be meant: they are kept, and the
warning says so.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Outliers", "find_outliers", "without_outliers"]

FAR, SHARE = 20.0, 2 / 3
QUANTILE = 0.9
# Fewer points than this have no tenth to be beyond.
FEWEST = 10
# So many far rows, and so large a share of all, are a group where they lie together.
GROUP, GROUP_SHARE = 5, 0.01
# The median is taken over at most so many rows; with more far rows than the second number, groups are not searched.
MEDIAN_OF, MOST_COMPARED = 4096, 2048
BLOCK = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class Outliers:
    """Far rows of a sample.

    Args:
        rows: Their indices, (k,).
        grouped: Whether they lie together, more of them than chance would put there, (k,).
        factor: How many times farther from the median than nine tenths of the rows the farthest is.
        count: Rows of the sample.
    """

    rows: Tensor
    grouped: Tensor
    factor: float
    count: int

    def sentence(self, name: str, *, kept: bool) -> str:
        """The warning about the rows that are left out, or about those that are kept."""
        rows = self.rows[self.grouped == kept].tolist()
        it, named = ("them", "rows") if len(rows) > 1 else ("it", "row")
        text = (
            f"{name} has {len(rows)} of {self.count} rows far from all others: {named} {', '.join(map(str, rows[:5]))}"
            f"{' and others' if len(rows) > 5 else ''}, up to {self.factor:.3g} times as far from the median as nine "
            "tenths of the points. "
        )
        if kept:
            return text + (
                "They lie together, so they are taken for a group and kept; they set the scale of the map, and the "
                "others may be drawn together. If they are errors, leave them out"
            )
        return text + (
            f"The map is fitted without {it}, whose distance would set its scale. If such points are meant, transform "
            "the coordinates first, by a logarithm for instance"
        )


def find_outliers(points: Tensor) -> Outliers | None:
    """The far rows of points (n, d), or None where there are none.

    Example:
        >>> x = torch.cat([torch.linspace(-1, 1, 40)[:, None], torch.tensor([[1e4]])])
        >>> find_outliers(x).rows
        tensor([40])
        >>> find_outliers(x[:40])
    """
    if len(points) < FEWEST:
        return None
    median = points[:: -(-len(points) // MEDIAN_OF)].double().median(0).values
    r = torch.cat([torch.linalg.vector_norm(part.double() - median, dim=1) for part in points.split(BLOCK)])
    usual = float(r.kthvalue(max(1, int(QUANTILE * len(r)))).values)
    far = r > FAR * usual
    squares = (r / r.max().clamp_min(torch.finfo(r.dtype).tiny)).square()
    if usual == 0 or not bool(far.any()) or float(squares[far].sum()) <= SHARE * float(squares.sum()):
        return None
    rows = far.nonzero()[:, 0]
    least = max(GROUP, GROUP_SHARE * len(points))
    if len(rows) <= least:
        grouped = torch.zeros_like(rows, dtype=torch.bool)
    elif len(rows) > MOST_COMPARED:
        grouped = torch.ones_like(rows, dtype=torch.bool)
    else:
        apart = torch.cdist(points[rows].double(), points[rows].double())
        grouped = (apart < FAR * usual).sum(1) > least
    return Outliers(rows=rows.cpu(), grouped=grouped.cpu(), factor=float(r.max()) / usual, count=len(points))


def without_outliers(name: str, points: Tensor) -> Tensor:
    """Which rows a map is fitted on, (n,) booleans; a warning names those that it is not, and far groups that it is."""
    kept = torch.ones(len(points), dtype=torch.bool, device=points.device)
    found = find_outliers(points)
    if found is None:
        return kept
    for grouped in (False, True):
        if bool((found.grouped == grouped).any()):
            warnings.warn(found.sentence(name, kept=grouped), stacklevel=3)
    kept[found.rows[~found.grouped].to(points.device)] = False
    return kept
