"""A file that is lost, cut short or altered is refused by name, or the checkpoint before is used and that is said."""

from __future__ import annotations

import json
import os
import shutil
import stat
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robustness.tiny_runs import PROCESS, RUNS, SIZE, checkpoints, save_map_run

from pushforward.cli.main import main
from pushforward.diffusion import Generator as Student
from pushforward.diffusion import OneStepPipeline, networks, teachers
from pushforward.diffusion.teacher_training import load_teacher, save_teacher
from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.language import load_model
from pushforward.maps import load_map
from pushforward.training.checkpoint import verify
from pushforward.training.seal import seal

OURS = ["manifest.json", "training.json", "training.safetensors"]
OF_LM = [
    *("manifest.json", "config.json", "generation_config.json", "model.safetensors", "optimizer.pt"),
    *("rng_state.pth", "scheduler.pt", "trainer_state.json", "training_args.bin"),
]
FILES = [(name, file) for name in ("student", "teacher", "map") for file in OURS] + [("lm", file) for file in OF_LM]


def delete(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = pytest.mark.parametrize("damage", [delete, truncate, flip_a_bit], ids=lambda how: how.__name__)


@contextmanager
def umask(mask: int) -> Generator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# ---- checkpoints of the trainers


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each trainer, with two checkpoints, and files that the group may read."""
    folder = tmp_path_factory.mktemp("runs")
    with umask(0o027):
        for name, run in RUNS.items():
            run(folder / name)
    return {name: folder / name for name in RUNS}


def test_the_table_has_every_file(trained: dict[str, Path]):
    inside = {(name, file.name) for name, run in trained.items() for file in checkpoints(run)[0].iterdir()}
    assert inside == set(FILES)


@DAMAGE
@pytest.mark.parametrize(("name", "file"), FILES, ids=str)
def test_a_checkpoint(name: str, file: str, damage: Callable[[Path], None], trained: Any, tmp_path: Path):
    run = shutil.copytree(trained[name], tmp_path / "run")
    last = checkpoints(run)[0]
    whole = (last / "manifest.json").read_bytes()
    damage(last / file)
    with pytest.raises(CheckpointError, match=file):
        verify(last)
    with pytest.warns(UserWarning, match=f"checkpoint {last.name} is passed over: .*{file}"):
        RUNS[name](run)
    verify(last)  # made again, from the one before
    if name != "lm":  # whose files hold the time that it took
        assert (last / "manifest.json").read_bytes() == whole


@pytest.mark.parametrize("file", OF_LM)
def test_a_checkpoint_that_is_named_is_refused(file: str, trained: Any, tmp_path: Path):
    run = shutil.copytree(trained["lm"], tmp_path / "run")
    last = checkpoints(run)[0]
    flip_a_bit(last / file)
    with pytest.raises(CheckpointError, match=file):
        RUNS["lm"](run, resume=str(last))


# ---- maps, students, teachers, language models


def save(kind: str, folder: Path) -> None:
    torch.manual_seed(0)
    if kind == "map":
        save_map_run(folder.parent)
    elif kind == "lm":
        import transformers

        settings: dict[str, Any] = {"n_embd": 4, "n_layer": 2, "n_head": 1, "vocab_size": 10}
        transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, n_positions=8)).save_pretrained(folder)
        seal(folder)
    else:
        denoiser = teachers.from_edm(networks.build(SIZE), PROCESS)
        if kind == "teacher":
            save_teacher(folder, denoiser, shape=(2,))
        else:
            OneStepPipeline(Student(denoiser, times=(5.0,)), shape=(2,)).save_pretrained(folder)


def load(kind: str, folder: Path) -> object:
    if kind == "map":
        return load_map(folder)
    if kind == "lm":
        import transformers

        from pushforward.lm import parse_student

        settings: dict[str, Any] = {"n_embd": 4, "n_layer": 2, "n_head": 1, "vocab_size": 10}
        teacher = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, n_positions=8))
        return parse_student(str(folder), teacher)
    return load_teacher(folder) if kind == "teacher" else OneStepPipeline.from_pretrained(folder)


KINDS = ["student", "teacher", "map", "lm"]
SAVED = [(kind, ending) for kind in KINDS for ending in (".json", ".safetensors")]


@DAMAGE
@pytest.mark.parametrize(("kind", "ending"), SAVED, ids=str)
def test_what_was_saved(
    kind: str, ending: str, damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / kind
    save(kind, folder)
    found = sorted(file for file in folder.glob(f"*{ending}") if file.name not in ("map.json", "digests.json"))
    damage(found[0])
    with pytest.raises((CheckpointError, InvalidArgument), match=found[0].name):
        load(kind, folder)
    if kind == "lm":
        with pytest.raises(InputError, match=found[0].name):
            load_model("--teacher", folder, None)
        return
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    if kind == "map":
        words = ["apply-map", tmp_path, tmp_path / "x.npy"]
    else:
        words = ["sample", folder, "--out", tmp_path / "drawn.npz"]
    code = main([str(word) for word in words])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1), said
    assert found[0].name in said


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_a_folder_of_an_older_version_is_loaded_with_a_warning(kind: str, tmp_path: Path):
    save(kind, tmp_path)
    file = tmp_path / f"{kind}.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="has no digests: whether its weights are whole is unknown"):
        load(kind, tmp_path)


def test_a_language_model_that_others_saved_has_no_digests_and_is_loaded_in_silence(tmp_path: Path):
    # transformers writes none, and most folders are of its making: a warning would be said of every teacher.
    save("lm", tmp_path)
    (tmp_path / "digests.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("lm", tmp_path)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("kind", KINDS)
def test_who_may_read_the_json_may_read_the_weights(kind: str, mask: int, tmp_path: Path):
    with umask(mask):
        save(kind, tmp_path / kind)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / kind).iterdir() if file.is_file()}
    assert set(modes.values()) == {0o666 & ~mask}, modes


def test_who_may_read_the_manifest_may_read_a_checkpoints_weights(trained: dict[str, Path]):
    for run in trained.values():
        for file in checkpoints(run)[0].glob("*.safetensors"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o640
