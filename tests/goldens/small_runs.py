"""The smallest run of each verb, on inputs made on the spot; all of it in the folder that the process stands in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from cli.language_models import save_bert, save_data

from pushforward.cli.main import main

# What depends on the machine, and not on the command.
TIMES = ("seconds", "training_seconds", "seconds_per_step", "features")

TEACH = "train-diffusion images.npz --out teacher --steps 6 --batch-size 16 --judged 100 --conditional".split()
DISTIL = (
    "distill-diffusion --teacher teacher --data images.npz --out student --steps 4 --every 2 --batch-size 16 "
    "--critic-steps 1 --judged 100 --conditional"
).split()
LANGUAGE = (
    "distill-lm --teacher bert --student layers:1 --task sst2 --data sst2 --out language --epochs 2 --batch-size 16 "
    "--learning-rate 1e-3 --max-length 16 --loss kd"
).split()
MAP = "fit-map x.csv y.csv --out map --method monge --steps 20 --batch-size 16".split()
# Those that write checkpoints, by the folder that they write.
TRAININGS = {"teacher": TEACH, "student": DISTIL, "language": LANGUAGE, "map": MAP}


def make_inputs() -> None:
    """Points, images and a language model, each from a fixed seed."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(50, 2)) * [2.0, 0.5] + [3.0, 0.0]
    for name, points in (("x", x), ("y", y)):
        np.savetxt(f"{name}.csv", points, delimiter=",", header="a,b", comments="")
    labels = np.arange(120) % 2
    images = np.where(labels[:, None, None] == 1, 0.8, 0.2) + 0.1 * rng.normal(size=(120, 4, 4))
    np.savez("images.npz", images=images.clip(0, 1), labels=labels)
    save_bert(Path("bert"))
    save_data(Path("sst2"))


def result_of(folder: Path) -> dict[str, Any]:
    """What a run's folder says of its result, whatever the version called the file."""
    file = next(folder / name for name in ("result.json", "results.json") if (folder / name).is_file())
    return json.loads(file.read_text())


def steady(value: Any) -> Any:
    """A result without its times."""
    if isinstance(value, dict):
        return {key: steady(each) for key, each in value.items() if key not in TIMES}
    return [steady(each) for each in value] if isinstance(value, list) else value


def run_verb(words: list[str], *more: str) -> None:
    """Run a command that must succeed."""
    assert main([*words, *more, *(["--quiet"] if words[0] not in ("solve", "evaluate", "apply-map") else [])]) == 0
