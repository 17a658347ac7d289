"""Students on disk: what is drawn after loading, here and by plain diffusers in a process that has never seen us."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pushforward.diffusion import (
    Denoiser,
    Distiller,
    Generator,
    RectifiedFlow,
    Trainer,
    VarianceExploding,
    VariancePreserving,
)
from pushforward.diffusion.networks import MLPConfig, UNetConfig, build
from pushforward.diffusion.pipeline import OneStepPipeline
from pushforward.diffusion.teachers import from_diffusers, from_edm
from pushforward.errors import CheckpointError, InvalidArgument, ShapeError

PLAIN = """
import json, sys
import torch
from diffusers import DiffusionPipeline
for folder, labels, call in json.loads(sys.stdin.read()):
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    call |= {"class_labels": torch.tensor(labels)} if labels else {}
    images = pipe(batch_size=4, generator=torch.Generator().manual_seed(5), output_type="pt", **call).images
    torch.save(images, folder + "/drawn.pt")
assert not [name for name in sys.modules if name.startswith("pushforward")]
"""


class Scale(nn.Module):
    """A network of one's own, with labels if given."""

    def __init__(self, start: float = 0.5) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        shift = 0.0 if label is None else label.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype) / 10
        return self.factor * x + shift


def pipe_of(*times: float, network=None, shape=(1, 4, 4), process=None) -> OneStepPipeline:
    denoiser = Denoiser(network or Scale(), process or RectifiedFlow(), predicts="x0")
    return OneStepPipeline(Generator(denoiser, times or (1.0,)), shape=shape)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- drawing


def test_what_is_drawn_is_the_generators_output():
    pipe = pipe_of(1.0, 0.6, 0.2)
    drawn = pipe(6, generator=seeded(), output_type="raw").images
    torch.manual_seed(5)
    torch.testing.assert_close(drawn, pipe.generator(torch.randn(6, 1, 4, 4)).detach())
    assert not drawn.requires_grad


def test_kinds_of_output_are_diffusers():
    pipe = pipe_of()
    raw = pipe(5, generator=seeded(), output_type="raw").images
    tensor = pipe(5, generator=seeded(), output_type="pt").images
    torch.testing.assert_close(tensor, (raw / 2 + 0.5).clamp(0, 1))
    array = pipe(5, generator=seeded(), output_type="np").images
    np.testing.assert_allclose(array, tensor.permute(0, 2, 3, 1).numpy())
    pictures = pipe(5, generator=seeded()).images
    assert [picture.size for picture in pictures] == [(4, 4)] * 5
    np.testing.assert_array_equal(np.asarray(pictures[2]), (array[2, ..., 0] * 255).round().astype(np.uint8))


def test_batches_and_conditions_go_together():
    pipe, labels = pipe_of(), torch.arange(5)
    at_once = pipe(5, labels, generator=seeded(), output_type="raw").images
    plain = pipe(5, generator=seeded(), output_type="raw").images
    torch.testing.assert_close(at_once - plain, (labels / 10).view(-1, 1, 1, 1).expand_as(plain))
    # One step draws the same stream of noise in batches of any size.
    torch.testing.assert_close(pipe(5, labels, generator=seeded(), output_type="raw", batch_size=2).images, at_once)


def test_samples_that_are_no_images():
    pipe = pipe_of(shape=(2,))
    assert pipe(7, output_type="raw").images.shape == (7, 2)
    with pytest.raises(ShapeError, match=r'samples of shape \(2,\) are no images .* output_type="raw"'):
        pipe(7)
    with pytest.raises(ShapeError, match="condition is of 3 samples, but num_images is 7"):
        pipe(7, torch.zeros(3), output_type="raw")
    with pytest.raises(InvalidArgument, match="output_type must be one of 'pil', 'pt', 'np', 'raw'"):
        pipe(7, output_type="png")


# ---- networks of one's own


