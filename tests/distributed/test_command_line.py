"""`pushforward distill-lm` in two processes: it prints and writes what one process does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli import language_models
from distributed import two_processes
from resume.launch import run_ranks

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
FLAGS = "distill-lm --teacher still --student layers:2 --task sst2 --data data --quiet --epochs 1 --loss kd".split()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with data, and a teacher without dropout, which every process draws for itself."""
    language_models.save_data(tmp_path / "data")
    language_models.save_bert(tmp_path / "still")
    config = json.loads((tmp_path / "still/config.json").read_text())
    (tmp_path / "still/config.json").write_text(json.dumps({**config, **dict.fromkeys(DROPOUTS, 0.0)}))
    return tmp_path


def _printed(folder: Path, end: str) -> str:
    return "".join(file.read_text() for file in sorted(folder.glob(f"rank-*.{end}")))


def _figures(run: Path) -> dict[str, float]:
    (seed,) = json.loads((run / "result.json").read_text())["seeds"]
    return {**seed["before"], **{f"after {name}": value for name, value in seed["after"].items()}}


def test_two_processes_print_and_write_as_one(place: Path):
    found = []
    for processes, name in enumerate(("one", "two"), start=1):
        printed = place / f"{name}-printed"
        printed.mkdir()
        words = [*FLAGS, "--batch-size", "16", "--out", name]
        ended = run_ranks(processes, two_processes.command, place, words, printed=printed)
        assert ended == [0] * processes, _printed(printed, "err")[-2000:]
        assert _printed(printed, "out").count("index.html") == 1
        found.append((_figures(place / name), (place / name / "seed-0/log.jsonl").read_text().splitlines()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert len(found[0][1]) == len(found[1][1])


def test_a_batch_that_the_processes_cannot_share_is_named(place: Path):
    words = [*FLAGS, "--batch-size", "7", "--out", "odd"]
    assert 2 in run_ranks(2, two_processes.command, place, words, printed=place)
    assert "--batch-size 7: is no multiple of the 2 processes" in _printed(place, "err")
