"""The files of a checkpoint that transformers' Trainer reads: one error that names the file where one is damaged."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from transformers import TrainerState

from pushforward.errors import CheckpointError

__all__ = ["check_state", "reading"]


@contextmanager
def reading(checkpoint: str | None, *names: str) -> Generator[None, None, None]:
    """Raise a CheckpointError that names the files where the block cannot read them."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, EOFError, UnpicklingError) as error:
        if checkpoint is None:
            raise
        files = " or ".join(str(Path(checkpoint) / name) for name in names)
        # torch's own words advise to read such a file in a way that runs its code.
        cause = "no tensors and plain values" if isinstance(error, UnpicklingError) else " ".join(str(error).split())
        raise CheckpointError(
            f"{files} is damaged, or of another run ({type(error).__name__}: {cause}); take {checkpoint} away, and "
            "resume from the checkpoint before it or start anew"
        ) from error


def check_state(file: Path) -> None:
    """Raise a CheckpointError unless the file holds the state of transformers' Trainer."""
    with reading(str(file.parent), file.name):
        if not file.is_file():
            raise ValueError("there is no such file")
        state = TrainerState.load_from_json(str(file))
        counted = {name: getattr(state, name) for name in ("global_step", "num_input_tokens_seen", "total_flos")}
        for name, value in counted.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"{name} is {value!r}, not a number of at least 0")
        for name, kind in (("log_history", list), ("stateful_callbacks", dict)):
            if not isinstance(getattr(state, name), kind):
                raise ValueError(f"{name} is no {kind.__name__}")
