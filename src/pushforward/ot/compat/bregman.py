"""POT's entropic transport: `ot.sinkhorn` and its kin.

POT regularises with reg * sum P (log P - 1); with exact marginals that differs from epsilon KL(P | a b^T) by a
constant, so that the plans are the same for epsilon = reg. POT's scalings u, v, with P = diag(u) exp(-M/reg) diag(v),
are

    log u = f / reg + log a,    log v = g / reg + log b,

and its `alpha`, `beta` of the stabilised method are reg log u and reg log v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward._checks import check_choice, check_positive
from pushforward._interop import to_tensor
from pushforward._typed import typed
from pushforward.ot.compat import _arrays as arrays
from pushforward.ot.costs import GroundCost, PointCost
from pushforward.ot.solution import Solution
from pushforward.ot.solve import solve

__all__ = [
    "empirical_sinkhorn",
    "empirical_sinkhorn2",
    "empirical_sinkhorn_divergence",
    "sinkhorn",
    "sinkhorn2",
    "sinkhorn_stabilized",
]

# What POT's two functions take; the last two have no cost alone there.
OF_COSTS = ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized")
OF_PLANS = (*OF_COSTS, "sinkhorn_epsilon_scaling", "greenkhorn")
# Methods whose warm start and logs are alpha and beta, in units of the cost.
IN_UNITS_OF_COST = ("sinkhorn_stabilized", "sinkhorn_epsilon_scaling")
METRICS = {"cityblock": "manhattan"}
# POT's names of the arguments of `solve`, for costs and for points.
SETTINGS = {"epsilon": "reg", "tol": "stopThr", "init": "warmstart"}
NAMES = SETTINGS | {"cost": "M", "max_iterations": "numItermax"}
NAMES_OF_POINTS = SETTINGS | {"cost": "metric", "x": "X_s", "y": "X_t", "max_iterations": "numIterMax"}


@dataclass(frozen=True, slots=True)
class _Solved:
    """A solution with what is needed to return it as POT does.

    Args:
        solution: What `solve` found for tensors; a batch of k problems for b of shape (m, k).
        reg: Regularisation, in units of the cost.
        back: Turns a tensor into an array of the caller's library.
        batched: Whether b had several columns.
    """

    solution: Solution[Tensor]
    reg: float
    back: Callable[[Tensor], Any]
    batched: bool

    def plan(self) -> Any:
        return self.back(self.solution.plan.to_dense())

    def cost(self) -> Any:
        return self.back(self.solution.transport_cost)

    def log(self) -> dict[str, Any]:
        """The dictionary of POT's `log=True`, with the keys of all of its methods."""
        solution, problem = self.solution, self.solution.internals.problem
        log_u, log_v = (
            self._columns(potential / self.reg + weights.detach().log().to(potential).reshape(potential.shape))
            for potential, weights in ((solution.f, problem.a), (solution.g, problem.b))
        )
        alpha, beta = self.back(self.reg * log_u), self.back(self.reg * log_v)
        steps = solution.iterations.sinkhorn + solution.iterations.newton
        logs = {"log_u": log_u, "log_v": log_v, "logu": log_u, "logv": log_v, "u": log_u.exp(), "v": log_v.exp()}
        return {
            "err": [step.error for step in solution.history] + [arrays.error_of(solution)],
            "niter": steps,
            "n_iter": steps,
            **{name: self.back(value) for name, value in logs.items()},
            "alpha": alpha,
            "beta": beta,
            "warmstart": (alpha, beta),
        }

    def _columns(self, potentials: Tensor) -> Tensor:
        return potentials.T if self.batched else potentials


@typed
def sinkhorn(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    method: str = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-9,
    verbose: bool | int = False,
    log: bool | int = False,
    warn: bool | int = True,
    warmstart: Any = None,
    *,
    tau: float | None = None,
    epsilon0: float | None = None,
    numInnerItermax: int | None = None,
    print_period: int | None = None,
) -> Any:
    """The plan of `ot.sinkhorn(a, b, M, reg)`, (n, m); for b of shape (m, k) the k transport costs, as in POT.

    Args:
        a, b: Weights of rows (n,) and of columns (m,) or (m, k), of equal masses; empty or None means uniform.
        M: (n, m) costs: an array of numpy, torch, jax or another library of the array API.
        reg: Entropic regularisation, in units of M.
        method: One of POT's names; checked, and without effect (see the package's docstring).
        numItermax: Steps at most.
        stopThr: L1 error of both marginals over the mass; 0 asks for all that rounding allows.
        verbose: Whether to write every step's error to the standard output.
        log: Whether to return a dictionary too, with POT's keys: `err`, `niter`, `u`, `v`, `log_u`, `alpha`, ...
        warn: Whether a plan that misses `stopThr` comes with a warning.
        warmstart: Logarithms of u and v, or alpha and beta for the methods whose logs hold those.
        tau, epsilon0, numInnerItermax, print_period: Settings of POT's methods, without effect.

    Returns:
        The plan or the costs; with `log=True` a pair of it and the dictionary.

    Raises:
        InvalidArgument: An argument cannot be used; the message names it.
        InfeasibleError: No plan avoids the forbidden (infinite) costs.

    Example:
        >>> sinkhorn([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], 1.0).round(4).tolist()
        [[0.3655, 0.1345], [0.1345, 0.3655]]
    """
    check_choice("method", method, OF_PLANS)
    settings = _Settings(reg, numItermax, stopThr, verbose, warn, warmstart, method)
    return _plan_or_costs(_solve(a, b, M, settings), log)


