"""The states of all random generators as data, so that a resumed run draws the numbers that the first one would.

Each rank saves its state under its own name, and the rank of that number restores it:

    save_state(draft / f"random-{rank()}", random.capture())
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pushforward.errors import CheckpointError
from pushforward.training.distributed import world_size

__all__ = ["capture", "generator", "restore", "seed_everything", "seeded"]


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed Python's, numpy's and torch's global generators, those of the GPUs included.

    Args:
        seed: The run's seed.
        rank: Each rank gets a stream of its own; 0 gives the same stream on all.
    """
    # Seeds that differ by 1 are a run's neighbours in a sweep, and the next rank's: mixed, they never meet.
    mixed = _mixed(seed, "everything", rank)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)  # noqa: NPY002 - the global generator is what other people's data sets draw from
    torch.manual_seed(mixed)


def generator(seed: int, purpose: str, rank: int = 0) -> torch.Generator:
    """A generator for one purpose, on the CPU, whose numbers depend on the arguments only.

    With one for the order of epoch e, `generator(seed, f"order of epoch {e}")`, an epoch can be resumed in its middle
    without any state.

    Example:
        >>> import torch
        >>> order = torch.randperm(4, generator=generator(0, "order of epoch 3"))
        >>> bool((order == torch.randperm(4, generator=generator(0, "order of epoch 3"))).all())
        True
    """
    return torch.Generator().manual_seed(_mixed(seed, purpose, rank))


@contextmanager
def seeded(seed: int, purpose: str, rank: int = 0) -> Generator[None, None, None]:
    """Make torch's global random numbers in the block depend on the arguments only; after it they are as before.

    A training whose every step is such a block is resumed without any random state.

    Example:
        >>> import torch
        >>> before = torch.get_rng_state()
        >>> with seeded(0, "step 7"):
        ...     first = torch.randn(2)
        >>> with seeded(0, "step 7"):
        ...     again = torch.randn(2)
        >>> bool((first == again).all()), bool((before == torch.get_rng_state()).all())
        (True, True)
    """
    with torch.random.fork_rng(devices=_gpus()):
        torch.manual_seed(_mixed(seed, purpose, rank))
        yield


def capture() -> dict[str, Any]:
    """The state of every global generator of this process, in a form that `save_state` takes.

    With several processes, "cuda" is the GPU that this one uses; with one, all that it sees.
    """
    version, numbers, spare = random.getstate()
    mersenne: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "python": {"version": version, "numbers": torch.tensor(numbers), "spare": spare},
        "numpy": {
            "bit_generator": mersenne["bit_generator"],
            "key": torch.from_numpy(mersenne["state"]["key"].astype(np.int64)),
            "pos": int(mersenne["state"]["pos"]),
            "has_gauss": int(mersenne["has_gauss"]),
            "gauss": float(mersenne["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device) for device in _gpus()],
    }


def restore(state: dict[str, Any]) -> None:
    """Set all global generators to a captured state. Other GPUs than those of the state are left, with a warning.

    Raises:
        CheckpointError: `state` is not from `capture`.
    """
    try:
        python, mersenne, gpus = state["python"], state["numpy"], state["cuda"]
        random.setstate((python["version"], tuple(python["numbers"].tolist()), python["spare"]))
        np.random.set_state(  # noqa: NPY002
            {
                "bit_generator": mersenne["bit_generator"],
                "state": {"key": mersenne["key"].numpy().astype(np.uint32), "pos": mersenne["pos"]},
                "has_gauss": mersenne["has_gauss"],
                "gauss": mersenne["gauss"],
            }
        )
        torch.set_rng_state(state["torch"])
        if len(gpus) == len(_gpus()):
            for device, numbers in zip(_gpus(), gpus, strict=True):
                torch.cuda.set_rng_state(numbers, device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"state is not that of random generators: {error!r}") from error
    if len(gpus) != len(_gpus()):
        warnings.warn(
            f"random states of {len(gpus)} GPUs were saved and {len(_gpus())} are in use: what is random on a GPU goes "
            "on differently",
            stacklevel=2,
        )


def _gpus() -> list[int]:
    if not torch.cuda.is_available():
        return []
    return list(range(torch.cuda.device_count())) if world_size() == 1 else [torch.cuda.current_device()]


def _mixed(seed: int, purpose: str, rank: int) -> int:
    digest = hashlib.sha256(f"{seed}/{purpose}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
