"""Models of diffusers as teachers: what their own schedulers make of a prediction is what the teacher says."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pushforward.diffusion import Denoiser, RectifiedFlow, VarianceExploding, VariancePreserving
from pushforward.diffusion.adapters import DiffusersNetwork, load_model
from pushforward.diffusion.teachers import from_diffusers
from pushforward.errors import CheckpointError, InvalidArgument

diffusers = pytest.importorskip("diffusers")


def noise(n: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_room_is_entered_without_diffusers():
    code = "import sys, pushforward.diffusion, pushforward.diffusion.pipeline; assert 'diffusers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- against the schedulers' own x0


@pytest.mark.parametrize(
    ("prediction", "rescaled"),
    [("epsilon", False), ("v_prediction", False), ("sample", False), ("v_prediction", True), ("sample", True)],
)
def test_x0_is_the_ddpm_schedulers(unet, prediction: str, rescaled: bool):
    scheduler = diffusers.DDPMScheduler(
        prediction_type=prediction, clip_sample=False, rescale_betas_zero_snr=rescaled, beta_schedule="scaled_linear"
    )
    model, x = unet(), noise()
    teacher = from_diffusers(model, scheduler)
    assert isinstance(teacher.process, VariancePreserving)
    for t in (0, 400, 999):
        with torch.no_grad():
            expected = scheduler.step(model(x, t).sample, t, x).pred_original_sample
            torch.testing.assert_close(teacher(x, torch.tensor(float(t))), expected, rtol=1e-4, atol=2e-5)


def test_other_samplers_of_the_process_are_read_alike(unet):
    reference = from_diffusers(unet(), diffusers.DDPMScheduler()).process
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "PNDMScheduler"):
        teacher = from_diffusers(unet(), getattr(diffusers, name)())
        assert teacher.predicts == "eps"
        assert torch.equal(teacher.process.alphas_cumprod, reference.alphas_cumprod), name


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flows_step_leads_to_x0(unet, shift: float):
    scheduler, model, x = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift), unet(), noise()
    teacher = from_diffusers(model, scheduler)
    assert teacher.process == RectifiedFlow(shift=shift)
    scheduler.set_timesteps(4)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        with torch.no_grad():
            expected = x - sigma * model(x, t).sample  # the scheduler's step, down to sigma = 0
            torch.testing.assert_close(teacher(x, sigma), expected, rtol=1e-4, atol=1e-5)


def test_a_flow_that_runs_the_other_way(unet):
    scheduler, model, x = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), unet(), noise()
    scheduler.set_timesteps(4)
    time, position = scheduler.timesteps[2], scheduler.sigmas[2]
    with torch.no_grad():
        expected = x + (1 - position) * model(x, time).sample  # the scheduler's step, down to its end at 1
        torch.testing.assert_close(from_diffusers(model, scheduler)(x, 1 - position), expected, rtol=1e-4, atol=1e-5)


def test_flow_sigmas_of_a_solver(unet):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=2.0
    )
    teacher = from_diffusers(unet(), scheduler)
    assert (teacher.predicts, teacher.process) == ("flow", RectifiedFlow(shift=2.0))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_x0_is_the_edm_schedulers(unet, prediction: str):
    scheduler, model = diffusers.EDMEulerScheduler(prediction_type=prediction, sigma_data=0.4), unet()
    teacher, sigma = from_diffusers(model, scheduler), torch.tensor(1.7)
    assert isinstance(teacher.process, VarianceExploding)
    x = sigma * noise()
    with torch.no_grad():
        raw = model(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma)).sample
        expected = scheduler.precondition_outputs(x, raw, sigma)
        torch.testing.assert_close(teacher(x, sigma), expected, rtol=1e-4, atol=1e-5)


def test_a_transformer_whose_pipeline_turns_the_time_round():
    class Lumina2Transformer2DModel(torch.nn.Module):
        config = {}

        def forward(self, hidden_states, timestep, return_dict=True):
            return (hidden_states * 0 + timestep.view(-1, 1, 1, 1),)

    network = from_diffusers(Lumina2Transformer2DModel(), diffusers.FlowMatchEulerDiscreteScheduler()).network
    x = noise()
    assert torch.equal(network(x, torch.full((3,), 0.25)), torch.full_like(x, -0.75))


# ---- transformers


def features_of(teacher: Denoiser, x: torch.Tensor, t: torch.Tensor, condition: object) -> list[torch.Tensor]:
    return list(teacher.features(x, t, condition, taps=teacher.network.feature_taps).values())


def test_dit():
    heads = {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 2, "norm_num_groups": 2}
    sizes = {"in_channels": 2, "out_channels": 4, "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10}
    model = diffusers.DiTTransformer2DModel(**heads, **sizes).eval()
    x, labels, t = torch.randn(3, 2, 8, 8), torch.tensor([0, 3, 9]), torch.tensor(500.0)
    teacher = from_diffusers(model, diffusers.DDIMScheduler(prediction_type="sample"))
    with torch.no_grad():
        expected = model(x, timestep=t.expand(3), class_labels=labels).sample[:, :2]  # the rest is a variance
        torch.testing.assert_close(teacher(x, t, labels), expected)
        assert [feature.shape for feature in features_of(teacher, x, t, labels)] == [(3, 16, 8)]


def test_sd3():
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "joint_attention_dim": 16}
    sizes = {"in_channels": 4, "out_channels": 4, "sample_size": 8, "patch_size": 2, "pos_embed_max_size": 8}
    model = diffusers.SD3Transformer2DModel(**heads, **sizes, caption_projection_dim=16, pooled_projection_dim=16)
    x, t = torch.randn(3, 4, 8, 8), torch.tensor(0.5)
    prompt = {"encoder_hidden_states": torch.randn(3, 5, 16), "pooled_projections": torch.randn(3, 16)}
    teacher = from_diffusers(model, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    with torch.no_grad():
        expected = x - 0.5 * model(x, timestep=torch.full((3,), 500.0), **prompt).sample
        torch.testing.assert_close(teacher(x, t, prompt), expected)
        assert [feature.shape for feature in features_of(teacher, x, t, prompt)] == [(3, 16, 16)]


def test_flux_divides_its_time():
    heads = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "num_single_layers": 1}
    sizes = {"in_channels": 4, "patch_size": 1, "joint_attention_dim": 16, "pooled_projection_dim": 16}
    model = diffusers.FluxTransformer2DModel(**heads, **sizes, axes_dims_rope=(4, 4, 8))
    x, t = torch.randn(3, 16, 4), torch.tensor(0.5)  # latents, packed
    prompt = {"encoder_hidden_states": torch.randn(3, 5, 16), "pooled_projections": torch.randn(3, 16)}
    prompt |= {"img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(5, 3)}
    teacher = from_diffusers(model, diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    assert teacher.process.shift == pytest.approx(math.exp(1.15))  # of the largest images
    with torch.no_grad():
        expected = x - 0.5 * model(x, timestep=torch.full((3,), 0.5), **prompt).sample
        torch.testing.assert_close(teacher(x, t, prompt), expected)
        assert [feature.shape for feature in features_of(teacher, x, t, prompt)] == [(3, 16, 32)]


# ---- conditions, halves, precision, features


def test_labels_and_embeddings_reach_the_model_by_name(unet):
    model, x, t = unet(num_class_embeds=4), noise(), torch.tensor(300.0)
    teacher, labels = from_diffusers(model, diffusers.DDPMScheduler(prediction_type="sample")), torch.tensor([0, 3, 1])
    with torch.no_grad():
        expected = model(x, 300, class_labels=labels).sample
        torch.testing.assert_close(teacher(x, t, labels), expected)
        torch.testing.assert_close(teacher(x, t, {"class_labels": labels}), expected)
    with pytest.raises(InvalidArgument, match="UNet2DModel takes no encoder_hidden_states; it takes class_labels"):
        teacher(x, t, torch.zeros(3, 2, 8))
    with pytest.raises(InvalidArgument, match="condition is a list"):
        teacher(x, t, [0, 3, 1])


def test_a_model_of_prompts():
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    teacher, x, prompt = (
        from_diffusers(model, diffusers.DDPMScheduler(prediction_type="sample")),
        noise(),
        torch.ones(3, 5, 8),
    )
    with torch.no_grad():
        torch.testing.assert_close(teacher(x, torch.tensor(10.0), prompt), model(x, 10, prompt).sample)
    with pytest.raises(InvalidArgument, match="UNet2DConditionModel needs encoder_hidden_states"):
        teacher(x, torch.tensor(10.0))


def test_a_learned_variance_is_cut_off(unet):
    model, x = unet(out_channels=2), noise()
    network = DiffusersNetwork(model)
    with torch.no_grad():
        assert torch.equal(network(x, torch.full((3,), 5.0)), model(x, 5).sample[:, :1])


def test_half_precision_is_the_models_affair(unet):
    teacher = from_diffusers(unet().bfloat16(), diffusers.DDPMScheduler(prediction_type="v_prediction"))
    x = noise().requires_grad_()
    x0 = teacher(x, torch.tensor(500.0))
    x0.sum().backward()
    assert x0.dtype == x.grad.dtype == torch.float32


def test_features_come_from_the_middle(unet):
    teacher = from_diffusers(unet(), diffusers.DDPMScheduler())
    assert teacher.network.feature_taps == ("model.mid_block",)
    features = teacher.features(noise(), torch.tensor(5.0), taps=teacher.network.feature_taps)
    assert features["model.mid_block"].shape == (3, 8, 4, 4)


# ---- folders


def save(unet, folder: Path, scheduler=None) -> Path:
    scheduler = scheduler or diffusers.DDPMScheduler(prediction_type="v_prediction")
    diffusers.DDPMPipeline(unet=unet(), scheduler=scheduler).save_pretrained(folder)
    return folder


def test_a_pipelines_folder_is_model_and_scheduler(unet, tmp_path: Path):
    teacher = from_diffusers(save(unet, tmp_path))
    loaded = from_diffusers(unet(), diffusers.DDPMScheduler(prediction_type="v_prediction"))
    x, t = noise(), torch.tensor(500.0)
    assert isinstance(teacher, Denoiser)
    assert torch.equal(teacher(x, t), loaded(x, t))
    of_the_model_alone = from_diffusers(tmp_path / "unet", diffusers.DDPMScheduler())
    assert of_the_model_alone.predicts == "eps"


@pytest.mark.parametrize("variant", ["fp16", "ema"])
def test_variants_of_weights_are_found(unet, variant: str, tmp_path: Path):
    import diffusers

    model = unet()
    pipeline = diffusers.DDPMPipeline(unet=model, scheduler=diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "one", variant=variant)
    model.save_pretrained(tmp_path / "cut", variant=variant, max_shard_size="10KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 1
    x = torch.randn(2, 1, 8, 8)
    for found in (from_diffusers(tmp_path / "one"), from_diffusers(tmp_path / "cut", diffusers.DDPMScheduler())):
        assert torch.equal(found.network.model(x, 3).sample, model(x, 3).sample)  # pyright: ignore
    model.save_pretrained(tmp_path / "cut" / "two", variant="fp16")
    model.save_pretrained(tmp_path / "cut" / "two", variant="ema")
    with pytest.raises(CheckpointError, match="variants ema, fp16 and no plain weights"):
        from_diffusers(tmp_path / "cut" / "two", diffusers.DDPMScheduler())


@pytest.mark.parametrize("betas", [{}, {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}])
def test_zero_terminal_signal_is_read_alike_from_all_samplers(unet, betas: dict[str, Any]):
    import diffusers

    for kind in (diffusers.DDIMScheduler, diffusers.DDPMScheduler, diffusers.EulerDiscreteScheduler):
        zero = {"rescale_betas_zero_snr": True, **betas}
        process = from_diffusers(unet(), kind(prediction_type="v_prediction", **zero)).process
        assert isinstance(process, VariancePreserving)
        assert float(process.alphas_cumprod[-1]) == 0
        with pytest.raises(InvalidArgument, match="rescale_betas_zero_snr with prediction_type 'epsilon'"):
            from_diffusers(unet(), kind(**zero))


def test_unknown_and_incomplete_things_are_named(unet, tmp_path: Path):
    with pytest.raises(CheckpointError, match="nowhere is no folder"):
        from_diffusers(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="has neither model_index.json nor config.json"):
        from_diffusers(tmp_path)
    with pytest.raises(InvalidArgument, match="scheduler is a KarrasVeScheduler, whose process is unknown"):
        from_diffusers(unet(), diffusers.KarrasVeScheduler())
    with pytest.raises(InvalidArgument, match="scheduler is missing"):
        from_diffusers(unet())
    with pytest.raises(InvalidArgument, match="model is a Linear"):
        from_diffusers(torch.nn.Linear(1, 1), diffusers.DDPMScheduler())
    odd = diffusers.DDPMScheduler()
    odd.register_to_config(prediction_type="odd")
    with pytest.raises(InvalidArgument, match="DDPMScheduler has prediction_type 'odd'; known are 'epsilon'"):
        from_diffusers(unet(), odd)
    with pytest.raises(InvalidArgument, match="rescale_betas_zero_snr with prediction_type 'epsilon'"):
        from_diffusers(unet(), diffusers.DDPMScheduler(rescale_betas_zero_snr=True))


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a file was run')",)


def test_pickled_weights_are_refused(unet, tmp_path: Path):
    folder = save(unet, tmp_path) / "unet"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model.bin is pickled"):
        from_diffusers(tmp_path)
    # A list of shards may lead to pickled ones, with a file beside it that is safe.
    (folder / "other.safetensors").write_bytes(b"")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "diffusion_pytorch_model.bin"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model.bin is pickled"):
        from_diffusers(tmp_path)


def test_broken_folders_are_one_error(unet, tmp_path: Path):
    def broken(name: str, text: str) -> Path:
        folder = save(unet, tmp_path / name.replace("/", "-") / str(len(text)))
        (folder / name).write_text(text)
        return folder

    weights = "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(CheckpointError, match=r"holds no UNet2DModel that can be loaded"):
        from_diffusers(broken(weights, "not safetensors"))
    with pytest.raises(CheckpointError, match=r"is of class 'DDPMPipeline', which is no model of diffusers"):
        from_diffusers(broken("unet/config.json", '{"_class_name": "DDPMPipeline"}'))
    with pytest.raises(CheckpointError, match=r"config.json cannot be read as JSON"):
        from_diffusers(broken("unet/config.json", "{"))
    with pytest.raises(CheckpointError, match=r"model_index.json has no unet and no transformer"):
        from_diffusers(broken("model_index.json", "{}"))
    with pytest.raises(InvalidArgument, match=r"scheduler is a os.system"):
        from_diffusers(broken("scheduler/scheduler_config.json", '{"_class_name": "os.system"}'))
    narrow = json.loads((save(unet, tmp_path / "narrow") / "unet" / "config.json").read_text())
    narrow["num_class_embeds"] = 3
    with pytest.raises(CheckpointError, match=r"unet"):
        load_model(broken("unet/config.json", json.dumps(narrow)) / "unet")
