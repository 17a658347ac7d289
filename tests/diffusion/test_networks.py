"""Networks: what goes in and out, what they start as, what they can learn, and their descriptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pushforward.diffusion import Discriminator, Generator, OneStepPipeline, networks
from pushforward.diffusion.networks import MLP, MLPConfig, UNetConfig, build, config_for
from pushforward.diffusion.saved import load_denoiser, save_denoiser
from pushforward.diffusion.teachers import from_edm
from pushforward.errors import InvalidArgument, ShapeError

SMALL = UNetConfig(shape=(1, 12, 12), channels=(8, 16), classes=3)


def configs():
    return [MLPConfig(shape=(1, 4, 4), width=16, classes=3), MLPConfig(shape=(5,), width=16, blocks=1), SMALL]


def kinds() -> list:
    return [pytest.param(c, id=f"{type(c).__name__}{c.shape}") for c in configs()]


def make(config):
    if isinstance(config, UNetConfig):
        pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = build(config)
    with torch.no_grad():  # away from the zeros that it starts with
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.eval()


@pytest.mark.parametrize("config", kinds())
def test_a_sample_depends_on_itself_its_time_and_its_label(config):
    network = make(config)
    x, t = torch.randn(4, *config.shape), torch.linspace(-1.5, 1, 4)
    label = None if config.classes is None else torch.tensor([0, 1, 2, 3])
    whole = network(x, t, label)
    assert whole.shape == x.shape
    one_by_one = [network(x[k : k + 1], t[k : k + 1], label if label is None else label[k : k + 1]) for k in range(4)]
    torch.testing.assert_close(torch.cat(one_by_one), whole, atol=1e-5, rtol=1e-4)
    assert (network(x, t + 0.1, label) - whole).flatten(1).norm(dim=1).min() > 1e-3
    if label is not None:
        assert (network(x, t, label.roll(1)) - whole).flatten(1).norm(dim=1).min() > 1e-3
        torch.testing.assert_close(network(x, t), network(x, t, torch.full((4,), config.classes)))


@pytest.mark.parametrize("config", kinds())
def test_a_fresh_network_under_preconditioning_is_the_linear_denoiser(config):
    if isinstance(config, UNetConfig):
        pytest.importorskip("diffusers")
    x, t = torch.randn(3, *config.shape), torch.tensor([0.1, 0.7, 20.0])
    expected = x * (0.49 / (0.49 + t**2)).reshape(-1, *[1] * len(config.shape))
    torch.testing.assert_close(from_edm(build(config), sigma_data=0.7)(x, t), expected)


@pytest.mark.parametrize("config", kinds())
def test_taps_are_submodules_that_give_tensors_through_the_teacher(config):
    network = make(config)
    teacher, taps = from_edm(network), [f"network.{name}" for name in network.feature_taps]
    x = torch.randn(2, *config.shape, requires_grad=True)
    kept = teacher.features(x, torch.tensor(1.0), taps=taps)
    assert list(kept) == taps == list(Discriminator(teacher).taps)
    for feature in kept.values():
        assert len(feature) == 2
        (slope,) = torch.autograd.grad(feature.square().sum(), x, retain_graph=True)
        assert slope.abs().sum() > 0


@pytest.mark.parametrize("config", kinds())
def test_a_description_passes_through_json(config):
    words = json.loads(json.dumps(networks.config_to_json(config)))
    assert networks.config_from_json(words) == config


@pytest.mark.parametrize("config", kinds())
def test_a_teacher_comes_back_from_its_folder_as_it_was(config, tmp_path: Path):
    teacher = from_edm(make(config), sigma_data=0.3).eval()
    save_denoiser(tmp_path, "teacher", teacher, {"seed": 7})
    again, extra = load_denoiser(tmp_path, "teacher")
    x, t = torch.randn(2, *config.shape), torch.tensor([0.2, 3.0])
    assert torch.equal(again.eval()(x, t), teacher(x, t))
    assert extra == {"seed": 7}
    inner = again.network.network
    assert (type(inner), inner.config) == (type(teacher.network.network), config)


@pytest.mark.parametrize("config", kinds())
def test_a_student_comes_back_with_its_labels(config, tmp_path: Path):
    student = Generator(from_edm(make(config)), times=(2.0,))
    OneStepPipeline(student, shape=config.shape).save_pretrained(tmp_path)
    again = OneStepPipeline.from_pretrained(tmp_path).generator
    z, label = torch.randn(2, *config.shape), None if config.classes is None else torch.tensor([0, 2])
    assert torch.equal(again(z, label), student(z, label))
    assert torch.equal(again(z), student(z))
    assert again.denoiser.network.network.config == config


def test_weights_follow_from_the_global_seed():
    def fresh():
        torch.manual_seed(3)
        return build(MLPConfig(shape=(4,), width=8)).state_dict()

    one, two = fresh(), fresh()
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_the_default_for_digits_has_a_quarter_of_a_million_parameters():
    config = config_for((1, 8, 8), classes=10)
    assert isinstance(config, MLPConfig)
    assert 200_000 < sum(p.numel() for p in build(config).parameters()) < 300_000
    assert config_for((3, 16, 20)) == UNetConfig(shape=(3, 16, 20), channels=(16, 32, 32))
    assert config_for((3, 14, 14)) == UNetConfig(shape=(3, 14, 14), channels=(16, 32))
    assert isinstance(config_for((300,)), MLPConfig)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MLPConfig(shape=(0,)), InvalidArgument, "shape must be an integer of at least 1"),
        (lambda: MLPConfig(shape=(2,), width=0), InvalidArgument, "width must be"),
        (lambda: UNetConfig(shape=(1, 14, 14)), InvalidArgument, "multiples of 4"),
        (lambda: UNetConfig(shape=(1, 16, 16), channels=(30, 60)), InvalidArgument, "multiples of 8"),
        (lambda: networks.config_from_json({"kind": "os.system"}), InvalidArgument, "kind must be one of mlp, unet"),
        (lambda: networks.config_from_json({"kind": "mlp"}), InvalidArgument, "not described by"),
        (lambda: networks.config_from_json({"kind": "mlp", "shape": [2], "depth": 3}), InvalidArgument, "depth"),
        (lambda: networks.config_from_json({"kind": "mlp", "shape": ["2"]}), InvalidArgument, "shape must be"),
        (lambda: MLP(MLPConfig(shape=(2,)))(torch.ones(1, 3), torch.ones(1)), ShapeError, r"takes \(2,\)"),
        (
            lambda: MLP(MLPConfig(shape=(2,)))(torch.ones(1, 2), torch.ones(1), torch.ones(1).long()),
            InvalidArgument,
            "build it with classes=",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message: str):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("config", kinds())
def test_times_and_labels_are_one_for_each_sample(config):
    network = make(config)
    x, t = torch.randn(4, *config.shape), torch.zeros(4)
    assert torch.equal(network(x, torch.zeros(())), network(x, t))
    for wrong in (t[1:], t[:0], t.reshape(2, 2)):
        with pytest.raises(ShapeError, match=r"^t has shape"):
            network(x, wrong)
        with pytest.raises(ShapeError, match=r"^t has shape"):
            from_edm(network).x0(x, wrong)
    if isinstance(config, MLPConfig) and config.classes is not None:
        for wrong in (torch.zeros(3).long(), torch.zeros(4), torch.zeros(4, 1).long()):
            with pytest.raises(ShapeError, match="^label has shape"):
                network(x, t, wrong)
        with pytest.raises(InvalidArgument, match="label has numbers outside 0 to 3"):
            network(x, t, torch.full((4,), 4))


def test_samples_in_double_are_shown_to_a_network_of_single_precision():
    teacher = from_edm(make(MLPConfig(shape=(5,), width=16, blocks=1)))
    x, t = torch.randn(4, 5, dtype=torch.float64), torch.ones(4)
    torch.testing.assert_close(teacher.x0(x, t), teacher.x0(x.float(), t).double(), rtol=1e-5, atol=1e-5)
