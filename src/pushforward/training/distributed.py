"""Several processes, as torchrun starts them, and the rows of all of them under one loss.

`gather` is what makes a loss that is no sum over samples (a transport problem between two batches, say) the same on 8
processes as on one:

    X = (x_0; x_1; ...; x_{W-1})           forward, on every rank
    dL/dx_r = sum_k (dL_k/dX)[rows of r]   backward

symbol   meaning                                    shape
x_r      this rank's rows                           (n_r, ...), n_r may differ between ranks
X        every rank's rows, in rank order           (sum n_r, ...)
L_k      the loss that rank k computes from X       ()
W        processes

If all ranks compute the same L, the sum is W dL/dx_r, and DistributedDataParallel, which averages over the W ranks,
arrives at exactly dL/dtheta of one process with the whole batch.

Without a process group everything here is the identity on one process.
"""

from __future__ import annotations

import atexit
import gc
import os
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel

from pushforward.errors import ShapeError

__all__ = [
    "average_gradients",
    "barrier",
    "gather",
    "gather_text",
    "is_main",
    "parallel",
    "rank",
    "setup",
    "world_size",
]


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _together() else 0


def world_size() -> int:
    """The number of processes, 1 without torchrun."""
    return dist.get_world_size() if _together() else 1


def is_main() -> bool:
    """Whether this process, rank 0, writes the files for all."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process has called this function."""
    if _together():
        dist.barrier()


@contextmanager
def setup() -> Generator[torch.device, None, None]:
    """Join the processes that torchrun started, for as long as the block lasts; without torchrun there is one process.

    A process group that exists already is used and left as it is.

    Yields:
        This process's device: its own GPU, or the CPU where there is none. nccl and gloo connect them.

    Example:
        >>> with setup() as device:
        ...     device.type in ("cpu", "cuda"), rank(), world_size()
        (True, 0, 1)
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if _together() or "WORLD_SIZE" not in os.environ:
        yield device
        return
    # Naming the device lets nccl connect now, and a wrong address fail here rather than in the first step.
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", device_id=device if device.type == "cuda" else None
    )
    # A DistributedDataParallel that outlives the group, and frees it, holds Python's lock while it waits for gloo's
    # threads, which may wait for that lock: 1 run in 20 hung at its end. So the group is kept, and freed when the
    # interpreter begins to end. Later still, a thread that asks for the lock aborts the process: 1 run in 13 did.
    kept = [dist.group.WORLD]
    atexit.register(_free, kept)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """The module under DistributedDataParallel, which averages gradients over processes; itself where there is one.

    Args:
        module: A module whose passes in training all go through its call.
        device: This process's device.
    """
    if world_size() == 1:
        return module
    return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)


def average_gradients(module: nn.Module) -> None:
    """Average a module's gradients over processes, for a module of which training uses more than its call."""
    if world_size() == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


def gather(x: Tensor) -> Tensor:
    """Every rank's rows, in rank order, with gradient; every rank must call it, and later the backward pass too.

    Differentiable once: the backward pass is a sum over ranks outside the graph, and asking for a second derivative
    raises torch's error for it. Integers and booleans are gathered the same way, without gradient.

    Args:
        x: This rank's rows, (n_r, ...). Ranks may have different n_r, 0 included; all else must agree.

    Returns:
        (sum n_r, ...), the same on every rank; `x` itself where there is one process.

    Raises:
        ShapeError: `x` has no axis of rows, or the ranks' rows differ in shape, dtype or in whether they need a
            gradient. It is raised on every rank, where a collective of torch's would hang or mix up memory.

    Example:
        >>> gather(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """
    if x.ndim == 0:
        raise ShapeError("x has no axes; rows along axis 0 are needed: x.reshape(1) makes one of a single number")
    if world_size() == 1:
        return x
    return _Gather.apply(x, _rows_of_ranks(x))


def gather_text(text: str) -> list[str]:
    """The texts of all ranks in rank order, on every rank; processes use it to agree on names and to report errors.

    Example:
        >>> gather_text("disk full")
        ['disk full']
    """
    if world_size() == 1:
        return [text]
    device = _meeting_place()
    letters = torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)
    lengths = gather(torch.tensor([len(letters)], device=device)).tolist()
    return [bytes(part.tolist()).decode() for part in gather(letters).split(lengths)]


def _free(kept: list[Any]) -> None:
    gc.collect()  # models in reference cycles, so that none of them is the last to hold the group
    kept.clear()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: list[int]) -> Tensor:
        ctx.rows = rows
        # Collectives move equal shapes, so that shorter parts travel padded.
        padded = x.new_zeros(max(rows), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, rows, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.split(ctx.rows)[rank()], None


def _rows_of_ranks(x: Tensor) -> list[int]:
    """n_r of every rank, after a check that the ranks' rows fit together."""
    needs_grad = x.requires_grad and torch.is_grad_enabled()
    kind = f"shape (n, {', '.join(map(str, x.shape[1:]))}), {x.dtype}, {'with' if needs_grad else 'without'} gradient"
    mine = torch.tensor([len(x), zlib.crc32(kind.encode())], device=x.device)
    kinds_of_ranks = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(kinds_of_ranks, mine)
    rows, kinds = zip(*(part.tolist() for part in kinds_of_ranks), strict=True)
    if len(set(kinds)) > 1:
        others = [k for k, theirs in enumerate(kinds) if theirs != kinds[rank()]]
        raise ShapeError(f"x has {kind} on rank {rank()}, and something else on rank {others[0]}; all ranks must agree")
    return list(rows)


def _meeting_place() -> torch.device:
    # gloo moves tensors of the CPU, nccl only those of the GPU.
    return torch.device("cpu" if "gloo" in dist.get_backend_config() else "cuda")
