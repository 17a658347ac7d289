"""Maps on disk: back bit for bit, replaced whole or not at all, refused by name when they are not what was saved."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.maps import saved
from pushforward.maps.costs import ElasticL1, ElasticSubspace, PowerCost
from pushforward.maps.entropic import EntropicMap
from pushforward.maps.linear import LinearMap
from pushforward.maps.progressive import ProgressiveMap
from pushforward.maps.saved import load_map
from pushforward.training.seal import sealed

MAPS = [
    LinearMap(shrinkage=0.1),
    EntropicMap(random_state=0),
    EntropicMap(epsilon=0.1, cost=ElasticL1(gamma=0.2), debias=True, random_state=np.random.RandomState(1)),  # noqa: NPY002
    EntropicMap(epsilon=0.1, cost=PowerCost(p=1.5)),
    ProgressiveMap(3, epsilon=0.1, max_points=20),
]


class Half:
    """A cost of a caller's own, |x - y|^2 / 2."""

    def h(self, z):
        return 0.5 * z.square().sum(-1)

    def gradient(self, z):
        return z

    def conjugate_gradient(self, w):
        return w

    def paired(self, x, y):
        return self.h(x - y)

    def __call__(self, x, y):
        return self.h(x[:, None] - y)


@pytest.fixture
def clouds(rng):
    return rng.standard_normal((40, 3)), rng.standard_normal((50, 3)) * 0.5 + 2.0


@pytest.fixture
def folder(tmp_path, clouds):
    """Where a linear map was saved."""
    LinearMap().fit(*clouds).save(tmp_path / "map")
    return tmp_path / "map"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("estimator", MAPS, ids=lambda m: f"{type(m).__name__}-{getattr(m, 'cost', '')!s:.20}")
def test_a_map_comes_back_bit_for_bit(estimator, clouds, tmp_path):
    fitted = estimator.fit(*clouds)
    fitted.save(tmp_path)
    for again in (load_map(tmp_path), type(estimator).load(tmp_path)):
        assert type(again) is type(estimator)
        np.testing.assert_array_equal(again.transform(clouds[0]), fitted.transform(clouds[0]))
        kept = {k: v for k, v in again.get_params().items() if k != "random_state"}
        assert str(kept) == str({k: v for k, v in fitted.get_params().items() if k != "random_state"})
        assert again.score(*clouds) == fitted.score(*clouds)
        again.save(tmp_path / "second")
        np.testing.assert_array_equal(load_map(tmp_path / "second").transform(clouds[0]), fitted.transform(clouds[0]))


def test_a_cost_with_a_tensor_comes_back(clouds, tmp_path):
    cost = ElasticSubspace(basis=torch.tensor([[1.0], [2.0], [-1.0]]), gamma=2.0)
    fitted = EntropicMap(epsilon=0.1, cost=cost, random_state=0).fit(*clouds)
    fitted.save(tmp_path)
    # The basis is made orthonormal again, which rounds.
    np.testing.assert_allclose(load_map(tmp_path).transform(clouds[0]), fitted.transform(clouds[0]), atol=1e-12)


def test_column_names_come_back(clouds, tmp_path):
    pandas = pytest.importorskip("pandas")
    x, y = (pandas.DataFrame(points, columns=["p53", "myc", "egfr"]) for points in clouds)
    LinearMap().fit(x, y).save(tmp_path)
    again = load_map(tmp_path)
    assert list(again.get_feature_names_out()) == ["p53", "myc", "egfr"]
    with pytest.raises(ValueError, match="feature names"):
        again.transform(x.rename(columns={"myc": "MYC"}))


def test_saving_again_replaces_and_leaves_other_files_alone(folder, clouds):
    (folder / "notes.txt").write_text("mine")
    (folder / "map-of-mine.json").write_text("mine, too")
    before = names(folder)
    moved = LinearMap().fit(clouds[0], clouds[1] + 1.0)
    moved.save(folder)
    assert len(names(folder)) == len(before)
    assert {"notes.txt", "map-of-mine.json", "map.json"} < set(names(folder))
    np.testing.assert_array_equal(load_map(folder).transform(clouds[0]), moved.transform(clouds[0]))


@pytest.mark.parametrize("call", range(5))
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["disk", "interrupt"])
def test_a_save_that_fails_leaves_the_old_map(folder, clouds, monkeypatch, call, error):
    before, image = names(folder), load_map(folder).transform(clouds[0])
    calls = iter(range(100))

    def failing(do):
        def wrapped(*args):
            if next(calls) == call:
                raise error
            return do(*args)

        return wrapped

    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "replace", failing(Path.replace))
    with pytest.raises(type(error)):
        LinearMap().fit(clouds[0], clouds[1] + 1.0).save(folder)
    assert names(folder) == before
    np.testing.assert_array_equal(load_map(folder).transform(clouds[0]), image)


def test_a_disk_that_refuses_the_last_flush_leaves_the_new_map(folder, clouds, monkeypatch):
    moved, calls, fsync = LinearMap().fit(clouds[0], clouds[1] + 1.0), iter(range(100)), os.fsync

    def last_refused(handle):
        if next(calls) == 4:
            raise OSError("disk full")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", last_refused)
    with pytest.raises(OSError, match="disk full"):
        moved.save(folder)
    np.testing.assert_array_equal(load_map(folder).transform(clouds[0]), moved.transform(clouds[0]))


