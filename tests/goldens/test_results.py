"""The result of each verb on a tiny input, and runs of version 0.1 that today's code goes on with.

`results/*.json` hold the results and `recipes/*` the recipes that version 0.1 wrote. Where a change is meant,
PUSHFORWARD_FREEZE=1 writes the results anew; the recipes stay as they are.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from goldens import small_runs

from pushforward.cli.main import main

HERE = Path(__file__).parent
# What version 0.1 called the files of its runs.
OLD_NAMES = {
    "teacher": ("recipe.json", "result.json", "log.jsonl"),
    "student": ("recipe.json", "results.json", "log.jsonl"),
    "language": ("recipe.json", "results.json", "metrics.jsonl"),
    "map": ("recipe.yaml", "result.json", "metrics.jsonl"),
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs, and a finished run of every verb that trains."""
    folder, before = tmp_path_factory.mktemp("goldens"), Path.cwd()
    os.chdir(folder)
    try:
        small_runs.make_inputs()
        for words in small_runs.TRAININGS.values():
            small_runs.run_verb(words)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def compare(name: str, found: Any) -> None:
    file = HERE / "results" / f"{name}.json"
    found = small_runs.steady(found)
    if os.environ.get("PUSHFORWARD_FREEZE"):
        file.write_text(json.dumps(found, indent=1) + "\n")
    _same(name, found, json.loads(file.read_text()))


def _same(where: str, found: Any, frozen: Any) -> None:
    if isinstance(frozen, dict):
        assert list(found) == list(frozen), where
        for key, value in frozen.items():
            _same(f"{where}.{key}", found[key], value)
    elif isinstance(frozen, list):
        assert len(found) == len(frozen), where
        for k, value in enumerate(frozen):
            _same(f"{where}[{k}]", found[k], value)
    elif isinstance(frozen, float):
        assert found == pytest.approx(frozen, rel=1e-2, abs=1e-9), where
    else:
        assert found == frozen, where


@pytest.mark.parametrize("run", list(small_runs.TRAININGS))
def test_a_training_s_result_is_what_it_was(run: str, inside: Path):
    compare(run, small_runs.result_of(inside / run))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("solve", "solve x.csv y.csv --exact --json"),
        ("evaluate-language", "evaluate language/seed-0/student --task sst2 --data sst2 --teacher bert --json"),
        ("evaluate-images", "evaluate student --data images.npz --num 100 --json"),
    ],
)
def test_a_printed_result_is_what_it_was(name: str, words: str, inside: Path, capsys: pytest.CaptureFixture[str]):
    assert main(words.split()) == 0
    found = json.loads(capsys.readouterr().out)
    found.pop("duality_gap", None)  # rounding alone
    found.pop("marginal_error", None)
    compare(name, found)


def test_mapped_points_are_what_they_were(inside: Path):
    assert main("apply-map map x.csv --out mapped.csv".split()) == 0
    lines = (inside / "mapped.csv").read_text().splitlines()
    compare("apply-map", {"heading": lines[0], "first": [float(cell) for cell in lines[1].split(",")]})


@pytest.mark.parametrize("run", list(small_runs.TRAININGS))
def test_a_run_of_0_1_goes_on(run: str, inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Under the names that version 0.1 gave to its files, with the recipe that it wrote."""
    words, before = small_runs.TRAININGS[run], _resumed(small_runs.result_of(inside / run))
    shutil.copytree(inside / run, tmp_path / run)
    _as_0_1(tmp_path / run, *OLD_NAMES[run])
    words = [str(tmp_path / run) if word == run else word for word in words]
    assert main([*words, "--resume", "--seed" if run != "language" else "--temperature", "3", "--quiet"]) == 2
    assert " 3" in capsys.readouterr().err
    small_runs.run_verb(words, "--resume")
    _same(run, _resumed(small_runs.result_of(tmp_path / run)), before)


def _resumed(result: Any) -> Any:
    # What a training warned of before its last checkpoint it does not say again.
    return {key: value for key, value in small_runs.steady(result).items() if key != "warnings"}


def _as_0_1(folder: Path, recipe: str, result: str, log: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.name in ("recipe.json", "recipe.yaml"):
            path.unlink()
        elif path.name in ("result.json", "results.json", "figures.json"):
            path.rename(path.with_name(result if path.parent == folder else "figures.json"))
        elif path.name in ("log.jsonl", "metrics.jsonl"):
            path.rename(path.with_name(log))
    shutil.copy(HERE / "recipes" / f"{folder.name}-{recipe}", folder / recipe)
