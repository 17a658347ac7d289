"""The loop of a training that can be resumed: its steps and marks, whose checkpoints they are, what Ctrl-C leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pushforward.diffusion import GaussianMixture, VarianceExploding
from pushforward.errors import CheckpointError, Interrupted
from pushforward.ot.costs import ElasticL1
from pushforward.training.resume import Checkpoints, advance, fingerprint, interruptible


class Counter:
    """Counts its steps, and notes all that is asked of it."""

    def __init__(self, *, stop: int | None = None, enough: int | None = None) -> None:
        self.stop, self.enough = stop, enough
        self.asked: list[Any] = []

    def step(self, number: int) -> bool:
        self.asked.append(number)
        return number != self.stop

    def mark(self, count: int) -> bool:
        self.asked.append(f"mark {count}")
        return count != self.enough

    def state(self, count: int, *, over: bool) -> dict[str, Any]:
        return {"count": count, "over": over}


def run(folder: Path | None, counter: Counter, **how: Any) -> dict[str, Any] | None:
    checkpoints = Checkpoints(folder=folder, settings={"rate": 0.1})
    advance(counter, checkpoints, steps=5, every=2, **how)
    return checkpoints.load()


def test_marks_and_checkpoints_follow_every_so_many_steps_and_the_last(tmp_path: Path):
    counter = Counter()
    found = run(tmp_path, counter)
    assert counter.asked == [0, 1, "mark 2", 2, 3, "mark 4", 4, "mark 5"]
    assert found is not None
    assert (found["count"], found["over"]) == (5, True)
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-4", "step-5"}


def test_it_goes_on_from_the_first_step_and_numbers_what_it_writes(tmp_path: Path):
    counter = Counter()
    run(tmp_path, counter, first=3, offset=100)
    assert counter.asked == [3, "mark 4", 4, "mark 5"]
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-104", "step-105"}


def test_a_mark_ends_it_with_a_checkpoint_and_a_step_without(tmp_path: Path):
    enough, stopped = Counter(enough=2), Counter(stop=3)
    found = run(tmp_path / "enough", enough)
    assert enough.asked == [0, 1, "mark 2"]
    assert found is not None
    assert found["over"]
    found = run(tmp_path / "stopped", stopped)
    assert stopped.asked == [0, 1, "mark 2", 2, 3]
    assert found is not None
    assert (found["count"], found["over"]) == (2, False)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert run(None, Counter()) is None
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_run_is_refused_by_the_names_of_its_settings(tmp_path: Path):
    settings = {"rate": 0.1, "hidden": [8, 8], "seed": 0}
    Checkpoints(folder=tmp_path, settings=settings).save(3, {"count": 3})
    assert Checkpoints(folder=tmp_path, settings=json.loads(json.dumps(settings))).load() is not None
    other = settings | {"rate": 0.2, "hidden": [8]}
    with pytest.raises(CheckpointError, match=r"step-3 is .*\(hidden is another, rate was 0.1 and is 0.2\); choose"):
        Checkpoints(folder=tmp_path, settings=other).load()
    with pytest.raises(CheckpointError, match="added was None and is 1"):
        Checkpoints(folder=tmp_path, settings=settings | {"added": 1}).load()


def test_a_checkpoint_of_version_0_1_is_known_by_its_digest(tmp_path: Path):
    # Such a checkpoint has a digest where later ones have settings.
    Checkpoints(folder=tmp_path, settings="abc").save(3, {"count": 3})  # pyright: ignore[reportArgumentType]
    found = Checkpoints(folder=tmp_path, settings={"rate": 0.1}, digest="abc").load()
    assert found is not None
    assert found["count"] == 3
    for digest in ("abd", ""):
        with pytest.raises(CheckpointError, match="the digest of its settings is another"):
            Checkpoints(folder=tmp_path, settings={"rate": 0.1}, digest=digest).load()


def test_ctrl_c_is_a_warning_once_there_is_something():
    with pytest.warns(Interrupted, match="in step 3"), interruptible(lambda: "in step 3"):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: ""):
        raise KeyboardInterrupt


@dataclass
class Layers:
    width: int
    depth: int = 2


def mixture(mean: float = 0.0, sigma: float = 80.0) -> GaussianMixture:
    process = VarianceExploding(sigma_max=sigma)
    return GaussianMixture(weights=[1.0], means=[[mean]], covariances=[1.0], process=process)


def linear(value: float) -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 1))
    nn.init.constant_(made[0].weight, value)
    nn.init.zeros_(made[0].bias)
    return made


@pytest.mark.parametrize(
    ("value", "same", "other"),
    [
        (0.1, np.float64(0.1), 0.2),
        ((8, 8), [8, 8], (8, 9)),
        (float("nan"), float("nan"), float("inf")),
        (torch.tensor([True, False]), torch.tensor([True, False]), torch.tensor([True, True])),
        (torch.zeros(2, 3).T, torch.zeros(3, 2), torch.zeros(2, 3)),
        (torch.zeros(2), torch.zeros(2), torch.zeros(2).double()),
        (
            torch.ones(2, dtype=torch.bfloat16),
            torch.ones(2, dtype=torch.bfloat16),
            torch.zeros(2, dtype=torch.bfloat16),
        ),
        (np.arange(3), np.arange(3), np.arange(4)),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(1)}, {"b": torch.zeros(1)}),
        (Layers(4), Layers(4), Layers(4, depth=3)),
        (ElasticL1(gamma=0.1), ElasticL1(gamma=0.1), ElasticL1(gamma=0.2)),
        (linear(1.0), linear(1.0), linear(2.0)),
        (mixture(), mixture(), mixture(mean=1.0)),
        (mixture(), mixture(), mixture(sigma=10.0)),
        (torch.relu, torch.relu, torch.tanh),
        (None, None, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fingerprint_is_equal_where_the_setting_is(value: Any, same: Any, other: Any):
    assert json.loads(json.dumps(fingerprint(value))) == fingerprint(same)
    assert fingerprint(value) != fingerprint(other)
