"""The native kernels where they are built, and why not where they are not.

`_kernels` is compiled from the C++ files beside this one (CMakeLists.txt), each kernel once for each instruction set:

=========  =====================================================================
"plain"    whatever the compiler makes without further flags
"avx2"     x86-64 with AVX2 and FMA
"avx512"   x86-64 with AVX-512 F, DQ and VL, too
=========  =====================================================================

The fastest that the processor has is in use. The environment variable `PUSHFORWARD_NATIVE` names another, or is `0` for
none; it is read when the kernels are first asked for. Without kernels all work is done by torch.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from types import ModuleType

from pushforward.errors import InvalidArgument

__all__ = ["instruction_set", "kernels", "missing"]

_SETS = ("plain", "avx2", "avx512")


def kernels() -> ModuleType | None:
    """The compiled module, or None where there is none: the caller then takes the torch path.

    Where it is missing though nobody switched it off, one UserWarning in the process's life says so.

    Raises:
        InvalidArgument: `PUSHFORWARD_NATIVE` names an instruction set that is unknown, or that this machine lacks.

    Example:
        >>> from pushforward.ot import _native
        >>> module = _native.kernels()
        >>> module is None or module.instruction_set() in ("plain", "avx2", "avx512")
        True
    """
    module, why = _load()
    if module is None and os.environ.get("PUSHFORWARD_NATIVE") != "0":
        _warn(why)
    return module


def instruction_set() -> str | None:
    """Name the instruction set in use: "avx512", "avx2", "plain", or None without kernels.

    Raises:
        InvalidArgument: As `kernels`.
    """
    module, _ = _load()
    return None if module is None else module.instruction_set()


def missing() -> str:
    """The reason why there are no kernels, in one line; empty where there are.

    Raises:
        InvalidArgument: As `kernels`.
    """
    return _load()[1]


@functools.cache  # which keeps answers but no errors: a wrong PUSHFORWARD_NATIVE is refused every time
def _load() -> tuple[ModuleType | None, str]:
    wanted = os.environ.get("PUSHFORWARD_NATIVE", "")
    if wanted == "0":
        return None, "switched off by PUSHFORWARD_NATIVE=0"
    if wanted and wanted not in _SETS:
        raise InvalidArgument(
            f"PUSHFORWARD_NATIVE={wanted}: no such instruction set; use one of {', '.join(_SETS)}, or 0 for none"
        )
    try:
        module = importlib.import_module(f"{__name__}._kernels")
    except ImportError as error:
        # A library that the extension needs may be the one that is not there.
        why = "not built" if isinstance(error, ModuleNotFoundError) else f"not loadable ({error})"
        if wanted:
            raise InvalidArgument(f"PUSHFORWARD_NATIVE={wanted}: the native kernels are {why}") from error
        return None, why
    if wanted:
        found = module.instruction_sets()
        if wanted not in found:
            raise InvalidArgument(
                f"PUSHFORWARD_NATIVE={wanted}: not on this machine, which has {', '.join(found)}; use one of them"
            )
        module.set_instruction_set(wanted)
    return module, ""


_warned_of: set[str] = set()


def _warn(why: str) -> None:
    if why in _warned_of:
        return
    _warned_of.add(why)  # before the warning, so that one that is turned into an error comes once, too
    warnings.warn(
        f"pushforward's native kernels are {why}: torch does their work, more slowly. Install a C++17 compiler (g++ or "
        "clang) and pushforward again, or set PUSHFORWARD_NATIVE=0 to do without them and this warning.",
        UserWarning,
        stacklevel=3,  # the caller of `kernels`
    )
