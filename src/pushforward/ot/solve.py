"""`solve`: check the arguments, choose a solver, measure the error of its answer.

Source of the problem's form and of the solvers: `problem.py`, `solvers/`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pushforward._checks import (
    check_batch,
    check_choice,
    check_cost,
    check_count,
    check_equal_mass,
    check_finite,
    check_positive,
    check_range,
    check_same_device,
    check_size,
    check_weights,
    mass_tolerance,
)
from pushforward._interop import allowed_pairs, compute_dtype, not_compiled, result_dtype, to_tensor
from pushforward._typed import check_flag
from pushforward.errors import InfeasibleError, InvalidArgument, NotConverged, ShapeError
from pushforward.ot.certificates import dual_value, duality_gap, is_infeasible
from pushforward.ot.costs import GridCost, PointCost, check_pair_by_pair
from pushforward.ot.geometry.dense import SMALL, DenseGeometry
from pushforward.ot.geometry.grid import GridGeometry
from pushforward.ot.geometry.points import PointGeometry
from pushforward.ot.geometry.protocol import Geometry, Measured
from pushforward.ot.gradients import attach, mean_size
from pushforward.ot.history import Recorder, Step
from pushforward.ot.memory import fits, refuse_if_too_large
from pushforward.ot.problem import NOBODY, Problem
from pushforward.ot.solution import Internals, Output, Solution, Status
from pushforward.ot.solvers.newton import Newton, newton
from pushforward.ot.solvers.sinkhorn import Sinkhorn, sinkhorn
from pushforward.ot.solvers.sns import SNS, sns

__all__ = ["Method", "Question", "read_problem", "solve", "solve_detached", "too_many"]

Method = Literal["auto", "newton", "sns", "sinkhorn"] | Newton | SNS | Sinkhorn

# Steps allowed where the caller sets no limit. A Newton step is worth hundreds of Sinkhorn's.
LIMITS = {"auto": 52_000, "newton": 2000, "sns": 1000, "sinkhorn": 100_000}
# Callers inside the library do without an answer, or with a rough one, rather than wait for Sinkhorn's iteration.
DETACHED_LIMIT = 2000
# Of those of "auto", what each of its Newton paths may take: half of what is left, between these.
FEW, MOST_NEWTON = 100, 1000
# A path with small steps, every level of which is solved to the end: slower than the usual one, and surer.
GENTLE = Newton(factor=2.0, level_tol=1e-300)
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


@not_compiled
def solve(  # noqa: PLR0913 - three of data, eight of settings
    cost: Any,
    a: Any = None,
    b: Any = None,
    *,
    epsilon: float | Tensor | None = None,
    method: Method = "auto",
    tol: float = 1e-9,
    max_iterations: int | None = None,
    init: Any = None,
    unbalanced: float | tuple[float, float] | None = None,
    throw: bool = True,
    progress: Callable[[Step], None] | None = None,
) -> Solution[Any]:
    """Entropic optimal transport: min <P, C> + epsilon KL(P | a b^T) over plans P with P 1 = a, P^T 1 = b.

    Args:
        cost: (n, m) costs, a batch (B, n, m), `PointCost(x, y)` or `GridCost(shape)`; +inf forbids a pair, and so
            does the absence of a pair from a scipy or torch sparse matrix. One cost serves a batch of weights, too.
            Tensors and numpy arrays of any real dtype are taken, computed with in float64, and never changed.
        a: Weights of the rows, (n,) or (B, n), at least 0; uniform if None.
        b: Weights of the columns, (m,) or (B, m), of the same mass as a.
        epsilon: Regularisation, in units of the cost; None is 0.05 of the mean absolute cost (`Solution.epsilon` has
            the value). Derivatives pass through the default, and through a tensor that has a graph.
        method: "auto"; "newton" (ours), "sns" (as published), "sinkhorn"; or their settings objects.
        tol: L1 error of both marginals over the mass that counts as converged.
        max_iterations: Sinkhorn and Newton steps at most; None leaves it to the method.
        init: Where to start: a `Solution` of a similar problem, or its g, (m,) or (B, m). A start that leads nowhere is
            left.
        unbalanced: Price rho of leaving the marginals, rho KL(P 1 | a) + rho KL(P^T 1 | b), in units of the cost; one
            for both or (rho_a, rho_b); inf keeps that marginal exact.
        throw: Whether not reaching `tol` raises; else the solution's status says it.
        progress: Called with every step.

    Returns:
        The `Solution`; tensors for tensors, numpy for numpy.

    Raises:
        InvalidArgument: An argument cannot be used (`ShapeError`, `NonFiniteError`, `MassError` among its kinds); the
            message names it.
        NotConverged: `tol` was not reached and `throw` is set; carries the partial `solution`.

    Example:
        >>> import pushforward as pf
        >>> sol = pf.solve(torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64), epsilon=0.01)
        >>> sol.status.name, sol.plan.to_dense().round(decimals=6).tolist()
        ('CONVERGED', [[0.5, 0.0], [0.0, 0.5]])
    """
    name, settings = _method(method)
    tol = check_positive("tol", tol)
    limit = check_count("max_iterations", LIMITS[name] if max_iterations is None else max_iterations)
    check_flag("throw", throw)
    if progress is not None and not callable(progress):
        raise InvalidArgument(f"progress must be a function of one Step, got {progress!r}")
    question = read_problem(cost, a, b, epsilon=epsilon, unbalanced=unbalanced)
    recorder = Recorder(limit, progress)
    problem = question.problem
    with torch.no_grad(), torch.autocast(problem.a.device.type, enabled=False):
        start = _start(init, problem)
        g = _solve_all(problem, start, tol, recorder, name, settings)
        solution = _assess(question, g, tol, recorder, name)
    if question.cost is not None:
        assert question.epsilon is not None  # it comes with the cost
        solution = attach(solution, question.cost, question.epsilon)
    if throw and not solution.converged:
        kind = InfeasibleError if solution.status is Status.INFEASIBLE else NotConverged
        error = float(np.max(np.asarray(_plain(solution.marginal_error))))
        advice = (
            "pass throw=False to use the partial solution"
            if solution.status is not Status.INFEASIBLE
            else "allow more pairs, or pass unbalanced="
        )
        raise kind(f"{solution.status.message}; marginal error {error:.2g}, asked {tol:.2g}; {advice}", solution)
    return solution


def _plain(value: Any) -> Any:
    return value.cpu().numpy() if isinstance(value, Tensor) else value


def _method(method: Method) -> tuple[str, Any]:
    for kind, name in ((Newton, "newton"), (SNS, "sns"), (Sinkhorn, "sinkhorn")):
        if isinstance(method, kind):
            return name, method
    return check_choice("method", method, tuple(LIMITS)), None


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


def _start(init: Any, problem: Problem) -> Tensor | None:
    if init is None:
        return None
    given = (
        init.internals.g
        if isinstance(init, Solution)
        else check_finite("init", to_tensor("init", init, problem.b.device))
    )
    g = given.detach()[None] if given.ndim == 1 else given.detach()
    batch, m = problem.b.shape
    if g.ndim != 2 or g.shape[1] != m or len(g) not in (1, batch):
        raise ShapeError(
            f"init has shape {tuple(given.shape)}; "
            f"column potentials of shape {(m,) if batch == 1 else (batch, m)} are needed"
        )
    return g.to(problem.b).expand_as(problem.b)


def _solve_all(
    problem: Problem, start: Tensor | None, tol: float, recorder: Recorder, name: str, settings: Any
) -> Tensor:
    """Column potentials of every problem of the batch, (B, m)."""
    batch, problem = len(problem.a), _detached(problem)
    if batch == 1:
        return _solve_some(problem, start, tol, recorder, name, settings)[0]
    together = problem.geometry.batch_pays and not _any_lonely(problem)
    found, left = torch.zeros_like(problem.b), range(batch)
    if together and name != "sns":
        found, done = _solve_some(problem, start, tol, recorder, name, settings)
        if done or name == "sinkhorn" or recorder.exhausted:
            return found
        error = problem.error(problem.measure(found), found)[:, 0]
        left = (~(error <= 0.5 * tol)).nonzero()[:, 0].tolist()  # each of them alone, with what is left of the limit
    for k in left:
        here = slice(k, k + 1)
        one = dataclasses.replace(problem, geometry=problem.geometry.only(k), a=problem.a[here], b=problem.b[here])
        own = Recorder(recorder.left, recorder.hook)
        found[here], _ = _solve_some(one, None if start is None else start[here], tol, own, name, settings)
        recorder.absorb(own)
    return found


def solve_detached(problem: Problem, tol: float) -> Tensor:
    """Column potentials of a problem already in computing form, for callers inside the library."""
    return _solve_all(problem, None, tol, Recorder(DETACHED_LIMIT), "auto", None)


def _detached(problem: Problem) -> Problem:
    return dataclasses.replace(problem, a=problem.a.detach(), b=problem.b.detach())


def _solve_some(
    problem: Problem, g: Tensor | None, tol: float, recorder: Recorder, name: str, settings: Any
) -> tuple[Tensor, bool]:
    """Potentials of problems solved together, and whether all are solved; one alone without what has no weight."""
    if problem.balanced:  # g does not depend on the unit of mass, and a mass of 1 keeps f of the size of the costs
        problem = dataclasses.replace(problem, a=problem.a / problem.mass, b=problem.b / problem.mass)
    if name == "sns":  # it holds the plan in any case
        problem = dataclasses.replace(problem, geometry=problem.geometry.dense())
    geometry = problem.geometry
    if len(problem.a) > 1 or not geometry.selects_alike:
        return _run(problem, g, tol, recorder, name, settings)
    rows, cols = _mattering(problem, tol)
    lonely_rows, lonely_cols = problem.lonely()
    rows, cols = rows & ~lonely_rows[0], cols & ~lonely_cols[0]
    if not bool(rows.any() and cols.any()):  # no pair may carry mass
        return torch.zeros_like(problem.b), True
    if bool(rows.all() and cols.all()):
        return _run(problem, g, tol, recorder, name, settings)
    a, b = problem.a[:, rows], problem.b[:, cols]
    if problem.balanced:
        b = b * (a.sum() / b.sum())
    inner = dataclasses.replace(problem, geometry=geometry.select(rows, cols), a=a, b=b)
    found = torch.zeros_like(problem.b)
    found[:, cols], done = _run(inner, None if g is None else g[:, cols], tol, recorder, name, settings)
    small = ~cols & (problem.b[0] > 0) & ~lonely_cols[0]
    if bool(small.any()):  # one update of their own makes these columns exact
        recorder.plan_evaluations += 1
        f = inner.measure(found[:, cols]).f
        beside = geometry.select(rows, small).transposed()
        found[:, small] = beside.measure(f, problem.epsilon, problem.b[:, small], a).f
    return found, done


# Potential, over rho, of a row or column that may send its mass nowhere: rho (1 - exp(-FAR)) is all of rho to rounding.
FAR = 40.0
# All weights that are left out together hold less than this share of the tolerance.
NEGLIGIBLE = 1e-2


def _any_lonely(problem: Problem) -> bool:
    return any(bool(side.any()) for side in problem.lonely())


def _mattering(problem: Problem, tol: float) -> tuple[Tensor, Tensor]:
    """The rows (n,) and columns (m,) that a solver must include: their weight is not 0, nor too small to make an error.

    Tails of bells reach 1e-300. Kernels hold no numbers of that size, and steps that are scaled to them go nowhere.
    """
    a, b = problem.a[0], problem.b[0]
    if not problem.balanced or problem.geometry.forbidden:
        return a > 0, b > 0
    share = 0.5 * NEGLIGIBLE * tol * float(problem.mass[0])
    return a > share / len(a), b > share / len(b)


def _run(
    problem: Problem, g: Tensor | None, tol: float, recorder: Recorder, name: str, settings: Any
) -> tuple[Tensor, bool]:
    """Column potentials, and whether the method says that they are at the tolerance."""
    if name == "sinkhorn":
        return sinkhorn(problem, g, 0.5 * tol, recorder, settings)
    if name == "sns":
        return sns(problem, g, 0.5 * tol, recorder, settings)
    if name == "newton":
        return newton(problem, g, tol, recorder, settings)
    return _auto(problem, g, tol, recorder)


def _auto(problem: Problem, g: Tensor | None, tol: float, recorder: Recorder) -> tuple[Tensor, bool]:
    """The first answer at the tolerance, of Newton's usual path, a slower one, and Sinkhorn's iteration; or the best.

    Each leaves steps for those that follow. Problems of a batch that fail are the caller's, to be solved alone.
    """
    best, least = torch.zeros_like(problem.b), math.inf
    for settings in (Newton(), GENTLE):
        with recorder.at_most(min(MOST_NEWTON, max(recorder.left // 2, FEW))):
            found, done = newton(problem, g, tol, recorder, settings)
        if done and problem.geometry.lossy:
            done = bool((problem.error(problem.measure(found), found) <= tol).all())
        if done or len(problem.a) > 1 or recorder.exhausted:
            return found, done
        measured = problem.measure(found)
        error = float(problem.error(measured, found).nan_to_num(nan=math.inf))
        best, least = (found, error) if error < least else (best, least)
        if problem.geometry.forbidden and is_infeasible(problem, measured.f):
            return best, False
        if error <= _least_rounding(problem, measured.f, found):  # no other method would do better
            return best, False
        g = None
    found, done = sinkhorn(problem, best, 0.5 * tol, recorder)
    error = float(problem.error(problem.measure(found), found).nan_to_num(nan=math.inf))
    return (found, done) if done or error < least else (best, False)


def _assess(question: Question, g: Tensor, tol: float, recorder: Recorder, name: str) -> Solution[Any]:
    """Measure the plan at g, fill in rows and columns without weight, and compute the answer's errors."""
    problem = _detached(question.problem)
    recorder.plan_evaluations += 1
    g = g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    lonely_rows, lonely_cols = problem.lonely()
    lonely = lonely_rows is not NOBODY
    if lonely:
        measured = dataclasses.replace(problem, a=torch.where(lonely_rows, 0.0, problem.a)).measure(g)
        f = torch.where(lonely_rows, 0.0, measured.f)
    else:
        measured = problem.measure(g)
        f = measured.f
    idle = problem.b <= 0
    if bool(idle.any()):
        turned = problem.transposed()
        g = torch.where(idle, turned.measure(f).f, g)
    if lonely:
        far_a, far_b = (FAR * rho if rho < math.inf else 0.0 for rho in (problem.rho_a, problem.rho_b))
        f, g = torch.where(lonely_rows, far_a, f), torch.where(lonely_cols, far_b, g)
        measured = dataclasses.replace(measured, f=f)
    value = dual_value(problem, f, g, measured.cols.sum(-1))
    gap = functools.partial(duality_gap, problem, measured, g)
    if problem.balanced:
        shift = 0.5 * ((problem.b * g).sum(-1) - (problem.a * f).sum(-1)) / problem.mass[:, 0]
        f, g = f + shift[:, None], g - shift[:, None]
    error = _returned_error(problem, measured, f, g, tol, recorder)
    if lonely and problem.rho_a == math.inf:  # what a row without partners keeps, no column misses that is relaxed
        error = error + torch.where(lonely_rows, problem.a, 0.0).sum(-1) / problem.mass[:, 0]
    finite = bool(torch.isfinite(error + value + measured.cost_by_col.sum(-1)).all())
    status = _status(problem, f, error, finite, tol, recorder)
    output = question.output
    return Solution(
        status=status,
        value=output(value),
        f=output(f),
        g=output(g),
        marginal_error=output.number(error),
        iterations=recorder.counts(),
        history=tuple(recorder.steps),
        epsilon=problem.epsilon,
        method=name,
        internals=Internals(
            problem=question.problem,
            f=f,
            g=g,
            epsilon=problem.epsilon,
            output=output,
            transport_cost=lambda: measured.cost_by_col.sum(-1),
            duality_gap=gap,
        ),
    )


