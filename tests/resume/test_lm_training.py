"""Distillation runs that are killed, and resumed; and runs of two processes beside one."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("transformers")
from resume.lm_training import SAVE_EVERY, STEPS, launch


def curve(folder: Path) -> list[dict[str, float]]:
    """What the last checkpoint's log says of every step."""
    state = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [{k: v for k, v in line.items() if k != "epoch"} for line in state["log_history"] if "loss" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{STEPS}" / "model.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert launch(folder) == [0]
    assert len(curve(folder)) == STEPS
    return folder


@pytest.mark.parametrize("kill", [("step", SAVE_EVERY + 2), ("save", 2 * SAVE_EVERY)], ids=["step", "save"])
def test_a_killed_run_is_resumed_bit_for_bit(kill: tuple[str, int], tmp_path: Path, uninterrupted: Path):
    assert launch(tmp_path, kill=kill) == [-signal.SIGKILL]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{SAVE_EVERY}"]
    assert launch(tmp_path) == [0]
    assert curve(tmp_path) == curve(uninterrupted)
    ours, theirs = weights(tmp_path), weights(uninterrupted)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("tokens", [False, True], ids=["classes", "tokens"])
def test_two_processes_are_one(tokens: bool, tmp_path: Path):
    plain = {"optim": "sgd", "max_grad_norm": 0.0, "dropout": 0.0, "tokens": tokens}  # ranks draw their own dropout
    if tokens:
        # 8 rows a step either way, in micro-batches of 8 and of 2, whose labels are few and unequal in number.
        plain["learning_rate"] = 0.1
    for processes in (1, 2):
        shared = (
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2} if tokens and processes == 2 else {}
        )
        assert launch(tmp_path / str(processes), processes=processes, **plain, **shared) == [0] * processes
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-7)
    for part in ("loss", "distillation_loss", "label_loss", "rows_without_labels"):
        found = [[line.get(part, 0) for line in curve(tmp_path / str(processes))] for processes in (1, 2)]
        assert found[1] == pytest.approx(found[0], rel=1e-5, abs=3e-7), part
        assert any(found[0]) or not tokens
