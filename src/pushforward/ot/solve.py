"""`solve`: check the arguments, choose a solver, measure the error of its answer.

Source of the problem's form and of the solvers: `problem.py`, `solvers/`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pushforward._checks import check_choice, check_count, check_finite, check_positive
from pushforward._interop import not_compiled, to_tensor
from pushforward._typed import check_flag
from pushforward.errors import InfeasibleError, InvalidArgument, NotConverged, ShapeError
from pushforward.ot.assess import assess
from pushforward.ot.gradients import attach
from pushforward.ot.history import Recorder, Step
from pushforward.ot.problem import Problem
from pushforward.ot.question import read_problem
from pushforward.ot.solution import Solution, Status
from pushforward.ot.solvers.auto import solve_all
from pushforward.ot.solvers.newton import Newton
from pushforward.ot.solvers.sinkhorn import Sinkhorn
from pushforward.ot.solvers.sns import SNS

__all__ = ["Method", "solve"]

Method = Literal["auto", "newton", "sns", "sinkhorn"] | Newton | SNS | Sinkhorn

# Steps allowed where the caller sets no limit. A Newton step is worth hundreds of Sinkhorn's.
LIMITS = {"auto": 52_000, "newton": 2000, "sns": 1000, "sinkhorn": 100_000}


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
        g = solve_all(problem, start, tol, recorder, name, settings)
        solution = assess(question, g, tol, recorder, name)
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
