"""What a measurement of the scoreboard gives, and the three ways to come by it.

`held_by` runs the tests that hold a figure and counts them; `committed` reads the result of a benchmark that takes
longer than a scoreboard should; `run_python` runs what has to be measured in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import RESULTS, ROOT, read


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """What a measurement gave.

    Args:
        text: The figure, as the page shows it.
        met: Whether the target is reached; None where nothing was measured, and `text` says why.
        command: What measures it, where it is not the scoreboard itself.
        details: Numbers or names behind the figure, failures first of all.
        date, commit, machine: Of a committed result; else those of this run.
    """

    text: str
    met: bool | None
    command: str = ""
    details: Any = None
    date: str = ""
    commit: str = ""
    machine: str = ""


def run_python(*arguments: object, check: bool = False) -> subprocess.CompletedProcess[str]:
    """A fresh Python's run with these arguments, on one thread and without warnings."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=check)


def held_by(*selection: str, environment: dict[str, str] | None = None, what: str = "tests") -> Reached:
    """Counts of the tests of a selection, as pytest takes it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *selection]
        subprocess.run(command, cwd=ROOT, env=os.environ | (environment or {}), capture_output=True, check=False)
        suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    count = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    run, bad = count["tests"] - count["skipped"], count["failures"] + count["errors"]
    names = [
        f"{case.attrib['classname']}::{case.attrib['name']}" for case in suite if len(case) and case[0].tag != "skipped"
    ]
    set_first = "".join(f"{key}={value} " for key, value in (environment or {}).items())
    return Reached(
        text=f"{run - bad} of {run} {what}" + (f", {count['skipped']} skipped" if count["skipped"] else ""),
        met=bad == 0 and run > 0,
        command=f"{set_first}pytest {' '.join(selection)}",
        details=names or None,
    )


def source_of(result: dict[str, Any], script: str) -> dict[str, str]:
    """Where and when a committed result was measured, for `Reached`."""
    source = {"date": result["date"], "commit": result["commit"], "machine": result["machine"]["processor"]}
    return source | {"command": f"python benchmarks/{script}.py"}


def committed(script: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A script's committed result, and where and when it was measured."""
    result = read(RESULTS / f"{script}.json")
    return result, source_of(result, script)
