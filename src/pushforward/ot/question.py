"""What a caller of `solve` or `exact` asks: arguments checked, and put into computing form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward._checks import (
    check_batch,
    check_cost,
    check_equal_mass,
    check_positive,
    check_range,
    check_same_device,
    check_size,
    check_weights,
    mass_tolerance,
)
from pushforward._interop import allowed_pairs, compute_dtype, result_dtype, to_tensor
from pushforward.errors import InvalidArgument
from pushforward.ot.costs import GridCost, PointCost, check_pair_by_pair
from pushforward.ot.geometry.dense import SMALL, DenseGeometry
from pushforward.ot.geometry.grid import GridGeometry
from pushforward.ot.geometry.points import PointGeometry
from pushforward.ot.geometry.protocol import Geometry
from pushforward.ot.gradients import mean_size
from pushforward.ot.memory import fits, refuse_if_too_large
from pushforward.ot.problem import Problem
from pushforward.ot.solution import Output

__all__ = ["Question", "read_problem", "too_many"]

# Regularisation where the caller sets none, over the mean absolute cost.
DEFAULT_EPSILON = 0.05
# Costs of more pairs of points than this, half a gigabyte, are not held: a plan may be (`points.py`). Bytes for a pair
# where the cost is, and copies of the costs where derivatives are asked for.
MATRIX, HELD_BYTES, GRAPH = 1 << 26, 24, 7.0


@dataclass(frozen=True, slots=True)
class Question:
    """The checked arguments of `solve`, with the graph of the caller's tensors still attached."""

    cost: Tensor | None
    problem: Problem
    output: Output
    epsilon: Tensor | None = None


def read_problem(cost: Any, a: Any, b: Any, *, epsilon: Any, unbalanced: Any) -> Question:
    """Check the arguments of `solve` or `exact`, and convert them to computing form."""
    if isinstance(cost, GridCost):
        return _ask_grid(cost, a, b, epsilon, unbalanced)
    if isinstance(cost, PointCost) and check_batch(a, b) is None and too_many(cost, a, b, epsilon):
        return _ask_points(cost, a, b, epsilon, unbalanced)
    if isinstance(cost, PointCost):
        as_numpy, matrix = not isinstance(cost.x, Tensor), cost.matrix()
        dtype = result_dtype(cost.x) if isinstance(cost.x, Tensor) else result_dtype(to_tensor("x", cost.x))
        check_cost(matrix)
    else:
        as_numpy, matrix = not isinstance(cost, Tensor), check_cost(_absent_forbidden(cost))
        dtype = result_dtype(matrix)
    n, m = matrix.shape[-2:]
    batch = len(matrix) if matrix.ndim == 3 else check_batch(a, b)
    if batch is not None:  # one cost may serve many weights: held once, or a copy each where that is little
        matrix = matrix.expand(batch, n, m).contiguous() if n * m <= SMALL else matrix.expand(batch, n, m)
    weights_a = check_weights("a", a, n, batch, matrix, "row")
    weights_b = check_weights("b", b, m, batch, matrix, "column")
    needs_graph = _needs_graph(matrix, weights_a, weights_b, epsilon)
    computed = matrix.to(compute_dtype(matrix.device))
    computed = computed if batch is not None else computed[None]
    geometry = DenseGeometry.of(computed.detach())
    problem = _problem(geometry, weights_a, weights_b, epsilon, unbalanced, mass_tolerance(a, b))
    output = Output(batch is not None, as_numpy, dtype)
    if not needs_graph:
        return Question(None, problem, output)
    return Question(computed, problem, output, _epsilon_graph(epsilon, computed, geometry, problem.epsilon))


def _absent_forbidden(cost: Any) -> Any:
    """A sparse cost as a matrix with +inf where a pair is absent; any other cost unchanged."""
    pairs = allowed_pairs("cost", cost)
    if pairs is None:
        return cost
    refuse_if_too_large("the matrix of the sparse cost", pairs.shape, pairs.values)
    return pairs.dense()


def _needs_graph(*inputs: Any) -> bool:
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)


def _epsilon_graph(given: Any, cost: Tensor, geometry: Geometry, used: float) -> Tensor:
    """The regularisation as a tensor, (): the caller's own, or the default, which depends on the cost."""
    if given is None and cost.requires_grad and geometry.mean > 0:
        return DEFAULT_EPSILON * mean_size(cost, geometry)
    return given.reshape(()).to(cost) if isinstance(given, Tensor) else cost.new_tensor(used)


