"""Where a result was measured: the machine, the versions, the day and the commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
ROOT = BENCHMARKS.parent
PACKAGES = ("torch", "numpy", "scipy", "POT", "ott-jax", "jax", "geomloss", "regot", "mdot-tnt")


def conditions(more_packages: Iterable[str] = (), *, tolerance: float | None = None) -> dict[str, Any]:
    """Machine, versions, date, commit and threads, which every result must come with.

    Args:
        more_packages: Packages whose versions are recorded beside the usual ones.
        tolerance: The error that every row had to reach, where there is one.
    """
    asked = {} if tolerance is None else {"tolerance": tolerance}
    return {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in (*PACKAGES, *more_packages)},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "threads": 1,
    } | asked


def stamp() -> dict[str, Any]:
    """Date and commit, for a row that may be older than its file."""
    here = conditions()
    return {name: here[name] for name in ("date", "commit")}


def data_folder(holds: str) -> Path:
    """The folder $PUSHFORWARD_DATA. Exits, naming what it must hold, where that is not set."""
    folder = os.environ.get("PUSHFORWARD_DATA")
    if not folder:
        raise SystemExit(f"set PUSHFORWARD_DATA to the folder that holds {holds}")
    return Path(folder)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str | None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or None