def _returned_error(
    problem: Problem, measured: Measured, f: Tensor, g: Tensor, tol: float, recorder: Recorder
) -> Tensor:
    """L1 error over the mass of the plan that f and g, rounded as they are, give back; (B,)."""
    f, g = torch.where(problem.a > 0, f, 0.0), torch.where(problem.b > 0, g, 0.0)
    target_a, target_b = problem.targets(f, g)
    error = (measured.cols - target_b).abs().sum(-1)
    # Rounding f, g and C moves the exponents by a few ulp of the potentials over epsilon, and the plan by that share
    # of itself.
    rounding = 8 * _rounding(problem, measured.f, g)
    if bool((rounding > 0.05 * tol * problem.mass[:, 0]).any()):
        recorder.plan_evaluations += 2
        rows, cols = problem.marginals(f, g)
        return ((rows - target_a).abs().sum(-1) + (cols - target_b).abs().sum(-1)) / problem.mass[:, 0]
    return (error + rounding) / problem.mass[:, 0]


def _rounding(problem: Problem, f: Tensor, g: Tensor) -> Tensor:
    """L1 error, (B,), that one ulp in every potential makes."""
    target_a, target_b = problem.targets(f, g)
    sizes = (f.abs() * target_a).sum(-1) + (g.abs() * target_b).sum(-1)
    return torch.finfo(f.dtype).eps * sizes / problem.epsilon


def _least_rounding(problem: Problem, f: Tensor, g: Tensor) -> float:
    """The error that rounding alone explains, for any method: of these potentials, unless they diverged."""
    spread = 2 * torch.finfo(f.dtype).eps * (problem.geometry.peak - problem.geometry.least) / problem.epsilon
    return min(2 * float(_rounding(problem, f, g)) / float(problem.mass), spread)


def _status(problem: Problem, f: Tensor, error: Tensor, finite: bool, tol: float, recorder: Recorder) -> Status:
    if finite and bool((error <= tol).all()):
        return Status.CONVERGED
    if problem.geometry.forbidden and is_infeasible(problem, f):
        return Status.INFEASIBLE
    if not finite:
        return Status.NON_FINITE
    return Status.ITERATION_LIMIT if recorder.exhausted else Status.STALLED
