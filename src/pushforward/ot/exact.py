"""Unregularised optimal transport, with its certificate.

    min <P, C>  s.t.  P 1 = a, P^T 1 = b, P >= 0          dual: max <f, a> + <g, b>  s.t.  f_i + g_j <= C_ij

Column generation: a floating-point program (`start.py`) nearly solves the problem on few pairs; the network simplex
in whole numbers (`network.py`) makes that the optimum of those pairs, whatever the size of weights and costs; its
prices find the pairs that were missed (f_i + g_j > C_ij), which are added, until none is left. The plan is then
optimal for the whole problem, each of its entries is the rational number rounded once, and f, g prove it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from pushforward._checks import check_cost, check_equal_mass, check_positive, check_weights, mass_tolerance
from pushforward._interop import allowed_pairs, compute_dtype, like_input, not_compiled, result_dtype, to_tensor
from pushforward.errors import InfeasibleError, NotConverged, ShapeError
from pushforward.ot.costs import GridCost
from pushforward.ot.memory import refuse_if_too_large
from pushforward.ot.question import read_problem
from pushforward.ot.rationals import FINEST, finest, proved_gap, ratio, whole
from pushforward.ot.solution import Output, Status
from pushforward.ot.solvers.network import Tree, best_tree
from pushforward.ot.solvers.pairs import Costs, DenseCosts, Pairs, Prices, SparseCosts
from pushforward.ot.solvers.start import Guess, assignment, guess_of, program

__all__ = ["ExactSolution", "exact"]

Array = TypeVar("Array")

# A gap under this share of what the plan pays, or of the prices, is rounding.
CLOSE = 1e-14


@dataclass(frozen=True, kw_only=True)
class ExactSolution(Generic[Array]):
    """The result of `exact`.

    Args:
        status: CONVERGED when the gap is at the level of rounding.
        cost: <P, C>, in units of the cost times mass, rounded once. A float; a tensor, (), with its derivatives,
            where the cost or a weight requires them.
        plan: The optimal plan, a vertex with at most n + m - 1 entries: a scipy COO array for numpy callers, a torch
            COO tensor otherwise. Each entry is the exact one, rounded: its sums are a, and b scaled to a's mass.
        f, g: Dual prices, (n,) and (m,), with f_i + g_j <= C_ij on every pair.
        gap: No plan costs less than cost - gap, in exact arithmetic: cost - <f, a> - <g, b>, at least 0, with what
            the rounding of plan, prices and masses can hide.
        rounds: The number of times that pairs were added, the first included.
    """

    status: Status
    cost: Any
    plan: Any
    f: Array
    g: Array
    gap: float
    rounds: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """A problem as read: costs and weights as numbers, and as tensors with the graph of the caller's."""

    costs: DenseCosts | SparseCosts
    graph: Tensor | None
    a: Tensor
    b: Tensor
    output: Output
    rounding: float


@dataclass(frozen=True, slots=True)
class _Vertex:
    """A plan (k entries), prices that prove it optimal, and the number of times that pairs were added."""

    pairs: Pairs
    mass: np.ndarray
    prices: Prices
    cost: float
    gap: float
    paid: float
    rounds: int

    @property
    def close(self) -> bool:
        return self.gap <= CLOSE * self.paid


@not_compiled
def exact(cost: Any, a: Any = None, b: Any = None, *, tol: float = 1e-10) -> ExactSolution[Any]:
    """The unregularised optimal plan between a and b, with a certificate of its optimality.

    The cost can be differentiated: the plan is its derivative in the costs, f and g are those in the weights, of which
    b counts as scaled to a's mass. Where the optimum is not unique it is one of the subgradients.

    Args:
        cost: (n, m) costs, `PointCost` or `GridCost`; +inf forbids a pair. Of a scipy or torch sparse matrix the pairs
            that are absent are forbidden, stored zeros are allowed pairs of cost 0, and no n x m numbers are held.
        a, b: Weights, (n,) and (m,), of equal mass; uniform if None.
        tol: Gap over the cost at which the plan counts as optimal; never finer than the rounding of the prices.

    Returns:
        The plan, its cost and the certificate; scipy and numpy for numpy callers, torch otherwise.

    Raises:
        InvalidArgument: As `solve`; a batch is refused.
        InfeasibleError: No plan avoids the forbidden pairs.
        NotConverged: The certificate could not be closed.

    Example:
        >>> exact([[0.0, 1.0], [1.0, 0.0]]).cost
        0.0
    """
    tol = check_positive("tol", tol)
    asked = _read(cost, a, b)
    weights_a, weights_b = (w.detach().cpu().numpy() for w in (asked.a, asked.b))
    rows, cols = np.flatnonzero(weights_a), np.flatnonzero(weights_b)
    found = _solved(asked.costs.select(rows, cols), weights_a[rows], weights_b[cols], asked.rounding)
    prices = _prices_of_all(asked.costs, weights_a, weights_b, found.prices)
    size = float((np.abs(found.prices.f).max() + np.abs(found.prices.g).max()) * weights_a.sum())
    if not found.gap <= max(tol * abs(found.cost), CLOSE * max(size, found.paid)):
        raise NotConverged(
            f"the duality gap is still {found.gap:.2g} at a cost of {found.cost:.6g}: "
            "no pair is left to add, but prices are not exact"
        )
    row, col = rows[found.pairs[0]], cols[found.pairs[1]]

    def back(array: np.ndarray) -> Any:
        tensor = torch.from_numpy(array).to(asked.a.device, asked.output.dtype)
        return like_input(tensor, asked.output.as_numpy)

    return ExactSolution(
        status=Status.CONVERGED,
        cost=_differentiable(asked, found, (row, col), prices),
        plan=_as_plan(row, col, found.mass, asked),
        f=back(prices.f),
        g=back(prices.g),
        gap=found.gap,
        rounds=found.rounds,
    )


