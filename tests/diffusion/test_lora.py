"""Adapters of peft in a student: they alone are trained, saved beside the network, and put back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pushforward.diffusion import Denoiser, Distiller, OneStepPipeline, Trainer, teachers
from pushforward.diffusion.lora import adapted, own_weights, weights_of_adapters
from pushforward.diffusion.networks import MLPConfig, build
from pushforward.diffusion.processes import VarianceExploding
from pushforward.errors import CheckpointError

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:step 1")
PROCESS = VarianceExploding(sigma_min=0.01, sigma_max=20.0)


def with_adapters(denoiser: Denoiser, module: nn.Module, layers: str) -> Denoiser:
    torch.manual_seed(1)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=layers, init_lora_weights=False), module)
    return denoiser


def perceptron() -> Denoiser:
    torch.manual_seed(0)
    network: Any = build(MLPConfig(shape=(1, 2, 2), width=16, blocks=2))
    nn.init.normal_(network.last.weight)  # 0 at the start, through which no gradient goes
    return teachers.from_edm(network, PROCESS)


def adapted_perceptron(teacher: Denoiser) -> Denoiser:
    student: Any = copy.deepcopy(teacher)
    return with_adapters(student, student.network.network, r".*(inner|outer)")


def fit(teacher: Denoiser, student: Denoiser, out: Path, steps: int, shape: tuple[int, ...]) -> Any:
    data = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0)) / 2
    distiller = Distiller(teacher, student=student, critic_steps=1, divergence="reverse_kl", gan_weight=0)
    return Trainer(distiller, data, out=out, batch_size=8, warmup=1, every=2, progress=False, learning_rate=1e-2).fit(
        steps
    )


def test_only_adapters_are_trained_and_they_come_back(tmp_path: Path):
    teacher = perceptron()
    student = adapted_perceptron(teacher)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    fit(teacher, student, tmp_path, 2, (1, 2, 2))
    moved = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == trained
    pipe = OneStepPipeline.from_pretrained(tmp_path / "student")
    network: Any = pipe.generator.denoiser.network
    assert adapted(network) is not None
    assert len(weights_of_adapters(network)) == len(trained)
    # Its own weights are the teacher's, and its samples those of the student that was trained.
    own = {f"network.{name}": value for name, value in own_weights(network).items()}
    assert own.keys() == teacher.state_dict().keys()
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in own.items())
    generator = fit(teacher, student, tmp_path, 2, (1, 2, 2))  # resumed at its end: what it was
    noise = torch.randn(4, 1, 2, 2)
    assert torch.equal(pipe.generator(noise), generator(noise))


def test_a_resumed_run_ends_with_the_same_adapters(tmp_path: Path):
    ends = []
    for parts in ((4,), (2, 4)):
        out = tmp_path / str(len(parts))
        for steps in parts:
            teacher = perceptron()
            fit(teacher, adapted_perceptron(teacher), out, steps, (1, 2, 2))
        ends.append(OneStepPipeline.from_pretrained(out / "student").generator.state_dict())
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_adapters_of_a_frozen_copy_are_trained_and_no_more():
    teacher = perceptron().requires_grad_(False)
    student = adapted_perceptron(teacher).requires_grad_(False)
    distiller = Distiller(teacher, student=student, divergence="reverse_kl", gan_weight=0)
    assert [id(one) for one in distiller.trained()] == [id(one) for one in weights_of_adapters(distiller.student)]
    whole = Distiller(teacher, divergence="reverse_kl", gan_weight=0)
    assert len(whole.trained()) == len(list(whole.student.parameters()))


def test_peft_and_diffusers_load_what_was_saved(unet: Callable[..., Any], tmp_path: Path):
    diffusers = pytest.importorskip("diffusers")
    teacher = teachers.from_diffusers(unet(), diffusers.DDPMScheduler())
    student: Any = copy.deepcopy(teacher)
    with_adapters(student, student.network.model, r".*conv1")
    with pytest.warns(UserWarning, match="plain diffusers finds no pipeline"):
        generator = fit(teacher, student, tmp_path, 1, (1, 8, 8))
    folder = tmp_path / "student"
    assert not (folder / "model_index.json").exists(), "a pipeline of it would draw without the adapters"
    noise, t = torch.randn(2, 1, 8, 8), generator.times[0]
    with torch.no_grad():
        own = OneStepPipeline.from_pretrained(folder).generator(noise)
        assert torch.equal(own, generator(noise))
        plain = diffusers.UNet2DModel.from_pretrained(folder / "unet")
        theirs = peft.PeftModel.from_pretrained(plain, folder / "adapters" / "default")
        ours = generator.denoiser.network(noise, torch.full((2,), t))
        assert torch.allclose(theirs(noise, torch.full((2,), t)).sample, ours, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: (at / "adapter_model.safetensors").unlink(), "adapter_model.safetensors is missing"),
        (lambda at: (at / "adapter_config.json").write_text("{"), "holds no adapter that can be loaded"),
        (lambda at: (at / "adapter_config.json").write_text('{"peft_type": "NONE"}'), "holds no adapter that can"),
        (lambda at: at.rename(at.with_name("other")), "adapter_model.safetensors is missing"),
    ],
)
def test_broken_adapters_are_named(change: Callable[[Path], Any], message: str, tmp_path: Path):
    student = adapted_perceptron(perceptron())
    OneStepPipeline(Distiller(perceptron(), student=student).student, shape=(1, 2, 2)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "student.json").read_text())
    change(tmp_path / "adapters" / "default")
    with pytest.raises(CheckpointError, match=message):
        OneStepPipeline.from_pretrained(tmp_path)
