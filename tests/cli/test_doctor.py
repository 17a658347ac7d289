from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.ot import _native


def test_a_healthy_machine(run: Callable):
    outcome = run("doctor")
    assert outcome.code == 0, outcome.out
    lines = {line[:18].strip(): line[18:] for line in outcome.out.splitlines()}
    assert lines["torch"]
    assert "torch on " in lines["machine"]
    assert lines["native kernels"] == (_native.instruction_set() or lines["native kernels"])
    assert lines["cpu"].startswith("ok: CONVERGED")


def test_missing_kernels_are_named_with_what_they_cost(run: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_native, "_load", lambda: (None, "switched off by PUSHFORWARD_NATIVE=0"))
    monkeypatch.setenv("PUSHFORWARD_NATIVE", "0")
    outcome = run("doctor")
    assert outcome.code == 0
    assert "none, switched off by PUSHFORWARD_NATIVE=0: on the CPU torch does their work" in outcome.out


def test_an_instruction_set_that_is_none_is_one_line(run: Callable, monkeypatch: pytest.MonkeyPatch):
    _native._load.cache_clear()
    monkeypatch.setenv("PUSHFORWARD_NATIVE", "sse9")
    outcome = run("doctor")
    assert outcome.code == 2
    assert "PUSHFORWARD_NATIVE=sse9: no such instruction set" in outcome.err


def test_a_wrong_answer_is_noticed(run: Callable, monkeypatch: pytest.MonkeyPatch):
    solve = pf.solve
    # The cost doubled: converged, and bounds that do not hold the true cost.
    monkeypatch.setattr(pf, "solve", lambda cost, **settings: solve(2 * cost, **settings))
    outcome = run("doctor")
    assert outcome.code == 1
    assert "WRONG" in outcome.out


def test_a_broken_device_is_one_line(run: Callable, monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(pf, "solve", broken)
    outcome = run("doctor")
    assert outcome.code == 1
    assert "FAILED: no kernel image is available" in outcome.out


# ---- a teacher


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an EDM teacher of digits, as `right`, and its raw network declared to predict x0, as `wrong`."""
    from pushforward.diffusion import Denoiser
    from pushforward.diffusion.networks import MLP, MLPConfig
    from pushforward.diffusion.teacher_training import save_teacher
    from pushforward.diffusion.teachers import from_edm
    from pushforward.samples import digits

    folder, pixels = tmp_path_factory.mktemp("teachers"), torch.from_numpy(digits()[0]).float().movedim(-1, 1) * 2 - 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(MLPConfig(shape=(1, 8, 8), width=64, blocks=1))
        teacher = from_edm(network)
        optimiser = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(200):
            x0, t = pixels[torch.randint(len(pixels), (128,))], teacher.process.sample_t(128)
            x_t = teacher.process.add_noise(x0, t, torch.randn_like(x0))
            weight = 1 / t.square() + 1 / 0.25
            loss = (weight * (teacher(x_t, t) - x0).square().flatten(1).mean(1)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    save_teacher(folder / "right", teacher, shape=(1, 8, 8))
    save_teacher(folder / "wrong", Denoiser(network, teacher.process, predicts="x0"), shape=(1, 8, 8))
    return folder


def test_a_teacher_that_is_what_it_says(run: Callable, teachers: Path):
    outcome = run("doctor", "--teacher", teachers / "right", "--data", "digits", "--samples", 400)
    assert outcome.code == 0, outcome.out
    lines = {line[:18].strip(): line[18:] for line in outcome.out.splitlines()}
    assert lines["teacher"].endswith("right: F (sigma_data 0.5) at time log(t) / 4, VarianceExploding")
    assert lines["data"] == "digits: 400 samples of (1, 8, 8)"
    assert lines["t = 0.3012"].startswith("noise 0.301: mean squared error of x0 0.0")
    assert lines["verdict"].startswith("ok: it predicts F (sigma_data 0.5) at time log(t) / 4, as declared")


def test_a_teacher_that_is_not(run: Callable, teachers: Path):
    outcome = run("doctor", "--teacher", teachers / "wrong", "--data", "digits", "--samples", 400)
    assert outcome.code == 1
    assert "but its answers are F (sigma_data 0.5) at time log(t) / 4: use from_edm with sigma_data=0.5" in outcome.out


def test_a_model_of_diffusers(run: Callable, here: Path):
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8), "norm_num_groups": 4}
    model = diffusers.UNet2DModel(**blocks, **sizes)
    diffusers.DDPMPipeline(unet=model, scheduler=diffusers.DDPMScheduler()).save_pretrained("ddpm")
    outcome = run("doctor", "--teacher", "ddpm", "--data", "digits", "--samples", 50)
    assert outcome.code == 1
    assert "it is untrained, or was trained on other data" in outcome.out


def test_what_is_wrong_with_a_teacher_or_its_data_is_one_line(run: Callable, teachers: Path, here: Path):
    np.savez("large.npz", images=np.zeros((50, 9, 9), dtype=np.uint8))
    cases = {
        "--teacher and --data go together": ("--teacher", teachers / "right"),
        "--samples 5: must be at least 32": ("--teacher", teachers / "right", "--data", "digits", "--samples", 5),
        "--teacher nowhere: there is no such folder": ("--teacher", "nowhere", "--data", "digits"),
        "has samples of shape (1, 9, 9)": ("--teacher", teachers / "right", "--data", "large.npz"),
        "none.npz: there is no such file": ("--teacher", teachers / "right", "--data", "none.npz"),
    }
    for message, flags in cases.items():
        outcome = run("doctor", *flags)
        assert (outcome.code, outcome.out) == (2, "")
        assert message in outcome.err
        assert len(outcome.err.splitlines()) == 1
