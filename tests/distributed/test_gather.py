"""The rows of two processes under one loss: the same gradient as one process with all rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from distributed import two_processes
from resume.launch import run_ranks

from pushforward.errors import ShapeError
from pushforward.training import distributed


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, from one start of both."""
    folder = tmp_path_factory.mktemp("two")
    ended = run_ranks(2, two_processes.main, folder, printed=folder)
    assert ended == [0, 0], (folder / "rank-0.err").read_text()[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_the_other_process_is_joined_and_left(found):
    assert [one["world"] for one in found] == [[0, 2, True], [1, 2, False]]
    assert [one["afterwards"] for one in found] == [1, 1]


@pytest.mark.parametrize(("case", "rows"), [("uneven", 7), ("even", 8), ("empty", 6)])
def test_gradient_is_that_of_one_process_with_the_whole_batch(found, case, rows):
    model = two_processes.network()
    two_processes.loss_of(model(two_processes.points(rows))).backward()
    for one in found:
        for ours, whole in zip(one[case], two_processes.gradients(model), strict=True):
            assert ours == pytest.approx(whole, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("stage", ["gap", "entropic"])
def test_a_map_descends_along_the_gradient_of_one_process_with_the_whole_batch(found, stage):
    whole = two_processes.trained_map()[stage]
    for one in found:
        assert one["map"][stage] == pytest.approx(whole, rel=1e-6, abs=1e-9)


def test_what_needs_no_gradient_is_gathered_in_rank_order(found):
    for one in found:
        assert one["integers"] == [0, 1, 3, 4, 5]
        assert one["booleans"] == [False, True, True]
        assert one["half"] == [[0.5, 0.5], [1.5, 1.5]]
        assert one["nothing"] == [0, 4]


def test_backward_sums_what_every_rank_sends_back(found):
    for one in found:
        assert one["sum of ranks"] == [[3.0] * 3] * 2  # the losses of the two ranks count once and twice


def test_texts_of_any_length(found):
    assert [one["texts"] for one in found] == [["größer", ""]] * 2


def test_rows_that_differ_are_an_error_on_every_rank_and_no_hang(found):
    for rank, one in enumerate(found):
        assert one["shape"].startswith(f"ShapeError: x has shape (n, {3 + rank}), torch.float32")
        assert f"on rank {rank}, and something else on rank {1 - rank}" in one["shape"]
        assert ("with gradient" if rank == 0 else "without gradient") in one["need"]


def test_a_second_derivative_is_refused(found):
    for one in found:
        assert "once_differentiable" in one["second"]


def test_ranks_publish_together(found):
    for one in found:
        assert one["saved"] == {
            "raised": "",
            "heard": [],
            "last": "step-1",
            "files": ["manifest.json", "rank-0.txt", "rank-1.txt"],
        }


def test_trouble_of_one_rank_is_heard_on_rank_0_and_nothing_is_published(found):
    for rank, one in enumerate(found):
        assert one["full disk"]["last"] == one["other error"]["last"] == "step-1"
        assert one["full disk"]["raised"] == ""
        assert one["other error"]["raised"] == ("a mistake" if rank else "")
    (heard,) = found[0]["full disk"]["heard"]
    assert "no checkpoint of step 2" in heard
    assert "No space left on device" in heard
    assert found[1]["full disk"]["heard"] == []
    assert "no matter of the disk's" in found[0]["other error"]["heard"][0]


def test_one_process_is_the_identity():
    x = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(x) is x
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()


def test_a_number_has_no_rows():
    with pytest.raises(ShapeError, match="x has no axes"):
        distributed.gather(torch.tensor(1.0))
