"""A nearly optimal plan in floating point, for the network simplex to begin with.

A small-epsilon Newton solution says which pairs can carry mass; the linear program on those pairs alone is small and
sparse and goes to HiGHS. As many rows as columns, all of one weight, make an assignment problem, which scipy's
shortest augmenting paths solve in one go, from costs reduced by the same guess. It keeps its prices to itself; they
are shortest paths, too: with s(i) the column of row i,

    g_j = min over i of g_s(i) + C_ij - C_is(i)   (Bellman and Ford, from 0),    f_i = C_is(i) - g_s(i).

None of this has to be right. HiGHS knows no difference under 1e-10, so weights below `TAIL` are kept from it; costs
far above the others, people's way to forbid, would leave it no digits for those and are cut at `CUT`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.optimize import linear_sum_assignment, linprog

from pushforward.errors import InfeasibleError
from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.problem import Problem
from pushforward.ot.solution import Status
from pushforward.ot.solvers.auto import solve_detached
from pushforward.ot.solvers.network import Start
from pushforward.ot.solvers.pairs import DenseCosts, Prices, SparseCosts

__all__ = ["Guess", "assignment", "guess_of", "program"]

# Regularisation of the guess, over the mean cost; entries above this share of their row or column are candidates.
GUESS_EPSILON, GUESS_SHARE = 1e-3, 1e-7
# Costs are scaled to this size for HiGHS, whose tolerances are absolute; its sums round at ROUNDING of it.
LARGEST_COST, ROUNDING = 1e3, 1e-15
# Shares of the mass that HiGHS is not asked about.
TAIL = 1e-9
# Costs are cut at this many times their median (of at most SAMPLE of them), once rows and columns are reduced.
CUT, SAMPLE = 1e4, 10_000
OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@dataclass(frozen=True, slots=True)
class Guess:
    """Costs that HiGHS can work with, and the candidates of a plan.

    Args:
        reduced: (C - f_i - g_j) / unit, at least 0 for all pairs of a matrix, (n, m), or of a list, (k,).
        prices: The f and g taken off, in units of the cost.
        unit: A power of two.
        row, col: The candidates.
    """

    reduced: np.ndarray
    prices: Prices
    unit: float
    row: np.ndarray
    col: np.ndarray

    def back(self, f: np.ndarray, g: np.ndarray) -> Prices:
        """Prices of the costs themselves, from those of the reduced ones."""
        return Prices(self.prices.f + self.unit * f, self.prices.g + self.unit * g)


def guess_of(costs: DenseCosts | SparseCosts, a: np.ndarray, b: np.ndarray) -> Guess:
    """Prices and candidates by a Newton solve at a small epsilon; of a list of pairs, all of them.

    Args:
        costs: What pairs cost.
        a, b: Positive weights, each of sum 1.

    Raises:
        InfeasibleError: A row or a column has no allowed pair.
    """
    if isinstance(costs, SparseCosts):
        if len(np.unique(costs.row)) < len(a) or len(np.unique(costs.col)) < len(b):
            raise InfeasibleError(Status.INFEASIBLE.message)
        f = costs.row_prices(np.zeros(len(b)))
        reduced = costs.cost - f[costs.row]
        cut = _cut(reduced)
        unit = _unit(min(cut, float(reduced.max())))
        return Guess(np.minimum(reduced, cut) / unit, Prices(f, np.zeros(len(b))), unit, costs.row, costs.col)
    cost, f, g = costs.matrix, np.zeros(len(a)), np.zeros(len(b))
    finite = np.isfinite(cost)
    if not (finite.any(1).all() and finite.any(0).all()):
        raise InfeasibleError(Status.INFEASIBLE.message)
    peak = float(np.abs(cost[finite]).max())
    if peak > _cut(np.abs(cost)):
        f = cost.min(1)
        g = (cost - f[:, None]).min(0)
        cost = cost - f[:, None] - g
        cost = np.where(finite, np.minimum(cost, _cut(cost)), np.inf)
        peak = float(np.abs(cost[finite]).max())
    unit = _unit(peak)
    cost = cost / unit
    epsilon, row_guess, guess = _newton(cost, finite, a, b)
    # Costs reduced by a nearly optimal g are all at least 0 and mostly large: HiGHS starts dual feasible, and its
    # prices stay near g.
    shifted = cost - guess
    first = shifted.min(1)
    candidates = _candidates(cost, finite, a, b, epsilon, (row_guess, guess))
    return Guess(
        shifted - first[:, None],
        Prices(f + unit * first, g + unit * guess),
        unit,
        candidates // len(b),
        candidates % len(b),
    )


def _cut(cost: np.ndarray) -> float:
    some = cost.reshape(-1)[:: max(1, cost.size // SAMPLE)]
    some = some[(some > 0) & np.isfinite(some)]
    return CUT * float(np.median(some)) if len(some) else np.inf


def _unit(peak: float) -> float:
    return float(2.0 ** np.ceil(np.log2(peak / LARGEST_COST))) if peak > 1e-300 else 1.0


def _newton(cost: np.ndarray, finite: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """A small epsilon, and the row and column prices of the plan there."""
    nothing = 0.0, np.zeros(len(a)), np.zeros(len(b))
    mean = float(np.abs(cost[finite]).mean())
    if min(cost.shape) == 1 or mean == 0:
        return nothing
    problem = Problem(
        geometry=DenseGeometry(torch.from_numpy(cost)[None], not finite.all(), mean),
        a=torch.from_numpy(a)[None],
        b=torch.from_numpy(b)[None],
        epsilon=GUESS_EPSILON * mean,
    )
    g = solve_detached(problem, tol=1e-3)
    f = problem.measure(g).f
    if not (torch.isfinite(f).all() and torch.isfinite(g).all()):
        return nothing
    return problem.epsilon, f[0].numpy(), g[0].numpy()


def _candidates(  # noqa: PLR0913 - one problem
    cost: np.ndarray,
    finite: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    prices: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """The pairs that the plan at these prices uses, as flat indices; a feasible plan is among them."""
    if not epsilon:
        return np.flatnonzero(finite)
    f, g = prices
    slack = (cost - f[:, None] - g) / epsilon
    density = np.exp(-slack.clip(-700, 700))
    # P_ij over a_i is b_j times the density, and over b_j, a_i times it.
    near = density * np.maximum(a[:, None], b) > GUESS_SHARE
    near[np.arange(len(a)), slack.argmin(1)] = True
    near[slack.argmin(0), np.arange(len(b))] = True
    near &= finite
    return np.union1d(np.flatnonzero(near), _staircase(a, b, order=(f, g), finite=finite))


def _staircase(a: np.ndarray, b: np.ndarray, *, order: tuple[np.ndarray, np.ndarray], finite: np.ndarray) -> np.ndarray:
    """Flat indices of a monotone feasible plan, kept where its pairs are allowed."""
    i, j = np.argsort(order[0]), np.argsort(order[1])
    steps = np.sort(np.concatenate([np.cumsum(a[i]), np.cumsum(b[j])]))
    middles = 0.5 * (steps + np.concatenate([[0.0], steps[:-1]]))
    row = np.minimum(np.searchsorted(np.cumsum(a[i]), middles), len(a) - 1)
    col = np.minimum(np.searchsorted(np.cumsum(b[j]), middles), len(b) - 1)
    flat = i[row] * len(b) + j[col]
    return flat[finite.reshape(-1)[flat]]


def permutation(cost: np.ndarray) -> np.ndarray:
    """The column of each row in the cheapest permutation of costs (n, n), (n,).

    Raises:
        InfeasibleError: Every permutation has an infinite cost.
    """
    try:
        return linear_sum_assignment(cost)[1]
    except ValueError:  # scipy's word for infinite costs that no permutation avoids, and for NaN
        if np.isnan(cost).any():
            raise
        raise InfeasibleError(Status.INFEASIBLE.message) from None


def assignment(guess: Guess) -> Start:
    """The best assignment of costs (n, n), with its prices.

    Raises:
        InfeasibleError: No permutation avoids the forbidden pairs.
    """
    cost = guess.reduced
    row, col = np.arange(len(cost)), permutation(cost)
    own = cost[:, col]  # columns in the order of their rows
    own -= own.diagonal().copy()[:, None]
    # A permutation that is optimal leaves no cycle of negative length; what rounding leaves ends with the sweeps.
    prices, moved = np.zeros(len(cost)), np.arange(len(cost))
    for _ in range(len(cost)):
        lower = (own[moved] + prices[moved, None]).min(0)
        moved = np.flatnonzero(lower < prices - ROUNDING * LARGEST_COST)
        if len(moved) == 0:
            break
        prices[moved] = lower[moved]
    g = np.empty_like(prices)
    g[col] = prices
    return Start(row, col, np.ones(len(row)), guess.back(cost[row, col] - prices, g))


def program(guess: Guess, row: np.ndarray, col: np.ndarray, a: np.ndarray, b: np.ndarray) -> Start:
    """The linear program on some pairs, as far as HiGHS solves it; without its help, no mass and the guessed prices.

    Args:
        guess: As `guess_of` made it.
        row, col: The pairs.
        a, b: Positive weights, each of sum 1.
    """
    n = len(a)
    price = guess.reduced[row, col] if guess.reduced.ndim == 2 else guess.reduced
    heavy = np.concatenate([a > TAIL, b > TAIL])
    body = np.flatnonzero(heavy[row] & heavy[n + col])
    place = np.cumsum(heavy) - 1
    ends = np.concatenate([place[row[body]], place[n + col[body]]])
    incidence = sparse.csr_array(
        (np.ones(len(ends)), (ends, np.tile(np.arange(len(body)), 2))), shape=(heavy.sum(), len(body))
    )
    some_a, some_b = a[heavy[:n]], b[heavy[n:]]
    weights = np.concatenate([some_a, some_b * (some_a.sum() / some_b.sum())])
    # The last equation follows from the others; without it rounding in b cannot make the program infeasible.
    result = linprog(price[body], A_eq=incidence[:-1], b_eq=weights[:-1], method="highs-ds", options=OPTIONS)
    mass, prices = np.zeros(len(row)), np.full(n + len(b), np.nan)
    if result.x is None:
        return Start(row, col, mass, guess.prices)
    mass[body] = result.x
    prices[heavy] = np.append(result.eqlin.marginals, 0.0)
    f, g = prices[:n], prices[n:]
    for own, other, ours, theirs in ((f, g, row, col), (g, f, col, row)):
        lowest = np.full(len(own), np.inf)
        np.minimum.at(lowest, ours, price - np.nan_to_num(other, nan=-np.inf)[theirs])
        own[np.isnan(own)] = lowest[np.isnan(own)]
        own[~np.isfinite(own)] = 0.0
    return Start(row, col, mass, guess.back(f, g))
