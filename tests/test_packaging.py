"""The wheel: with kernels where there is a compiler, whole without, and running where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

pytest.importorskip("scikit_build_core")
pytest.importorskip("nanobind")
pytestmark = pytest.mark.skipif(not (BIN / "cmake").exists(), reason="not the environment of `make setup`")
HEADERS = Path(sysconfig.get_path("include"), "Python.h")


def _wheel(folder: Path, build: str, environment: dict[str, str]) -> None:
    """Build a wheel, and unpack it into `folder / "site"`. What is compiled, quickly, is kept in `build`."""
    kept = ROOT / "build" / f"{build}-{{wheel_tag}}"
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [
            *pip,
            "--config-settings=cmake.build-type=Debug",
            f"--config-settings=build-dir={kept}",
            f"--wheel-dir={folder}",
            str(ROOT),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")


def _run(site: Path, code: str) -> None:
    """Run lines on the unpacked wheel, with nothing else on the machine to be found."""
    first = f"import pushforward\nassert pushforward.__file__.startswith({str(site)!r})\n"
    alone = {"PYTHONPATH": str(site), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", first + "from pushforward.ot import _native\n" + code],
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (shutil.which("c++") and HEADERS.exists()), reason="no C++ compiler, or no Python.h")
def test_a_wheel_has_the_kernels_and_needs_no_compiler(tmp_path: Path):
    _wheel(tmp_path, "wheel", dict(os.environ))
    (extension,) = (tmp_path / "site/pushforward/ot/_native").glob("_kernels.*.so")
    assert not [*(tmp_path / "site").rglob("*.cpp"), *(tmp_path / "site").rglob("*.h")]
    _run(tmp_path / "site", f"assert _native.kernels().__file__ == {str(extension)!r} and _native.instruction_set()")


def test_a_wheel_made_without_a_compiler_works_and_says_what_is_missing(tmp_path: Path):
    # CXX, and /usr/bin on the PATH, are where CMake looks for one.
    bare = {key: value for key, value in os.environ.items() if key not in ("CXX", "CMAKE_ARGS")} | {"PATH": str(BIN)}
    _wheel(tmp_path, "bare", bare)
    assert not [*(tmp_path / "site").rglob("*.so")]
    _run(
        tmp_path / "site",
        "import warnings; warnings.simplefilter('error')\n"
        "try: _native.kernels()\n"
        "except UserWarning as warning: assert 'Install a C++17 compiler' in str(warning)\n"
        "else: raise AssertionError('nothing was said')\n"
        "import torch\n"
        "assert pushforward.solve(torch.rand(9, 9)).status.name == 'CONVERGED'",
    )
