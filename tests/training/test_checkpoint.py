"""Checkpoints are published whole or not at all, and refused by name when they are not what was saved."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.training import latest, load_state, publishing, save_state, verify

FILES = [
    "manifest.json",
    "random-0.json",
    "random-0.safetensors",
    "sub/notes.txt",
    "training.json",
    "training.safetensors",
]


def publish(folder: Path, step: int, **how):
    with publishing(folder, step, **how) as draft:
        save_state(draft / "training", {"weights": torch.full((50,), float(step)), "step": step, "betas": (0.9, 0.99)})
        save_state(draft / "random-0", {"torch": torch.get_rng_state()})
        (draft / "sub").mkdir()
        (draft / "sub" / "notes.txt").write_text("as it was")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with two checkpoints."""
    publish(tmp_path / "run", 10)
    publish(tmp_path / "run", 20)
    return tmp_path / "run"


def test_what_is_published_verifies_and_is_the_latest(folder):
    assert names(folder) == ["step-10", "step-20"]
    assert latest(folder) == folder / "step-20"
    verify(folder / "step-10")
    manifest = json.loads((folder / "step-20" / "manifest.json").read_text())
    assert sorted(manifest["files"]) == FILES[1:]
    assert (manifest["step"], manifest["world_size"]) == (20, 1)
    assert set(manifest["versions"]) == {"pushforward", "torch", "python"}
    assert load_state(folder / "step-20" / "training")["step"] == 20


def test_what_is_renamed_is_on_the_disk_and_old_ones_go_last(folder, monkeypatch):
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def flushed(handle):
        done.append(f"flush {Path(os.readlink(f'/proc/self/fd/{handle}')).name.split('-')[0]}")
        fsync(handle)

    def renamed(old, new):
        done.append(f"rename to {Path(new).name.split('-')[0]}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", renamed)
    with publishing(folder, 30) as draft:
        (draft / "a").write_text("")
        (draft / "b").write_text("")
    # The draft, .tmp-30-..., becomes step-30, the run's folder holds its name, and step-10 is set aside to be deleted.
    assert done == [
        "flush a",
        "flush b",
        "flush manifest.json",
        "flush .tmp",
        "rename to step",
        "flush run",
        "rename to .tmp",
    ]


def test_a_size_is_told_before_digests_are_taken(folder):
    truncate(folder / "step-20" / "training.safetensors")
    with pytest.raises(CheckpointError, match=r"training\.safetensors has \d+ bytes, but \d+ were saved"):
        verify(folder / "step-20")


def test_steps_are_ordered_as_numbers_and_others_names_ignored(tmp_path):
    for step in (9, 100, 20):
        publish(tmp_path, step, keep=None, name="checkpoint")
    for name in ("checkpoint-best", "step-999", "checkpoint-"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-1000").write_text("a file")
    assert latest(tmp_path, name="checkpoint") == tmp_path / "checkpoint-100"


def test_nothing_there_is_no_checkpoint(tmp_path):
    assert latest(tmp_path) is None
    assert latest(tmp_path / "not there") is None


def test_old_ones_are_pruned_and_later_ones_left(folder):
    publish(folder, 30)
    assert names(folder) == ["step-20", "step-30"]
    publish(folder, 25, keep=1)
    assert names(folder) == ["step-25", "step-30"]
    publish(folder, 40, keep=None)
    assert names(folder) == ["step-25", "step-30", "step-40"]


def test_the_same_step_again_takes_the_place_of_the_old_one(folder):
    with publishing(folder, 20) as draft:
        (draft / "new.txt").write_text("new")
    assert names(folder) == ["step-10", "step-20"]
    assert names(folder / "step-20") == ["manifest.json", "new.txt"]
    verify(folder / "step-20")


def test_a_kill_while_one_takes_the_place_of_another_loses_neither(folder, monkeypatch):
    class Killed(BaseException):
        pass

    rename = Path.rename

    def killed_at_the_second(path, target):
        if path.name.startswith(".tmp-"):
            raise Killed
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed_at_the_second)
    with pytest.raises(Killed):
        publish(folder, 20)
    monkeypatch.undo()
    assert "step-20" not in names(folder)
    assert latest(folder) == folder / "step-20"
    assert names(folder) == ["step-10", "step-20"]


def test_a_start_sweeps_what_a_killed_run_left(folder):
    (folder / ".tmp-30-abc").mkdir()
    (folder / ".tmp-30-abc" / "training.json").write_text("half")
    assert latest(folder) == folder / "step-20"
    assert names(folder) == ["step-10", "step-20"]


def test_an_error_of_the_callers_is_raised_and_nothing_published(folder):
    with pytest.raises(InvalidArgument, match=r"state\['a'\] is a set"), publishing(folder, 30) as draft:
        save_state(draft / "training", {"a": {1}})
    assert names(folder) == ["step-10", "step-20"]


@pytest.mark.parametrize(("argument", "value"), [("step", -1), ("step", 1.5), ("keep", 0)])
def test_bad_arguments_are_named(tmp_path, argument, value):
    with pytest.raises(InvalidArgument, match=argument), publishing(tmp_path, **{"step": 1, argument: value}):
        pass


