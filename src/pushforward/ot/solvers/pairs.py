"""The costs of pairs in the form that `exact` takes them: a whole matrix, or a list of the allowed pairs alone.

symbol     meaning                                                  shape
C          cost; +inf forbids a pair                                (n, m)
f, g       prices of the rows and of the columns                    (n,) (m,)
reduced    C_ij - f_i - g_j, negative where a pair is too cheap     (k,)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["Costs", "DenseCosts", "Pairs", "Prices", "SparseCosts"]

# Numbers of one block of rows: 1 MB stays in a core's L2.
BLOCK = 1 << 17
# Pairs of a row that are added at once.
WORST = 5
# A reduced cost of three numbers is computed to within this share of their sizes.
ROUNDING = 2.0**-51

Pairs = tuple[np.ndarray, np.ndarray]
Index = Any


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices f and g; where the cost of forbidden pairs is part of them, the levels say how many times."""

    f: np.ndarray
    g: np.ndarray
    level_f: np.ndarray | None = None
    level_g: np.ndarray | None = None

    def reduced(self, row: Index, col: Index, cost: np.ndarray) -> np.ndarray:
        """C_ij - f_i - g_j, rounded; of pairs, or of all in some rows (row with a second axis, col a slice)."""
        found = (cost - self.f[row]) - self.g[col]
        if self.level_f is None or self.level_g is None:
            return found
        level = self.level_f[row] + self.level_g[col]
        found = np.where(level == 0, found, np.where(level > 0, -np.inf, np.inf))
        return np.where(cost == np.inf, np.inf, found)

    def error(self, row: Index, col: Index, cost: np.ndarray) -> np.ndarray:
        """A bound on the rounding of reduced costs."""
        return ROUNDING * (np.where(np.isinf(cost), 0.0, np.abs(cost)) + np.abs(self.f[row]) + np.abs(self.g[col]))


