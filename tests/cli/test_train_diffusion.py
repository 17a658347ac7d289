"""`pushforward train-diffusion`, `sample`, and `evaluate` of a generator: folders, figures, errors, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pushforward.diffusion import Generator, OneStepPipeline, teacher_training
from pushforward.diffusion.judge import SampleMetrics, with_error
from pushforward.diffusion.samplers import sample
from pushforward.diffusion.teacher_training import load_teacher
from pushforward.diffusion.teachers import from_diffusers

pytestmark = pytest.mark.usefixtures("short_warmup")
QUICK = "--steps 4 --batch-size 16 --judged 30 --quiet"


@pytest.fixture(autouse=True)
def _hasty_classifier(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pushforward.diffusion.judge._STEPS", 20)


@pytest.fixture
def images(here: Path) -> Path:
    """Forty images of 4 x 5 pixels of two classes: bright above, or bright below."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    pixels = rng.integers(0, 60, (40, 4, 5))
    pixels[labels == 0, :2] += 180
    pixels[labels == 1, 2:] += 180
    np.savez("two.npz", images=pixels.astype(np.uint8), labels=labels)
    np.savez("plain.npz", images=pixels.astype(np.uint8))
    return here


@pytest.fixture
def trained(run: Callable, images: Path) -> str:
    assert run("train-diffusion", "two.npz", *QUICK.split(), "--conditional", "--out", "run").code == 0
    return "run"


