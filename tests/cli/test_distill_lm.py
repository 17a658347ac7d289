"""`pushforward distill-lm` on tiny models that are made here: its folder, its recipes, its errors, its resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from cli import language_models as made

from pushforward.jobs.distill_lm.loss import parse_loss
from pushforward.jobs.distill_lm.settings import DistillLm
from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.language import TaskName

FLAGS = "--teacher bert --student layers:2 --task sst2 --data data --batch-size 16 --quiet"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    made.save_bert(folder / "bert")
    made.save_bert(folder / "headless", head=False)
    made.save_bert(folder / "three", labels=3)
    made.save_bert(folder / "foreign", words=[*made.WORDS, "more"])
    made.save_bert(folder / "scores", labels=1)
    made.save_gpt2(folder / "gpt2")
    made.save_t5(folder / "t5")
    made.save_scores(folder / "stsb")
    made.save_data(folder / "data")
    made.save_text(folder / "text.txt")
    (folder / "short.txt").write_text("a film")
    (folder / "empty").mkdir()
    (folder / "bad").mkdir()
    (folder / "bad" / "train.tsv").write_text("sentence\tlabel\na film\tperhaps\n")
    return folder


@pytest.fixture
def inside(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which the process stands in, and from which the files are seen."""
    for file in files.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _results(out: str) -> dict[str, Any]:
    return json.loads(Path(out, "result.json").read_text())


def _figures(out: str) -> list[dict[str, float]]:
    return [
        {**seed["before"], **{f"after {k}": v for k, v in seed["after"].items()}} for seed in _results(out)["seeds"]
    ]