def test_latents_are_no_pictures_unless_they_are_decoded(unet, tmp_path: Path):
    import diffusers

    four = pipe_of(shape=(4, 8, 8))
    assert isinstance(four(num_images=2).images, Tensor), "raw, as they are"
    with pytest.raises(ShapeError, match="decode= makes images of them"):
        four(num_images=2, output_type="pil")
    pictures = four(num_images=3, batch_size=2, decode=lambda z: z[:, :3].repeat(1, 1, 2, 2)).images
    assert [(one.mode, one.size) for one in pictures] == [("RGB", (16, 16))] * 3
    with pytest.raises(ShapeError, match=r"decode gives \(2, 4, 8, 8\)"):
        four(num_images=2, decode=lambda z: z)
    # Of three channels, too, where the pipeline that the teacher came from has a decoder.
    model, scheduler = unet(in_channels=3, out_channels=3), diffusers.DDPMScheduler()
    diffusers.LDMPipeline(vqvae=diffusers.VQModel(norm_num_groups=4), unet=model, scheduler=scheduler).save_pretrained(
        tmp_path / "ldm"
    )
    three = OneStepPipeline(Generator(from_diffusers(tmp_path / "ldm"), times=(655.0,)), shape=(3, 8, 8))
    three.save_pretrained(tmp_path / "student")
    for pipe in (three, OneStepPipeline.from_pretrained(tmp_path / "student")):
        assert isinstance(pipe(num_images=1).images, Tensor)
        with pytest.raises(ShapeError, match="are latents"):
            pipe(num_images=1, output_type="np")


@pytest.mark.parametrize(
    "process",
    [VarianceExploding(sigma_max=5.0), VariancePreserving.linear(), RectifiedFlow(shift=3.0)],
    ids=["ve", "vp", "flow"],
)
def test_a_saved_student_draws_the_same(process, tmp_path: Path):
    start = float(process.timesteps(1)[0])
    pipe = pipe_of(start, start / 2, network=Scale(0.7), process=process)
    pipe.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.json", "student.safetensors"]
    loaded = OneStepPipeline.from_pretrained(tmp_path, network=Scale())
    assert (loaded.generator.times, loaded.shape) == (pipe.generator.times, pipe.shape)
    a, b = (one(3, generator=seeded(), output_type="raw").images for one in (pipe, loaded))
    assert torch.equal(a, b)


def test_a_student_in_edms_preconditioning(tmp_path: Path):
    pipe = OneStepPipeline(Generator(from_edm(Scale(0.7), sigma_data=0.3), (2.5,)), shape=(1, 4, 4))
    pipe.save_pretrained(tmp_path)
    loaded = OneStepPipeline.from_pretrained(tmp_path, network=Scale())
    a, b = (one(3, generator=seeded(), output_type="raw").images for one in (pipe, loaded))
    assert torch.equal(a, b)


@pytest.mark.parametrize("config", [MLPConfig(shape=(1, 8, 8), width=8), UNetConfig(shape=(1, 8, 8), channels=(8, 8))])
def test_networks_of_this_library_are_rebuilt(config, tmp_path: Path):
    if isinstance(config, UNetConfig):
        pytest.importorskip("diffusers")
    pipe = OneStepPipeline(Generator(from_edm(build(config)), (2.5,)), shape=config.shape)
    with torch.no_grad():
        for parameter in pipe.generator.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=seeded()))
    pipe.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.json", "student.safetensors"]
    a, b = (
        one(3, generator=seeded(), output_type="raw").images
        for one in (pipe, OneStepPipeline.from_pretrained(tmp_path))
    )
    assert torch.equal(a, b)


def test_what_cannot_be_saved_or_loaded_is_named(tmp_path: Path):
    with pytest.raises(InvalidArgument, match="the network is a plain function, which no file holds"):
        pipe_of(network=lambda x, t: x).save_pretrained(tmp_path / "plain")
    with pytest.raises(CheckpointError, match=r"student.json is missing: no student was saved there"):
        OneStepPipeline.from_pretrained(tmp_path)
    pipe_of().save_pretrained(tmp_path)
    with pytest.raises(InvalidArgument, match=r"network of the caller's own, .* give it again as network="):
        OneStepPipeline.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"can be rebuilt: RuntimeError: .*Linear"):
        OneStepPipeline.from_pretrained(tmp_path, network=nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("process", {"kind": "os.system", "command": "true"}),
        ("process", {"kind": "RectifiedFlow", "shift": -1.0, "t_min": 0.1}),
        ("predicts", "odd"),
        ("network", {"kind": "edm"}),
        ("network", {"kind": "diffusers", "folder": "..", "slope": 1, "offset": 0, "sign": 1}),
        ("network", []),
        ("extra", {"times": [1.0, 2.0], "shape": [1, 4, 4]}),
        ("extra", {"times": [1.0]}),
        ("weights", {"factor": "0.5"}),
    ],
)
def test_hostile_and_broken_files_are_one_error(key: str, value: object, tmp_path: Path):
    pipe_of().save_pretrained(tmp_path)
    file = tmp_path / "student.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    own = None if key == "network" and isinstance(value, dict) and value["kind"] == "diffusers" else Scale()
    with pytest.raises(CheckpointError, match=r"student.json holds no"):
        OneStepPipeline.from_pretrained(tmp_path, network=own)
    file.write_text(file.read_text()[:-20])
    with pytest.raises(CheckpointError, match=r"student.json is no state"):
        OneStepPipeline.from_pretrained(tmp_path, network=own)


