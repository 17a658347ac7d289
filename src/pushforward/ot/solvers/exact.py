"""Unregularised optimal transport, with its certificate.

    min <P, C>  s.t.  P 1 = a, P^T 1 = b, P >= 0          dual: max <f, a> + <g, b>  s.t.  f_i + g_j <= C_ij

Column generation: a small-epsilon Newton solution says which pairs can carry mass; the linear program on those pairs
alone is small and sparse and goes to HiGHS; its dual prices find the pairs it missed (f_i + g_j > C_ij), which are
added, until none is left. The last program's vertex is then optimal for the whole problem, and f, g prove it.

As many rows as columns, all of one weight, make an assignment problem, which scipy's shortest augmenting paths solve in
one go, from costs reduced by the same guess. It keeps its prices to itself; they are shortest paths, too: with s(i) the
column of row i,

    g_j = min over i of g_s(i) + C_ij - C_is(i)   (Bellman and Ford, from 0),    f_i = C_is(i) - g_s(i).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.optimize import linear_sum_assignment, linprog

from pushforward._checks import check_positive
from pushforward._interop import like_input, not_compiled
from pushforward.errors import InfeasibleError, InvalidArgument, NotConverged
from pushforward.ot.cost import GridCost
from pushforward.ot.plan import DenseGeometry
from pushforward.ot.problem import Problem
from pushforward.ot.solution import Status, refuse_if_too_large
from pushforward.ot.solve import read_problem, solve_detached

__all__ = ["ExactSolution", "exact"]

Array = TypeVar("Array")

# Regularisation of the guess, over the mean cost; entries above this share of their row or column are candidates.
GUESS_EPSILON, GUESS_SHARE = 1e-3, 1e-7
ROUNDS = 100
# Costs are scaled to this size for HiGHS, whose tolerances are absolute; its sums round at ROUNDING of it.
LARGEST_COST, ROUNDING = 1e3, 1e-15


@dataclass(frozen=True, kw_only=True)
class ExactSolution(Generic[Array]):
    """What `exact` returns.

    Args:
        status: CONVERGED when the gap is at the level of rounding.
        cost: <P, C>, in units of the cost times mass.
        plan: The optimal plan, a vertex with at most n + m - 1 entries: a scipy COO array for numpy callers, a torch
        COO tensor otherwise.
        f, g: Dual prices, (n,) and (m,), with f_i + g_j <= C_ij on every pair.
        gap: cost - <f, a> - <g, b>, at least 0 up to rounding: the certificate. No plan costs less than cost - gap.
        rounds: Linear programs solved.
    """

    status: Status
    cost: float
    plan: Any
    f: Array
    g: Array
    gap: float
    rounds: int


@not_compiled
def exact(cost: Any, a: Any = None, b: Any = None, *, tol: float = 1e-10) -> ExactSolution[Any]:
    """The unregularised optimal plan between a and b, with a certificate of its optimality.

    Args:
        cost: (n, m) costs, `PointCost` or `GridCost`; +inf forbids a pair.
        a, b: Weights, (n,) and (m,), of equal mass; uniform if None.
        tol: Gap over the cost at which the plan counts as optimal; never finer than the rounding of the largest cost.

    Raises:
        InvalidArgument: As `solve`; a batch is refused.
        InfeasibleError: No plan avoids the forbidden pairs.
        NotConverged: The certificate could not be closed.

    Example:
        >>> exact([[0.0, 1.0], [1.0, 0.0]]).cost
        0.0
    """
    tol = check_positive("tol", tol)
    question = read_problem(cost, a, b, epsilon=1.0, unbalanced=None)
    problem, output = question.problem, question.output
    if output.batched:
        raise InvalidArgument(f"cost has shape {problem.geometry.shape}; exact solves one problem at a time")
    if isinstance(cost, GridCost):
        refuse_if_too_large("the cost matrix of the grid", problem.geometry.shape, problem.a)
    matrix = problem.geometry.matrix()[0].detach().cpu().numpy()
    weights_a, weights_b = (w[0].detach().cpu().numpy() for w in (problem.a, problem.b))
    rows, cols = np.flatnonzero(weights_a), np.flatnonzero(weights_b)
    # HiGHS has absolute tolerances: it gets unit mass and costs of one size.
    inner = matrix[np.ix_(rows, cols)]
    finite = np.isfinite(inner)
    if not finite.any():
        raise InfeasibleError(Status.INFEASIBLE.message)
    mass, unit = weights_a.sum(), (float(np.abs(inner[finite]).max()) or 1.0) / LARGEST_COST
    some_a, some_b = weights_a[rows] / mass, weights_b[cols] / mass
    epsilon, guess, rows_guess = _guess(inner / unit, some_a, some_b)
    # Costs reduced by a nearly optimal g are all at least 0 and mostly large: HiGHS starts dual feasible, and its
    # prices stay near g.
    first = np.where(np.isfinite(shifted := inner / unit - guess), shifted, np.inf).min(1)
    if not np.isfinite(first).all():
        raise InfeasibleError(Status.INFEASIBLE.message)
    offset = float(first @ some_a + guess @ some_b)
    if len(rows) == len(cols) and np.ptp(some_a) == np.ptp(some_b) == 0:
        found = _assign(shifted - first[:, None], some_a, offset=offset)
    else:
        candidates = _candidates(inner / unit, some_a, some_b, epsilon, (rows_guess, guess))
        found = _generate_columns(shifted - first[:, None], some_a, some_b, candidates, tol, offset=offset)
    f, g = np.zeros(len(weights_a)), np.zeros(len(weights_b))
    f[rows], g[cols] = unit * (found.f + first), unit * (found.g + guess)
    # Prices of what has no mass: as high as the others allow.
    g[weights_b == 0] = (matrix[rows][:, weights_b == 0] - f[rows, None]).min(0, initial=np.inf)
    f[weights_a == 0] = (matrix[weights_a == 0] - g).min(1, initial=np.inf)
    plan = sparse.coo_array((mass * found.mass, (rows[found.row], cols[found.col])), shape=matrix.shape)
    device = problem.a.device

    def back(array: np.ndarray) -> Any:
        return like_input(torch.from_numpy(array).to(device, output.dtype), output.as_numpy)

    total = float(matrix[plan.row, plan.col] @ plan.data)
    if not output.as_numpy:
        indices = torch.from_numpy(np.stack([plan.row, plan.col]).astype(np.int64))
        plan = torch.sparse_coo_tensor(
            indices, torch.from_numpy(plan.data).to(output.dtype), matrix.shape, check_invariants=False
        ).to(device)
    gap = float(mass * unit * found.gap)
    close = gap <= max(tol * abs(total), 10 * ROUNDING * mass * unit * LARGEST_COST)
    if not close:
        raise NotConverged(
            f"the duality gap is still {gap:.2g} at a cost of {total:.6g}: "
            "no pair is left to add, but prices are not exact"
        )
    return ExactSolution(
        status=Status.CONVERGED, cost=total, plan=plan, f=back(f), g=back(g), gap=gap, rounds=found.rounds
    )


def _guess(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """A small epsilon, and the column and row prices of the plan there."""
    finite = np.isfinite(cost)
    mean = float(np.abs(cost[finite]).mean())
    if min(cost.shape) == 1 or mean == 0:
        return 0.0, np.zeros(len(b)), np.zeros(len(a))
    problem = Problem(
        geometry=DenseGeometry(torch.from_numpy(cost)[None], not finite.all(), mean),
        a=torch.from_numpy(a)[None],
        b=torch.from_numpy(b)[None],
        epsilon=GUESS_EPSILON * mean,
    )
    g = solve_detached(problem, tol=1e-3)
    return problem.epsilon, g[0].numpy(), problem.measure(g).f[0].numpy()


def _candidates(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float, prices: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """The pairs that the plan at these prices uses, as flat indices; a feasible plan is among them."""
    if not epsilon:
        return np.flatnonzero(np.isfinite(cost))
    f, g = prices
    slack = (cost - f[:, None] - g) / epsilon
    density = np.exp(-slack.clip(-700, 700))
    # P_ij over a_i is b_j times the density, and over b_j, a_i times it.
    near = density * np.maximum(a[:, None], b) > GUESS_SHARE
    near[np.arange(len(a)), slack.argmin(1)] = True
    near[slack.argmin(0), np.arange(len(b))] = True
    near &= np.isfinite(cost)
    return np.union1d(np.flatnonzero(near), _staircase(a, b, cost.shape[1], order=(f, g), cost=cost))


def _assign(cost: np.ndarray, a: np.ndarray, *, offset: float) -> _Vertex:
    """The best assignment of reduced costs (n, n), all at least 0, with its prices; each row has weight a_i = 1/n."""
    try:
        row, col = linear_sum_assignment(cost)
    except ValueError:  # scipy's word for forbidden pairs that no permutation avoids
        raise InfeasibleError(Status.INFEASIBLE.message) from None
    own = cost[:, col]  # columns in the order of their rows
    paid = own.diagonal().copy()
    own -= paid[:, None]
    # A permutation that is optimal leaves no cycle of negative length; what rounding leaves ends with the sweeps.
    prices, moved = np.zeros(len(a)), np.arange(len(a))
    for _ in range(len(a)):
        lower = (own[moved] + prices[moved, None]).min(0)
        moved = np.flatnonzero(lower < prices - ROUNDING * LARGEST_COST)
        if len(moved) == 0:
            break
        prices[moved] = lower[moved]
    g = np.empty_like(prices)
    g[col] = prices
    f = np.where(np.isfinite(cost), cost - g, np.inf).min(1)
    total = float(a @ paid)
    return _Vertex(
        row=row,
        col=col,
        mass=a.copy(),
        f=f,
        g=g,
        cost=total + offset,
        gap=total - float(a @ f) - float(a @ g),
        rounds=1,
    )


def _staircase(
    a: np.ndarray, b: np.ndarray, m: int, *, order: tuple[np.ndarray, np.ndarray], cost: np.ndarray
) -> np.ndarray:
    """Flat indices of a monotone feasible plan, kept where its pairs are allowed."""
    i, j = np.argsort(order[0]), np.argsort(order[1])
    steps = np.sort(np.concatenate([np.cumsum(a[i]), np.cumsum(b[j])]))
    middles = 0.5 * (steps + np.concatenate([[0.0], steps[:-1]]))
    row = np.minimum(np.searchsorted(np.cumsum(a[i]), middles), len(a) - 1)
    col = np.minimum(np.searchsorted(np.cumsum(b[j]), middles), len(b) - 1)
    flat = i[row] * m + j[col]
    return flat[np.isfinite(cost.reshape(-1)[flat])]


@dataclass(frozen=True, slots=True)
class _Vertex:
    row: np.ndarray
    col: np.ndarray
    mass: np.ndarray
    f: np.ndarray
    g: np.ndarray
    cost: float
    gap: float
    rounds: int


def _generate_columns(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray, flat: np.ndarray, tol: float, *, offset: float
) -> _Vertex:
    """Grow the pairs `flat` until their vertex is optimal for all; every plan's cost is `offset` more than here."""
    n, m = cost.shape
    gap = np.inf
    for rounds in range(1, ROUNDS + 1):
        row, col = flat // m, flat % m
        price = cost[row, col]
        ones = np.ones(len(flat))
        incidence = sparse.csr_array(
            (np.concatenate([ones, ones]), (np.concatenate([row, n + col]), np.tile(np.arange(len(flat)), 2))),
            shape=(n + m, len(flat)),
        )
        # The last equation follows from the others; without it rounding in b cannot make the program infeasible.
        result = linprog(
            price, A_eq=incidence[:-1], b_eq=np.concatenate([a, b])[:-1], method="highs-ds", options=_OPTIONS
        )
        if result.status == 2:
            missing = np.setdiff1d(np.flatnonzero(np.isfinite(cost)), flat)
            if len(missing) == 0:
                raise InfeasibleError(Status.INFEASIBLE.message)
            flat = np.union1d(flat, missing)
            continue
        if result.x is None:
            raise NotConverged(f"the linear program's solver gave up: {result.message}")
        f, g = result.eqlin.marginals[:n], np.append(result.eqlin.marginals[n:], 0.0)
        f = (cost - g).min(1)  # the largest feasible prices: any violated pair shows as a loss of dual value
        total = float(price @ result.x)
        gap = total - f @ a - g @ b
        more = np.union1d(flat, _violated(cost, result.eqlin.marginals[:n], g))
        if gap <= tol * abs(total + offset) + ROUNDING * LARGEST_COST or len(more) == len(flat):
            used = result.x > 0
            return _Vertex(row[used], col[used], result.x[used], f, g, total, gap, rounds)
        flat = more
    raise NotConverged(f"the duality gap is still {gap:.2g} after {ROUNDS} rounds of column generation")


_OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def _violated(cost: np.ndarray, f: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The five worst pairs of every row whose reduced cost is negative, as flat indices."""
    reduced = cost - f[:, None] - g
    some = min(5, cost.shape[1])
    worst = np.argpartition(reduced, some - 1, axis=1)[:, :some]
    rows = np.repeat(np.arange(len(cost)), some)
    flat = rows * cost.shape[1] + worst.reshape(-1)
    return flat[reduced.reshape(-1)[flat] < 0]
