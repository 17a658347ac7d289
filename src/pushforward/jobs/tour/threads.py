"""How many threads an act computes on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Generator[None]:
    """Let torch compute on one thread within the block, for models too small to gain by more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
