"""How much memory is still free, and the refusal of what would take more; no other module decides either.

On a CPU it is the least of what the machine has left, what each control group that this process is in has left (a
container's limit, version 1 or 2, less its usage; files kept in memory only as a cache count as free), and what the
process's own limit of address space leaves. On a GPU it is what the driver and torch's own cache have free.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from pushforward.errors import TooLargeError

__all__ = ["HELD_SHARE", "available_memory", "fits", "refuse_if_too_large"]

# Where the system says nothing.
UNKNOWN = 1 << 62
# What is held for speed alone leaves this share of the memory to others.
HELD_SHARE = 0.7
# Files of a control group by version: its limit, its usage, and the line of memory.stat with its cache.
GROUP_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def refuse_if_too_large(
    what: str, shape: tuple[int, ...], like: Tensor, *, copies: float = 1.0, instead: str | None = None
) -> None:
    """Raise before an allocation that cannot succeed.

    Args:
        what: The name of the array, for the message.
        shape: Its shape.
        like: A tensor of its dtype on its device.
        copies: The number of copies held at once.
        instead: What to use in its place, for the message.

    Raises:
        TooLargeError: With the bytes that the array would take and those that are free.
    """
    needed = math.ceil(copies * math.prod(shape) * like.element_size())
    free = available_memory(like.device)
    if needed > free:
        raise TooLargeError(
            f"{what} of shape {tuple(shape)} would take {needed:,} bytes and {free:,} are free; "
            f"use {instead or 'plan @ v, plan.barycentric(y) or bounds()'}"
        )


def fits(size: float, device: torch.device) -> bool:
    """Whether `size` bytes may be held for speed alone."""
    return size <= HELD_SHARE * available_memory(device)


def available_memory(device: torch.device, root: Path = Path("/")) -> int:
    """The bytes that this process may still take on a device, as far as the system says.

    Args:
        device: The device.
        root: The folder that holds `proc` and `sys`.

    Returns:
        The number of bytes.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(0, min([_machine(root / "proc/meminfo"), _address_space(root / "proc/self"), *_groups(root)]))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _machine(meminfo: Path) -> int:
    return next((int(line.split()[1]) * 1024 for line in _lines(meminfo) if line.startswith("MemAvailable")), UNKNOWN)


def _address_space(process: Path) -> int:
    """The bytes that `ulimit -v` leaves."""
    limit = next((line.split()[3] for line in _lines(process / "limits") if line.startswith("Max address")), "")
    pages = next(iter(_lines(process / "statm")), "0").split()[0]
    return int(limit) - 4096 * int(pages) if limit.isdigit() else UNKNOWN


def _groups(root: Path) -> list[int]:
    """The bytes left in each control group that holds this process, or holds a group that does."""
    left = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        version = 2 if controllers == "" else 1
        if version == 1 and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if version == 1 else "")
        # Inside a container its own group is mounted at the top, and its path may lead nowhere.
        here = top / path.lstrip("/")
        left += [_left(folder, version) for folder in (here, *here.parents) if folder.is_relative_to(top)]
    return left


def _left(folder: Path, version: int) -> int:
    limit, usage, cache = GROUP_FILES[version]
    most, used = ("".join(_lines(folder / name)) for name in (limit, usage))
    if not (most.isdigit() and used.isdigit()):  # no such group, or "max"
        return UNKNOWN
    kept = next((line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith(f"{cache} ")), "0")
    return int(most) - int(used) + int(kept)
