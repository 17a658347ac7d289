"""Trainings of a teacher that are killed, and resumed, in one process and in two."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from resume import teacher_run
from resume.launch import run_ranks

from pushforward.training import read_log


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_training_is_resumed_bit_for_bit(processes: int, tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_ranks(processes, teacher_run.train, whole, None) == [0] * processes
    assert run_ranks(processes, teacher_run.train, killed, 15)[0] == -signal.SIGKILL
    assert {path.name for path in killed.glob("step-*")} == {"step-5", "step-10"}
    assert run_ranks(processes, teacher_run.train, killed, None) == [0] * processes
    assert read_log(whole / "log.jsonl") == read_log(killed / "log.jsonl")
    one, other = ((run / "teacher" / "teacher.safetensors").read_bytes() for run in (whole, killed))
    assert one == other


def test_two_processes_follow_the_same_loss_as_one(tmp_path: Path):
    runs = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        assert run_ranks(processes, teacher_run.train, out, None) == [0] * processes
        runs.append([record["loss"] for record in read_log(out / "log.jsonl")])
    # Noise is drawn by each process for its own rows, so that the two agree in law, not in numbers.
    assert sum(runs[0]) / len(runs[0]) == pytest.approx(sum(runs[1]) / len(runs[1]), rel=0.3)
