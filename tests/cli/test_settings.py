"""Settings against the library that they are for: every setting of a trained thing can be reached, with one default."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

from pushforward.diffusion import Distiller, TeacherTrainer, Trainer
from pushforward.jobs.distill_diffusion.settings import DistillDiffusion
from pushforward.jobs.errors import InputError
from pushforward.jobs.fit_map.settings import FitMap
from pushforward.jobs.settings import FREE, Bound, check_bounds, first_difference, recipe_of
from pushforward.jobs.train_diffusion.settings import TrainDiffusion
from pushforward.maps import EntropicMap, ICNNMap, LinearMap, MongeMap, ProgressiveMap

# What the command itself gives: files that were read, the progress, objects of Python that no file holds.
GIVEN = {
    TeacherTrainer: {"data", "progress", "pace", "network", "process"},
    Distiller: {"teacher", "student", "ratio", "levels"},
    Trainer: {"distiller", "data", "check", "progress", "pace"},
    MongeMap: {"checkpoint", "progress"},
    ICNNMap: {"checkpoint"},
    EntropicMap: set[str](),
    ProgressiveMap: set[str](),
    LinearMap: set[str](),
}
SETTINGS = {TeacherTrainer: TrainDiffusion, Distiller: DistillDiffusion, Trainer: DistillDiffusion}
OTHER_NAMES = {"random_state": "seed"}  # scikit-learn's name


@pytest.mark.parametrize("kind", list(GIVEN), ids=lambda kind: kind.__name__)
def test_every_setting_of_a_class_is_a_flag_with_its_default(kind: type):
    known = {f.name: f.default for f in fields(SETTINGS.get(kind, FitMap))}
    for argument, parameter in inspect.signature(kind).parameters.items():
        if argument in GIVEN[kind]:
            continue
        name = OTHER_NAMES.get(argument, argument)
        assert name in known, f"{kind.__name__}({argument}=) has no flag"
        if name not in ("seed", "out"):
            assert known[name] is None or known[name] == parameter.default, name


def test_of_a_language_model_s_training_the_loss_says_what_has_no_flag():
    from pushforward.jobs.distill_lm.settings import DistillLm
    from pushforward.lm.trainer import DistillationArguments, TrainingArguments

    own = {f.name for f in fields(DistillationArguments)} - {f.name for f in fields(TrainingArguments)}
    # The weight stands in --loss, the vocabulary's size follows from the tokenizer, and weights are always float32.
    assert own - {f.name for f in fields(DistillLm)} == {"label_weight", "vocab_size", "float32_weights"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gan_weight": -1.0}, "--gan-weight -1.0: must be a finite number at least 0"),
        ({"gan_weight": float("nan")}, "--gan-weight nan"),
        ({"generator_steps": 5}, "--generator-steps 5: must be at least 1 and at most 4"),
        ({"average": 1.0}, "--average 1.0: must be a finite number at least 0 and below 1"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: must be a finite number above 0"),
        ({"steps": 0}, "--steps 0: must be at least 1"),
    ],
)
def test_a_value_out_of_bounds_is_named(changed: dict[str, Any], words: str):
    with pytest.raises(InputError) as caught:
        check_bounds(DistillDiffusion(**changed))
    assert str(caught.value).startswith(words)


def test_every_number_of_several_is_checked():
    from pathlib import Path

    check_bounds(FitMap(first=Path("x"), hidden=(8, 8)))
    with pytest.raises(InputError, match="--hidden 0"):
        check_bounds(FitMap(first=Path("x"), hidden=(8, 0)))


def test_what_tells_runs_apart_is_all_that_is_not_marked():
    one = DistillDiffusion(divergence="kl", steps=10)
    before = recipe_of(one)
    assert "resume" not in before
    assert "quiet" not in before
    assert first_difference(one, before) is None
    assert first_difference(DistillDiffusion(divergence="kl", steps=20), before) is None
    assert first_difference(DistillDiffusion(divergence="js", steps=10), before) == ("divergence", "kl", "js")
    # A setting that the older recipe does not know had its default.
    del before["warmup"]
    assert first_difference(one, before) is None
    assert first_difference(DistillDiffusion(divergence="kl", warmup=7), before) == ("warmup", 200, 7)


def test_bounds_say_what_they_mean():
    assert Bound(above=0, most=0.5).words(0.7) == "must be a finite number above 0 and at most 0.5"
    assert Bound().words(float("inf")) == "must be a finite number"
    assert FREE.value == "free"
