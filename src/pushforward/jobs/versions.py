"""The versions and the machine that a result was made with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["footer", "machine", "native", "versions"]

_PACKAGES = ("pushforward", "torch", "numpy", "scipy", "matplotlib", "scikit-learn", "transformers", "diffusers")


def versions() -> list[tuple[str, str]]:
    """Name and version of Python, of this package and of those that its results depend on."""
    found = [("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "not installed"))
    return found


def machine() -> str:
    """System, processor and threads in one line."""
    import torch

    threads = torch.get_num_threads()
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"torch on {threads} thread{'s' if threads > 1 else ''}"
    )


def native() -> str:
    """The instruction set of the native kernels, or the reason why there are none."""
    from pushforward.ot import _native

    return _native.instruction_set() or f"none, {_native.missing()}: on the CPU torch does their work, more slowly"


def footer() -> tuple[str, ...]:
    """The lines at the end of a page: versions, machine, date."""
    return ", ".join(f"{name} {version}" for name, version in versions()), machine()