def _read(cost: Any, a: Any, b: Any) -> _Asked:
    """Check what a caller passed; the weights stay as they are, not scaled to one mass."""
    pairs = allowed_pairs("cost", cost)
    if pairs is not None:
        if len(pairs.shape) != 2:
            raise ShapeError(f"cost has shape {pairs.shape}; exact solves one problem at a time, (n, m)")
        values = check_cost(pairs.values[None])[0].to(compute_dtype(pairs.values.device))
        weights = [
            check_weights(name, given, size, None, values, axis)[0]
            for name, given, size, axis in (("a", a, pairs.shape[0], "row"), ("b", b, pairs.shape[1], "column"))
        ]
        row, col = (x.cpu().numpy() for x in pairs.indices)
        costs = SparseCosts(row, col, values.detach().cpu().numpy(), (pairs.shape[0], pairs.shape[1]))
        output = Output(False, pairs.as_numpy, result_dtype(pairs.values))
        graph = values
    else:
        for name, weights in (("a", a), ("b", b)):
            if weights is not None and (shape := tuple(to_tensor(name, weights).shape)) and len(shape) == 2:
                raise ShapeError(
                    f"{name} has shape {shape}; exact solves one problem at a time, of weights ({shape[1]},)"
                )
        question = read_problem(cost, a, b, epsilon=1.0, unbalanced=1.0)  # relaxed: b keeps its own mass
        problem, output = question.problem, question.output
        if output.batched:
            raise ShapeError(f"cost has shape {problem.geometry.shape}; exact solves one problem at a time, (n, m)")
        if isinstance(cost, GridCost):
            refuse_if_too_large("the cost matrix of the grid", problem.geometry.shape, problem.a)
        weights = [problem.a[0], problem.b[0]]
        costs = DenseCosts(problem.geometry.matrix()[0].detach().cpu().numpy())
        graph = None if question.cost is None else question.cost[0]
    check_equal_mass(weights[0][None], weights[1][None], mass_tolerance(a, b))
    needed = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (graph, *weights))
    dtypes = [w.dtype for w in (a, b) if isinstance(w, Tensor) and w.is_floating_point()]
    rounding = 4 * (sum(costs.shape)) * max([torch.finfo(d).eps for d in dtypes], default=2.0**-52)
    return _Asked(costs, graph if needed else None, weights[0], weights[1], output, rounding)


def _solved(costs: DenseCosts | SparseCosts, a: np.ndarray, b: np.ndarray, rounding: float) -> _Vertex:
    """The optimal plan between positive weights.

    Raises:
        InfeasibleError: More than this share of the mass has to go over forbidden pairs.
    """
    shift_a, shift_b = finest(a), finest(b)
    whole_a, whole_b = whole(a, shift_a), whole(b, shift_b)
    mass_a, mass_b = sum(whole_a), sum(whole_b)
    supply = [x * mass_b for x in whole_a] + [x * mass_a for x in whole_b]
    one = mass_b << shift_a  # of the supply's units in a mass of 1

    def proved(row: np.ndarray, col: np.ndarray, mass: list[int], prices: Prices) -> _Vertex:
        return _proved(costs, (a, b), (row, col), (mass, one), prices)

    tiny = np.finfo(float).tiny
    shares = np.maximum(a / a.sum(), tiny), np.maximum(b / b.sum(), tiny)
    guess = guess_of(costs, *shares)
    if isinstance(costs, DenseCosts) and len(a) == len(b) and np.ptp(a) == np.ptp(b) == 0:
        start = assignment(guess)
        found = proved(start.row, start.col, supply[: len(a)], start.prices)
        if found.close:
            return found
        guess = dataclasses.replace(guess, row=start.row, col=start.col)
        tree, rounds = _grown(costs, supply, guess, shares, best_tree(costs, supply, start))
    else:
        tree, rounds = _grown(costs, supply, guess, shares, None)
    found = proved(*_allowed(tree, rounding), tree.prices())
    if not found.close:
        # Prices are far larger than what the plan pays: what rounding hides of them matters, and so may their size.
        while tree.take(*costs.too_cheap(tree.prices(), doubtful=True)):
            pass
        carried = _allowed(tree, rounding)
        again = [proved(*carried, prices) for prices in (tree.prices(), tree.calm_prices(carried[:2]))]
        found = min([found, *again], key=lambda vertex: vertex.gap)
    return dataclasses.replace(found, rounds=rounds)


