"""The command line's exit codes, and the error that ends a command with one line."""

from __future__ import annotations

__all__ = ["BAD_INPUT", "INTERRUPTED", "NOT_CONVERGED", "OK", "TERMINATED", "UNWRITTEN", "InputError"]

OK = 0
NOT_CONVERGED = 1
UNWRITTEN = 1
BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143


class InputError(Exception):
    """A flag, a file or its content is wrong; the message is one line and names it."""