@pytest.mark.drawings
def test_the_folder_of_a_run(run: Callable, inside: Path):
    outcome = run("distill-lm", *FLAGS.split(), "--epochs", 2, "--seeds", 2, "--learning-rate", 1e-2, "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1].split() == ["page", "run/index.html"]
    results = _results("run")
    assert set(results["teacher"]) == {"accuracy"}
    assert [seed["seed"] for seed in results["seeds"]] == [0, 1]
    for seed in results["seeds"]:
        assert set(seed["before"]) == set(seed["after"]) == {"accuracy", "agreement", "kl"}
    kls = [seed["after"]["kl"] for seed in results["seeds"]]
    assert results["mean"]["kl"]["mean"] == pytest.approx(sum(kls) / 2)
    # Student's t of two values: 12.706 standard errors, half their distance each.
    assert results["mean"]["kl"]["interval"] == pytest.approx(12.7062 * abs(kls[0] - kls[1]) / 2, rel=1e-4)
    assert kls[0] != kls[1]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir("run/seed-1/student"))
    records = [json.loads(line) for line in Path("run/seed-0/log.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == 6
    assert {"held_out_kl", "loss", "label_loss", "distillation_loss"} <= {key for record in records for key in record}
    page = Path("run/index.html").read_text()
    assert "student, distilled" in page
    assert "http://" not in page.replace("http://www.w3.org", "")

    judged = run("evaluate", "run/seed-0/student", *"--task sst2 --data data --teacher bert --json".split())
    assert json.loads(judged.out) == pytest.approx(results["seeds"][0]["after"])


def test_the_student_learns_from_its_teacher(run: Callable, inside: Path):
    run("distill-lm", *FLAGS.split(), "--loss", "0*ce+kd", "--epochs", 6, "--learning-rate", 1e-2, "--out", "run")
    (seed,) = _results("run")["seeds"]
    assert seed["after"]["kl"] < 0.8 * seed["before"]["kl"]
    assert _results("run")["mean"]["kl"]["interval"] is None


def test_interrupted_and_resumed_is_as_if_never_interrupted(
    run: Callable, inside: Path, monkeypatch: pytest.MonkeyPatch
):
    from pushforward.jobs.distill_lm.watch import Watch

    flags = [*FLAGS.split(), "--epochs", 2, "--seeds", 2, "--loss", "kd"]
    assert run("distill-lm", *flags, "--out", "whole").code == 0

    begin = Watch.on_step_begin

    def pressed(self: Watch, args: Any, state: Any, control: Any, **unused: Any) -> None:
        begin(self, args, state, control)
        if self.name == "seed 1" and state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Watch, "on_step_begin", pressed)
    stopped = run("distill-lm", *flags, "--out", "cut")
    assert stopped.code == 130
    assert stopped.err == "pushforward: interrupted; go on with: pushforward distill-lm cut/recipe.yaml --resume\n"
    assert Path("cut/seed-1/checkpoint-3").is_dir()
    assert not Path("cut/seed-1/result.json").exists()
    done = Path("cut/seed-0/result.json").stat().st_mtime_ns

    steps: list[int] = []

    def counted(self: Watch, args: Any, state: Any, control: Any, **unused: Any) -> None:
        begin(self, args, state, control)
        steps.append(state.global_step)

    monkeypatch.setattr(Watch, "on_step_begin", counted)
    resumed = run("distill-lm", "cut/recipe.yaml", "--resume", "--quiet")
    assert resumed.code == 0, resumed.err
    assert steps == [3, 4, 5]
    assert Path("cut/seed-0/result.json").stat().st_mtime_ns == done
    assert _figures("cut") == _figures("whole")


def test_a_teacher_without_a_head_is_trained_first(run: Callable, inside: Path):
    flags = ["--teacher", "headless", *FLAGS.split()[2:], "--epochs", 1, "--learning-rate", 1e-2]
    outcome = run("distill-lm", *flags, "--train-teacher", 12, "--loss", "ce", "--out", "run")
    assert outcome.code == 0, outcome.err
    assert _results("run")["teacher"]["accuracy"] >= 0.9
    assert run("distill-lm", *flags, "--train-teacher", 12, "--loss", "ce", "--out", "again").code == 0
    assert _figures("again") == _figures("run"), "a new head must not depend on what was drawn before"
    assert run("evaluate", "run/teacher", *"--task sst2 --data data".split()).code == 0
    assert json.loads(Path("run/teacher/config.json").read_text())["id2label"]["1"] == "positive"


def test_a_t5_that_classifies(run: Callable, inside: Path):
    flags = FLAGS.replace("bert", "t5").replace("layers:2", "layers:1").split()
    outcome = run("distill-lm", *flags, "--epochs", 1, "--out", "run")
    assert outcome.code == 0, outcome.err
    judged = run("evaluate", "run/seed-0/student", *"--task sst2 --data data --teacher t5 --json".split())
    assert json.loads(judged.out) == pytest.approx(_results("run")["seeds"][0]["after"])


def test_a_score_is_learnt_as_a_score(run: Callable, inside: Path):
    flags = "--teacher scores --student layers:1 --task stsb --data stsb --quiet --epochs 1 --loss 0*ce+mse".split()
    outcome = run("distill-lm", *flags, "--out", "run")
    assert outcome.code == 0, outcome.err
    records = [json.loads(line) for line in Path("run/seed-0/log.jsonl").read_text().splitlines()]
    assert all(record["distillation_loss"] > 0 for record in records if "loss" in record)


def test_texts_longer_than_the_model_are_refused(run: Callable, inside: Path):
    Path("long").mkdir()
    for split in ("train", "dev"):
        Path("long", f"{split}.tsv").write_text("sentence\tlabel\n" + f"{'a film ' * 9}\t1\n" * 4)
    _is_one_line(run("distill-lm", *FLAGS.split(), "--data", "long", "--out", "run"), "at most --max-length 16")
    _is_one_line(run("evaluate", "bert", *"--task sst2 --data long".split()), "at most --max-length 16")
    text = "--teacher gpt2 --student layers:1 --text text.txt --max-length 17 --out run".split()
    _is_one_line(run("distill-lm", *text), "--max-length 17")
    assert run("distill-lm", *FLAGS.split(), *"--data long --max-length 16 --epochs 1 --out run".split()).code == 0


def test_a_text_a_recipe_and_adapters(run: Callable, inside: Path):
    recipe = {"teacher": "gpt2", "student": "layers:1", "text": "text.txt", "max_length": 12, "batch_size": 8}
    recipe |= {"epochs": 1, "loss": "js", "lora_rank": 2, "learning_rate": "1e-2", "out": "run"}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    outcome = run("distill-lm", "recipe.yaml", "--quiet")
    assert outcome.code == 0, outcome.err
    (seed,) = _results("run")["seeds"]
    assert set(seed["after"]) == {"perplexity", "agreement", "kl"}
    assert seed["after"] != seed["before"]
    judged = run("evaluate", "run/seed-0/student", *"--text text.txt --max-length 12 --teacher gpt2 --json".split())
    assert json.loads(judged.out) == pytest.approx(seed["after"], rel=1e-4)


CASES: list[tuple[str, str]] = [  # flags after the good ones (the last one counts), and what the one line must name
    ("--teacher missing", "--teacher missing"),
    ("--teacher text.txt", "--teacher text.txt"),
    ("--teacher empty", "--teacher empty"),
    ("--teacher gpt2", "--train-teacher"),
    ("--teacher headless", "--train-teacher"),
    ("--teacher three", "3 labels"),
    ("--student missing", "--student missing"),
    ("--student layers:9", "--student layers:9"),
    ("--student layers:x", "--student layers:x"),
    ("--student foreign", "more"),
    ("--task sst3", "sst3"),
    ("--task stsb", "--loss mse"),
    ("--data missing", "--data missing"),
    ("--data empty", "--data empty"),
    ("--data bad", "perhaps"),
    ("--text text.txt", "--text"),
    ("--loss magic", "magic"),
    ("--loss kd+", "--loss kd+"),
    ("--loss -1*kd", "--loss"),
    ("--loss ce+ce", "ce"),
    ("--loss 1e999*kd", "--loss 1e999*kd"),
    ("--loss kd+1e999*ce", "--loss kd+1e999*ce"),
    ("--loss 0*ce", "nothing to learn"),
    ("--loss 0*ce+0*kd", "nothing to learn"),
    ("--sinkhorn-temperature inf", "--sinkhorn-temperature"),
    ("--epsilon 0", "--epsilon"),
    ("--temperature nan", "--temperature"),
    ("--learning-rate -1", "--learning-rate"),
    ("--epochs 0", "--epochs"),
    ("--batch-size 0", "--batch-size"),
    ("--max-length 1", "--max-length"),
    ("--seeds 0", "--seeds"),
    ("--seeds two", "two"),
    ("--lora-rank 0", "--lora-rank"),
    ("--train-teacher 0", "--train-teacher"),
    ("--out text.txt", "--out text.txt"),
    ("--resume", "--resume"),
    ("--speed 3", "--speed"),
]


@pytest.mark.parametrize(("words", "named"), CASES, ids=[case[0] for case in CASES])
def test_one_line_names_what_is_wrong(words: str, named: str, run: Callable, inside: Path):
    given = dict(zip(*[iter(f"{FLAGS.removesuffix(' --quiet')} --out run".split())] * 2, strict=True))
    flag, _, value = words.partition(" ")
    outcome = run("distill-lm", *(word for pair in {**given, flag: value}.items() for word in pair if word))
    _is_one_line(outcome, named)
    assert not Path("run").exists(), "something was written before all was checked"


RECIPES: list[tuple[str, str]] = [
    ("teacher: bert\nloses: kd\n", "loses: is no setting"),
    ("teacher: bert\nepochs: many\n", "epochs"),
    ("teacher: bert\nepochs: -1\ntask: sst2\ndata: data\nout: run\n", "--epochs"),
    ("- teacher\n", "holds no settings"),
    ("teacher: [bert\n", "is no YAML"),
    ("teacher: !!python/object/apply:os.system [ls]\n", "is no YAML"),
]


@pytest.mark.parametrize(("text", "named"), RECIPES, ids=[named for _, named in RECIPES])
def test_a_wrong_recipe_is_named(text: str, named: str, run: Callable, inside: Path):
    Path("recipe.yaml").write_text(text)
    outcome = run("distill-lm", "recipe.yaml")
    _is_one_line(outcome, named)
    assert "recipe.yaml" in outcome.err


def test_flags_override_a_recipe(run: Callable, inside: Path):
    Path("recipe.yaml").write_text("teacher: bert\ntask: sst2\ndata: data\nout: run\n")
    _is_one_line(run("distill-lm", "recipe.yaml", "--epochs", "0"), "--epochs 0")
    _is_one_line(run("distill-lm", "none.yaml"), "none.yaml")


def test_a_folder_in_use_is_not_written_over(run: Callable, inside: Path):
    Path("run/seed-0").mkdir(parents=True)
    Path("run/recipe.json").write_text(json.dumps({"teacher": "other"}))
    Path("run/seed-0/metrics.jsonl").write_text("{}\n")
    _is_one_line(run("distill-lm", *FLAGS.split(), "--out", "run"), "--resume")
    _is_one_line(run("distill-lm", *FLAGS.split(), "--out", "run", "--resume"), "teacher other")


def _is_one_line(outcome: Any, named: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert named in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("text", "label_weight", "loss"),
    [
        ("kd", 0.1, "0.9 * KD('kl', temperature=2)"),
        ("0.5*ce + 2*reverse_kl", 0.5, "2 * KD('reverse_kl', temperature=2)"),
        ("0*ce+kl+total_variation", 0.0, "0.9 * KD('kl', temperature=2) + 0.9 * KD('total_variation', temperature=2)"),
        ("skewed_kl(0.1)", 0.1, "0.9 * KD('skewed_kl(0.1)', temperature=2)"),
    ],
)
def test_what_a_loss_says(text: str, label_weight: float, loss: str):
    found = parse_loss(text, temperature=2, epsilon=0.1)
    assert found[0] == label_weight
    assert repr(found[1]) == loss


def test_the_published_weights_are_the_default():
    label_weight, loss = parse_loss(DistillLm().loss, temperature=2, epsilon=0.3)
    assert label_weight == 0.1
    assert [weight for weight, _ in loss.parts] == [0.9, 0.8]
    assert "epsilon=0.3" in repr(loss)
    assert parse_loss("ce", temperature=2, epsilon=0.1) == (1.0, None)
    with pytest.raises(InputError, match="softened"):
        parse_loss("sinkhorn+soft", temperature=2, epsilon=0.1)


def test_a_temperature_of_its_own_for_sinkhorn():
    _, loss = parse_loss("0.9*kd+0.8*published-sinkhorn", temperature=3.5, epsilon=0.1, sinkhorn_temperature=2)
    assert [part.temperature for _, part in loss.parts] == [3.5, 2.0]
    _, loss = parse_loss("mse+kd+sinkhorn", temperature=3, epsilon=0.1)
    assert repr(loss).startswith("0.9 * SquaredError() + 0.9 * KD('kl', temperature=3) + 0.8 * SinkhornKD(")
    assert loss.parts[2][1].temperature == 3.0


def test_the_tasks_are_those_of_the_library():
    from pushforward.lm.tasks import TASKS

    assert set(get_args(TaskName)) == set(TASKS)


def test_the_recipe_of_the_repository_is_one():
    from pushforward.jobs.recipes import read_recipe

    read = read_recipe(Path(__file__).parents[2] / "recipes" / "distill_sst2.yaml", "distill-lm", DistillLm)
    assert replace(read, seeds=1).task == "sst2"


@pytest.mark.parametrize("verb", ["distill-lm", "evaluate"])
def test_help_imports_nothing_heavy(verb: str):
    code = (
        "import sys; from pushforward.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'numpy', 'transformers', 'pydantic', 'yaml'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, verb, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: pushforward {verb}" in done.stdout
