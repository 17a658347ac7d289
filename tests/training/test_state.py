"""Nested states through safetensors and JSON: bit for bit, and nothing that could run code."""

from __future__ import annotations

import json
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pushforward.errors import CheckpointError, InvalidArgument
from pushforward.training import load_state, save_state


def there_and_back(folder: Path, state: Any) -> Any:
    save_state(folder / "state", state)
    return load_state(folder / "state")


def same(ours: Any, given: Any) -> bool:
    """Equality of bits: NaN equals NaN, 0.0 is not -0.0, 1 is not 1.0."""
    if isinstance(given, torch.Tensor):
        as_bytes = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (ours, given)]
        return ours.dtype == given.dtype and ours.shape == given.shape and torch.equal(*as_bytes)
    if isinstance(given, dict):
        return list(ours) == list(given) and all(same(ours[key], given[key]) for key in given)
    if isinstance(given, list | tuple):
        return type(ours) is type(given) and len(ours) == len(given) and all(map(same, ours, given))
    return type(ours) is type(given) and repr(ours) == repr(given)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4).to(torch.bfloat16),
        torch.tensor(2.5, dtype=torch.float64),
        torch.zeros(0, 3, dtype=torch.int16),
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(12.0)[2:5],
        torch.tensor(1.0).expand(2, 3),
        torch.tensor([math.nan, math.inf, -0.0], dtype=torch.float16),
        torch.tensor([True, False]),
        torch.tensor([1, 2**63], dtype=torch.uint64),
        torch.tensor([1 + 2j]).conj(),
        torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
        torch.randn(4).to(torch.float8_e4m3fn),
        torch.ones(2, requires_grad=True) * 2,
    ],
    ids=lambda t: f"{t.dtype}-{tuple(t.shape)}-{t.stride()}",
)
def test_tensors_keep_their_bits(tmp_path, tensor):
    assert same(there_and_back(tmp_path, {"t": tensor})["t"], tensor.resolve_conj().resolve_neg())


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers() | st.just("$"), inner)
    ),
    max_leaves=20,
)


@given(state=STATES)
def test_all_else_comes_back_as_it_was(tmp_path_factory, state):
    assert same(there_and_back(tmp_path_factory.getbasetemp(), state), state)


def test_training_state_comes_back(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    average = torch.optim.swa_utils.AveragedModel(model)
    for _ in range(3):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        scheduler.step()
        average.update_parameters(model)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "average": average}
    state = {name: part.state_dict() for name, part in parts.items()}
    back = there_and_back(tmp_path, state)
    assert same(back, state)
    for name, part in parts.items():
        part.load_state_dict(back[name])


def test_tied_weights_are_one_tensor_and_parts_of_one_are_two(tmp_path):
    weight, whole = torch.randn(4, 2), torch.arange(6.0)
    state = {
        "in": weight,
        "out": nn.Parameter(weight),
        "left": whole[:3],
        "right": whole[3:],
        "all": whole,
        "T": weight.T,
    }
    back = there_and_back(tmp_path, state)
    assert back["in"] is back["out"]
    assert same(back, {key: value.detach() for key, value in state.items()})


def test_names_that_collide_stay_apart(tmp_path):
    state = {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1), 1: torch.ones(2), "1": torch.zeros(2)}
    assert same(there_and_back(tmp_path, state), state)


def test_subclasses_of_dict_come_back_as_dict(tmp_path):
    assert there_and_back(tmp_path, OrderedDict(a=1)) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({1, 2}, r"state\['groups'\]\[1\] is a set"),
        (np.zeros(2), r"state\['groups'\]\[1\] is a ndarray"),
        (print, r"state\['groups'\]\[1\] is a builtin_function"),
        ({(1, 2): 3}, r"state\['groups'\]\[1\] has the key \(1, 2\)"),
        (torch.zeros(2).to_sparse(), r"state\['groups'\]\[1\] is a Tensor of layout torch.sparse_coo"),
        (torch.zeros(2, device="meta"), r"state\['groups'\]\[1\] is a Tensor .* on meta"),
        (torch.zeros(2, dtype=torch.complex128), r"state\['groups'\]\[1\] is of torch.complex128"),
    ],
    ids=lambda case: type(case).__name__,
)
def test_what_cannot_be_saved_is_named(tmp_path, value, told):
    with pytest.raises(InvalidArgument, match=told):
        save_state(tmp_path / "state", {"groups": [1, value]})
    assert not list(tmp_path.iterdir())


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("slot", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("pickled_by", [pickle.dump, torch.save])
def test_a_pickle_in_either_slot_is_refused_and_not_run(tmp_path, slot, pickled_by):
    marker = tmp_path / "executed"
    save_state(tmp_path / "state", {"t": torch.zeros(2)})
    with (tmp_path / slot).open("wb") as file:
        pickled_by(Payload(marker), file)
    with pytest.raises(CheckpointError, match=slot):
        load_state(tmp_path / "state")
    assert not marker.exists()


@pytest.mark.parametrize(
    "tree",
    [
        {"$": "tensor", "name": "not there"},
        {"$": "class", "name": "os.system"},
        {"$": "tuple"},
        {"$": "dict", "items": [[1]]},
        {"$": "dict", "items": [[[], 1]]},
        {"$": "float", "value": "1e400"},
    ],
    ids=json.dumps,
)
def test_a_tree_that_we_never_write_is_refused(tmp_path, tree):
    save_state(tmp_path / "state", {"t": torch.zeros(2)})
    (tmp_path / "state.json").write_text(json.dumps({"t": tree}))
    with pytest.raises(CheckpointError, match=r"state\.json"):
        load_state(tmp_path / "state")


def test_bottomless_nesting_is_refused(tmp_path):
    save_state(tmp_path / "state", {})
    (tmp_path / "state.json").write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        load_state(tmp_path / "state")


@pytest.mark.parametrize("slot", ["state.json", "state.safetensors"])
def test_a_missing_file_is_named(tmp_path, slot):
    save_state(tmp_path / "state", {"t": torch.zeros(2)})
    (tmp_path / slot).unlink()
    with pytest.raises(CheckpointError, match=slot):
        load_state(tmp_path / "state")
