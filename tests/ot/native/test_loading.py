"""The extension: found or missed with a word, of the instruction set asked for, harmless to the rest of the process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pushforward.errors import InvalidArgument
from pushforward.ot import _native

ROOT = Path(__file__).parents[3]
built = pytest.mark.skipif(not _native.instruction_set(), reason=f"no native kernels: {_native.missing()}")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch):
    """The module as in a new process, whose environment the test sets."""

    def forget() -> None:
        _native._load.cache_clear()
        _native._warned_of.clear()

    monkeypatch.delenv("PUSHFORWARD_NATIVE", raising=False)
    forget()
    yield monkeypatch
    monkeypatch.undo()
    forget()
    module, _ = _native._load()
    if module is not None:
        module.set_instruction_set(module.instruction_sets()[-1])


def test_missing_kernels_are_said_once(fresh: pytest.MonkeyPatch):
    fresh.setitem(sys.modules, f"{_native.__name__}._kernels", None)
    with pytest.warns(UserWarning, match=r"torch does their work, more slowly\. Install a C\+\+17 compiler") as said:
        assert _native.kernels() is None
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _native.kernels() is None
    assert _native.instruction_set() is None
    assert _native.missing() == "not built"


def test_switched_off_is_silent(fresh: pytest.MonkeyPatch):
    fresh.setenv("PUSHFORWARD_NATIVE", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _native.kernels() is None
    assert _native.missing() == "switched off by PUSHFORWARD_NATIVE=0"


def test_an_unknown_set_is_refused_each_time(fresh: pytest.MonkeyPatch):
    fresh.setenv("PUSHFORWARD_NATIVE", "sse9")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="sse9: no such instruction set; use one of plain, avx2"):
            _native.kernels()


def test_a_set_asked_of_kernels_that_are_missing(fresh: pytest.MonkeyPatch):
    fresh.setitem(sys.modules, f"{_native.__name__}._kernels", None)
    fresh.setenv("PUSHFORWARD_NATIVE", "plain")
    with pytest.raises(InvalidArgument, match="PUSHFORWARD_NATIVE=plain: the native kernels are not built"):
        _native.kernels()


@built
def test_a_set_that_the_machine_lacks(fresh: pytest.MonkeyPatch):
    fresh.setattr("pushforward.ot._native._kernels.instruction_sets", lambda: ["plain"])
    fresh.setenv("PUSHFORWARD_NATIVE", "avx512")
    with pytest.raises(InvalidArgument, match="avx512: not on this machine, which has plain"):
        _native.kernels()


@built
def test_each_set_can_be_had_and_the_fastest_is(fresh: pytest.MonkeyPatch):
    module = _native.kernels()
    assert module is not None
    assert _native.instruction_set() == module.instruction_sets()[-1]
    for name in module.instruction_sets():
        _native._load.cache_clear()
        fresh.setenv("PUSHFORWARD_NATIVE", name)
        assert _native.instruction_set() == name
        assert module.instruction_set() == name


@built
def test_the_module_itself_refuses_what_it_has_not():
    module = _native.kernels()
    assert module is not None
    before = module.instruction_set()
    with pytest.raises(ValueError, match="sse9: not built, or not of this processor"):
        module.set_instruction_set("sse9")
    assert module.instruction_set() == before


def _alone(code: str) -> None:
    """Run a line in a process that has loaded the extension by itself, without the package and so without torch."""
    module = _native.kernels()
    assert module is not None
    load = (
        "import importlib.util as u, sys; spec = u.spec_from_file_location('_kernels', sys.argv[1]); "
        "spec.loader.exec_module(u.module_from_spec(spec)); "
    )
    subprocess.run([sys.executable, "-c", load + code, str(module.__file__)], check=True)


@built
def test_a_denormal_stays_one_beside_the_kernels():
    # -ffast-math at link would bring crtfastmath.o, which flushes them to zero for the whole process as it is loaded.
    _alone("x = float('1e-310'); assert x / 2 > 0")


@built
@pytest.mark.skipif(sys.platform != "linux", reason="reads the list of loaded libraries from /proc")
def test_no_second_runtime_for_threads():
    _alone("maps = open('/proc/self/maps').read(); assert '_kernels' in maps; assert 'omp' not in maps")


OBJECTS = sorted((ROOT / "build/native/CMakeFiles").glob("kernels_*.dir/**/kernels.cpp.o"))


@pytest.mark.skipif(not (OBJECTS and shutil.which("nm")), reason="not built by `make setup`, or no nm")
@pytest.mark.parametrize("file", OBJECTS, ids=lambda file: file.relative_to(ROOT / "build/native/CMakeFiles").parts[0])
def test_a_copy_of_the_kernels_defines_nothing_that_another_could_get(file: Path):
    # Each copy holds the inline functions that it uses as weak symbols, of which the linker keeps
    # one for all copies: where that is AVX-512's, the others fail on a processor without.
    listed = subprocess.run(["nm", "--demangle", "--defined-only", file], capture_output=True, text=True, check=True)
    shared = [line for line in listed.stdout.splitlines() if line.split()[1] in "WVu"]
    assert not shared
