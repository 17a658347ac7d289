"""Distillations that are killed, and resumed, in one process and in two."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from resume import distillation
from resume.launch import run_ranks

from pushforward.training import load_state, read_log


def same(one: Path, other: Path) -> None:
    """The same curve, the same student and every byte of the last checkpoint."""
    curves = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in read_log(run / "log.jsonl")] for run in (one, other)
    ]
    assert curves[0] == curves[1]
    assert [record["step"] for record in curves[0] if "fake_loss" in record] == list(range(1, distillation.STEPS + 1))
    files = [
        json.loads((run / f"step-{distillation.STEPS}" / "manifest.json").read_text())["files"] for run in (one, other)
    ]
    assert files[0] == files[1]
    students = [load_state(run / "student") for run in (one, other)]
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[1])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_distillation_is_resumed_bit_for_bit(processes: int, tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_ranks(processes, distillation.train, whole, None) == [0] * processes
    # It dies after step 15, whose checkpoint is not there yet: step 10's is taken up.
    ended = run_ranks(processes, distillation.train, killed, 15)
    assert ended[0] == -signal.SIGKILL
    assert all(ended)
    assert not (killed / "step-15").exists()
    assert (killed / "step-10").exists()
    assert run_ranks(processes, distillation.train, killed, None) == [0] * processes
    same(whole, killed)
