"""Commands that the system ends, and two that want one folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pushforward as pf
from pushforward.jobs import folder
from pushforward.jobs.errors import InputError
from pushforward.jobs.solve import page

HOLDER = """
import sys, time
from pathlib import Path
from pushforward.jobs.folder import make_folder
make_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.chdir(tmp_path)
    for name in ("x.npy", "y.npy"):
        np.save(name, np.random.default_rng(len(name)).random((6, 2)))
    return "x.npy", "y.npy"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("site", ["save_file", "_write_log", "_blocks"])
def test_a_disk_that_takes_no_more_is_one_line_with_what_was_kept(
    run: Callable, clouds: tuple[str, str], monkeypatch: pytest.MonkeyPatch, site: str, number: int
):
    def refuse(*unused: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(page, site, refuse)
    outcome = run("solve", *clouds, "--out", "run")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert os.strerror(number) in outcome.err
    assert "run keeps" in outcome.err
    kept = {path.name for path in Path("run").iterdir()}
    assert all(name in outcome.err for name in kept)
    assert ".lock" not in kept


def test_a_folder_has_one_writer(run: Callable, clouds: tuple[str, str], tmp_path: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path(pf.__file__).parents[1])},
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        outcome = run("solve", *clouds, "--out", "run")
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert f"--out run: process {holder.pid} on " in outcome.err
    finally:
        holder.kill()  # it crashed: the lock goes with it
        holder.wait()
    assert run("solve", *clouds, "--out", "run").code == 0
    assert not Path("run/.lock").exists()


def test_the_other_processes_of_a_run_take_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    folder.make_folder(tmp_path)
    assert folder.held() == []


def test_sigterm_is_as_ctrl_c(run: Callable, clouds: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    def killed(*unused: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(pf, "solve", killed)
    outcome = run("solve", *clouds, "--out", "run")
    assert (outcome.code, outcome.err) == (143, "pushforward: terminated\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_said_of_an_interruption_is_true(tmp_path: Path):
    assert folder.interruption(tmp_path, "again").startswith("interrupted before the first checkpoint")
    with pf.training.publishing(tmp_path, 3) as draft:
        (draft / "weights").write_text("0")
    assert folder.interruption(tmp_path, "again") == "interrupted; go on with: again"


def test_a_run_that_died_before_its_first_record_leaves_its_folder_free(tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{}")
    assert folder.holds_run(tmp_path, resume=False) is None
    (tmp_path / "log.jsonl").touch()  # a run that was killed takes nothing away
    assert folder.holds_run(tmp_path, resume=False) is None
    folder.make_folder(tmp_path)
    folder.release(failed=True)
    assert not recipe.exists()
    recipe.write_text("{}")
    (tmp_path / "log.jsonl").write_text("{}")
    folder.make_folder(tmp_path)
    folder.release(failed=True)
    with pytest.raises(InputError, match="holds a run already"):
        folder.holds_run(tmp_path, resume=False)