# ---- models of diffusers


def test_plain_diffusers_draws_the_same_images(unet, tmp_path: Path):
    diffusers = pytest.importorskip("diffusers")
    v, eps = (diffusers.DDPMScheduler(prediction_type=kind) for kind in ("v_prediction", "epsilon"))
    x0 = diffusers.DDIMScheduler(prediction_type="sample", rescale_betas_zero_snr=True)
    flow, labels = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), [3, 0, 1, 2]
    cases = {
        "v": (v, (655.0,), None, {}),
        "eps": (eps, (812.0,), None, {}),
        "x0": (x0, (999.0,), None, {}),
        "steps": (v, (870.0, 333.0, 1.0), None, {"num_inference_steps": None, "timesteps": [870, 333, 1]}),
        "labels": (v, (655.0,), labels, {}),
        "flow": (flow, (1.0,), None, {"num_inference_steps": 1}),
        "flow_steps": (flow, (1.0, 0.4), None, {"num_inference_steps": 2}),
    }
    drawn: dict[str, Tensor] = {}
    for name, (scheduler, times, given, _) in cases.items():
        model = unet(num_class_embeds=4) if given else unet()
        pipe = OneStepPipeline(Generator(from_diffusers(model, scheduler), times), shape=(1, 8, 8))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            pipe.save_pretrained(tmp_path / name)
        loaded = OneStepPipeline.from_pretrained(tmp_path / name)
        condition = torch.tensor(given) if given else None
        drawn[name] = loaded(4, condition, generator=seeded(), output_type="pt").images
        assert torch.equal(drawn[name], pipe(4, condition, generator=seeded(), output_type="pt").images)
    calls = [(str(tmp_path / name), given, call) for name, (_, _, given, call) in cases.items()]
    # And from diffusers through a distillation to diffusers, in the same process of theirs.
    ours = _distilled(unet(), tmp_path / "distilled")
    calls.append((str(tmp_path / "distilled" / "student"), None, {}))
    subprocess.run([sys.executable, "-c", PLAIN], input=json.dumps(calls), text=True, check=True)
    for name in cases:
        theirs = torch.load(tmp_path / name / "drawn.pt", weights_only=True)
        assert drawn[name].std() > 0.05
        torch.testing.assert_close(theirs, drawn[name], rtol=0, atol=1e-5)
    theirs = torch.load(tmp_path / "distilled" / "student" / "drawn.pt", weights_only=True)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def _distilled(model: Any, folder: Path) -> Tensor:
    """A model of diffusers, distilled into a folder; what the student that is saved there draws."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction")
    diffusers.DDPMPipeline(unet=model, scheduler=scheduler).save_pretrained(folder / "teacher")
    teacher = from_diffusers(folder / "teacher")
    images = torch.rand(32, 1, 8, 8, generator=seeded()) * 2 - 1
    distiller = Distiller(teacher, divergence="js", critic_steps=1)
    Trainer(distiller, images, out=folder, batch_size=16, warmup=1, progress=False).fit(2)
    student = OneStepPipeline.from_pretrained(folder / "student")
    assert student.generator.times == distiller.student.times
    return student(4, generator=seeded(), output_type="pt").images


def test_times_that_diffusers_has_no_scheduler_for(unet, tmp_path: Path):
    diffusers = pytest.importorskip("diffusers")
    flow = from_diffusers(unet(), diffusers.FlowMatchEulerDiscreteScheduler())
    OneStepPipeline(Generator(flow, (1.0,)), shape=(1, 8, 8)).save_pretrained(tmp_path)
    assert (tmp_path / "model_index.json").exists()
    late = OneStepPipeline(Generator(flow, (0.8,)), shape=(1, 8, 8))
    with pytest.warns(UserWarning, match="no scheduler of diffusers goes with this student"):
        late.save_pretrained(tmp_path)
    assert not (tmp_path / "model_index.json").exists()  # of the student before
    loaded = OneStepPipeline.from_pretrained(tmp_path)
    a, b = (one(2, generator=seeded(), output_type="raw").images for one in (late, loaded))
    assert torch.equal(a, b)
    with pytest.raises(InvalidArgument, match="leave network= out"):
        OneStepPipeline.from_pretrained(tmp_path, network=unet())
