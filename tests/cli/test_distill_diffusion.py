"""A generator from the command line: a run, its resumption, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pushforward.cli.main import main
from pushforward.diffusion import OneStepPipeline
from pushforward.diffusion.teacher_training import TeacherTrainer, save_teacher
from pushforward.jobs.distill_diffusion.settings import DistillDiffusion
from pushforward.jobs.recipes import read_recipe

pytestmark = pytest.mark.usefixtures("short_warmup")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of 4 x 4 with two labels, and a teacher of them."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = np.where(labels[:, None, None] == 1, 0.8, 0.2) + 0.1 * rng.normal(size=(40, 4, 4))
    np.savez(folder / "data.npz", images=images.clip(0, 1), labels=labels)
    samples = torch.from_numpy(images.clip(0, 1)[:, None] * 2 - 1).float()
    teacher = TeacherTrainer(
        (samples, torch.from_numpy(labels)), out=folder / "training", batch_size=16, progress=False
    ).fit(5)
    save_teacher(folder / "run" / "teacher", teacher, shape=(1, 4, 4))
    return folder


def distil(place: Path, out: Path, *flags: str, steps: int = 4) -> int:
    return main(
        ["distill-diffusion", "--teacher", str(place / "run"), "--data", str(place / "data.npz"), "--out", str(out)]
        + ["--steps", str(steps), "--every", "2", "--batch-size", "16", "--critic-steps", "1", "--judged", "100"]
        + ["--quiet", *flags]
    )


@pytest.mark.drawings
@pytest.mark.filterwarnings("ignore")
def test_a_run_leaves_a_student_figures_and_a_page(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out"
    assert distil(place, out, "--conditional", "--guidance", "1.5", "--generator-steps", "2") == 0
    printed = capsys.readouterr().out
    assert "student" in printed
    assert "frechet floor" in printed
    results = json.loads((out / "result.json").read_text())
    assert results["student"]["evaluations"] == 2 == len(results["times"])
    assert results["teacher"]["evaluations"] == 35
    assert (out / "samples" / "step-4.png").is_file()
    assert "generator of 2 steps" in (out / "index.html").read_text()
    pipe = OneStepPipeline.from_pretrained(out / "student")
    assert len(pipe(num_images=3, condition=torch.tensor([0, 1, 1])).images) == 3


@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_on_with_the_recipe_that_it_left(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with torch.random.fork_rng():
        assert distil(place, whole) == 0
        assert distil(place, parts, steps=2) == 0
    assert distil(place, parts) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert distil(place, parts, "--resume", "--divergence", "kl") == 2
    assert "has divergence js, not kl" in capsys.readouterr().err
    assert distil(place, parts, "--resume") == 0
    students = [OneStepPipeline.from_pretrained(run / "student").generator.state_dict() for run in (whole, parts)]
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[1])


@pytest.mark.filterwarnings("ignore")
def test_a_gan_weight_of_zero_trains_no_discriminator(place: Path, tmp_path: Path):
    """The log holds what was computed: under the reverse KL nothing but the discriminator's own term asks for one."""
    out = tmp_path / "out"
    assert distil(place, out, "--divergence", "reverse_kl", "--gan-weight", "0", steps=2) == 0
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert any("score_gap" in record for record in records)
    assert not any("accuracy" in record for record in records)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--divergence", "total_variation"], "second derivative"),
        (["--divergence", "jensen"], "no divergence is named 'jensen'"),
        (["--generator-steps", "5"], "--generator-steps 5"),
        (["--guidance", "2"], "--conditional"),
        (["--guidance", "nan", "--conditional"], "--guidance nan"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--gan-weight", "-1"], "--gan-weight"),
        (["--judged", "10"], "--judged"),
        (["--teacher", "nowhere"], "there is no such folder"),
        (["--data", "nowhere"], "no such file"),
        (["--data", "digits"], r"images are (1, 8, 8) (channels, height, width), but the teacher's are (1, 4, 4)"),
        (["--steps", "0"], "--steps 0"),
    ],
)
def test_what_cannot_be_meant_is_named(
    flags: list[str], words: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert distil(place, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_recipes_hold_the_same_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "r.yaml"
    file.write_text("teacher: nowhere\ndata: digits\nout: somewhere\n")
    assert main(["distill-diffusion", str(file)]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    file.write_text("teacher: nowhere\ndivergances: js\n")
    assert main(["distill-diffusion", str(file)]) == 2
    assert "divergances: is no setting" in capsys.readouterr().err


def test_the_recipe_of_the_repository_is_one():
    recipes = Path(__file__).parents[2] / "recipes"
    assert read_recipe(recipes / "distill_digits.yaml", "distill-diffusion", DistillDiffusion).divergence == "js"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from pushforward.cli.main import main\n"
        "try: main(['distill-diffusion', '--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'numpy', 'diffusers', 'pydantic', 'yaml'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
