"""Fits of maps that are killed, and resumed; and fits of two processes beside one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from resume import map_training
from resume.launch import run_ranks

from pushforward.maps import MongeMap


def fit(
    folder: Path, *, processes: int = 1, start: str = "entropic", kill: tuple[str, int] | None = None
) -> list[int | None]:
    folder.mkdir(exist_ok=True)
    return run_ranks(processes, map_training.train, folder, start, kill)


def same(one: Path, other: Path) -> None:
    """The same weights and the same course, bit by bit."""
    ours, theirs = MongeMap.load(one / "map"), MongeMap.load(other / "map")
    assert ours.validation_ == theirs.validation_
    weights, others = ours.network_.state_dict(), theirs.network_.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in others)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert fit(folder) == [0]
    return folder


@pytest.mark.parametrize("kill", [("entropic", 7), ("gap", 1)], ids=["first-stage", "second-stage"])
def test_a_killed_fit_is_resumed_bit_for_bit(kill: tuple[str, int], tmp_path: Path, uninterrupted: Path):
    assert fit(tmp_path, kill=kill) == [-signal.SIGKILL]
    assert not (tmp_path / "map").exists()
    assert fit(tmp_path) == [0]
    same(tmp_path, uninterrupted)


def test_two_processes_are_one(tmp_path: Path):
    x, _ = map_training.points()
    for processes in (1, 2):
        assert fit(tmp_path / str(processes), processes=processes, start="linear") == [0] * processes
    one, two = (MongeMap.load(tmp_path / str(processes) / "map") for processes in (1, 2))
    torch.testing.assert_close(two.transform(x), one.transform(x), rtol=1e-5, atol=1e-5)
    assert [record["train_loss"] for record in two.validation_[1:]] == pytest.approx(
        [record["train_loss"] for record in one.validation_[1:]], rel=1e-4
    )


def test_two_killed_processes_are_resumed_bit_for_bit(tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert fit(whole, processes=2, start="linear") == [0, 0]
    ended = fit(killed, processes=2, start="linear", kill=("gap", 9))
    assert ended[0] == -signal.SIGKILL
    assert ended[1]  # killed, too, unless it saw first that the other was gone
    assert fit(killed, processes=2, start="linear") == [0, 0]
    same(killed, whole)
