"""A run that is killed and started again is, bit for bit, the run that was left alone.

Every kill is a SIGKILL of a real process: between steps, at any call that touches the disk in a save, and at moments in
a save that nobody chose. benchmarks/kill_training.py does the same at length.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from resume import launch, tiny_training
from resume.tiny_training import SAVE_EVERY, STEPS, Kill

SAVES = range(2 * SAVE_EVERY, STEPS, SAVE_EVERY)
BALLAST = 4_000_000  # 16 MB make a save long enough to be hit


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory):
    """The outcome of runs that were left alone, by number of processes and ballast."""
    known: dict[tuple[int, int], dict[str, Any]] = {}

    def of(processes: int, ballast: int = 0) -> dict[str, Any]:
        if (processes, ballast) not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            assert launch.launch(folder, processes, ballast=ballast) == [0] * processes
            known[processes, ballast] = launch.outcome(folder)
        return known[processes, ballast]

    return of


def killed_and_resumed(folder: Path, processes: int, kill: Kill, ballast: int = 0) -> int:
    """Returns the step from which it went on."""
    shutil.rmtree(folder, ignore_errors=True)
    assert launch.launch(folder, processes, kill, ballast)[kill.rank] == -9
    assert launch.launch(folder, processes, ballast=ballast) == [0] * processes
    first, second = launch.starts(folder)
    assert first == 0
    return second


def test_the_same_seed_twice_is_the_same_run(tmp_path, undisturbed):
    assert launch.launch(tmp_path) == [0]
    assert launch.outcome(tmp_path) == undisturbed(1)
    assert [record["step"] for record in undisturbed(1)["curve"]] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(("processes", "kills"), [(1, 4), (2, 2)])
def test_killed_between_steps(tmp_path, undisturbed, processes, kills):
    draw = random.Random(processes)
    for _ in range(kills):
        step = draw.randint(SAVE_EVERY + 1, STEPS)
        kill = Kill(rank=draw.randrange(processes), where="step", step=step, amount=0)
        assert killed_and_resumed(tmp_path, processes, kill) == (step - 1) // SAVE_EVERY * SAVE_EVERY, kill
        assert launch.outcome(tmp_path) == undisturbed(processes), kill


@pytest.mark.parametrize(("processes", "kills"), [(1, 8), (2, 2)])
def test_killed_at_a_call_of_a_save(tmp_path, undisturbed, processes, kills):
    draw = random.Random(10 + processes)
    for _ in range(kills):
        kill = Kill(rank=0, where="call", step=draw.choice(SAVES[:2]), amount=draw.randrange(35))
        assert killed_and_resumed(tmp_path, processes, kill) >= kill.step - SAVE_EVERY, kill
        assert launch.outcome(tmp_path) == undisturbed(processes), kill


@pytest.mark.parametrize(("processes", "kills"), [(1, 4), (2, 2)])
def test_killed_at_some_moment_of_a_save(tmp_path, undisturbed, processes, kills):
    draw = random.Random(20 + processes)
    for _ in range(kills):
        kill = Kill(rank=draw.randrange(processes), where="moment", step=SAVES[0], amount=draw.uniform(0, 0.08))
        assert killed_and_resumed(tmp_path, processes, kill, BALLAST) >= kill.step - SAVE_EVERY, kill
        assert launch.outcome(tmp_path) == undisturbed(processes, BALLAST), kill


def test_killed_again_and_again(tmp_path, undisturbed):
    for step in (3, 9, 10, 18):
        assert launch.launch(tmp_path, kill=Kill(rank=0, where="step", step=step, amount=0)) == [-9]
    assert launch.launch(tmp_path) == [0]
    assert launch.starts(tmp_path) == [0, 0, 8, 8, 16]
    assert launch.outcome(tmp_path) == undisturbed(1)


def test_a_damaged_checkpoint_costs_steps_and_changes_nothing(tmp_path, undisturbed):
    launch.launch(tmp_path, kill=Kill(rank=0, where="step", step=14, amount=0))
    (tmp_path / "step-12" / "training.safetensors").unlink()
    assert launch.launch(tmp_path) == [0]
    assert launch.starts(tmp_path) == [0, 8]
    assert launch.outcome(tmp_path) == undisturbed(1)


def test_under_torchrun(tmp_path, undisturbed):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, tiny_training.__file__, str(tmp_path)]
    kill = json.dumps({"rank": 1, "where": "step", "step": 10, "amount": 0})
    killed = subprocess.run([*command, kill], capture_output=True, text=True, timeout=300, check=False)
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr
    subprocess.run(command, capture_output=True, timeout=300, check=True)
    assert launch.starts(tmp_path) == [0, 8]
    assert launch.outcome(tmp_path) == undisturbed(2)