@pytest.mark.drawings
def test_the_folder_of_a_run(run: Callable, images: Path):
    outcome = run("train-diffusion", "two.npz", *QUICK.split(), "--json", "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    result = json.loads(outcome.out)
    assert result == json.loads(Path("run/result.json").read_text())
    assert (result["images"], result["shape"], result["seed"]) == (40, [1, 4, 5], 0)
    named = "2 principal components of a small classifier's 64 features and the length of what they leave out"
    assert result["features"] == named
    recipe = yaml.safe_load(Path("run/recipe.yaml").read_text())
    assert (recipe["verb"], recipe["data"], recipe["steps"]) == ("train-diffusion", "two.npz", 4)
    teacher, shape = load_teacher("run/teacher")
    assert shape == (1, 4, 5)
    drawn = sample(teacher, 30, shape, generator=torch.Generator().manual_seed(0))
    with np.load("two.npz") as found:
        data = torch.from_numpy(found["images"]).float()[:, None] / 127.5 - 1
        expected = SampleMetrics(data, torch.from_numpy(found["labels"]))(drawn)
    assert result["figures"] == pytest.approx(expected, rel=1e-5)
    # 8 x 8 images of 4 x 5 pixels, each drawn 7 times as large, with lines between
    assert Image.open("run/samples.png").size == (8 * 37 + 2, 8 * 30 + 2)
    page = Path("run/index.html").read_text()
    assert "40 of 1 x 4 x 5" in page
    assert with_error(result["figures"]["frechet"], result["figures"]["frechet_error"]) in page
    assert named.replace("'", "&#39;") in page, "the page names the features that the command line names"
    assert page.count("data:image/png") + page.count("<svg") >= 3, "the data, the model's samples and the loss"


def test_what_is_printed_without_labels(run: Callable, images: Path):
    outcome = run("train-diffusion", "plain.npz", *QUICK.split(), "--out", "run")
    assert outcome.code == 0, outcome.err
    assert "2 principal components of the pixels" in outcome.out
    assert "warning           the model is " in outcome.out, "four steps teach nothing"
    assert "class_distance" not in outcome.out


def test_interrupted_and_resumed_is_as_if_never_interrupted(
    run: Callable, images: Path, monkeypatch: pytest.MonkeyPatch
):
    flags = ["two.npz", *QUICK.split()]
    assert run("train-diffusion", *flags, "--out", "whole").code == 0
    real, calls = teacher_training.denoising_loss, []

    def pressed(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(teacher_training, "denoising_loss", pressed)
        outcome = run("train-diffusion", *flags, "--out", "cut")
    assert (outcome.code, outcome.err.count("\n")) == (130, 1)
    assert "--resume" in outcome.err
    assert not Path("cut/teacher").exists()
    assert "has seed 0, not 1" in run("train-diffusion", *flags, "--seed", 1, "--out", "cut", "--resume").err
    assert run("train-diffusion", *flags, "--out", "cut", "--resume").code == 0
    assert "holds a run already" in run("train-diffusion", *flags, "--out", "cut").err
    assert (
        Path("cut/teacher/teacher.safetensors").read_bytes() == Path("whole/teacher/teacher.safetensors").read_bytes()
    )


def test_a_model_has_one_figure_for_one_seed(run: Callable, images: Path):
    flags = "--steps 4 --batch-size 16 --quiet --seed 3".split()
    assert run("train-diffusion", "two.npz", *flags, "--judged", 30, "--out", "run").code == 0
    trained = json.loads(Path("run/result.json").read_text())["figures"]
    evaluated = json.loads(run("evaluate", "run", *"--data two.npz --num 30 --seed 3 --json".split()).out)
    assert {name: evaluated[name] for name in trained} == trained
    flags = "--steps 2 --batch-size 16 --quiet --seed 3 --critic-steps 1 --judged 100".split()
    assert run("distill-diffusion", "--teacher", "run", "--data", "two.npz", *flags, "--out", "student").code == 0
    distilled = json.loads(Path("student/result.json").read_text())
    for row, place in (("teacher", "run"), ("student", "student")):
        found = json.loads(run("evaluate", place, *"--data two.npz --num 100 --seed 3 --json".split()).out)
        assert distilled["features"] == found["features"]
        named = {name: found[name] for name in found if name in distilled[row]}
        assert len(named) > 8
        assert named == pytest.approx({name: distilled[row][name] for name in named}, rel=1e-9)


def test_long_trainings_are_announced(run: Callable, images: Path, monkeypatch: pytest.MonkeyPatch):
    flags = "train-diffusion two.npz --steps 6 --batch-size 16 --judged 30 --out".split()
    assert "training takes" not in run(*flags, "short").err
    monkeypatch.setattr("pushforward.jobs.generators._SHORT", 0.0)
    assert "training takes about 1 min: 6 steps of" in run(*flags, "long").err
    assert "training takes" not in run(*flags, "quiet", "--quiet").err


@pytest.mark.filterwarnings("ignore:step")
def test_a_class_conditional_unet_of_diffusers(run: Callable, images: Path):
    diffusers = pytest.importorskip("diffusers")

    np.savez("cc.npz", images=np.random.default_rng(0).random((40, 8, 8)), labels=np.arange(40) % 3)
    model = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        num_class_embeds=3,
    )
    diffusers.DDPMPipeline(unet=model, scheduler=diffusers.DDPMScheduler()).save_pretrained("cc")
    flags = "distill-diffusion --teacher cc --data cc.npz --steps 2 --batch-size 8 --critic-steps 1".split()
    flags += ["--judged", "100"]
    refused = run(*flags, "--quiet", "--out", "none")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--teacher cc: was trained with labels; give --conditional" in refused.err
    refused = run(*flags, "--quiet", "--conditional", "--guidance", 2, "--out", "none")
    assert "--guidance: cc knows no label that stands for none" in refused.err
    assert not Path("none").exists()
    assert run("sample", "cc", "--num", 6, "--steps", 2, "--out", "s.npz").code == 0
    with np.load("s.npz") as found:
        assert found["labels"].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.filterwarnings("ignore:step")
def test_classes_are_those_that_occur(run: Callable, images: Path):
    with np.load("two.npz") as found:
        np.savez("odd.npz", images=found["images"], labels=2 * found["labels"] + 1)
    assert run("train-diffusion", "odd.npz", *QUICK.split(), "--conditional", "--out", "run").code == 0
    flags = "--steps 2 --batch-size 16 --quiet --conditional --critic-steps 1 --judged 100".split()
    assert run("distill-diffusion", "--teacher", "run", "--data", "odd.npz", *flags, "--out", "student").code == 0
    for place in ("run", "student"):
        assert run("sample", place, "--num", 4, "--out", "s.npz").code == 0
        with np.load("s.npz") as found:
            assert found["labels"].tolist() == [1, 1, 3, 3]
        assert "--label 2: " + place + " knows 1, 3" in run("sample", place, "--label", 2, "--out", "s.npz").err
    assert (
        "two: has the labels 0, but the model knows 1, 3"
        in run("evaluate", "run", "--data", "two.npz", "--num", 20).err
    )
    refused = run("distill-diffusion", "--teacher", "run", "--data", "two.npz", *flags, "--out", "other")
    assert "has the labels 0, but the model knows 1, 3" in refused.err


@pytest.mark.filterwarnings("ignore:step")
def test_a_student_without_labels_is_sampled_without(run: Callable, trained: str):
    flags = "--steps 2 --batch-size 16 --quiet --critic-steps 1 --judged 100".split()
    assert run("distill-diffusion", "--teacher", "run", "--data", "plain.npz", *flags, "--out", "student").code == 0
    assert run("sample", "student", "--num", 4, "--out", "s.npz").code == 0
    with np.load("s.npz") as found:
        assert "labels" not in found


def test_samples_as_an_array(run: Callable, trained: str):
    outcome = run("sample", trained, "--num", 6, "--steps", 5, "--seed", 3, "--out", "s.npz")
    assert (outcome.code, outcome.out, outcome.err) == (0, "s.npz\n", "")
    teacher, shape = load_teacher("run/teacher")
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    drawn = sample(teacher, 6, shape, steps=5, condition=labels, generator=torch.Generator().manual_seed(3))
    with np.load("s.npz") as found:
        assert found["labels"].tolist() == labels.tolist()
        assert (found["images"].dtype, found["images"].shape) == (np.uint8, (6, 4, 5, 1))
        expected = drawn.clamp(-1, 1).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(found["images"] / 127.5 - 1, expected, atol=0.51 / 127.5)
    assert run("sample", trained, "--num", 3, "--label", 1, "--out", "one.npz").code == 0
    with np.load("one.npz") as found:
        assert found["labels"].tolist() == [1, 1, 1]


def test_samples_as_a_picture(run: Callable, trained: str):
    assert run("sample", "run/teacher", "--num", 3, "--steps", 2, "--out", "s.png").code == 0
    picture = np.asarray(Image.open("s.png").convert("RGB"))
    assert picture.shape == (2 * 30 + 2, 2 * 37 + 2, 3)
    assert (picture[32:, 39:] == 255).all(), "where there is no fourth image there is nothing"
    assert (picture[2:30, 39:74] < 255).any()


def test_evaluate_judges_what_sample_draws(run: Callable, trained: str):
    outcome = run("evaluate", trained, *"--data two.npz --num 25 --seed 4 --steps 3 --json".split())
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert (found["samples"], found["seed"]) == (25, 4)
    assert "a small classifier's 64 features" in found["features"]
    teacher, shape = load_teacher("run/teacher")
    labels = torch.tensor([0] * 13 + [1] * 12)
    drawn = sample(teacher, 25, shape, steps=3, condition=labels, generator=torch.Generator().manual_seed(4))
    with np.load("two.npz") as data:
        samples = torch.from_numpy(data["images"]).float()[:, None] / 127.5 - 1
        expected = SampleMetrics(samples, torch.from_numpy(data["labels"]))(drawn)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    plain = run("evaluate", trained, *"--data plain.npz --num 25 --steps 2".split())
    assert "pixels" in plain.out.splitlines()[0]


def test_a_student_is_drawn_from_and_judged_in_its_own_steps(run: Callable, images: Path):
    assert run("train-diffusion", "two.npz", *QUICK.split(), "--out", "run").code == 0
    teacher, shape = load_teacher("run/teacher")
    pipeline = OneStepPipeline(Generator(teacher, times=(2.0,)), shape=shape)
    pipeline.save_pretrained("distilled/student")
    assert run("sample", "distilled", "--num", 5, "--out", "s.npz").code == 0
    drawn = pipeline(5, generator=torch.Generator().manual_seed(0), output_type="np").images
    with np.load("s.npz") as found:
        np.testing.assert_allclose(found["images"] / 255, drawn, atol=0.51 / 255)
    outcome = run("evaluate", "distilled", *"--data two.npz --num 30 --json".split())
    assert json.loads(outcome.out)["samples"] == 30
    assert "--steps" in run("sample", "distilled", "--steps", 4, "--out", "s.npz").err


@pytest.fixture
def diffusers_folder(here: Path) -> str:
    """An untrained DDPM of 8 x 8 pixels that takes labels, as diffusers saves it."""
    import diffusers

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, norm_num_groups=4, num_class_embeds=3, **blocks
    )
    diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler()).save_pretrained("ddpm")
    return "ddpm"


