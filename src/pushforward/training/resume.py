"""The loop of a training that a kill at any moment only delays: its steps, its checkpoints, and whose they are.

    for number in first, ..., steps - 1:  step(number)        False ends the training there, without a checkpoint
    every `every` steps, and at the end:  mark(count)         a look at what there is; False ends the training
                                          state(count)        into a checkpoint, which `Checkpoints.load` gives back

All that a step depends on is in the state, or follows from the settings and the step's number (`random.seeded`). So a
run that was killed, and is started again with the same settings, ends with the same bits as one that was left alone.

With other settings it would end with other bits, and nobody would know. A checkpoint therefore holds the settings of
its run (`fingerprint`), and is refused where any of them differs. A trainer gives all of its constructor's arguments,
without those that it lists as free to change; so one that is added later counts until someone decides that it is free.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pushforward.errors import CheckpointError, Interrupted
from pushforward.training.checkpoint import latest, publishing
from pushforward.training.distributed import barrier, gather_text, is_main, world_size
from pushforward.training.state import load_state, save_state

__all__ = ["Checkpoints", "Training", "advance", "fingerprint", "interruptible"]


class Training(Protocol):
    """What `advance` trains: a network with all that changes beside it."""

    def step(self, number: int) -> bool:
        """Take step `number`, counted from 0; returns whether training can go on."""
        ...

    def mark(self, count: int) -> bool:
        """Look at the network after `count` steps, before the checkpoint; returns whether training should go on."""
        ...

    def state(self, count: int, *, over: bool) -> dict[str, Any]:
        """The state after `count` steps, as `save_state` takes it; `over` where no step follows."""
        ...


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """A run's checkpoints. Every process calls the methods; the first one writes.

    Args:
        folder: The folder of the checkpoints; None for a run that keeps none.
        settings: What the run's bits depend on beside its state, by name, as `fingerprint` gives it. The first
            process's count.
        digest: The identity of the same run in checkpoints of version 0.1, which hold a digest and no settings.
    """

    folder: Path | None
    settings: Mapping[str, Any]
    digest: str = ""

    def load(self) -> dict[str, Any] | None:
        """The state of the last checkpoint that verifies; None where there is none.

        Raises:
            CheckpointError: It is of a run with other settings or of another number of processes; the message names
                the settings that differ.
        """
        found = None if self.folder is None else latest(self.folder)
        if found is None:
            return None
        own, digest = json.loads(gather_text(json.dumps([self.settings, self.digest]))[0])
        state = load_state(found / "training")
        try:
            saved, processes = state["identity"], state["processes"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{found} is no checkpoint of a training: {error!r}") from error
        if isinstance(saved, Mapping):
            names = sorted(saved.keys() | own.keys())
            differing = [_difference(name, saved.get(name), own.get(name)) for name in names]
        else:
            differing = [] if saved == digest else ["the digest of its settings is another"]
        if processes != world_size():
            differing.append(f"processes were {processes} and are {world_size()}")
        if any(differing):
            raise CheckpointError(
                f"{found} is of a training with other data, settings or number of processes "
                f"({', '.join(filter(None, differing))}); choose another folder, or delete it to start over"
            )
        return state

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Publish a checkpoint of `state` after `step` steps; nothing where there is no folder."""
        if self.folder is None:
            return
        with publishing(self.folder, step) as draft:
            if is_main():
                save_state(draft / "training", {**state, "identity": self.settings, "processes": world_size()})
        barrier()


def advance(
    training: Training, checkpoints: Checkpoints, *, steps: int, every: int, first: int = 0, offset: int = 0
) -> None:
    """Take the steps from `first` to `steps`, with a mark and a checkpoint every so many and after the last.

    Args:
        training: What is trained, at its start or as it was at a checkpoint.
        checkpoints: Where checkpoints go.
        steps: Steps in all, those before `first` included.
        every: Steps between checkpoints.
        first: Steps that were taken before.
        offset: What is added to the number of steps in a checkpoint's name, for a training of several parts.
    """
    for number in range(first, steps):
        if not training.step(number):
            return
        count = number + 1
        if count % every == 0 or count == steps:
            over = not training.mark(count) or count == steps
            checkpoints.save(offset + count, training.state(count, over=over))
            if over:
                return


@contextmanager
def interruptible(message: Callable[[], str]) -> Generator[None]:
    """End the block with a warning of the class `Interrupted` at Ctrl-C.

    Args:
        message: Called then; returns the warning's text, or "" where there is nothing to return from the training yet:
            the KeyboardInterrupt goes on.
    """
    try:
        yield
    except KeyboardInterrupt:
        text = message()
        if not text:
            raise
        warnings.warn(text, Interrupted, stacklevel=4)


def fingerprint(value: Any) -> Any:
    """A setting as JSON that is equal where the setting is: numbers as they are, arrays and weights as SHA-256.

    Of a module or object of another library only its class and its weights count, of a function its name.

    Example:
        >>> fingerprint({"rate": 0.1, "hidden": (8, 8), "folder": Path("runs")})
        {'rate': 0.1, 'hidden': [8, 8], 'folder': 'runs'}
    """
    match value:
        case None | bool() | str() | int():
            return value
        case np.generic():
            return fingerprint(value.item())
        case float():
            return value if math.isfinite(value) else str(value)
        case Path():
            return str(value)
        case np.ndarray():
            return [list(value.shape), str(value.dtype), hashlib.sha256(value.tobytes()).hexdigest()]
        case Tensor():
            content: Any = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            return [list(value.shape), str(value.dtype), hashlib.sha256(content).hexdigest()]
        case Mapping():
            return {str(key): fingerprint(part) for key, part in value.items()}
        case list() | tuple():
            return [fingerprint(part) for part in value]
        case _ if callable(value) and not isinstance(value, nn.Module) and hasattr(value, "__qualname__"):
            return value.__qualname__
        case _:
            return _of_object(value)


def _of_object(value: Any) -> dict[str, Any]:
    kind = type(value)
    found: dict[str, Any] = {"class": kind.__qualname__}  # without its module, which may move
    if isinstance(value, nn.Module):
        own = (*value.named_parameters(recurse=False), *value.named_buffers(recurse=False))
        found |= {name: fingerprint(tensor) for name, tensor in (*own, *value.named_children())}
    if is_dataclass(value):
        found |= {field.name: fingerprint(getattr(value, field.name)) for field in fields(value)}
    elif kind.__module__.startswith("pushforward."):
        public = {name: part for name, part in vars(value).items() if not name.startswith("_") and name != "training"}
        found |= fingerprint(public)
    return found


def _difference(name: str, saved: Any, own: Any) -> str:
    """Which setting differs, with its two values where they are short; nothing where they are equal."""
    if saved == own:
        return ""
    if all(isinstance(one, int | float | str | None) and len(str(one)) < 40 for one in (saved, own)):
        return f"{name} was {saved!r} and is {own!r}"
    return f"{name} is another"