def too_many(cost: PointCost, *others: Any) -> bool:
    """Whether the costs of these points are computed when they are needed, since they take too much memory."""
    x, y = cost.tensors()
    pairs, device = len(x) * len(y), x.device
    if _needs_graph(x, y, *others):
        instead = "fewer points, or torch.no_grad() where no derivative is needed"
        refuse_if_too_large("the plan of points with derivatives", (len(x), len(y)), x, copies=GRAPH, instead=instead)
        return False
    return device.type == "cpu" and (pairs > MATRIX or (pairs > SMALL and not fits(HELD_BYTES * pairs, device)))


def _ask_points(cost: PointCost, a: Any, b: Any, epsilon: Any, unbalanced: Any) -> Question:
    x, y = cost.tensors()
    given = (("a", a, len(x), "row"), ("b", b, len(y), "column"))
    weights = [check_weights(name, value, size, None, x, axis) for name, value, size, axis in given]
    check_pair_by_pair(cost.cost, x.detach(), y.detach())
    geometry = PointGeometry(x.detach(), y.detach(), cost.cost)
    problem = _problem(geometry, weights[0], weights[1], epsilon, unbalanced, mass_tolerance(a, b))
    as_numpy = not isinstance(cost.x, Tensor)
    return Question(None, problem, Output(False, as_numpy, result_dtype(to_tensor("x", cost.x))))


def _ask_grid(cost: GridCost, a: Any, b: Any, epsilon: Any, unbalanced: Any) -> Question:
    given = {name: to_tensor(name, value) for name, value in (("a", a), ("b", b)) if value is not None}
    tensors = [value for value in (a, b) if isinstance(value, Tensor)]
    like = tensors[0] if tensors else next(iter(given.values()), torch.empty(0, dtype=torch.float64))
    check_same_device(
        *[(name, given[name]) for name in given if isinstance({"a": a, "b": b}[name], Tensor)] or [("a", like)]
    )
    batch = check_batch(a, b)
    n = math.prod(cost.shape)
    weights = [check_weights(name, value, n, batch, like, "pixel") for name, value in (("a", a), ("b", b))]
    geometry = GridGeometry(cost.axis_costs(like.device, compute_dtype(like.device)), batch or 1)
    problem = _problem(geometry, weights[0], weights[1], epsilon, unbalanced, mass_tolerance(*given.values()))
    output = Output(batch is not None, not tensors, result_dtype(like))
    if not _needs_graph(*weights, epsilon):
        return Question(None, problem, output)
    refuse_if_too_large("the derivative of a grid's plan", geometry.shape, problem.a)
    matrix = geometry.matrix()
    return Question(matrix, problem, output, _epsilon_graph(epsilon, matrix, geometry, problem.epsilon))


def _problem(geometry: Geometry, a: Tensor, b: Tensor, epsilon: Any, unbalanced: Any, tolerance: float) -> Problem:
    rho_a, rho_b = _relaxation(unbalanced)
    if rho_a == rho_b == math.inf:
        check_equal_mass(a, b, tolerance)
        b = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
    costs = geometry.mean * math.prod(geometry.shape)
    check_size(costs)
    if epsilon is None:
        epsilon = DEFAULT_EPSILON * geometry.mean or 1.0
    number = check_positive("epsilon", epsilon.detach() if isinstance(epsilon, Tensor) else epsilon)
    check_range(costs, number, (rho_a, rho_b), a, b)
    return Problem(geometry=geometry, a=a, b=b, epsilon=number, rho_a=rho_a, rho_b=rho_b)


def _relaxation(unbalanced: Any) -> tuple[float, float]:
    if unbalanced is None:
        return math.inf, math.inf
    pair = unbalanced if isinstance(unbalanced, tuple | list) else (unbalanced, unbalanced)
    if len(pair) != 2:
        raise InvalidArgument(f"unbalanced must be a number or a pair (rho_a, rho_b), got {unbalanced!r}")
    rho_a, rho_b = (check_positive("unbalanced", rho, allow_inf=True) for rho in pair)
    return rho_a, rho_b