def test_a_pipeline_of_diffusers_is_drawn_from_and_judged(run: Callable, diffusers_folder: str):
    flags = ["--num", 5, "--steps", 3, "--seed", 2, "--label", 1]
    outcome = run("sample", diffusers_folder, *flags, "--out", "s.npz")
    assert (outcome.code, outcome.err) == (0, "")
    teacher = from_diffusers("ddpm").eval().requires_grad_(False)
    drawn = sample(
        teacher, 5, (1, 8, 8), steps=3, condition=torch.ones(5).long(), generator=torch.Generator().manual_seed(2)
    )
    with np.load("s.npz") as found:
        expected = drawn.clamp(-1, 1).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(found["images"] / 127.5 - 1, expected, atol=0.51 / 127.5)
    rng = np.random.default_rng(0)
    np.savez("data.npz", images=rng.integers(0, 255, (30, 8, 8), dtype=np.uint8))
    outcome = run("evaluate", "ddpm", *"--data data.npz --num 20 --steps 2 --json".split())
    assert json.loads(outcome.out)["samples"] == 20
    config = json.loads(Path("ddpm/unet/config.json").read_text()) | {"sample_size": None}
    Path("ddpm/unet/config.json").write_text(json.dumps(config))
    outcome = run("sample", "ddpm", "--out", "s.png")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "ddpm: its model's config.json has no sample_size" in outcome.err
    Path("ddpm/unet/diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    assert "pushforward: ddpm: ddpm/unet holds no" in run("sample", "ddpm", "--out", "s.png").err


WRONG = [
    ("train-diffusion two.npz", "--out"),
    ("train-diffusion two.npz --out new --steps 0", "--steps 0"),
    ("train-diffusion two.npz --out new --batch-size 41", "two.npz has 40 images"),
    ("train-diffusion two.npz --out new --learning-rate nan", "--learning-rate"),
    ("train-diffusion two.npz --out new --judged 7", "--judged 7"),
    ("train-diffusion two.npz --out new --seed -1", "--seed"),
    ("train-diffusion two.npz --out new --resume", "holds no run to go on with"),
    ("train-diffusion plain.npz --out new --conditional", "plain.npz has no labels"),
    ("train-diffusion few.npz --out new", "few.npz: holds 20 images"),
    ("train-diffusion nothing --out new", "nothing: there is no such file"),
    ("train-diffusion empty --out new", "empty: holds no pictures"),
    ("train-diffusion nan.npz --out new", "nan.npz: images[3] has a pixel that is NaN"),
    ("sample run", "--out"),
    ("sample run --out s.gif", ".gif"),
    ("sample run --out no/s.png", "no is no folder"),
    ("sample run --out s.png --num 0", "--num 0"),
    ("sample run --out s.png --steps 0", "--steps 0"),
    ("sample run --out s.png --seed -1", "--seed"),
    ("sample run --out s.png --label 2", "knows 0 to 1"),
    ("sample empty --out s.png", "empty: holds no generator"),
    ("sample cut --out s.png", "cut: cut/teacher/teacher.safetensors cannot be read"),
    ("evaluate run", "--data"),
    ("evaluate run --data two.npz --task sst2", "--task: is for language models"),
    ("evaluate run --data two.npz --num 7", "--num 7"),
    ("evaluate run --data wide.npz", "wide: its images are (1, 5, 5), but the generator draws (1, 4, 5)"),
    ("evaluate run --data few.npz", "few: holds 20 images; 24"),
]


def test_one_line_names_what_is_wrong(run: Callable, trained: str):
    with np.load("two.npz") as found:
        pixels = found["images"]
    np.savez("few.npz", images=pixels[:20])
    np.savez("wide.npz", images=pixels[:, [0, 1, 2, 3, 3]])
    spoilt = pixels / 255
    spoilt[3, 1, 1] = np.nan
    np.savez("nan.npz", images=spoilt)
    Path("empty").mkdir()
    Path("cut/teacher").mkdir(parents=True)
    for name in ("teacher.json", "teacher.safetensors"):
        Path("cut/teacher", name).write_bytes(Path("run/teacher", name).read_bytes()[:-9])
    for words, named in WRONG:
        outcome = run(*words.split())
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), (words, outcome)
        assert named in outcome.err, (words, outcome.err)
    assert not Path("new").exists(), "something was written before all was checked"
