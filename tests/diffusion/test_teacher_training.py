"""Training a teacher: it learns a law that is known, resumes to the same bits, and says what goes wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from pushforward.diffusion import GaussianMixture, VarianceExploding, teacher_training
from pushforward.diffusion.losses import denoising_loss
from pushforward.diffusion.networks import MLPConfig, UNetConfig
from pushforward.diffusion.samplers import sample
from pushforward.diffusion.teacher_training import FREE, TeacherTrainer, load_teacher
from pushforward.errors import CheckpointError, Interrupted, InvalidArgument, NonFiniteError, ShapeError
from pushforward.training import read_log
from pushforward.training.resume import Checkpoints

PROCESS = VarianceExploding(sigma_min=0.01, sigma_max=10.0)
SMALL = MLPConfig(shape=(2,), width=32, blocks=2)
LAW = GaussianMixture(weights=[0.5, 0.5], means=[[-1.0, 0.5], [1.0, 0.5]], covariances=[0.04, 0.04], process=PROCESS)


def data(n: int = 512) -> torch.Tensor:
    return LAW.sample(n, torch.Generator().manual_seed(0)).float()


def trainer(samples: Any, out: Path, **settings: Any) -> TeacherTrainer:
    common: dict[str, Any] = {"network": SMALL, "process": PROCESS, "batch_size": 64, "progress": False}
    return TeacherTrainer(samples, out=out, **common | settings)


def test_it_comes_near_the_exact_denoiser(tmp_path: Path):
    teacher = trainer(data(2048), tmp_path, batch_size=256).fit(500)
    x0, t = LAW.sample(2000).float(), PROCESS.sample_t(2000)
    x_t = PROCESS.add_noise(x0, t, torch.randn_like(x0))
    scale = float(x0.square().mean().sqrt())
    ours, exact = (
        float(denoising_loss(judge(x_t, t), x0, torch.ones(()), t, sigma_data=scale).mean())
        for judge in (teacher.x0, LAW.x0)
    )
    assert exact < ours < 1.15 * exact
    drawn = sample(teacher, 1000, (2,), generator=torch.Generator().manual_seed(1))
    assert drawn.mean(0) == pytest.approx([0.0, 0.5], abs=0.15)
    assert drawn.std(0) == pytest.approx([1.02, 0.2], abs=0.1)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_scale_is_the_datas(tmp_path: Path):
    samples = 10 * data()
    teacher = trainer(samples, tmp_path).fit(1)
    assert teacher.network.sigma_data == pytest.approx(float(samples.square().mean().sqrt()), rel=1e-6)


def test_labels_are_told_apart_and_may_be_left_out(tmp_path: Path):
    samples = data(1024)
    labels = (samples[:, 0] > 0).long()
    teacher = trainer((samples, labels), tmp_path, network=None, batch_size=128).fit(300)
    assert teacher.network.network.config == MLPConfig(shape=(2,), classes=2)
    x_t, t = torch.zeros(1, 2), torch.tensor([2.0])
    left, right = (float(teacher.x0(x_t, t, torch.tensor([label]))[0, 0]) for label in (0, 1))
    assert left < -0.7
    assert right > 0.7
    x0, t = LAW.sample(500).float(), torch.full((500,), 0.8)
    x_t = PROCESS.add_noise(x0, t, torch.randn_like(x0))
    # Without a label it knows both; had it never been trained without, it would be off by 0.3.
    assert (teacher.x0(x_t, t) - LAW.x0(x_t, t)).square().mean() < 0.03


def test_larger_images_get_a_u_net(tmp_path: Path):
    pytest.importorskip("diffusers")
    images = torch.rand(16, 1, 12, 12) * 2 - 1
    labels = torch.arange(16) % 3
    trainer((images, labels), tmp_path, network=None, batch_size=8).fit(2)
    teacher, shape = load_teacher(tmp_path / "teacher")
    assert (shape, teacher.network.network.config) == ((1, 12, 12), UNetConfig(shape=(1, 12, 12), classes=3))
    drawn = sample(teacher, 2, shape, steps=2, condition=torch.tensor([0, 2]))
    assert drawn.shape == (2, 1, 12, 12)
    assert drawn.isfinite().all()


def test_interrupted_and_resumed_is_as_if_never_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings: dict[str, Any] = {"every": 4, "log_every": 3}
    whole = trainer(data(), tmp_path / "whole", **settings).fit(12)
    real = teacher_training.denoising_loss
    calls = []

    def pressed(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(0)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(teacher_training, "denoising_loss", pressed)
    with pytest.warns(Interrupted, match="interrupted in step 11"):
        trainer(data(), tmp_path / "cut", **settings).fit(12)
    before = torch.get_rng_state()
    cut = trainer(data(), tmp_path / "cut", **settings).fit(12)
    assert len(calls) == 11 + 4  # from step 8 on
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))
    logs = [read_log(tmp_path / run / "log.jsonl") for run in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert [record["step"] for record in logs[0]] == [3, 6, 9, 12]


# A value of every setting that counts, other than in `trainer`.
CHANGED: dict[str, Any] = {
    "data": data() + 1,
    "network": MLPConfig(shape=(2,), width=16, blocks=2),
    "process": VarianceExploding(sigma_min=0.01, sigma_max=20.0),
    "batch_size": 32,
    "learning_rate": 1e-3,
    "average": 0.9,
    "label_dropout": 0.2,
    "every": 2,
    "log_every": 2,
    "seed": 1,
}


def test_another_runs_checkpoint_is_refused(tmp_path: Path):
    assert {item.name for item in fields(TeacherTrainer)} == CHANGED.keys() | FREE
    trainer(data(), tmp_path).fit(2)
    for name, value in CHANGED.items():
        settings = {} if name == "data" else {name: value}
        other = trainer(value if name == "data" else data(), tmp_path, **settings)
        with pytest.raises(CheckpointError, match=rf"of a training with other data, settings .*\({name} "):
            other.fit(2)
    with pytest.raises(CheckpointError, match="steps was 2 and is 3"):
        trainer(data(), tmp_path).fit(3)
    trainer(data(), tmp_path, pace=lambda _: None, progress=True).fit(2)


def test_a_gradient_that_is_not_finite_ends_the_run_and_names_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Rows(torch.utils.data.Dataset):
        bad = False

        def __len__(self) -> int:
            return 64

        def __getitem__(self, k: int) -> torch.Tensor:
            return torch.full((2,), float("nan") if Rows.bad else k / 64)

    real = Checkpoints.save

    def then_bad(*args: Any) -> None:
        real(*args)
        Rows.bad = True

    monkeypatch.setattr(Checkpoints, "save", then_bad)
    with pytest.raises(NonFiniteError, match=r"in step [34] is .*checkpoint is .*step-2: lower"):
        trainer(Rows(), tmp_path, every=2, batch_size=32).fit(9)
    assert (tmp_path / "step-2").is_dir()


def test_a_saved_teacher_draws_the_same_samples(tmp_path: Path):
    teacher = trainer(data(), tmp_path).fit(3)
    again, shape = load_teacher(tmp_path / "teacher")
    assert shape == (2,)
    one, two = (sample(t, 5, shape, steps=3, generator=torch.Generator().manual_seed(0)) for t in (teacher, again))
    assert torch.equal(one, two)
    assert again.process == PROCESS
    weights = tmp_path / "teacher" / "teacher.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="teacher.safetensors cannot be read"):
        load_teacher(tmp_path / "teacher")
    with pytest.raises(CheckpointError, match="no teacher was saved there"):
        load_teacher(tmp_path)


@pytest.mark.parametrize(
    ("settings", "samples", "error", "message"),
    [
        ({"learning_rate": 0.0}, data(), InvalidArgument, "learning_rate must be a positive"),
        ({"average": 1.0}, data(), InvalidArgument, "average must be below 1"),
        ({"every": 0}, data(), InvalidArgument, "every must be an integer"),
        ({"batch_size": 65}, data(64), InvalidArgument, "batch_size is 65 but data has 64"),
        ({}, torch.full((64, 2), torch.nan), InvalidArgument, r"data\[0, 0\] is nan"),
        ({}, torch.zeros(64, 3), ShapeError, r"the network takes \(2,\)"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings, samples, error, message: str, tmp_path: Path):
    with pytest.raises(error, match=message):
        trainer(samples, tmp_path, **settings).fit(2)
