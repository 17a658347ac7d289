"""Random numbers go on where they were."""

from __future__ import annotations

import random as python_random

import numpy as np
import pytest
import torch

from pushforward.errors import CheckpointError
from pushforward.training import load_state, random, save_state


@pytest.fixture(autouse=True)
def _leave_no_trace():
    before = random.capture()
    yield
    random.restore(before)


def draw():
    # An odd number of normals leaves the spare one of a pair in Python's and numpy's states.
    return [
        *(python_random.random(), python_random.gauss(0, 1), python_random.getrandbits(70)),
        *(np.random.rand(), *np.random.randn(3)),  # noqa: NPY002
        *torch.randn(3).tolist(),
        *torch.nn.functional.dropout(torch.ones(20)).tolist(),
        *torch.randperm(10).tolist(),
    ]


@pytest.mark.parametrize("draws_before", [0, 1, 3])
def test_a_restored_state_goes_on_with_the_same_numbers(tmp_path, draws_before):
    random.seed_everything(5)
    for _ in range(draws_before):
        draw()
    save_state(tmp_path / "random", random.capture())
    expected = draw() + draw()
    random.seed_everything(6)
    random.restore(load_state(tmp_path / "random"))
    assert draw() + draw() == expected


def test_a_seed_fixes_everything_and_ranks_differ():
    def drawn(*seed):
        random.seed_everything(*seed)
        return draw()

    assert drawn(3) == drawn(3)
    for one, other in zip(drawn(3, 0)[:10], drawn(3, 1)[:10], strict=True):
        assert one != other
    assert drawn(3, 1) != drawn(4, 0)


def test_purposes_have_streams_of_their_own():
    def numbers(*which):
        return torch.randn(4, generator=random.generator(*which)).tolist()

    before = random.capture()["torch"]
    assert numbers(0, "order") == numbers(0, "order")
    assert len({tuple(numbers(*which)) for which in [(0, "order"), (1, "order"), (0, "noise"), (0, "order", 1)]}) == 4
    assert torch.equal(before, random.capture()["torch"])


@pytest.mark.parametrize("missing", ["python", "numpy", "torch", "cuda"])
def test_a_state_without_a_part_is_refused(missing):
    state = random.capture()
    del state[missing]
    with pytest.raises(CheckpointError, match=missing):
        random.restore(state)


def test_a_state_of_the_wrong_size_is_refused():
    with pytest.raises(CheckpointError, match="random generators"):
        random.restore(random.capture() | {"torch": torch.zeros(3, dtype=torch.uint8)})


def test_other_gpus_than_then_are_said():
    state = random.capture()
    with pytest.warns(UserWarning, match=f"{len(state['cuda']) + 1} GPUs were saved"):
        random.restore(state | {"cuda": [*state["cuda"], torch.zeros(16, dtype=torch.uint8)]})
