"""Arrays of POT's users into tensors, and results back into their library."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward._checks import check_weight
from pushforward._interop import like_input, to_tensor
from pushforward.errors import InfeasibleError, InvalidArgument, NotConverged, NotConvergedWarning, ShapeError
from pushforward.ot.history import Step
from pushforward.ot.solution import Solution, Status

__all__ = [
    "back_to",
    "columns_of",
    "cost_matrix",
    "error_of",
    "finest",
    "histograms",
    "log_or_zero",
    "pot_names",
    "show_if",
    "start_of_columns",
    "warn_unless_converged",
    "weights_or_none",
]

# stopThr = 0 asks POT to spend all of its iterations; this asks for all that rounding allows.
FINEST = 1e-15


# The words of a message, but for what is quoted.
WORDS = re.compile(r"(?<![\w.'\"])\w+(?![\w'\"])")


@contextlib.contextmanager
def pot_names(**names: str) -> Generator[None, None, None]:
    """Within the block, errors name this library's arguments, the keys of `names`, by POT's names."""
    try:
        yield
    except InvalidArgument as error:
        message = WORDS.sub(lambda word: names.get(word[0], word[0]), str(error))
        raise type(error)(message).with_traceback(error.__traceback__) from None


def back_to(*given: Any) -> Callable[[Tensor], Any]:
    """The function that turns a tensor into an array of the callers' library: torch's, if one of them is a tensor."""
    if any(isinstance(array, Tensor) for array in given):
        return lambda result: result
    like = given[0]
    if hasattr(like, "__array_namespace__") and not isinstance(like, np.ndarray):
        namespace = like.__array_namespace__()
        return lambda result: namespace.asarray(result.detach().cpu().numpy())
    return lambda result: like_input(result, as_numpy=True)


def weights_or_none(name: str, weights: Any, device: torch.device | None = None) -> Tensor | None:
    """Weights as a tensor; None, which means uniform ones, where there are none: POT's users pass [] for that."""
    if weights is None:
        return None
    tensor = to_tensor(name, weights, device)
    return None if tensor.ndim == 1 and len(tensor) == 0 else tensor


def cost_matrix(M: Any) -> Tensor:
    """The costs as a tensor, (n, m).

    Raises:
        ShapeError: They have other axes than two.
    """
    cost = to_tensor("M", M)
    if cost.ndim != 2:
        raise ShapeError(f"M has shape {tuple(cost.shape)}; (n, m) is needed")
    return cost


def histograms(a: Any, b: Any, device: torch.device) -> tuple[Tensor | None, Tensor | None, int | None]:
    """Weights of rows (n,) and of columns, (m,) or a batch (k, m) where b has k columns, and k, None for one."""
    rows, columns = weights_or_none("a", a, device), weights_or_none("b", b, device)
    several = columns_of(columns)
    return rows, columns if columns is None or several is None else columns.T, several


def start_of_columns(warmstart: Any, device: torch.device | None) -> Tensor | None:
    """What a warm start says of the columns, (m,), or (k, m) for a batch.

    Raises:
        InvalidArgument: `warmstart` is no pair of arrays.
    """
    if warmstart is None:
        return None
    if not isinstance(warmstart, tuple | list) or len(warmstart) != 2:
        raise InvalidArgument("warmstart must be a pair of arrays, one for the rows and one for the columns")
    of_columns = to_tensor("warmstart[1]", warmstart[1], device)
    return of_columns.T if of_columns.ndim == 2 else of_columns


def columns_of(b: Tensor | None) -> int | None:
    """How many histograms b holds as columns (m, k); None for one histogram (m,)."""
    return b.shape[1] if b is not None and b.ndim == 2 else None


def finest(stop_thr: Any) -> float:
    """The tolerance that POT's `stopThr` asks for."""
    return max(check_weight("stopThr", stop_thr), FINEST)


def log_or_zero(weights: Tensor) -> Tensor:
    """The logarithm of weights, 0 where there is no weight."""
    return torch.where(weights > 0, weights, 1.0).log()


def show_if(verbose: bool | int) -> Callable[[Step], None] | None:
    """A hook that writes every step's error to the standard output, where the caller wants that."""
    return (lambda step: _show(step)) if verbose else None


def _show(step: Step) -> None:
    sys.stdout.write(f"{step.kind:>8} | epsilon {step.epsilon:.3e} | error {step.error:.3e}\n")


def error_of(solution: Solution[Any]) -> float:
    """The marginal error of a solution, the largest of a batch."""
    return float(torch.as_tensor(solution.marginal_error).max())


def warn_unless_converged(solution: Solution[Any], tol: float, *, warn: bool | int, callers: int) -> None:
    """Warn that a plan missed its tolerance; refuse one that is no plan at all.

    Args:
        solution: What was found.
        tol: Marginal error that was asked for.
        warn: Whether the caller wants the warning.
        callers: Functions of this package between the user's line, which the warning names, and this one.

    Raises:
        InfeasibleError: No plan exists.
        NotConverged: The potentials left the range of floating-point numbers.
    """
    if solution.status is Status.INFEASIBLE:
        raise InfeasibleError(solution.status.message, solution)
    if solution.status is Status.NON_FINITE:
        raise NotConverged(solution.status.message, solution)
    if warn and not solution.converged:
        warnings.warn(
            f"{solution.status.message}; marginal error {error_of(solution):.2g}, stopThr {tol:.2g}",
            NotConvergedWarning,
            stacklevel=2 + callers,
        )
