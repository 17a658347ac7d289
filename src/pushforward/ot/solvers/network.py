"""The network simplex in whole numbers: the last word on a plan that a floating-point program has nearly found.

Every finite float is a whole number over a power of two, so that the flows and the prices of a basis can be had
without any rounding. Weights over thirty orders of magnitude, or costs of 1e32 beside costs of 1, are then no harder
than others. With A_i = a_i sum b and B_j = b_j sum a the two sides have the same whole mass: the problem solved is
that of a and of b scaled to a's mass.

A basis is a spanning tree of the n + m nodes. Its flows x follow from the weights, its prices from f_i + g_j = C_ij
on its pairs; a pair with C_ij < f_i + g_j enters, and the pair on its cycle that is first emptied leaves. No basis
comes twice: every weight a_i is raised by an infinitesimal, one b by n of them (Orden), so that no flow is 0.

A forbidden pair costs more than any plan without one: where such a pair still carries mass at the end, no plan
avoids the forbidden pairs.

symbol         meaning                                                     shape
a, b           weights, all positive, as whole numbers of one unit         (n,) (m,)
f, g           prices, as whole numbers of 2^-1074, the least float        (n,) (m,)
node           i for row i, n + j for column j
row, col       a list of pairs                                             (k,)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree

from pushforward.ot.rationals import FINEST, ratio, whole
from pushforward.ot.solvers.pairs import Costs, Pairs, Prices

__all__ = ["Start", "Tree", "best_tree"]

# Pairs that are tried between two looks at all candidates.
TRIED = 200


@dataclass(frozen=True, slots=True)
class Start:
    """What a floating-point program found: where the network simplex begins.

    Args:
        row, col: Candidates for the plan's pairs, all allowed.
        mass: What it sent over each, (k,).
        prices: Its prices, or a guess of them.
    """

    row: np.ndarray
    col: np.ndarray
    mass: np.ndarray
    prices: Prices


class Tree:
    """A basis with its flows and prices, (see the module's table); it starts without any pair.

    Args:
        costs: What pairs cost.
        supply: a, then b, as whole numbers of equal sums.
    """

    def __init__(self, costs: Costs, supply: list[int]) -> None:
        self.costs = costs
        self.n, self.m = costs.shape
        nodes = self.n + self.m
        self.supply = supply
        self.near: list[set[int]] = [set() for _ in range(nodes)]
        self.flow: dict[tuple[int, int], int] = {}
        self.parent = [-1] * nodes
        self.price = [0] * nodes
        # The infinitesimal is 1 of these.
        self.unit = 1 << (self.n.bit_length() + 2)
        # More than any sum of costs on a path.
        self.forbidden = 1 << (FINEST + 1024 + nodes.bit_length() + 1)

    def cost(self, row: Iterable[int], col: Iterable[int]) -> list[int]:
        """The costs of pairs, as whole numbers of 2^-FINEST."""
        values = self.costs.at(np.asarray(row, np.intp), np.asarray(col, np.intp))
        allowed = np.isfinite(values)
        exact = whole(np.where(allowed, values, 0.0), FINEST)
        return [c if ok else self.forbidden for c, ok in zip(exact, allowed.tolist(), strict=True)]

    def join(self, i: int, j: int) -> None:
        """Make (i, j) a pair of the tree."""
        self.near[i].add(self.n + j)
        self.near[self.n + j].add(i)

    def root_at(self, root: int) -> None:
        """Orient the tree of the pairs in `near` towards a column, and find its flows and prices."""
        order, seen = [root], {root}
        for node in order:
            for other in self.near[node]:
                if other not in seen:
                    seen.add(other)
                    self.parent[other] = node
                    order.append(other)
        pairs = [self._pair(node, self.parent[node]) for node in order[1:]]
        for node, cost in zip(order[1:], self.cost(*zip(*pairs, strict=True)), strict=True):
            self.price[node] = cost - self.price[self.parent[node]]
        excess = [s * self.unit + 1 if k < self.n else -s * self.unit for k, s in enumerate(self.supply)]
        excess[root] -= self.n
        for node, pair in zip(reversed(order[1:]), reversed(pairs), strict=True):
            self.flow[pair] = excess[node] if node < self.n else -excess[node]
            excess[self.parent[node]] += excess[node]

    def _pair(self, u: int, v: int) -> tuple[int, int]:
        return (u, v - self.n) if u < self.n else (v, u - self.n)

    def enter(self, i: int, j: int, cost: int) -> bool:
        """Add the pair (i, j) if it lowers the cost of the plan; returns whether it did."""
        n = self.n
        gain = cost - self.price[i] - self.price[n + j]
        if gain >= 0:
            return False
        up_i, up_j = self._paths(i, n + j)
        # Round the cycle from i over j and up, then down again to i: pairs left by their column lose flow.
        lose = [self._pair(u, v) for u, v in zip(up_j, up_j[1:], strict=False) if u >= n]
        lose += [self._pair(u, v) for u, v in zip(up_i, up_i[1:], strict=False) if u < n]
        win = [self._pair(u, v) for u, v in zip(up_j, up_j[1:], strict=False) if u < n]
        win += [self._pair(u, v) for u, v in zip(up_i, up_i[1:], strict=False) if u >= n]
        leaving = min(lose, key=self.flow.__getitem__)
        sent = self.flow.pop(leaving)
        for pair in lose:
            if pair != leaving:
                self.flow[pair] -= sent
        for pair in win:
            self.flow[pair] += sent
        self.flow[i, j] = sent
        row, column = leaving[0], n + leaving[1]
        self.near[row].discard(column)
        self.near[column].discard(row)
        # The part that the leaving pair cuts off hangs itself to the other end of the entering one.
        below = row if self.parent[row] == column else column
        path, other = (up_j, i) if below in up_j[:-1] else (up_i, n + j)
        self._hang(path[: path.index(below) + 1], other, gain)
        self.join(i, j)
        return True

    def _paths(self, u: int, v: int) -> tuple[list[int], list[int]]:
        """The ways up from two nodes to where they meet, that node included."""
        up_u, up_v, seen_u, seen_v = [u], [v], {u}, {v}
        while True:
            for here, seen, there in ((up_u, seen_u, seen_v), (up_v, seen_v, seen_u)):
                if here[-1] in there:
                    top = here[-1]
                    return up_u[: up_u.index(top) + 1], up_v[: up_v.index(top) + 1]
                if (above := self.parent[here[-1]]) >= 0:
                    here.append(above)
                    seen.add(above)

    def _hang(self, path: list[int], other: int, gain: int) -> None:
        """Turn the path of a part that was cut off to its new parent, and shift the part's prices."""
        top = path[0]
        for node in path:
            self.parent[node], other = other, node
        shift = (gain, -gain) if top < self.n else (-gain, gain)
        stack = [top]
        while stack:
            node = stack.pop()
            self.price[node] += shift[node >= self.n]
            above = self.parent[node]
            stack += [below for below in self.near[node] if below != above]

    def prices(self) -> Prices:
        """The prices in floating point, with how many forbidden pairs each one counts."""
        level = [(p + self.forbidden // 2) // self.forbidden for p in self.price]
        one = 1 << FINEST
        value = [
            ratio(p - count * self.forbidden if count else p, one) for p, count in zip(self.price, level, strict=True)
        ]
        values, levels = np.array(value), np.array(level)
        n = self.n
        if not levels.any():
            return Prices(values[:n], values[n:])
        return Prices(values[:n], values[n:], levels[:n], levels[n:])

    def improve(self, row: np.ndarray, col: np.ndarray) -> None:
        """Bring pairs in until none of these is surely too cheap.

        Ties that rounding has parted are left alone: there can be thousands, and none of them moves the cost.
        """
        cost = self.costs.at(row, col)
        while True:
            prices = self.prices()
            reduced = prices.reduced(row, col, cost)
            worst = np.flatnonzero(reduced < -prices.error(row, col, cost))
            if len(worst) > TRIED:
                worst = worst[np.argpartition(reduced[worst], TRIED)[:TRIED]]
            if not self.take(*(x[worst[np.argsort(reduced[worst])]] for x in (row, col))):
                return

    def take(self, row: np.ndarray, col: np.ndarray) -> int:
        """Try to add pairs one after the other; returns the number that were added."""
        costs = self.cost(row, col)
        return sum(self.enter(i, j, c) for i, j, c in zip(row.tolist(), col.tolist(), costs, strict=True))

    def carried(self) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """The pairs that carry mass, and how much, in units of the supply."""
        half = self.unit // 2
        found = sorted((i, j, x) for (i, j), flow in self.flow.items() if (x := (flow + half) // self.unit))
        row, col, mass = zip(*found, strict=True)
        return np.array(row), np.array(col), list(mass)

    def calm_prices(self, pairs: Pairs) -> Prices:
        """Prices that prove the same, without the size of pairs that only join parts of the plan.

        Within a part that carries mass prices are fixed up to a constant. The constants start at 0 and fall until no
        pair is too cheap (Bellman and Ford): none is larger than what the plan itself pays along a path.

        Args:
            pairs: The pairs that carry mass.
        """
        n, m = self.n, self.m
        count, part = parts(*pairs, n, m)
        first = dict(zip(part[n:].tolist(), range(n, n + m), strict=True))
        base = [self.price[first[k]] for k in part.tolist()]
        one = 1 << FINEST
        f = np.array([ratio(p + c, one) for p, c in zip(self.price[:n], base[:n], strict=True)])
        g = np.array([ratio(p - c, one) for p, c in zip(self.price[n:], base[n:], strict=True)])
        turned = self.costs.transposed()
        for _ in range(count):
            fall = np.zeros(count)
            np.maximum.at(fall, part[n:], g - turned.row_prices(f))
            if not (fall > 4 * np.spacing(np.abs(f).max() + np.abs(g).max())).any():
                break
            f, g = f + fall[part[:n]], g - fall[part[n:]]
        return Prices(f, g)


def best_tree(costs: Costs, supply: list[int], start: Start) -> Tree:
    """A basis that no candidate pair improves, from what a floating-point program found."""
    tree = Tree(costs, supply)
    root = _connect(tree, start, _fill(costs, supply, start))
    tree.root_at(root)
    tree.improve(start.row, start.col)
    return tree


def _fill(costs: Costs, supply: list[int], start: Start) -> list[tuple[int, int]]:
    """The pairs of a feasible plan that follows the start's where it can: every pair empties one of its nodes."""
    n, m = costs.shape
    left = list(supply)
    pairs: list[tuple[int, int]] = []

    def send(i: int, j: int) -> None:
        if amount := min(left[i], left[n + j]):
            left[i] -= amount
            left[n + j] -= amount
            pairs.append((i, j))

    for i, j in _leaves_first(start, n, m):
        send(i, j)
    # What is left goes by the reduced costs, then by the order of the prices.
    some = np.array([x > 0 for x in left])
    open_pairs = np.flatnonzero(some[start.row] & some[n + start.col])
    row, col = start.row[open_pairs], start.col[open_pairs]
    cheapest = np.argsort(start.prices.reduced(row, col, costs.at(row, col)), kind="stable")
    for i, j in zip(row[cheapest].tolist(), col[cheapest].tolist(), strict=True):
        send(i, j)
    rows = [i for i in np.argsort(start.prices.f, kind="stable").tolist() if left[i]]
    cols = [j for j in np.argsort(start.prices.g, kind="stable").tolist() if left[n + j]]
    at = 0
    for i in rows:
        while left[i]:
            send(i, cols[at])
            at += left[n + cols[at]] == 0
    return pairs


def _leaves_first(start: Start, n: int, m: int) -> Iterator[tuple[int, int]]:
    """The pairs of the heaviest forest among those used, each when one of its nodes has no other pair left."""
    used = np.flatnonzero(start.mass > 0)
    # By rank: a spanning tree's weights must not underflow.
    rank = np.empty(len(used))
    rank[np.argsort(-start.mass[used], kind="stable")] = np.arange(1.0, len(used) + 1)
    graph = sparse.coo_array((rank, (start.row[used], n + start.col[used])), shape=(n + m, n + m))
    forest = minimum_spanning_tree(graph.tocsr()).tocoo()
    near: list[set[int]] = [set() for _ in range(n + m)]
    for i, j in zip(forest.row.tolist(), forest.col.tolist(), strict=True):
        near[i].add(j)
        near[j].add(i)
    leaves = [node for node in range(n + m) if len(near[node]) == 1]
    for leaf in leaves:
        if near[leaf]:
            other = near[leaf].pop()
            near[other].discard(leaf)
            yield (leaf, other - n) if leaf < n else (other, leaf - n)
            if len(near[other]) == 1:
                leaves.append(other)


def _connect(tree: Tree, start: Start, pairs: list[tuple[int, int]]) -> int:
    """Make the pairs of a plan a spanning tree, and give the column at its root.

    Each of the plan's parts sends its infinitesimals along a shortest way, in reduced costs, to the largest part.
    """
    n, m = tree.n, tree.m
    for i, j in pairs:
        tree.join(i, j)
    count, part = parts(np.array([i for i, _ in pairs]), np.array([j for _, j in pairs]), n, m)
    largest = int(np.bincount(part).argmax())
    root = int(np.flatnonzero(part[n:] == largest)[0])
    if count > 1:
        row_of = dict(zip(part[:n].tolist(), range(n), strict=True))
        ways = _ways(tree, start, part, largest)
        for k in range(count):
            if k != largest:
                tree.join(*ways.get(k, (row_of[k], root)))
    return n + root


def parts(row: np.ndarray, col: np.ndarray, n: int, m: int) -> tuple[int, np.ndarray]:
    """The number of connected parts that the pairs make, and the part of each node, (n + m,)."""
    graph = sparse.coo_array((np.ones(len(row)), (row, n + col)), shape=(n + m, n + m))
    return connected_components(graph, directed=False)


def _ways(tree: Tree, start: Start, part: np.ndarray, largest: int) -> dict[int, tuple[int, int]]:
    """The pair by which each part leaves on its shortest way to the largest, for those that candidates lead there."""
    source, target = part[start.row], part[tree.n + start.col]
    cost = start.prices.reduced(start.row, start.col, tree.costs.at(start.row, start.col)).clip(0.0, 1e300)
    order = np.lexsort((cost, source, target))
    source, target = source[order], target[order]
    first = source != target
    first[1:] &= (np.diff(source) != 0) | (np.diff(target) != 0)
    source, target, pair = source[first], target[first], order[first]
    # Backwards, from the largest part on; scipy would read a length of 0 as no way at all.
    back = sparse.csr_array((cost[pair] + np.finfo(float).tiny, (target, source)), shape=(part.max() + 1,) * 2)
    _, before = dijkstra(back, indices=largest, return_predecessors=True)
    leads = before[source] == target
    chosen = zip(source[leads].tolist(), start.row[pair[leads]].tolist(), start.col[pair[leads]].tolist(), strict=True)
    return {k: (i, j) for k, i, j in chosen}
