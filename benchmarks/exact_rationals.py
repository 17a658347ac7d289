"""Whether `exact` is right to the last digit: 1,000 problems, every answer checked in rational arithmetic.

    python benchmarks/exact_rationals.py [--problems 1000] [--out FILE]

The problem that is checked is that of the floats given, as the rational numbers that they are, b scaled to a's mass.
Problems have 1 to 40 atoms a side (bells of 60 to 120); an optimum exists for each of them. Of every answer:

above          cost - gap is above the optimum: f_i + g_j > C_ij for some pair, or cost - gap > <f, a> + <g, b> (which
               is then a lower bound of the optimum), or, for bells, above the optimum of the monotone plan
marginals      a row or column sum of the plan is off by more than 2^-50 of the weight
cost           cost is off by more than 2^-50 of what <P, |C|> pays
loose          the gap is over 1e-12 of what the plan pays, and over 1e-12 of the prices
infeasible     InfeasibleError, or another one

Families: bells on a line (l1 and squared), random costs and weights, tied costs (whole numbers), uniform weights of
unequal sides, weights from 1 to 1e-30, costs up to 1e32 for pairs that a plan can avoid and for some that it cannot,
forbidden pairs (dense, and as a sparse matrix), clouds with outliers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.sparse
from lib import RESULTS, conditions, parsed, say, write_json
from measure import TOLERANCE
from numpy.typing import NDArray

Array = NDArray[np.float64]
Case = tuple[Any, Array, Array]
NEAR, LOOSE = Fraction(1, 2**50), 1e-12
FAULTS = ("above", "marginals", "cost", "loose", "infeasible")


def sides(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(1, 41)), int(rng.integers(1, 41))


def bells(rng: np.random.Generator) -> Case:
    n, power = int(rng.integers(60, 121)), int(rng.integers(1, 3))
    grid = np.arange(n)
    weights = [np.exp(-((grid - rng.uniform(0, n)) ** 2) / (2 * rng.uniform(0.7, n / 6) ** 2)) for _ in range(2)]
    a, b = (w / w.sum() for w in weights)
    return np.abs(np.subtract.outer(grid, grid)).astype(float) ** power, a, b


def random(rng: np.random.Generator) -> Case:
    n, m = sides(rng)
    return rng.normal(size=(n, m)), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def ties(rng: np.random.Generator) -> Case:
    n, m = sides(rng)
    return rng.integers(0, 4, (n, m)).astype(float), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def uniform(rng: np.random.Generator) -> Case:
    n, m = sides(rng)
    return rng.random((n, m)), np.full(n, 1 / n), np.full(m, 1 / m)


def tails(rng: np.random.Generator) -> Case:
    n, m = sides(rng)
    a, b = (10.0 ** -rng.uniform(0, 30, k) for k in (n, m))
    return rng.random((n, m)), a / a.sum(), b / b.sum()


def avoidable(rng: np.random.Generator) -> Case:
    cost, a, b = forbidden(rng)
    return np.where(np.isinf(cost), 10.0 ** rng.uniform(6, 32), cost), a, b


def heavy(rng: np.random.Generator) -> Case:
    n, m = sides(rng)
    return 10.0 ** rng.uniform(-4, 20, (n, m)), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


def forbidden(rng: np.random.Generator) -> Case:
    """Weights are the sums of a plan on the allowed pairs, so that one exists but for rounding."""
    n, m = sides(rng)
    allowed = rng.random((n, m)) < rng.uniform(0.1, 0.9)
    allowed[np.arange(max(n, m)) % n, np.arange(max(n, m)) % m] = True
    plan = np.where(allowed, rng.random((n, m)), 0.0)
    plan /= plan.sum()
    return np.where(allowed, rng.random((n, m)), np.inf), plan.sum(1), plan.sum(0)


def listed(rng: np.random.Generator) -> Case:
    cost, a, b = forbidden(rng)
    row, col = np.nonzero(np.isfinite(cost))
    return scipy.sparse.coo_array((cost[row, col], (row, col)), shape=cost.shape), a, b


def outliers(rng: np.random.Generator) -> Case:
    n, m = sides(rng)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    x[0] *= 10.0 ** rng.uniform(0, 6)
    weights = rng.dirichlet(np.full(n, 0.1))
    return ((x[:, None] - y) ** 2).sum(-1), weights, np.full(m, weights.sum() / m)


FAMILIES = (bells, random, ties, uniform, tails, avoidable, heavy, forbidden, listed, outliers)


def rational(values: Array) -> list[Fraction]:
    return [Fraction(v) for v in values.tolist()]


def monotone(cost: Array, a: list[Fraction], b: list[Fraction]) -> Fraction:
    """The optimum on a line, by the plan that keeps order."""
    left, right, total = list(a), list(b), Fraction(0)
    i = j = 0
    while i < len(left) and j < len(right):
        sent = min(left[i], right[j])
        total += sent * Fraction(float(cost[i, j]))
        left[i] -= sent
        right[j] -= sent
        i, j = i + (left[i] == 0), j + (right[j] == 0)
    return total


def faults(case: Case, family: str) -> Iterator[str]:
    """What is wrong with the answer to one problem."""
    import pushforward

    cost, weights_a, weights_b = case
    try:
        sol = pushforward.exact(cost, weights_a, weights_b)
    except pushforward.errors.InvalidArgument:
        raise
    except pushforward.errors.NotConverged:  # of which InfeasibleError is a kind
        yield "infeasible"
        return
    dense = cost if isinstance(cost, np.ndarray) else np.full(cost.shape, np.inf)
    if dense is not cost:
        dense[cost.row, cost.col] = cost.data
    a, b = rational(weights_a), rational(weights_b)
    scale = sum(a) / sum(b)
    b = [v * scale for v in b]
    f, g, bound = rational(sol.f), rational(sol.g), Fraction(sol.cost) - Fraction(sol.gap)
    cheap = any(
        f[i] + g[j] > Fraction(float(dense[i, j])) for i, j in zip(*np.nonzero(np.isfinite(dense)), strict=True)
    )
    dual = sum(x * y for x, y in zip(f, a, strict=True)) + sum(x * y for x, y in zip(g, b, strict=True))
    if cheap or bound > dual or (family == "bells" and bound > monotone(dense, a, b)):
        yield "above"
    sums = [Fraction(0)] * len(a), [Fraction(0)] * len(b)
    total = size = Fraction(0)
    for i, j, mass in zip(sol.plan.row.tolist(), sol.plan.col.tolist(), sol.plan.data.tolist(), strict=True):
        sums[0][i] += Fraction(mass)
        sums[1][j] += Fraction(mass)
        total += Fraction(mass) * Fraction(float(dense[i, j]))
        size += Fraction(mass) * abs(Fraction(float(dense[i, j])))
    lost = 4 * (len(a) + len(b)) * Fraction(1, 2**52) if family in ("forbidden", "listed") else 0
    for wanted, found in zip((a, b), sums, strict=True):
        if any(abs(x - y) > NEAR * x + lost for x, y in zip(wanted, found, strict=True)):
            yield "marginals"
    if abs(total - Fraction(sol.cost)) > NEAR * size:
        yield "cost"
    prices = float(np.abs(sol.f) @ weights_a + np.abs(sol.g) @ weights_b)
    if sol.gap > LOOSE * max(float(size), prices):
        yield "loose"


def main() -> None:
    asked = parsed(__doc__, {"problems": 1000, "out": RESULTS / "exact_rationals.json"})
    import torch

    torch.set_num_threads(1)
    counts = {make.__name__: Counter({"problems": 0}) for make in FAMILIES}
    for k in range(asked.problems):
        make = FAMILIES[k % len(FAMILIES)]
        found = set(faults(make(np.random.default_rng(k)), make.__name__))
        counts[make.__name__].update(["problems", *found])
        if found:
            say(f"{k} {make.__name__}: {sorted(found)}")
    total = {fault: sum(count[fault] for count in counts.values()) for fault in FAULTS}
    by_family = {name: dict(count) for name, count in counts.items()}
    found = {"problems": asked.problems, "faults": total, "families": by_family}
    write_json(asked.out, conditions(tolerance=TOLERANCE) | found)
    say(json.dumps(total))


if __name__ == "__main__":
    main()
