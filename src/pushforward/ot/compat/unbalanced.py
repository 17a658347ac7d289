"""POT's relaxed transport: `ot.unbalanced.sinkhorn_unbalanced` and `sinkhorn_unbalanced2`.

    min_P  <P, M> + reg KL(P | c) + reg_m1 KL(P 1 | a) + reg_m2 KL(P^T 1 | b),     KL(x | y) = sum x log(x/y) - x + y

with c = a b^T for reg_type "kl" unless another is given, and c = 1 for "entropy". `solve` has a b^T for c; another
reference is a change of the cost, since

    reg KL(P | c) = reg KL(P | a b^T) - reg <P, log(c / (a b^T))> + reg (sum c - sum a sum b).

POT's scalings, with P = diag(u) (c exp(-M/reg)) diag(v), are then log u = f / reg and log v = g / reg.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pushforward._checks import check_choice, check_finite, check_positive
from pushforward._interop import to_tensor
from pushforward._typed import typed
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.ot.compat import _arrays as arrays
from pushforward.ot.solution import Solution
from pushforward.ot.solve import solve

__all__ = ["sinkhorn_unbalanced", "sinkhorn_unbalanced2"]

METHODS = ("sinkhorn", "sinkhorn_stabilized", "sinkhorn_reg_scaling", "sinkhorn_translation_invariant")
# POT's names of the arguments of `solve`.
SETTINGS = {"epsilon": "reg", "tol": "stopThr", "max_iterations": "numItermax", "init": "warmstart"}
NAMES = SETTINGS | {"cost": "M", "unbalanced": "reg_m"}


@typed
def sinkhorn_unbalanced(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    method: str = "sinkhorn",
    reg_type: str = "kl",
    c: Any = None,
    warmstart: Any = None,
    numItermax: int = 1000,
    stopThr: float = 1e-6,
    verbose: bool | int = False,
    log: bool | int = False,
    *,
    tau: float | None = None,
) -> Any:
    """The relaxed plan of `ot.unbalanced.sinkhorn_unbalanced`, (n, m); for b of shape (m, k) the k transport costs.

    Args:
        a, b: Weights of rows (n,) and of columns (m,) or (m, k); empty or None means uniform.
        M: (n, m) costs.
        reg: Entropic regularisation, in units of M.
        reg_m: Price of leaving the marginals, in units of M: one for both, or a pair; inf keeps a marginal exact.
        method: One of POT's names; checked, and without effect, as is `tau`.
        reg_type: "kl" or "entropy": the reference of the regularisation (see the module's docstring). For b of shape
            (m, k) it is "entropy", as in POT; a warning says so where "kl" is asked.
        c: (n, m) reference for "kl", at least 0; None is a b^T.
        warmstart: Logarithms of u and v.
        numItermax: Steps at most.
        stopThr: L1 error of the optimality conditions of both marginals over the mass.
        verbose: Whether to write every step's error to the standard output.
        log: Whether to return a dictionary too: `err`, `logu`, `logv`, and for one b `cost` and `total_cost`.

    Returns:
        The plan or the costs; with `log=True` a pair of it and the dictionary.

    Raises:
        InvalidArgument: An argument cannot be used; the message names it.

    Example:
        >>> sinkhorn_unbalanced([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], 1.0, 1.0).round(3).tolist()
        [[0.322, 0.118], [0.118, 0.322]]
    """
    settings = _Settings(reg, reg_m, method, reg_type, c, warmstart, numItermax, stopThr, verbose)
    solved = _solve(a, b, M, settings)
    back = arrays.back_to(M, a, b)
    result = back(solved.plan() if solved.several is None else solved.cost())
    return (result, _log(solved, back)) if log else result


@typed
def sinkhorn_unbalanced2(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    method: str = "sinkhorn",
    reg_type: str = "kl",
    c: Any = None,
    warmstart: Any = None,
    returnCost: str = "linear",
    numItermax: int = 1000,
    stopThr: float = 1e-6,
    verbose: bool | int = False,
    log: bool | int = False,
    *,
    tau: float | None = None,
) -> Any:
    """The cost of the relaxed plan: <P, M> ("linear"), or the whole objective of the module's docstring ("total").

    Arguments as `sinkhorn_unbalanced`; k costs for b of shape (m, k). Differentiable where they are tensors.
    """
    check_choice("returnCost", returnCost, ("linear", "total"))
    settings = _Settings(reg, reg_m, method, reg_type, c, warmstart, numItermax, stopThr, verbose)
    solved = _solve(a, b, M, settings)
    back = arrays.back_to(M, a, b)
    result = back(solved.cost() if returnCost == "linear" else solved.total)
    return (result, _log(solved, back)) if log else result


@dataclass(frozen=True, slots=True)
class _Settings:
    """POT's settings of one relaxed solve."""

    reg: Any
    reg_m: Any
    method: str
    reg_type: str
    c: Any
    warmstart: Any
    steps: Any
    stop_thr: Any
    verbose: bool | int


@dataclass(frozen=True, slots=True)
class _Solved:
    """A solution for tensors, and what POT reports of it.

    Args:
        solution: A batch of k problems where b had k columns.
        cost_matrix: M, (n, m).
        total: The whole objective, () or (k,).
        reg: Regularisation, in units of M.
        several: How many columns b had; None for one histogram.
        changed: Whether the problem solved has another cost than M.
    """

    solution: Solution[Tensor]
    cost_matrix: Tensor
    total: Tensor
    reg: float
    several: int | None
    changed: bool

    def plan(self) -> Tensor:
        return self.solution.plan.to_dense()

    def cost(self) -> Tensor:
        if not self.changed:
            return self.solution.transport_cost
        plan = self.plan()
        return torch.where(plan > 0, plan * torch.where(plan > 0, self.cost_matrix, 0.0), 0.0).sum((-2, -1))


def _log(solved: _Solved, back: Any) -> dict[str, Any]:
    solution = solved.solution
    turn = (lambda t: t) if solved.several is None else (lambda t: t.T)
    found = {
        "err": [step.error for step in solution.history] + [arrays.error_of(solution)],
        "logu": back(turn(solution.f / solved.reg)),
        "logv": back(turn(solution.g / solved.reg)),
    }
    if solved.several is None:
        found |= {"cost": back(solved.cost()), "total_cost": back(solved.total)}
    return found


def _solve(a: Any, b: Any, M: Any, settings: _Settings) -> _Solved:
    check_choice("method", settings.method, METHODS)
    asked_kind = check_choice("reg_type", str(settings.reg_type).lower(), ("kl", "entropy"))
    reg, tol = check_positive("reg", settings.reg), arrays.finest(settings.stop_thr)
    cost = arrays.cost_matrix(M)
    weights_a, weights_b, several = arrays.histograms(a, b, cost.device)
    rows, cols = _uniform_if_none(weights_a, cost.shape[0]), _uniform_if_none(weights_b, cost.shape[1])
    reference = _reference(_kind(asked_kind, several), settings.c, cost)
    asked = cost if several is None else cost.expand(several, *cost.shape)
    surplus = cost.new_zeros(())
    if reference is not None:
        of_rows, of_cols = arrays.log_or_zero(rows)[:, None], arrays.log_or_zero(cols)[..., None, :]
        asked = cost - reg * (reference.log() - of_rows - of_cols)
        surplus = reg * (reference.sum() - rows.sum() * cols.sum(-1))
    with arrays.pot_names(**NAMES):
        solution = solve(
            asked,
            rows,
            cols,
            epsilon=reg,
            tol=tol,
            max_iterations=settings.steps,
            init=_init(settings.warmstart, reg),
            unbalanced=_prices(settings.reg_m),
            throw=False,
            progress=arrays.show_if(settings.verbose),
        )
    arrays.warn_unless_converged(solution, tol, warn=True, callers=3)
    return _Solved(solution, cost, solution.value + surplus, reg, several, reference is not None)


def _kind(asked: str, several: int | None) -> str:
    """The reference of the regularisation; for several b it is that of "entropy" in POT, whatever is asked."""
    if several is not None and asked == "kl":
        warnings.warn(
            f'b has {several} columns, for which POT takes reg_type="entropy", and so is done here; for "kl" call once '
            "for each column",
            stacklevel=5,
        )
        return "entropy"
    return asked


def _uniform_if_none(weights: Tensor | None, size: int) -> Tensor:
    return torch.full((size,), 1.0 / size, dtype=torch.float64) if weights is None else weights


def _reference(kind: str, c: Any, cost: Tensor) -> Tensor | None:
    """The reference measure (n, m), or None for a b^T."""
    given = None if c is None else check_finite("c", to_tensor("c", c, cost.device))
    if given is not None and (given.shape != cost.shape or bool((given < 0).any())):
        raise ShapeError(f"c has shape {tuple(given.shape)}; numbers of at least 0, {tuple(cost.shape)}, are needed")
    if kind == "kl":
        return given
    if given is not None and not bool((given == 1).all()):
        raise InvalidArgument('c is 1 for reg_type="entropy"; pass reg_type="kl" for another reference')
    return torch.ones_like(cost, dtype=torch.float64)


def _prices(reg_m: Any) -> tuple[float, float]:
    prices = to_tensor("reg_m", reg_m).reshape(-1).tolist()
    if len(prices) not in (1, 2):
        raise InvalidArgument(f"reg_m has {len(prices)} entries; one for both marginals, or a pair is needed")
    return prices[0], prices[-1]


def _init(warmstart: Any, reg: float) -> Tensor | None:
    """Column potentials from POT's warm start, g = reg log v."""
    log_v = arrays.start_of_columns(warmstart, None)
    return None if log_v is None else reg * log_v