class Costs(Protocol):
    """The costs in the form that `exact` works with."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the costs, (n, m)."""
        ...

    def at(self, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """The costs of these pairs, +inf where they are forbidden."""
        ...

    def row_prices(self, g: np.ndarray) -> np.ndarray:
        """The highest floats f with f_i + g_j <= C_ij in exact arithmetic; inf for a row without an allowed pair."""
        ...

    def too_cheap(self, prices: Prices, *, doubtful: bool = False) -> Pairs:
        """Pairs with a reduced cost below 0: the worst of every row, or all that rounding may hide."""
        ...

    def transposed(self) -> Costs:
        """The costs with rows and columns exchanged."""
        ...


@dataclass(frozen=True, slots=True)
class DenseCosts:
    """The costs as a matrix, (n, m)."""

    matrix: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the costs, (n, m)."""
        n, m = self.matrix.shape
        return n, m

    def at(self, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """The costs of these pairs, +inf where they are forbidden."""
        return self.matrix[row, col]

    def select(self, rows: np.ndarray, cols: np.ndarray) -> DenseCosts:
        """The costs of some rows and columns, given by their ascending indices."""
        full = (len(rows), len(cols)) == self.shape
        return self if full else DenseCosts(self.matrix[np.ix_(rows, cols)])

    def transposed(self) -> DenseCosts:
        """The costs with rows and columns exchanged."""
        return DenseCosts(self.matrix.T)

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        n, m = self.shape
        step = max(1, BLOCK // m)
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            yield part, self.matrix[part]

    def row_prices(self, g: np.ndarray) -> np.ndarray:
        """The highest floats f with f_i + g_j <= C_ij in exact arithmetic; inf for a row without an allowed pair."""
        f = np.empty(self.shape[0])
        for part, cost in self._blocks():
            left = cost - g
            lowest = left.min(1)
            row, col = np.nonzero(left == lowest[:, None])
            f[part] = _rounded_down(lowest, row, cost[row, col], g[col])
        return f

    def too_cheap(self, prices: Prices, *, doubtful: bool = False) -> Pairs:
        """Pairs with a reduced cost below 0: the worst of every row, or all that rounding may hide."""
        rows, cols = [], []
        for part, cost in self._blocks():
            reduced = prices.reduced((part, None), slice(None), cost)
            if doubtful:
                i, j = np.nonzero(reduced <= prices.error((part, None), slice(None), cost))
            else:
                bad = np.flatnonzero(reduced.min(1) < 0)
                some = min(WORST, self.shape[1])
                j = np.argpartition(reduced[bad], some - 1, axis=1)[:, :some].reshape(-1)
                i = np.repeat(bad, some)
            rows.append(i + part.start)
            cols.append(j)
        row, col = np.concatenate(rows), np.concatenate(cols)
        return (row, col) if doubtful else _surely_too_cheap(row, col, self.matrix[row, col], prices)


@dataclass(frozen=True, slots=True)
class SparseCosts:
    """A list of the allowed pairs, sorted by rows.

    Args:
        row, col, cost: The pairs, in row-major order, and what they cost, (k,).
        shape: (n, m).
    """

    row: np.ndarray
    col: np.ndarray
    cost: np.ndarray
    shape: tuple[int, int]

    def at(self, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """The costs of these pairs, +inf where they are forbidden."""
        where = self.find(row, col)
        return np.where((self.row[where] == row) & (self.col[where] == col), self.cost[where], np.inf)

    def find(self, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """Where allowed pairs stand in the list."""
        keys, asked = self.row * self.shape[1] + self.col, row * self.shape[1] + col
        return np.searchsorted(keys, asked).clip(max=len(keys) - 1)

    def select(self, rows: np.ndarray, cols: np.ndarray) -> SparseCosts:
        """The costs of some rows and columns, given by their ascending indices."""
        place_row, place_col = np.full(self.shape[0], -1), np.full(self.shape[1], -1)
        place_row[rows], place_col[cols] = np.arange(len(rows)), np.arange(len(cols))
        row, col = place_row[self.row], place_col[self.col]
        kept = (row >= 0) & (col >= 0)
        return SparseCosts(row[kept], col[kept], self.cost[kept], (len(rows), len(cols)))

    def transposed(self) -> SparseCosts:
        """The costs with rows and columns exchanged."""
        order = np.lexsort((self.row, self.col))
        return SparseCosts(self.col[order], self.row[order], self.cost[order], (self.shape[1], self.shape[0]))

    def row_prices(self, g: np.ndarray) -> np.ndarray:
        """The highest floats f with f_i + g_j <= C_ij in exact arithmetic; inf for a row without an allowed pair."""
        left = self.cost - g[self.col]
        lowest = np.full(self.shape[0], np.inf)
        np.minimum.at(lowest, self.row, left)
        near = left == lowest[self.row]
        return _rounded_down(lowest, self.row[near], self.cost[near], g[self.col[near]])

    def too_cheap(self, prices: Prices, *, doubtful: bool = False) -> Pairs:
        """Pairs with a reduced cost below 0: all of them, or all that rounding may hide."""
        if doubtful:
            reduced = prices.reduced(self.row, self.col, self.cost)
            found = reduced <= prices.error(self.row, self.col, self.cost)
            return self.row[found], self.col[found]
        return _surely_too_cheap(self.row, self.col, self.cost, prices)


def _surely_too_cheap(row: np.ndarray, col: np.ndarray, cost: np.ndarray, prices: Prices) -> Pairs:
    found = prices.reduced(row, col, cost) < -prices.error(row, col, cost)
    return row[found], col[found]


def _rounded_down(lowest: np.ndarray, row: np.ndarray, cost: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Minima of rounded differences C_ij - g_j, made lower where a difference was rounded up.

    Args:
        lowest: The minima, (n,).
        row, cost, g: The pairs that reach them.
    """
    # What rounding took from a difference (Knuth, the art of computer programming 4.2.2), itself without rounding.
    left = cost - g
    taken = cost - left
    error = (cost - (left + taken)) + (taken - g)
    high = np.unique(row[~(error >= 0)])
    lowest[high] = np.nextafter(lowest[high], -np.inf)
    return lowest
