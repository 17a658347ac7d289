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
from pushforward.errors import InfeasibleError, InvalidArgument, NotConverged, NotConvergedWarning
from pushforward.ot.history import Step
from pushforward.ot.solution import Solution, Status

__all__ = [
    "back_to",
    "columns_of",
    "error_of",
    "finest",
    "log_or_zero",
    "pot_names",
    "show_if",
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


def columns_of(b: Tensor | None) -> int | None:
    """How many histograms b holds as columns (m, k); None for one histogram (m,)."""
    return b.shape[1] if b is not None and b.ndim == 2 else None


def finest(stop_thr: Any) -> float:
    """The tolerance that POT's `stopThr` asks for."""
    return max(check_weight("stopThr", stop_thr), FINEST)


def log_or_zero(weights: Tensor) -> Tensor:
    """The logarithm of weights, 0 where there is no weight."""
    return torch.where(weights > 0, weights, 1.0).log()


def show_if(verbose: bool) -> Callable[[Step], None] | None:
    """A hook that writes every step's error to the standard output, where the caller wants that."""
    return (lambda step: _show(step)) if verbose else None


def _show(step: Step) -> None:
    sys.stdout.write(f"{step.kind:>8} | epsilon {step.epsilon:.3e} | error {step.error:.3e}\n")


def error_of(solution: Solution[Any]) -> float:
    """The marginal error of a solution, the largest of a batch."""
    return float(torch.as_tensor(solution.marginal_error).max())


def warn_unless_converged(solution: Solution[Any], tol: float, *, warn: bool, callers: int) -> None:
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
