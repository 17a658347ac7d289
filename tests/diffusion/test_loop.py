"""Batches that a resumed run finds again, averages that start fast, generators that see what sampling sees."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pushforward.diffusion.generator import Generator
from pushforward.diffusion.loop import Batches, average_of, check_run, classes_in, moved, unpacked
from pushforward.diffusion.processes import VarianceExploding, VariancePreserving
from pushforward.diffusion.teachers import Denoiser
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.training.random import seeded


def taken(batches: Batches, first: int, count: int) -> list[Tensor]:
    return [unpacked(batch)[0] for batch in itertools.islice(batches.since(first), count)]


class Squares(torch.utils.data.Dataset[Tensor]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> Tensor:
        return torch.full((1,), float(row * row))


@pytest.mark.parametrize(
    "data", [torch.arange(10.0)[:, None], (torch.arange(10.0)[:, None], torch.arange(10)), Squares()], ids=type
)
def test_a_run_that_begins_later_has_the_same_batches(data: object):
    batches = Batches(data, batch_size=3, seed=4)  # pyright: ignore[reportArgumentType]
    assert torch.equal(torch.cat(taken(batches, 0, 9)[5:]), torch.cat(taken(batches, 5, 4)))


def test_dicts_of_conditions_go_with_their_samples():
    rows = torch.arange(10)
    words = {"words": rows[:, None] * torch.ones(10, 3), "more": {"label": rows}}
    batches = Batches((rows.float()[:, None], words), batch_size=4, seed=1)
    for batch in itertools.islice(batches.since(0), 3):
        x, condition = unpacked(batch)
        assert torch.equal(condition["words"], x.expand(4, 3))
        assert torch.equal(condition["more"]["label"].float(), x[:, 0])
        there = moved(condition, torch.device("meta"))
        assert (there["words"].device.type, there["more"]["label"].device.type) == ("meta", "meta")
    with pytest.raises(ShapeError, match=r"10 samples but 9 entries of conditions\['a'\]"):
        Batches((torch.zeros(10, 1), {"a": torch.zeros(9)}), batch_size=4, seed=1)
    with pytest.raises(NonFiniteError, match=r"conditions\['a'\]\[0\] is nan"):
        Batches((torch.zeros(10, 1), {"a": torch.full((10,), torch.nan)}), batch_size=4, seed=1)
    with pytest.raises(InvalidArgument, match="conditions are a str"):
        Batches((torch.zeros(2, 1), "ab"), batch_size=1, seed=1)  # pyright: ignore[reportArgumentType]


def test_classes_are_those_that_occur():
    x = torch.zeros(4, 2)
    assert classes_in((x, torch.tensor([3, 1, 1, 3]))) == (1, 3)
    assert classes_in(x) == ()
    assert classes_in((x, {"words": torch.zeros(4, 3)})) is None
    assert classes_in(Squares()) is None


def test_an_epoch_has_no_sample_twice_and_the_next_another_order():
    first, second = (
        torch.cat(taken(Batches(torch.arange(12.0)[:, None], batch_size=4, seed=0), at, 3)) for at in (0, 3)
    )
    assert sorted(first.flatten().tolist()) == list(range(12)) == sorted(second.flatten().tolist())
    assert not torch.equal(first, second)


def test_loading_takes_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    taken(Batches(Squares(), batch_size=3, seed=0), 0, 5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (torch.zeros(3, 2), InvalidArgument, "batch_size is 4 but data has 3"),
        (torch.zeros(8, 2, dtype=torch.uint8), ShapeError, "floating"),
        (torch.zeros(8), ShapeError, r"\(8,\)"),
        (torch.full((8, 2), float("nan")), NonFiniteError, "data"),
        ((torch.zeros(8, 2), torch.zeros(7)), ShapeError, "8 samples but 7 conditions"),
        ("images", InvalidArgument, "data is a str"),
        ({"a": 1}, InvalidArgument, "data is a dict"),
        ([[1.0], [2.0], [3.0], [4.0]], ShapeError, "data: samples are float"),
        (torch.zeros(8, 2).to_sparse(), InvalidArgument, "data: samples are a sparse"),
    ],
)
def test_wrong_data_is_named(data: object, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        Batches(data, batch_size=4, seed=0)  # pyright: ignore[reportArgumentType]


def test_the_average_copies_first_then_forgets_fast():
    module = nn.Linear(1, 1, bias=False)
    average = average_of(module, 0.9)
    for value in (1.0, 0.0, 0.0):
        nn.init.constant_(module.weight, value)
        average.update_parameters(module)
    # k = 1 and 2 after the copy: b = 2/11 and 3/12
    assert float(average.module.weight) == pytest.approx(2 / 11 * 3 / 12)


def test_later_steps_are_shown_what_sampling_shows_them():
    process = VarianceExploding()
    seen: list[Tensor] = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(x_t)
        return x_t / 2 + t[:, None]

    generator = Generator(Denoiser(network, process), times=(3.0, 1.0))
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    with seeded(0, "fresh"):
        out = generator(noise)
    with seeded(0, "fresh"):
        x, t = generator.input_of(1, noise)
        eps = torch.empty(0)
    with seeded(0, "fresh"):
        eps = torch.randn_like(noise)
    assert torch.equal(seen[0], 3 * noise)
    assert torch.allclose(x, 3 * noise / 2 + 3 + eps)
    assert torch.equal(out, x / 2 + t)


def test_a_variance_preserving_generator_starts_from_the_noise_itself():
    generator = Generator(Denoiser(lambda x, t: x, VariancePreserving.linear()), times=(500.0,))
    noise = torch.randn(2, 3)
    assert torch.equal(generator.input_of(0, noise)[0], noise)


@pytest.mark.parametrize("times", [(), (1.0, 2.0), (1.0, 1.0), (5.0, 4.0, 3.0, 2.0, 1.0), (float("inf"), 1.0)])
def test_wrong_times_are_named(times: tuple[float, ...]):
    with pytest.raises(InvalidArgument, match="times"):
        Generator(Denoiser(lambda x, t: x, VarianceExploding()), times=times)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 9}, "batch_size is 9 but data has 8"),
        ({"workers": -1}, "workers must be an integer of at least 0"),
        ({"out": __file__}, "out is .* is a file; a folder"),
        ({"out": f"{__file__}/run"}, "out is .* is a file; a folder"),
        ({"out": "x" * 5000}, "out is .*longer than 255 bytes"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(settings: dict[str, object], words: str, tmp_path: Path):
    fit: dict[str, object] = {"out": tmp_path / "new", "batch_size": 8, "workers": 0}
    check_run(torch.zeros(8, 2), **fit)  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "new").exists()
    with pytest.raises(InvalidArgument, match=words):
        check_run(torch.zeros(8, 2), **(fit | settings))  # pyright: ignore[reportArgumentType]
