"""The loop: the same bits after a resume, a stop at what is not finite, and a student that arrives."""

from __future__ import annotations

import copy
import inspect
import shutil
import warnings
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from diffusion.small import PROCESS, Net, mixture, network_teacher, samples
from torch import nn

from pushforward.diffusion import Denoiser, Discriminator, Distiller, Generator, Trainer, VarianceExploding
from pushforward.diffusion.distiller import Losses
from pushforward.diffusion.loop import Batch
from pushforward.diffusion.trainer import FREE
from pushforward.errors import CheckpointError, Interrupted, InvalidArgument, NonFiniteError
from pushforward.training import read_log


def trainer(out: Path, **settings: object) -> Trainer:
    given = {"batch_size": 16, "warmup": 3, "every": 5, "log_every": 1, "progress": False} | settings
    return Trainer(Distiller(network_teacher(), critic_steps=2), samples(50), out=out, **given)  # pyright: ignore


def weights(generator: Generator) -> torch.Tensor:
    return nn.utils.parameters_to_vector(generator.parameters())


@pytest.mark.filterwarnings("ignore:step")
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path: Path):
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        whole = trainer(tmp_path / "whole").fit(10)
        trainer(tmp_path / "parts").fit(5)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        parts = trainer(tmp_path / "parts").fit(10)
    assert torch.equal(weights(whole), weights(parts))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(*(read_log(tmp_path / name / "log.jsonl") for name in ("whole", "parts")), strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


@pytest.mark.filterwarnings("ignore:step")
def test_a_student_learns_the_mixture_without_a_network_for_a_teacher(tmp_path: Path):
    torch.manual_seed(0)
    student = Generator(Denoiser(Net(64), PROCESS), times=(2.0,))
    distiller = Distiller(mixture(), divergence="reverse_kl", student=student, gan_weight=0.0, critic_steps=2)
    out = Trainer(
        distiller, samples(2000), out=tmp_path, batch_size=128, learning_rate=2e-3, average=0.98, progress=False
    ).fit(400)
    with torch.no_grad():
        x = out(torch.randn(4000, 2))
    truth = samples(4000, seed=1)
    assert float((x.mean(0) - truth.mean(0)).abs().max()) < 0.08
    assert float((x.std(0) / truth.std(0) - 1).abs().max()) < 0.15


@pytest.mark.filterwarnings("ignore:step")
def test_what_is_not_finite_stops_the_run_and_names_the_last_checkpoint(tmp_path: Path):
    run, sound = trainer(tmp_path, every=4), Distiller.student_loss
    run.fit(4)

    def spoilt(batch: Batch) -> Losses:
        total, parts = sound(run.distiller, batch)
        return Losses(total * float("nan"), parts)

    run = trainer(tmp_path, every=4)
    run.distiller.student_loss = spoilt  # pyright: ignore
    with pytest.raises(NonFiniteError, match=r"student_loss in step 5 is nan.*step-4: lower"):
        run.fit(8)
    # Nothing of it is kept: the run goes on from where it was sound.
    assert torch.isfinite(weights(trainer(tmp_path, every=4).fit(8))).all()


@pytest.mark.filterwarnings("ignore:step")
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    trainer(tmp_path).fit(5)
    with pytest.raises(CheckpointError, match="other data, settings"):
        trainer(tmp_path, learning_rate=1e-3).fit(5)


# A value of every setting that counts, other than in `small_run`.
CHANGED: dict[str, object] = {
    "data": samples(50, seed=1),
    "batch_size": 8,
    "learning_rate": 2e-4,
    "critic_rate": 1e-3,
    "warmup": 2,
    "average": 0.9,
    "clip": 1.0,
    "precision": "bfloat16",
    "seed": 1,
}
CHANGED_DISTILLER: dict[str, object] = {
    "teacher": network_teacher(seed=1),
    "divergence": "kl",
    "student": Generator(Denoiser(Net(8), PROCESS), times=(2.0,)),
    "ratio": Discriminator(network_teacher(), taps=("network.first",)),
    "generator_steps": 2,
    "gan_weight": 0.1,
    "critic_steps": 2,
    "levels": VarianceExploding(sigma_max=3.0),
}


def small_run(out: Path, distiller: dict[str, object], **settings: object) -> Trainer:
    made = Distiller(**{"teacher": network_teacher(), "critic_steps": 1} | distiller)  # pyright: ignore
    given: dict[str, object] = {"data": samples(50), "batch_size": 16, "warmup": 1, "progress": False} | settings
    return Trainer(made, out=out, **given)  # pyright: ignore


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small_run(out, {}).fit(1)
    return out


def test_the_tables_have_every_setting_that_counts():
    assert {item.name for item in fields(Trainer)} == {"distiller"} | CHANGED.keys() | FREE
    assert inspect.signature(Distiller).parameters.keys() == CHANGED_DISTILLER.keys()


@pytest.mark.parametrize("name", CHANGED)
def test_a_run_with_another_setting_is_not_resumed(name: str, finished: Path):
    with pytest.raises(CheckpointError, match=rf"settings .*\(.*{name} "):
        small_run(finished, {}, **{name: CHANGED[name]}).fit(2)


@pytest.mark.parametrize("name", CHANGED_DISTILLER)
def test_a_run_with_another_distiller_is_not_resumed(name: str, finished: Path):
    with pytest.raises(CheckpointError, match=rf"settings .*distiller.{name} "):
        small_run(finished, {name: copy.deepcopy(CHANGED_DISTILLER[name])}).fit(2)


@pytest.mark.filterwarnings("ignore:step")
def test_a_run_with_other_times_or_conditions_is_not_resumed(tmp_path: Path):
    def timed(time: float, data: object) -> Trainer:
        student = Generator(copy.deepcopy(network_teacher()), times=(time,))
        return small_run(tmp_path, {"student": student}, data=data)

    timed(2.0, samples(50)).fit(1)
    with pytest.raises(CheckpointError, match=r"\(times is another\)"):
        timed(3.0, samples(50)).fit(2)
    with pytest.raises(CheckpointError, match=r"\(data is another\)"):
        timed(2.0, (samples(50), torch.zeros(50).long())).fit(2)


@pytest.mark.filterwarnings("ignore:step")
def test_free_settings_may_change(finished: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    free = {"every": 7, "log_every": 3, "workers": 0, "progress": True, "check": lambda *_: {}, "pace": lambda _: None}
    assert free.keys() | {"out"} == FREE
    small_run(moved, {}, **free).fit(2)


@pytest.mark.filterwarnings("ignore:step")
def test_ctrl_c_ends_it_with_a_warning_of_its_own_class(tmp_path: Path):
    def check(step: int, generator: Generator) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.warns(Interrupted, match="interrupted in step 5; the generator is what there was"):
        trainer(tmp_path, check=check).fit(10)
    assert (tmp_path / "student").is_dir()


@pytest.mark.filterwarnings("ignore:step")
def test_checks_are_logged_and_see_the_average(tmp_path: Path):
    seen: list[torch.Tensor] = []

    def check(step: int, generator: Generator) -> dict[str, float]:
        seen.append(generator(torch.randn(3, 2)))
        return {"steps": step}

    out = trainer(tmp_path, check=check, precision="bfloat16").fit(10)
    assert [record["check_steps"] for record in read_log(tmp_path / "log.jsonl") if "check_steps" in record] == [5, 10]
    assert seen[0].shape == (3, 2)
    assert {parameter.dtype for parameter in out.parameters()} == {torch.float32}


def test_few_steps_and_a_discriminator_that_sees_all_warns(tmp_path: Path):
    distiller = Distiller(network_teacher(), generator_steps=3, critic_steps=1)
    far = samples(50) + 9.0  # no student's sample is near
    with pytest.warns(UserWarning, match="accuracy"):
        out = Trainer(distiller, far, out=tmp_path, batch_size=16, critic_rate=1e-2, progress=False).fit(10)
    assert len(out.times) == 3


@pytest.mark.filterwarnings("ignore:step.*accuracy")
def test_a_student_far_wider_than_the_data_warns(tmp_path: Path):
    student = Generator(copy.deepcopy(network_teacher()), times=(3.0,))
    narrow = Distiller(network_teacher(), student=student)
    with pytest.warns(UserWarning, match=r"spread is .*leaves the data's range"):
        Trainer(narrow, 1e-3 * samples(50), out=tmp_path, batch_size=16, progress=False).fit(1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 51}, "batch_size is 51 but data has 50"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"critic_rate": -1.0}, "critic_rate"),
        ({"average": 1.0}, "average"),
        ({"clip": float("nan")}, "clip"),
        ({"every": 0}, "every"),
        ({"warmup": -1}, "warmup"),
        ({"precision": "half"}, "precision"),
    ],
)
def test_settings_that_no_run_can_have_are_named(settings: dict[str, object], words: str, tmp_path: Path):
    with pytest.raises(InvalidArgument, match=words):
        trainer(tmp_path, **settings).fit(1)
