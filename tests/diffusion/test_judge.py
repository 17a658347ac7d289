"""A judge finds the data's other half at its floor, and names what is missing."""

from __future__ import annotations

import pytest
import torch

from pushforward.diffusion.judge import Judge
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.samples import digits


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = digits()
    return torch.from_numpy(images * 2 - 1).float().permute(0, 3, 1, 2), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def judge(data: tuple[torch.Tensor, torch.Tensor]) -> Judge:
    return Judge(*data)


def test_the_data_itself_is_within_its_floor(judge: Judge, data: tuple[torch.Tensor, torch.Tensor]):
    figures = judge(data[0])
    assert figures["frechet"] < figures["frechet_floor"]
    assert figures["recall"] > 0.95
    assert figures["modes"] == 10
    assert figures["class_distance"] < 0.02


def test_classes_that_are_left_out_are_missed(judge: Judge, data: tuple[torch.Tensor, torch.Tensor]):
    samples, labels = data
    figures = judge(samples[labels < 5])
    assert figures["frechet"] > 10 * figures["frechet_floor"]
    assert figures["recall"] < 0.7
    assert figures["class_distance"] == pytest.approx(0.5, abs=0.03)


def test_the_classifier_knows_the_digits(judge: Judge, data: tuple[torch.Tensor, torch.Tensor]):
    found = judge.classes(data[0])
    assert found is not None
    assert float((found == data[1]).float().mean()) > 0.98


def test_noise_is_far_with_labels_and_without(data: tuple[torch.Tensor, torch.Tensor], judge: Judge):
    noise = torch.rand(500, 1, 8, 8) * 2 - 1
    for one in (judge, Judge(data[0])):
        figures = one(noise)
        assert figures["frechet"] > 20 * figures["frechet_floor"]
        assert figures["precision"] < 0.2


def test_a_judge_of_one_seed_is_one_judge(data: tuple[torch.Tensor, torch.Tensor], judge: Judge):
    before = torch.get_rng_state()
    assert torch.equal(Judge(*data).reference, judge.reference)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_judged_by_is_named():
    with pytest.raises(InvalidArgument, match="24"):
        Judge(torch.zeros(23, 2))
    with pytest.raises(ShapeError, match="labels are 3"):
        Judge(torch.zeros(30, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(NonFiniteError, match="samples"):
        Judge(torch.full((30, 2), float("nan")))