@typed
def sinkhorn2(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    method: str = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-9,
    verbose: bool | int = False,
    log: bool | int = False,
    warn: bool | int = True,
    warmstart: Any = None,
    *,
    tau: float | None = None,
    epsilon0: float | None = None,
    numInnerItermax: int | None = None,
    print_period: int | None = None,
) -> Any:
    """The transport cost <P, M> of `ot.sinkhorn2(a, b, M, reg)`; k of them for b of shape (m, k).

    The arguments are those of `sinkhorn`. Differentiable in a, b and M where they are tensors.
    """
    check_choice("method", method, OF_COSTS)
    solved = _solve(a, b, M, _Settings(reg, numItermax, stopThr, verbose, warn, warmstart, method))
    return _with_log(solved.cost(), solved, log)


@typed
def sinkhorn_stabilized(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    numItermax: int = 1000,
    tau: float = 1e3,
    stopThr: float = 1e-9,
    warmstart: Any = None,
    verbose: bool | int = False,
    print_period: int = 20,
    log: bool | int = False,
    warn: bool | int = True,
) -> Any:
    """The plan of `ot.bregman.sinkhorn_stabilized`: `sinkhorn` in the order of that function's arguments."""
    settings = _Settings(reg, numItermax, stopThr, verbose, warn, warmstart, "sinkhorn_stabilized")
    return _plan_or_costs(_solve(a, b, M, settings), log)


@typed
def empirical_sinkhorn(
    X_s: Any,
    X_t: Any,
    reg: float,
    a: Any = None,
    b: Any = None,
    metric: GroundCost | str = "sqeuclidean",
    numIterMax: int = 10000,
    stopThr: float = 1e-9,
    isLazy: bool | int = False,
    batchSize: Any = 100,
    verbose: bool | int = False,
    log: bool | int = False,
    warn: bool | int = True,
    warmstart: Any = None,
    *,
    method: str = "sinkhorn",
) -> Any:
    """The plan between points X_s (n, d) and X_t (m, d), as `ot.bregman.empirical_sinkhorn`.

    Args:
        X_s, X_t: Points.
        reg: Entropic regularisation, in units of the cost.
        a, b: Weights, (n,) and (m,), of equal masses; uniform if None.
        metric: "sqeuclidean", "euclidean", "cityblock", "cosine", or a function of both sets giving (n, m) costs.
        numIterMax, stopThr, verbose, warn, warmstart, method: As in `sinkhorn`.
        isLazy: Whether to return log u and log v in place of the plan, whose P_ij is
            exp(log u_i + log v_j - M_ij / reg).
        batchSize: Without effect: memory is a matter of `solve`.
        log: Whether to return the dictionary of `sinkhorn` too; with `isLazy` it has the plan as an operator,
            `lazy_plan`, too.

    Returns:
        The plan; or log u, log v; followed by the dictionary where it is asked for.
    """
    check_choice("method", method, OF_PLANS)
    settings = _Settings(reg, numIterMax, stopThr, verbose, warn, warmstart, method)
    solved = _solve_points((X_s, X_t), (a, b), metric, settings)
    if not isLazy:
        return _with_log(solved.plan(), solved, log)
    found = solved.log()
    scalings = found["log_u"], found["log_v"]
    return (*scalings, found | {"lazy_plan": solved.solution.plan}) if log else scalings


@typed
def empirical_sinkhorn2(
    X_s: Any,
    X_t: Any,
    reg: float,
    a: Any = None,
    b: Any = None,
    metric: GroundCost | str = "sqeuclidean",
    numIterMax: int = 10000,
    stopThr: float = 1e-9,
    isLazy: bool | int = False,
    batchSize: Any = 100,
    verbose: bool | int = False,
    log: bool | int = False,
    warn: bool | int = True,
    warmstart: Any = None,
    *,
    method: str = "sinkhorn",
) -> Any:
    """The transport cost <P, M> between points, as `ot.bregman.empirical_sinkhorn2`; arguments as `empirical_sinkhorn`.

    Differentiable in points and weights where they are tensors.
    """
    check_choice("method", method, OF_COSTS)
    settings = _Settings(reg, numIterMax, stopThr, verbose, warn, warmstart, method)
    solved = _solve_points((X_s, X_t), (a, b), metric, settings)
    cost = solved.cost()
    if not log:
        return cost
    return cost, solved.log() | ({"lazy_plan": solved.solution.plan} if isLazy else {})