def _allowed(tree: Tree, rounding: float) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The pairs that carry mass, and how much; what only rounding of the weights puts on forbidden pairs is left out.

    Raises:
        InfeasibleError: That is more than this share of the mass.
    """
    row, col, mass = tree.carried()
    forbidden = np.isinf(tree.costs.at(row, col))
    lost = ratio(sum(mass[k] for k in np.flatnonzero(forbidden)), sum(mass))
    if lost > rounding:
        raise InfeasibleError(f"{Status.INFEASIBLE.message}: {lost:.2g} of the mass has to go over such pairs")
    return row[~forbidden], col[~forbidden], [mass[k] for k in np.flatnonzero(~forbidden)]


def _grown(
    costs: DenseCosts | SparseCosts,
    supply: list[int],
    guess: Guess,
    shares: tuple[np.ndarray, np.ndarray],
    tree: Tree | None,
) -> tuple[Tree, int]:
    """A basis that no pair improves, and the number of times that pairs were added."""
    row, col, rounds = guess.row, guess.col, 1
    helped = tree is None
    while True:
        if tree is None:
            start = program(guess, row, col, *shares)
            helped = bool(start.mass.any())
            tree = best_tree(costs, supply, start)
        more = costs.too_cheap(tree.prices())
        if len(more[0]) == 0:
            return tree, rounds
        rounds += 1
        if guess.reduced.ndim == 2:
            row, col = np.concatenate([row, more[0]]), np.concatenate([col, more[1]])
        if helped and len(more[0]) > len(supply):
            tree = None
        else:
            tree.improve(row, col)


def _proved(
    costs: Costs, weights: tuple[np.ndarray, np.ndarray], pairs: Pairs, mass: tuple[list[int], int], prices: Prices
) -> _Vertex:
    """A plan with its certificate.

    Args:
        costs: What pairs cost.
        weights: a and b.
        pairs: The pairs that carry mass.
        mass: What they carry, and of how many units 1 is.
        prices: The prices f and g; f is raised as far as g allows.
    """
    paid, (carried, one) = costs.at(*pairs), mass
    known = prices.level_f is None and bool(np.isfinite(prices.g).all())
    each = [x * c for x, c in zip(carried, whole(paid), strict=True)]
    total = ratio(sum(each), one << FINEST)
    f = costs.row_prices(prices.g) if known else prices.f
    return _Vertex(
        pairs=pairs,
        mass=np.array([x / one for x in carried]),
        prices=Prices(f, prices.g),
        cost=total,
        gap=proved_gap(total, f, prices.g, *weights) if known else np.inf,
        paid=ratio(sum(map(abs, each)), one << FINEST),
        rounds=1,
    )


def _prices_of_all(costs: DenseCosts | SparseCosts, a: np.ndarray, b: np.ndarray, prices: Prices) -> Prices:
    """Prices of what has no mass, too: as high as the others allow, 0 where nothing binds them."""
    f, g, rows, cols = np.zeros(len(a)), np.zeros(len(b)), a > 0, b > 0
    f[rows], g[cols] = prices.f, prices.g
    if not cols.all():
        free = costs.select(np.flatnonzero(rows), np.flatnonzero(~cols)).transposed().row_prices(prices.f)
        g[~cols] = np.where(np.isfinite(free), free, 0.0)
    if not rows.all():
        free = costs.select(np.flatnonzero(~rows), np.arange(len(b))).row_prices(g)
        f[~rows] = np.where(np.isfinite(free), free, 0.0)
    return Prices(f, g)


def _differentiable(asked: _Asked, found: _Vertex, pairs: Pairs, prices: Prices) -> Any:
    """The cost as a number, or, where there is a graph, with the derivatives of the envelope theorem."""
    if asked.graph is None:
        return found.cost
    a, b = asked.a, asked.b * (asked.a.sum() / asked.b.sum())
    device = asked.graph.device
    mass, f, g = (torch.from_numpy(x).to(device) for x in (found.mass, prices.f, prices.g))
    if isinstance(asked.costs, SparseCosts):
        paid = asked.graph[torch.from_numpy(asked.costs.find(*pairs)).to(device)]
    else:
        paid = asked.graph[torch.from_numpy(pairs[0]).to(device), torch.from_numpy(pairs[1]).to(device)]
    # Each difference is 0: only its derivative counts.
    moved = (mass * (paid - paid.detach())).sum() + (f * (a - a.detach())).sum() + (g * (b - b.detach())).sum()
    return (found.cost + moved).to(asked.output.dtype)


def _as_plan(row: np.ndarray, col: np.ndarray, mass: np.ndarray, asked: _Asked) -> Any:
    shape = asked.costs.shape
    if asked.output.as_numpy:
        return sparse.coo_array((mass, (row, col)), shape=shape)
    indices = torch.from_numpy(np.stack([row, col]).astype(np.int64))
    values = torch.from_numpy(mass).to(asked.output.dtype)
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=False).to(asked.a.device)