def test_what_a_kill_left_is_swept_by_the_next_save(folder, clouds, monkeypatch):
    image = load_map(folder).transform(clouds[0])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        patched.setattr(Path, "unlink", lambda *_, **__: None)  # a kill tidies nothing up
        with pytest.raises(KeyboardInterrupt):
            LinearMap().fit(clouds[0], clouds[1] + 1.0).save(folder)
    assert len(names(folder)) == 6
    np.testing.assert_array_equal(load_map(folder).transform(clouds[0]), image)
    LinearMap().fit(*clouds).save(folder)
    assert len(names(folder)) == 3


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    match how:
        case "deleted":
            path.unlink()
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "altered":
            path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])


@pytest.mark.parametrize("how", ["deleted", "truncated", "emptied", "altered"])
@pytest.mark.parametrize("which", range(3))
def test_a_damaged_file_is_named(folder, which, how):
    path = sorted(folder.iterdir())[which]
    damage(path, how)
    with pytest.raises(CheckpointError, match=path.name):
        load_map(folder)
    with pytest.raises(CheckpointError, match=path.name):
        LinearMap.load(folder)


def test_every_flipped_bit_of_the_entry_is_seen(folder):
    path = folder / "map.json"
    content = path.read_bytes()
    for k in range(0, len(content), 7):
        path.write_bytes(content[:k] + bytes([content[k] ^ 4]) + content[k + 1 :])
        with pytest.raises(CheckpointError, match="map.json"):
            load_map(folder)


def test_where_no_map_is(tmp_path):
    with pytest.raises(CheckpointError, match="map.json is missing"):
        load_map(tmp_path / "nowhere")


def test_another_classs_map_is_refused(folder):
    with pytest.raises(CheckpointError, match="holds a LinearMap, not a EntropicMap"):
        EntropicMap.load(folder)


class Mine(LinearMap):
    pass


def test_a_class_of_the_callers_own_is_loaded_by_itself(clouds, tmp_path):
    Mine().fit(*clouds).save(tmp_path)
    assert type(Mine.load(tmp_path)) is Mine
    with pytest.raises(CheckpointError, match="'Mine'"):
        load_map(tmp_path)


def test_a_cost_of_the_callers_own_is_asked_for(clouds, tmp_path):
    fitted = EntropicMap(epsilon=0.1, cost=Half(), random_state=0).fit(*clouds)
    fitted.save(tmp_path)
    with pytest.raises(InvalidArgument, match=r"cost of the caller's own \(Half\).*load\(folder, cost=\.\.\.\)"):
        load_map(tmp_path)
    again = EntropicMap.load(tmp_path, cost=Half())
    np.testing.assert_array_equal(again.transform(clouds[0]), fitted.transform(clouds[0]))


def test_a_cost_that_was_saved_is_not_replaced(clouds, tmp_path):
    EntropicMap(epsilon=0.1, random_state=0).fit(*clouds).save(tmp_path)
    with pytest.raises(InvalidArgument, match="leave it out"):
        EntropicMap.load(tmp_path, cost=Half())


def test_a_map_of_another_version_is_refused_not_guessed(clouds, tmp_path):
    fitted = LinearMap().fit(*clouds)
    content = {"parameters": {"shrinkage": "auto", "ridge": 0.1}, "fitted": fitted._state(), "width": 3, "names": None}
    saved.write(tmp_path, "LinearMap", content)
    with pytest.raises(CheckpointError, match="another version.*ridge"):
        load_map(tmp_path)


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("suffix", ["entry", ".json", ".safetensors"])
def test_a_pickle_in_a_files_place_is_never_run(folder, tmp_path, suffix):
    mark = tmp_path / "exploded"
    path = folder / "map.json" if suffix == "entry" else next(folder.glob(f"map-*{suffix}"))
    path.write_bytes(pickle.dumps(Bomb(mark)))
    if suffix != "entry":  # with a forger's digests
        entry = json.loads((folder / "map.json").read_text())
        entry["files"][path.name] = {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        del entry["sha256"]
        (folder / "map.json").write_text(sealed(entry))
    with pytest.raises(CheckpointError):
        load_map(folder)
    assert not mark.exists()


def test_a_forged_entry_reads_no_file_elsewhere(folder):
    entry = json.loads((folder / "map.json").read_text())
    del entry["sha256"]
    stem = entry["state"]
    entry["files"] = {f"../{file}": said for file, said in entry["files"].items()}
    (folder / "map.json").write_text(sealed(entry | {"state": f"../{stem}"}))
    with pytest.raises(CheckpointError, match="map.json was altered"):
        load_map(folder)


def test_a_parameter_that_is_an_unknown_cost_is_refused(clouds, tmp_path):
    fitted = EntropicMap(epsilon=0.1, random_state=0).fit(*clouds)
    content = {
        "parameters": {"cost": {"cost": "resolve", "fields": {"cost": "euclidean"}}},
        "fitted": fitted._state(),
        "width": 3,
        "names": None,
    }
    saved.write(tmp_path, "EntropicMap", content)
    with pytest.raises(CheckpointError, match="cost is nothing that is written there"):
        load_map(tmp_path)
