"""A judge finds the data's other half at its floor, and names what is missing."""

from __future__ import annotations

import pytest
import torch

from pushforward.diffusion import judge as judging
from pushforward.diffusion.judge import SampleMetrics, remarks, with_error, written
from pushforward.diffusion.projections import Sketch
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.samples import digits


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = digits()
    return torch.from_numpy(images * 2 - 1).float().permute(0, 3, 1, 2), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def judge(data: tuple[torch.Tensor, torch.Tensor]) -> SampleMetrics:
    return SampleMetrics(*data)


def large_digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits of 16 x 16 pixels."""
    images, labels = digits()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:count]
    small = torch.from_numpy(images * 2 - 1).float().permute(0, 3, 1, 2)[order]
    return torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear"), torch.from_numpy(labels)[order]


def test_the_data_itself_is_within_its_floor(judge: SampleMetrics, data: tuple[torch.Tensor, torch.Tensor]):
    figures = judge(data[0])
    assert figures["frechet"] < figures["frechet_floor"]
    assert figures["recall"] > 0.95
    assert figures["modes"] == 10
    assert figures["class_distance"] < 0.02


def test_classes_that_are_left_out_are_missed(judge: SampleMetrics, data: tuple[torch.Tensor, torch.Tensor]):
    samples, labels = data
    figures = judge(samples[labels < 5])
    assert figures["frechet"] > 10 * figures["frechet_floor"]
    assert figures["recall"] < 0.7
    assert figures["class_distance"] == pytest.approx(0.5, abs=0.03)


def test_the_classifier_knows_the_digits(judge: SampleMetrics, data: tuple[torch.Tensor, torch.Tensor]):
    found = judge.classes(data[0])
    assert found is not None
    assert float((found == data[1]).float().mean()) > 0.98


def test_noise_is_far_with_labels_and_without(data: tuple[torch.Tensor, torch.Tensor], judge: SampleMetrics):
    noise = torch.rand(500, 1, 8, 8) * 2 - 1
    for one in (judge, SampleMetrics(data[0])):
        figures = one(noise)
        assert figures["frechet"] > 20 * figures["frechet_floor"]
        assert figures["precision"] < 0.2


def test_a_judge_of_one_seed_is_one_judge(data: tuple[torch.Tensor, torch.Tensor], judge: SampleMetrics):
    before = torch.get_rng_state()
    assert torch.equal(SampleMetrics(*data).reference, judge.reference)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [60, 120, 400])
@pytest.mark.parametrize("labelled", [False, True])
def test_noise_is_far_from_few_pictures_too(count: int, labelled: bool, monkeypatch: pytest.MonkeyPatch):
    # 120 pictures of 16 x 16: 60 of them in 64 components, and noise was at the floor.
    monkeypatch.setattr(judging, "_STEPS", 300)
    pictures, labels = large_digits(count + 300)
    judge = SampleMetrics(pictures[:count], labels[:count] if labelled else None)
    random = torch.Generator().manual_seed(1)
    flat = pictures[:count].flatten(1)
    white = flat.square().mean().sqrt() * torch.randn(300, *pictures.shape[1:], generator=random)
    alike = pictures[:count].mean(0) + pictures[:count].std(0) * torch.randn(300, *pictures.shape[1:], generator=random)
    unseen = judge(pictures[count:])
    assert remarks(unseen, name="unseen data") == []
    for noise in (white, alike):
        figures = judge(noise)
        assert figures["frechet"] > 3 * figures["frechet_floor"]
        assert figures["frechet"] > 3 * unseen["frechet"]
        (said,) = remarks(figures, name="the teacher")
        assert said.startswith(("the teacher is no better than noise", "the teacher is worse than noise"))


def test_noise_across_the_components_is_seen():
    random = torch.Generator().manual_seed(0)
    data = torch.zeros(200, 50)
    data[:, :3] = torch.randn(200, 3, generator=random)
    judge = SampleMetrics(data + 0.01 * torch.randn(200, 50, generator=random))
    noised = judge(data + 1.0 * torch.randn(200, 50, generator=random) * (torch.arange(50) >= 10))
    assert noised["frechet"] > 20 * noised["frechet_floor"]


def test_data_that_cannot_be_told_from_noise_compare_nothing():
    random = torch.Generator().manual_seed(0)
    judge = SampleMetrics(torch.randn(40, 100, generator=random))
    (said,) = remarks(judge(torch.randn(300, 100, generator=random)), name="the student")
    assert said.startswith("the data do not differ from noise")
    assert "the student" in said


def test_a_student_nearer_to_noise_than_to_the_data_is_named():
    pictures, _ = large_digits(400)
    mixed = 0.4 * pictures + 0.6 * torch.rand(pictures.shape, generator=torch.Generator().manual_seed(0))
    (said,) = remarks(SampleMetrics(pictures)(mixed), name="the student")
    assert "the student is" in said


def test_large_pictures_are_projected_and_the_projection_is_named():
    random = torch.Generator().manual_seed(0)
    # 1.2 million numbers: their covariance would take 5.8 TB.
    bright = torch.rand(24, 1, 1, 1, generator=random) * torch.ones(24, 3, 640, 640)
    judge = SampleMetrics(bright)
    assert judge.name == (
        "1 principal components of the 1,228,800 pixels' 2,000 random projections and the length of what they leave out"
    )
    assert judge.reference.shape == (12, 2)
    sketched = Sketch(bright[0].numel(), 0)(bright.flatten(1))
    assert (sketched.norm(dim=1) / bright.flatten(1).norm(dim=1)).tolist() == pytest.approx([1.0] * 24, abs=0.15)


def test_the_projection_tells_noise_from_pictures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judging, "_STEPS", 100)
    pictures, labels = large_digits(150)
    large = torch.nn.functional.interpolate(pictures, scale_factor=3).expand(-1, 3, -1, -1)
    assert large[0].numel() == 6912
    judge = SampleMetrics(large, labels)
    assert judge.name.startswith("7 principal components of a small classifier's 64 features")
    for one in (judge, SampleMetrics(large)):
        figures = one(torch.randn(200, *large.shape[1:], generator=torch.Generator().manual_seed(0)))
        assert figures["frechet"] > 5 * figures["frechet_floor"]


def test_figures_are_written_with_the_digits_that_they_carry():
    found = written({"frechet": 45.853, "frechet_error": 3.21, "floor_error": 1.0, "recall": 0.91667}, rows=60)
    assert found == {"frechet": "45.9 ± 3.2", "recall": "0.92"}
    assert written({"recall": 0.91667}, rows=10_000) == {"recall": "0.917"}
    assert with_error(1234.5, 250.0) == "1230 ± 250"
    assert with_error(0.5, float("inf")) == "0.5"


def test_what_cannot_be_judged_by_is_named():
    with pytest.raises(InvalidArgument, match="24"):
        SampleMetrics(torch.zeros(23, 2))
    with pytest.raises(ShapeError, match="labels are 3"):
        SampleMetrics(torch.zeros(30, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(NonFiniteError, match="samples"):
        SampleMetrics(torch.full((30, 2), float("nan")))
