"""The library's errors by type: catch `PushforwardError` for all of them, or the one that you can handle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pushforward.ot.solution import Solution

__all__ = [
    "CheckpointError",
    "InfeasibleError",
    "Interrupted",
    "InvalidArgument",
    "MassError",
    "NonFiniteError",
    "NotConverged",
    "NotConvergedWarning",
    "PushforwardError",
    "ShapeError",
    "TooLargeError",
]


class PushforwardError(Exception):
    """The base of every error that this library raises on purpose."""


class InvalidArgument(PushforwardError, ValueError):
    """An argument has a value that the call cannot use; the message names it and says what would work."""


class ShapeError(InvalidArgument):
    """An array has the wrong number of axes, or its sizes contradict another argument's."""


class NonFiniteError(InvalidArgument):
    """An array holds NaN or an infinity where a number is needed."""


class MassError(InvalidArgument):
    """Weights are negative, sum to nothing, or sum to different masses on the two sides."""


class TooLargeError(PushforwardError, MemoryError):
    """A result would not fit in memory; raised before it is allocated, with the bytes that it would take."""


class NotConverged(PushforwardError, RuntimeError):
    """The answer did not reach its tolerance.

    Args:
        message: What happened, with the error reached beside the error asked.
        solution: The best answer found, usable and honest about its error.
    """

    def __init__(self, message: str, solution: Solution[Any] | None = None) -> None:
        super().__init__(message)
        self.solution = solution


class NotConvergedWarning(UserWarning):
    """A value is used that did not reach its tolerance; the message gives the error reached beside the error asked."""


class Interrupted(UserWarning):
    """Ctrl-C ended a training early; what is returned is what had been learned by then, and the message gives the step.

    Code that must not go on with half a training turns the warning into an exception:

        warnings.simplefilter("error", Interrupted)
    """


class InfeasibleError(NotConverged):
    """No plan with these marginals avoids the forbidden (infinite-cost) pairs."""


class CheckpointError(PushforwardError, RuntimeError):
    """A checkpoint cannot be resumed from: a file is missing, truncated, altered or foreign; the message names it."""
