"""The packages that the solver is compared with: one small function each.

`prepare(problem, **settings)` converts the input to what the package takes and compiles where the package compiles;
none of that is timed. It returns two functions: `run()`, the call that is timed, and `read(result)`, which puts the
result in the form of `measure.Answer`.

`tolerance` is each package's own threshold, in its own norm. `levels` > 0 solves first at epsilon 4^levels, ...,
4 epsilon, each started from the last through the package's own warm start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from measure import Answer, from_duals
from problems import Problem

Prepared = tuple[Callable[[], Any], Callable[[Any], Answer]]
UNLIMITED = 10_000_000


def _epsilons(problem: Problem, levels: int) -> list[float]:
    return [problem.epsilon * 4.0**k for k in range(levels, -1, -1)]


# ---- POT ----


def _pot_arrays(problem: Problem, backend: str) -> tuple[Any, Any, Any]:
    if backend == "numpy":
        return problem.a, problem.b, problem.cost
    import torch

    return torch.from_numpy(problem.a), torch.from_numpy(problem.b), torch.from_numpy(problem.cost)


def pot_sinkhorn(problem: Problem, *, backend: str, tolerance: float) -> Prepared:
    import ot

    a, b, cost = _pot_arrays(problem, backend)

    def run() -> Any:
        return ot.bregman.sinkhorn_knopp(a, b, cost, problem.epsilon, numItermax=UNLIMITED, stopThr=tolerance, log=True)

    def read(result: Any) -> Answer:
        u, v = (np.log(np.asarray(result[1][key])) for key in "uv")
        return Answer(u=u, v=v, counts={"sinkhorn": int(result[1]["niter"])})

    return run, read


def pot_stabilized(
    problem: Problem, *, backend: str, tau: float, check_every: int, levels: int, tolerance: float
) -> Prepared:
    import ot

    a, b, cost = _pot_arrays(problem, backend)

    def run() -> Any:
        start = None
        for epsilon in _epsilons(problem, levels):
            last = epsilon == problem.epsilon
            _, log = ot.bregman.sinkhorn_stabilized(
                a, b, cost, epsilon, numItermax=UNLIMITED if last else 1000, stopThr=tolerance if last else 1e-3,
                tau=tau, warmstart=start, print_period=check_every, log=True,
            )  # fmt: skip
            start = log["warmstart"]
        return log

    def read(log: Any) -> Answer:
        return Answer(u=np.asarray(log["logu"]), v=np.asarray(log["logv"]), counts={"sinkhorn": int(log["n_iter"])})

    return run, read


def pot_log(problem: Problem, *, backend: str, levels: int, tolerance: float) -> Prepared:
    import ot

    a, b, cost = _pot_arrays(problem, backend)

    def run() -> Any:
        start = None
        for epsilon in _epsilons(problem, levels):
            last = epsilon == problem.epsilon
            _, log = ot.bregman.sinkhorn_log(
                a, b, cost, epsilon, numItermax=UNLIMITED if last else 1000, stopThr=tolerance if last else 1e-3,
                warmstart=start, log=True,
            )  # fmt: skip
            start = (4 * log["log_u"], 4 * log["log_v"])
        return log

    def read(log: Any) -> Answer:
        return Answer(u=np.asarray(log["log_u"]), v=np.asarray(log["log_v"]), counts={"sinkhorn": int(log["niter"])})

    return run, read


def pot_emd(problem: Problem) -> Prepared:
    import ot

    def run() -> Any:
        return ot.emd(problem.a, problem.b, problem.cost, numItermax=UNLIMITED)

    return run, lambda plan: Answer(plan=plan)


# ---- OTT ----


def _ott_geometry(problem: Problem, epsilon: Any, cost: Any) -> Any:
    from ott.geometry import geometry

    return geometry.Geometry(cost_matrix=cost, epsilon=epsilon)


def _ott_grid(problem: Problem, epsilon: Any, cost: Any) -> Any:
    import jax.numpy as jnp
    from ott.geometry import costs, grid

    assert problem.grid is not None
    shape, p = problem.grid
    axes = [jnp.arange(side) / side for side in shape]
    along = costs.SqEuclidean() if p == 2 else costs.PNormP(p=1.0)
    return grid.Grid(x=axes, cost_fns=[along, along], epsilon=epsilon)


def ott(
    problem: Problem,
    *,
    lse: bool,
    check_every: int,
    tolerance: float,
    momentum: float | str = 1.0,
    anderson: tuple[int, int] | None = None,
    decay: float = 1.0,
    separable: bool = False,
) -> Prepared:
    """Sinkhorn of OTT, compiled ahead of time.

    `momentum` is a weight or "adaptive" (Lehmann et al.); (memory, refresh) turns on Anderson acceleration instead;
    decay < 1 lowers epsilon from 100 times its value; `separable` takes the cost as a grid's.
    """
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from ott.geometry import epsilon_scheduler
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import acceleration, sinkhorn

    if momentum == "adaptive":
        start = 20 * check_every
        weight = acceleration.Momentum(start=start, error_threshold=jnp.inf, inner_iterations=check_every)
    else:
        weight = acceleration.Momentum(value=momentum, inner_iterations=check_every)
    solver = sinkhorn.Sinkhorn(
        lse_mode=lse, threshold=tolerance, inner_iterations=check_every, max_iterations=1_000_000,
        momentum=None if anderson else weight,
        anderson=acceleration.AndersonAcceleration(memory=anderson[0], refresh_every=anderson[1]) if anderson else None,
    )  # fmt: skip
    epsilon = epsilon_scheduler.Epsilon(problem.epsilon, init=100.0, decay=decay) if decay < 1 else problem.epsilon
    build = _ott_grid if separable else _ott_geometry

    def solve(cost: Any, a: Any, b: Any) -> Any:
        output = solver(linear_problem.LinearProblem(build(problem, epsilon, cost), a, b))
        return output.f, output.g, output.n_iters

    cost = jnp.zeros(()) if separable else jnp.asarray(problem.cost)
    arrays = (cost, jnp.asarray(problem.a), jnp.asarray(problem.b))
    compiled = jax.jit(solve).lower(*arrays).compile()

    def read(result: Any) -> Answer:
        f, g = np.asarray(result[0]), np.asarray(result[1])
        return Answer(u=f / problem.epsilon, v=g / problem.epsilon, counts={"sinkhorn": int(result[2])})

    return lambda: jax.block_until_ready(compiled(*arrays)), read


# ---- RegOT ----


def regot(problem: Problem, *, function: str, tolerance: float, levels: int = 0, **options: Any) -> Prepared:
    """Its threshold is the L2 norm of the dual gradient; it fixes the last entry of the second potential to 0."""
    import regot as package

    solve = getattr(package, function)
    cost = np.asfortranarray(problem.cost)
    n = len(problem.a)

    def run() -> Any:
        start: dict[str, Any] = {}
        for epsilon in _epsilons(problem, levels):
            last = epsilon == problem.epsilon
            result = solve(
                cost, problem.a, problem.b, epsilon, tol=tolerance if last else 1e-4,
                max_iter=1_000_000 if last else 1000, **options, **start,
            )  # fmt: skip
            start = {"x0": result.dual}
        return result

    def read(result: Any) -> Answer:
        f, g = result.dual[:n], np.append(result.dual[n:], 0.0)
        return Answer(u=f / problem.epsilon, v=g / problem.epsilon, counts={"iterations": int(result.niter)})

    return run, read


# ---- MDOT-TNT ----


def mdot_tnt(problem: Problem, *, p: float, q: float, gamma_i: float, tolerance: float | None) -> Prepared:
    """Its tolerance at temperature gamma = 1 / epsilon is H / gamma^p, on marginals smoothed by as much.

    As published p = 1.5, and the error stays far above 1e-9. It is pushed to a tolerance either by a larger p or, where
    `tolerance` is given, by one more of its own projections, on the true marginals.
    """
    import torch
    from mdot_tnt.mdot import mdot
    from mdot_tnt.truncated_newton import TruncatedNewtonProjector

    a, b, cost = (torch.from_numpy(array) for array in (problem.a, problem.b, problem.cost))

    def run() -> Any:
        u, v, gamma, operations, _ = mdot(a, b, cost, 1 / problem.epsilon, gamma_i=gamma_i, p=p, q=q)
        if tolerance is not None:
            projector = TruncatedNewtonProjector(device=cost.device, dtype=cost.dtype)
            threshold = torch.tensor(tolerance, dtype=cost.dtype)
            u, v, *_ = projector.project(cost / problem.epsilon, a.log(), b.log(), threshold, u, v)
        return u, v, operations

    def read(result: Any) -> Answer:
        return Answer(u=result[0].numpy(), v=result[1].numpy(), counts={"n2_operations": int(result[2])})

    return run, read


# ---- GeomLoss ----


def geomloss(problem: Problem, *, iterations: int) -> Prepared:
    """Symmetrised, annealed Sinkhorn for a fixed number of iterations: it has no stopping test."""
    import torch
    from geomloss import ot

    a, b, cost = (torch.from_numpy(array) for array in (problem.a, problem.b, problem.cost))

    def run() -> Any:
        solution = ot.solve(cost, reg=problem.epsilon, a=a, b=b, max_iter=iterations)
        return solution.potential_a, solution.potential_b

    def read(result: Any) -> Answer:
        return from_duals(problem, *result, counts={"sinkhorn": iterations})

    return run, read
