"""Recipes: for every verb, with flags that override them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from pushforward.cli import main as command
from pushforward.jobs.folder import holds_run
from pushforward.jobs.recipes import recipe_among
from pushforward.jobs.solve.settings import Solve

RECIPES_OF_0_1 = Path(__file__).parents[1] / "goldens" / "recipes"


def test_a_recipe_stands_for_flags_and_flags_override_it(run: Callable, clouds: tuple[str, str]):
    Path("mine.yaml").write_text(f"a: {clouds[0]}\nb: {clouds[1]}\nepsilon: 0.5\nexact: yes\njson: true\n")
    by_recipe = json.loads(run("solve", "mine.yaml").out)
    assert by_recipe["epsilon"] == 0.5
    assert by_recipe["exact"]["cost"] > 0
    assert json.loads(run("solve", "mine.yaml", "--epsilon", "0.25").out)["epsilon"] == 0.25
    assert json.loads(run("solve", "--epsilon", "0.25", "mine.yaml").out)["epsilon"] == 0.25


def test_positional_arguments_stand_beside_a_recipe(run: Callable, clouds: tuple[str, str]):
    Path("part.yml").write_text("epsilon: 0.5\njson: true\n")
    for words in (("part.yml", *clouds), (*clouds, "part.yml"), (clouds[0], "part.yml", clouds[1])):
        assert json.loads(run("solve", *words).out)["epsilon"] == 0.5
    alone = run("solve", "part.yml")
    assert (alone.code, alone.out) == (2, "")
    assert "A" in alone.err


def test_a_run_is_repeated_by_the_recipe_that_it_left(run: Callable, clouds: tuple[str, str]):
    assert run("solve", *clouds, "--epsilon", "0.5", "--out", "first").code == 0
    assert run("solve", "first/recipe.yaml", "--out", "second").code == 0
    results = [json.loads(Path(name, "result.json").read_text()) | {"seconds": 0} for name in ("first", "second")]
    assert results[0] == results[1]
    recipe = yaml.safe_load(Path("second/recipe.yaml").read_text())
    assert (recipe["verb"], recipe["epsilon"], recipe["out"]) == ("solve", 0.5, "second")


def test_a_recipe_that_0_1_wrote_is_read(run: Callable, here: Path):
    rng = np.random.default_rng(0)
    for name in ("x", "y"):
        np.savetxt(f"{name}.csv", rng.normal(size=(20, 2)), delimiter=",", header="a,b", comments="")
    outcome = run("solve", RECIPES_OF_0_1 / "solved-recipe.yaml")
    assert outcome.code == 0, outcome.err
    assert "exact cost" in outcome.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("verb: fit-map\nfirst: x.npy\n", "is a recipe of fit-map, not of solve"),
        ("epsilom: 1\n", "epsilom: is no setting"),
        ("epsilon: much\n", "epsilon"),
        ("epsilon: -1\n", "--epsilon -1.0"),
        ("epsilon: yes\n", "a value is needed"),
        ("epsilon: 1\nepsilon: 2\n", "is set twice"),
        ("exact: maybe\n", "exact"),
        ("", "holds no settings"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_one_line(text: str, words: str, run: Callable, clouds: tuple[str, str]):
    Path("r.yaml").write_text(text)
    outcome = run("solve", "r.yaml", *clouds)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("pushforward: r.yaml: ")
    assert words in outcome.err


@pytest.mark.parametrize("verb", list(command._VERBS))
def test_every_verb_takes_a_recipe(verb: str, run: Callable, here: Path):
    Path("r.yaml").write_text("no_such_setting: 1\n")
    outcome = run(verb, "r.yaml")
    assert outcome.code == 2
    assert "r.yaml: no_such_setting: is no setting" in outcome.err


def test_the_value_of_a_flag_is_no_recipe():
    assert recipe_among(["x.npy", "y.npy", "--out", "runs/a.yaml"], Solve) is None
    assert recipe_among(["x.npy", "--exact", "r.yaml"], Solve) == 2
    assert recipe_among(["--epsilon=1", "r.json"], Solve) == 1


def test_a_recipe_under_its_old_name_leads_to_the_new_one(run: Callable, here: Path):
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("a: x.npy\n")
    outcome = run("solve", "run/recipe.json")
    assert outcome.code == 2
    assert "the run's recipe is run/recipe.yaml now" in outcome.err
    assert holds_run(Path("run"), resume=True) == Path("run/recipe.yaml")


def test_a_date_that_is_none_is_called_so(run: Callable, tmp_path: Path):
    (tmp_path / "r.yaml").write_text("seed: 2026-13-45\n")
    outcome = run("solve", tmp_path / "r.yaml")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "is no YAML: month must be in 1..12" in outcome.err
