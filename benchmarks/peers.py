"""The packages that the solver is compared with: one small function each.

`prepare(problem, **settings)` converts the input to what the package takes and compiles where the package compiles;
none of that is timed. It returns two functions: `run()`, the call that is timed, and `read(result)`, which puts the
result in the form of `measure.Answer`. `axes` are the settings that `tune_peers.py` searches; the first value of each
is where the search starts.

`tolerance` is each package's own threshold, in its own norm; the search tightens it only until the recomputed L1
error of both marginals is at most 1e-9. `levels` > 0 solves first at epsilon 4^levels, ..., 4 epsilon, each started
from the last through the package's own warm start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from measure import Answer
from problems import Problem

__all__ = ["PEERS", "Prepared", "Solver"]

Prepared = tuple[Callable[[], Any], Callable[[Any], Answer]]
UNLIMITED = 10_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Solver:
    """How to run one solver, what its settings are before any search, and what the search may try."""

    prepare: Callable[..., Prepared]
    settings: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    tolerance: float | None = None  # where the search for the loosest sufficient threshold starts; None: has none
    grids_only: bool = False


def _epsilons(problem: Problem, levels: int) -> list[float]:
    return [problem.epsilon * 4.0**k for k in range(levels, -1, -1)]


# ---- POT ----


def _pot_arrays(problem: Problem, backend: str) -> tuple[Any, Any, Any]:
    if backend == "numpy":
        return problem.a, problem.b, problem.cost
    import torch

    torch.set_num_threads(1)
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

    torch.set_num_threads(1)
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

    torch.set_num_threads(1)
    a, b, cost = (torch.from_numpy(array) for array in (problem.a, problem.b, problem.cost))

    def run() -> Any:
        solution = ot.solve(cost, reg=problem.epsilon, a=a, b=b, max_iter=iterations)
        return solution.potential_a, solution.potential_b

    def read(result: Any) -> Answer:
        f, g = result[0].numpy(), result[1].numpy()
        u, v = f / problem.epsilon + np.log(problem.a), g / problem.epsilon + np.log(problem.b)
        return Answer(u=u, v=v, counts={"sinkhorn": iterations})

    return run, read


def _regot(function: str, axes: dict[str, tuple[Any, ...]] | None = None) -> Solver:
    axes = axes or {}
    return Solver(
        prepare=regot, settings={"function": f"sinkhorn_{function}"} | {key: values[0] for key, values in axes.items()},
        axes=axes, tolerance=1e-9,
    )  # fmt: skip


MOMENTA = (1.5, 1.7, 1.8, 1.9, 1.3, 1.95, "adaptive")
LEVELS = (0, 2, 4)

# The likely fastest first: the search gives up on a peer that is far behind the best.
PEERS: dict[str, Solver] = {
    "pot emd": Solver(prepare=pot_emd),
    "mdot-tnt": Solver(prepare=mdot_tnt, settings={"p": 1.5, "q": 2.0, "gamma_i": 16.0, "tolerance": None}),
    "ott momentum": Solver(
        prepare=ott,
        settings={"lse": True, "momentum": 1.5, "check_every": 20},
        axes={"momentum": MOMENTA, "lse": (True, False), "decay": (1.0, 0.9), "check_every": (20, 5, 100)},
        tolerance=1e-9,
    ),
    "ott grid": Solver(
        prepare=ott,
        settings={"lse": True, "momentum": 1.5, "check_every": 20, "separable": True},
        axes={"momentum": (*MOMENTA, 1.0), "lse": (True, False), "decay": (1.0, 0.9), "check_every": (20, 5, 100)},
        tolerance=1e-9,
        grids_only=True,
    ),
    "mdot-tnt pushed": Solver(
        prepare=mdot_tnt,
        settings={"p": 1.5, "q": 2.0, "gamma_i": 16.0},
        axes={"p": (1.5, 1.2, 2.0), "q": (2.0, 4.0), "gamma_i": (16.0, 64.0)},
        tolerance=1e-9,
    ),
    "regot ssns": _regot("ssns", {"levels": LEVELS, "method": (1, 0), "mu0": (1.0, 0.01)}),
    "pot stabilized": Solver(
        prepare=pot_stabilized,
        settings={"backend": "numpy", "tau": 1e30, "check_every": 20, "levels": 0},
        axes={"tau": (1e30, 1e3, 1e6), "levels": LEVELS, "backend": ("numpy", "torch"), "check_every": (20, 5, 100)},
        tolerance=1e-9,
    ),
    "regot splr": _regot("splr", {"levels": LEVELS, "density": (0.01, 0.05), "shift": (1e-6, 1e-3), "method": (1, 0)}),
    "regot sparse-newton": _regot("sparse_newton", {"levels": LEVELS, "density": (0.01, 0.05), "method": (1, 0)}),
    "regot newton": _regot("newton", {"levels": LEVELS, "method": (1, 0)}),
    "regot lbfgs": _regot("lbfgs_dual", {"levels": LEVELS}),
    "regot bcd": _regot("bcd", {"levels": LEVELS}),
    "ott anderson": Solver(
        prepare=ott,
        settings={"lse": True, "anderson": [5, 1], "check_every": 20},
        axes={
            "anderson": ([5, 1], [3, 1], [8, 1], [5, 5], [8, 5]),
            "lse": (True, False),
            "check_every": (20, 5, 100),
        },
        tolerance=1e-9,
    ),
    "ott plain": Solver(
        prepare=ott,
        settings={"lse": False, "check_every": 20},
        axes={"lse": (False, True), "decay": (1.0, 0.9), "check_every": (20, 5, 100)},
        tolerance=1e-9,
    ),
    "pot sinkhorn": Solver(
        prepare=pot_sinkhorn, settings={"backend": "numpy"}, axes={"backend": ("numpy", "torch")}, tolerance=1e-9
    ),
    "pot log": Solver(
        prepare=pot_log,
        settings={"backend": "torch", "levels": 0},
        axes={"backend": ("torch", "numpy"), "levels": LEVELS},
        tolerance=1e-9,
    ),
    "geomloss": Solver(prepare=geomloss, settings={"iterations": 100}, axes={"iterations": (100, 1000)}),
}
