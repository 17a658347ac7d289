from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pushforward.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process."""

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which the process stands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pictures(here: Path) -> tuple[str, str]:
    """Two real digits as grey pictures of 8 x 8 pixels."""
    from pushforward.samples import digit_pair

    for name, weights in zip(("three.png", "eight.png"), digit_pair(3, 8), strict=True):
        Image.fromarray(np.uint8(255 * weights / weights.max())).save(here / name)
    return "three.png", "eight.png"


@pytest.fixture
def clouds(here: Path) -> tuple[str, str]:
    """Two clouds of points in the plane, 30 and 20 of them."""
    rng = np.random.default_rng(0)
    np.save(here / "x.npy", rng.normal(size=(30, 2)))
    np.save(here / "y.npy", rng.normal(size=(20, 2)) + [3.0, 0.0])
    return "x.npy", "y.npy"


@pytest.fixture(autouse=True)
def _empty_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawings take a third of the time of most runs: they stay empty but where a test is marked `drawings`."""

    def save(figure: Figure, file: Path, **how: object) -> None:
        file.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')

    if "drawings" not in request.keywords:
        monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def short_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    """The critics of a distillation into a generator take 4 steps before the student's first, in place of 200."""
    from pushforward.diffusion import Trainer

    made = Trainer.__init__

    @functools.wraps(made)  # the command line reads the arguments of it
    def start(self: Trainer, *given: object, **more: object) -> None:
        made(self, *given, **{"warmup": 4, **more})  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Trainer, "__init__", start)
