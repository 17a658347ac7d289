"""POT's exact transport: `ot.emd` and `ot.emd2`, answered by `pushforward.exact` with its certificate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import scipy.sparse
import torch
from torch import Tensor

from pushforward._checks import check_choice, check_count
from pushforward._interop import to_tensor
from pushforward._typed import typed
from pushforward.errors import ShapeError
from pushforward.ot.compat._arrays import back_to, pot_names, weights_or_none
from pushforward.ot.exact import ExactSolution, exact

__all__ = ["emd", "emd2"]


@typed
def emd(
    a: Any,
    b: Any,
    M: Any,
    numItermax: int = 100_000,
    log: bool | int = False,
    center_dual: bool | int = True,
    numThreads: int | str = 1,
    check_marginals: bool | int = True,
    potentials_init: Any = None,
) -> Any:
    """The optimal plan of `ot.emd(a, b, M)`, (n, m), sparse where M is.

    Args:
        a, b: Weights of rows (n,) and columns (m,), of equal masses; empty or None means uniform.
        M: (n, m) costs; +inf, or a pair that a sparse M does not hold, is forbidden.
        numItermax, numThreads, potentials_init: Without effect: the plan is optimal or an error is raised.
        log: Whether to return a dictionary too, with POT's keys `cost`, `u`, `v`, `warning`, `result_code`.
        center_dual: Whether the prices in the dictionary are shifted so that <u, a> = <v, b>.
        check_marginals: Whether unequal masses are an error; else b is scaled to the mass of a.

    Returns:
        The plan; with `log=True` a pair of it and the dictionary.

    Example:
        >>> emd([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]]).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    _check_threads(numThreads)
    found, back = _solve(a, b, M, check_marginals)
    plan = _plan(found, M, back)
    return (plan, _log(found, a, b, back, center_dual)) if log else plan


@typed
def emd2(
    a: Any,
    b: Any,
    M: Any,
    processes: int = 1,
    numItermax: int = 100_000,
    log: bool | int = False,
    return_matrix: bool | int = False,
    center_dual: bool | int = True,
    numThreads: int | str = 1,
    check_marginals: bool | int = True,
    potentials_init: Any = None,
) -> Any:
    """The optimal cost of `ot.emd2(a, b, M)`; a list of k of them for b of shape (m, k).

    Arguments as `emd`; `processes` is without effect. `return_matrix` adds the plan to the dictionary, as `G`.
    """
    _check_threads(numThreads)
    columns = weights_or_none("b", b)
    if columns is not None and columns.ndim == 2:
        each = columns.T if isinstance(b, Tensor) else columns.T.numpy()
        settings = {"log": log, "return_matrix": return_matrix, "center_dual": center_dual}
        return [emd2(a, column, M, check_marginals=check_marginals, **settings) for column in each]
    found, back = _solve(a, b, M, check_marginals)
    cost = _cost(found, a, b, back)
    if not (log or return_matrix):
        return cost
    details = _log(found, a, b, back, center_dual)
    return cost, details | ({"G": _plan(found, M, back)} if return_matrix else {})


def _check_threads(numThreads: Any) -> None:
    if isinstance(numThreads, str):
        check_choice("numThreads", numThreads, ("max",))
    else:
        check_count("numThreads", numThreads)


def _solve(a: Any, b: Any, M: Any, check_marginals: bool | int) -> tuple[ExactSolution[Any], Callable[[Tensor], Any]]:
    """What `exact` finds, differentiable in M; derivatives in the weights are `_cost`'s."""
    rows, columns = weights_or_none("a", a), weights_or_none("b", b)
    if not check_marginals and rows is not None and columns is not None:
        columns = columns * (rows.sum() / columns.sum())
    for name, weights in (("a", rows), ("b", columns)):
        if weights is not None and weights.ndim != 1:
            raise ShapeError(f"{name} has shape {tuple(weights.shape)}; one weight of each point is needed")
    rows, columns = (None if weights is None else weights.detach() for weights in (rows, columns))
    cost = M if _is_sparse(M) else to_tensor("M", M)
    with pot_names(cost="M"):
        return exact(cost, rows, columns), back_to(M, a, b)


def _is_sparse(M: Any) -> bool:
    return scipy.sparse.issparse(M) or (isinstance(M, Tensor) and M.layout is not torch.strided)


def _cost(found: ExactSolution[Any], a: Any, b: Any, back: Callable[[Tensor], Any]) -> Any:
    """The cost as a number of the caller's library and dtype.

    Its derivatives in the weights are POT's: the prices of each side less their mean, which is the part of them that
    weights of constant mass can feel.
    """
    cost = torch.as_tensor(found.cost, dtype=to_tensor("price", found.f).dtype)
    for name, weights, prices in (("a", a, found.f), ("b", b, found.g)):
        if isinstance(weights, Tensor) and weights.requires_grad:
            price = to_tensor(name, prices).detach()
            cost = cost + ((price - price.mean()) * (weights - weights.detach())).sum()
    return back(cost)


def _plan(found: ExactSolution[Any], M: Any, back: Callable[[Tensor], Any]) -> Any:
    """The plan, sparse where M is."""
    return found.plan if _is_sparse(M) else back(found.plan.to_dense())


def _log(
    found: ExactSolution[Any], a: Any, b: Any, back: Callable[[Tensor], Any], center_dual: bool | int
) -> dict[str, Any]:
    """POT's dictionary; with `center_dual`, prices u - s and v + s that give both sides the same share of the cost."""
    u, v = (to_tensor("price", price) for price in (found.f, found.g))
    if center_dual:
        shift = 0.5 * (_mean(u, weights_or_none("a", a)) - _mean(v, weights_or_none("b", b)))
        u, v = u - shift, v + shift
    return {"cost": _cost(found, a, b, back), "u": back(u), "v": back(v), "warning": None, "result_code": 1}


def _mean(prices: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of prices under weights, uniform ones if None."""
    if weights is None:
        return prices.mean()
    return torch.where(weights > 0, prices * weights, 0.0).sum() / weights.sum()