def delete(file: Path):
    file.unlink()


def truncate(file: Path):
    os.truncate(file, file.stat().st_size - 1)


def empty(file: Path):
    os.truncate(file, 0)


def flip_a_bit(file: Path):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = pytest.mark.parametrize("damage", [delete, truncate, empty, flip_a_bit])


@DAMAGE
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_checkpoint_before_used(folder, name, damage):
    damage(folder / "step-20" / name)
    with pytest.raises(CheckpointError, match=name):
        verify(folder / "step-20")
    with pytest.warns(UserWarning, match=f"step-20 is passed over: .*{name}"):
        assert latest(folder) == folder / "step-10"


def test_every_bit_of_a_manifest_counts(folder):
    file = folder / "step-20" / "manifest.json"
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        for bit in range(8):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            with pytest.raises(CheckpointError, match=r"manifest\.json"):
                verify(folder / "step-20")


def test_none_whole_is_no_checkpoint(folder):
    for step in (10, 20):
        flip_a_bit(folder / f"step-{step}" / "training.safetensors")
    with pytest.warns(UserWarning, match="passed over"):
        assert latest(folder) is None


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "slot", [*FILES, "optimizer.pt", "pytorch_model.bin", "custom_checkpoint_0.pkl", "sub/more.pkl"]
)
def test_a_planted_pickle_is_refused_and_not_run(folder, tmp_path, slot):
    (folder / "step-20" / slot).write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(CheckpointError, match=slot):
        verify(folder / "step-20")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("slot", FILES[1:])
def test_a_planted_pickle_with_a_forged_manifest_is_not_run(folder, tmp_path, slot):
    poison = pickle.dumps(Payload(tmp_path / "executed"))
    (folder / "step-20" / slot).write_bytes(poison)
    manifest = json.loads((folder / "step-20" / "manifest.json").read_text())
    manifest["files"][slot] = {"bytes": len(poison), "sha256": hashlib.sha256(poison).hexdigest()}
    del manifest["sha256"]
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / "step-20" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    assert latest(folder) == folder / "step-20"  # a forger can do this much
    for stem in {slot.split(".")[0]} - {"sub/notes"}:
        with pytest.raises(CheckpointError, match=slot):
            load_state(folder / "step-20" / stem)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [[], {}, {"files": []}, {"files": {"a": 1}}, {"files": {"a": {}}}], ids=json.dumps)
def test_a_manifest_of_another_make_is_refused(folder, content):
    (folder / "step-20" / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        verify(folder / "step-20")


def test_a_link_to_a_folder_is_not_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "step-20" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="link was not saved"):
        verify(folder / "step-20")


@contextmanager
def files_no_larger_than(size: int):
    """The kernel's own refusal to write, which a full disk gives too, for files of this process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 10, 300, 700, 5000])
def test_a_disk_that_fills_up_stops_no_run(folder, size):
    with (
        pytest.warns(UserWarning, match=r"no checkpoint of step 30.*(File too large|os error 27)"),
        files_no_larger_than(size),
    ):
        publish(folder, 30)
    assert names(folder) == ["step-10", "step-20"]
    verify(folder / "step-20")
    publish(folder, 40)
    assert names(folder) == ["step-20", "step-40"]


@pytest.mark.parametrize("call", ["open", "fsync", "mkdir", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT], ids=errno.errorcode.get)
def test_any_call_that_the_disk_refuses_stops_no_run(folder, monkeypatch, call, code):
    def refuse(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.warns(UserWarning, match=os.strerror(code)):
        publish(folder, 30)
    monkeypatch.undo()
    latest(folder)  # sweeps what the disk would not let go of then
    assert names(folder) == ["step-10", "step-20"]
    verify(folder / "step-20")


def test_a_failed_replacement_puts_the_old_one_back(folder, monkeypatch):
    rename = Path.rename

    def refuse_drafts(path, target):
        if path.name.startswith(".tmp-"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_drafts)
    with pytest.warns(UserWarning, match="Input/output error"):
        publish(folder, 20)
    assert names(folder) == ["step-10", "step-20"]
    verify(folder / "step-20")


@contextmanager
def a_user_who_may_not_write(folder: Path):
    """Root may write whatever the permissions say, so that it becomes somebody else for a while."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_folder_that_may_not_be_written_stops_no_run(folder):
    with (
        pytest.warns(UserWarning, match="no checkpoint of step 30.*Permission denied"),
        a_user_who_may_not_write(folder),
    ):
        publish(folder, 30)
    assert names(folder) == ["step-10", "step-20"]
    verify(folder / "step-20")


def test_an_old_one_that_cannot_be_deleted_stops_no_run(folder, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.warns(UserWarning, match="step-10 could not be deleted: .*busy"):
        publish(folder, 30)
    monkeypatch.undo()
    assert latest(folder) == folder / "step-30"
    assert names(folder) == ["step-20", "step-30"]
