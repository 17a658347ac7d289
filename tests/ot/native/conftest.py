"""The compiled kernels, under every instruction set that they were built for and this machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from sysconfig import get_path
from types import ModuleType

import pytest

from pushforward.ot._native import kernels


@pytest.fixture
def compiled() -> ModuleType:
    """The module of compiled kernels, as `pf.solve` finds it."""
    module = kernels()
    if module is None:
        can_build = any(map(shutil.which, ("c++", "g++", "clang++"))) and Path(get_path("include"), "Python.h").exists()
        if can_build and os.environ.get("PUSHFORWARD_NATIVE") != "0":
            pytest.fail("the compiled kernels are not built though there is a compiler: run `make setup`")
        pytest.skip("no compiler to build the kernels with, or PUSHFORWARD_NATIVE=0 turns them off")
    return module


@pytest.fixture(params=["plain", "avx2", "avx512"])
def native(compiled: ModuleType, request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The same under one instruction set after the other."""
    if request.param not in compiled.instruction_sets():
        pytest.skip(f"this machine has no {request.param}")
    usual = compiled.instruction_set()
    compiled.set_instruction_set(request.param)
    yield compiled
    compiled.set_instruction_set(usual)