@typed
def empirical_sinkhorn_divergence(
    X_s: Any,
    X_t: Any,
    reg: float,
    a: Any = None,
    b: Any = None,
    metric: GroundCost | str = "sqeuclidean",
    numIterMax: int = 10000,
    stopThr: float = 1e-9,
    verbose: bool | int = False,
    log: bool | int = False,
    warn: bool | int = True,
    warmstart: Any = None,
    *,
    isLazy: bool | int = False,
    batchSize: Any = 100,
    method: str = "sinkhorn",
) -> Any:
    """`ot.bregman.empirical_sinkhorn_divergence`: of transport costs, W(s, t) - W(s, s)/2 - W(t, t)/2, at least 0.

    W = <P, M>, as POT has it. `pushforward.sinkhorn_divergence` takes the regularised optima instead, which make it a
    divergence: at least 0, and 0 only for equal measures. Arguments as `empirical_sinkhorn`; `warmstart` belongs to the
    pair of both.
    """
    check_choice("method", method, OF_COSTS)
    across = _Settings(reg, numIterMax, stopThr, verbose, warn, warmstart, method)
    within = _Settings(reg, numIterMax, stopThr, verbose, warn, None, method)
    both = _solve_points((X_s, X_t), (a, b), metric, across)
    source = _solve_points((X_s, X_s), (a, a), metric, within)
    target = _solve_points((X_t, X_t), (b, b), metric, within)
    costs = [solved.solution.transport_cost for solved in (both, source, target)]
    value = both.back((costs[0] - 0.5 * (costs[1] + costs[2])).clamp_min(0.0))
    if not log:
        return value
    found = {}
    for name, cost, solved in zip(("ab", "a", "b"), costs, (both, source, target), strict=True):
        found |= {f"sinkhorn_loss_{name}": both.back(cost), f"log_sinkhorn_{name}": solved.log()}
    return value, found


@dataclass(frozen=True, slots=True)
class _Settings:
    """POT's settings of one solve."""

    reg: Any
    steps: Any
    stop_thr: Any
    verbose: bool | int
    warn: bool | int
    warmstart: Any
    method: str


def _plan_or_costs(solved: _Solved, log: bool | int) -> Any:
    """The plan, or the costs where b had several columns, as `sinkhorn` returns it."""
    return _with_log(solved.cost() if solved.batched else solved.plan(), solved, log)


def _with_log(result: Any, solved: _Solved, log: bool | int) -> Any:
    return (result, solved.log()) if log else result


def _solve(a: Any, b: Any, M: Any, settings: _Settings) -> _Solved:
    cost = arrays.cost_matrix(M)
    rows, columns, several = arrays.histograms(a, b, cost.device)
    if several is not None:
        cost = cost.expand(several, *cost.shape)
    with arrays.pot_names(**NAMES):
        return _solved(cost, rows, columns, settings, arrays.back_to(M, a, b), several is not None)


def _solve_points(
    points: tuple[Any, Any], weights: tuple[Any, Any], metric: GroundCost | str, settings: _Settings
) -> _Solved:
    x, y = (to_tensor(name, value) for name, value in zip(("X_s", "X_t"), points, strict=True))
    given = [arrays.weights_or_none(name, value, x.device) for name, value in zip("ab", weights, strict=True)]
    with arrays.pot_names(**NAMES_OF_POINTS):
        cost = PointCost(x, y, METRICS.get(metric, metric) if isinstance(metric, str) else metric)  # pyright: ignore[reportArgumentType]
        return _solved(cost, given[0], given[1], settings, arrays.back_to(*points, *weights), several=False)


def _solved(
    cost: Tensor | PointCost,
    a: Tensor | None,
    b: Tensor | None,
    settings: _Settings,
    back: Callable[[Tensor], Any],
    several: bool,
) -> _Solved:
    reg, tol = check_positive("reg", settings.reg), arrays.finest(settings.stop_thr)
    solution = solve(
        cost,
        a,
        b,
        epsilon=reg,
        tol=tol,
        max_iterations=settings.steps,
        init=_init(settings, b, reg),
        throw=False,
        progress=arrays.show_if(settings.verbose),
    )
    arrays.warn_unless_converged(solution, tol, warn=settings.warn, callers=4)
    return _Solved(solution, reg, back, several)


def _init(settings: _Settings, b: Tensor | None, reg: float) -> Tensor | None:
    """Column potentials from POT's warm start, g = reg (log v - log b)."""
    log_v = arrays.start_of_columns(settings.warmstart, None if b is None else b.device)
    if log_v is None:
        return None
    log_v = log_v.to(torch.float64) / (reg if settings.method in IN_UNITS_OF_COST else 1.0)
    log_b = 0.0 if b is None else arrays.log_or_zero(b.detach().to(torch.float64))
    return reg * (torch.where(torch.isfinite(log_v), log_v, 0.0) - log_b)
