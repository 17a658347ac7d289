"""A disk that refuses a checkpoint ends no run, and harms none of those before: at every call of a save."""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import os
import resource
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from robustness.tiny_runs import RUNS, checkpoints

from pushforward.training.checkpoint import publishing, verify

# Where each trainer saves.
PLACES = {
    "student": "pushforward.training.resume",
    "teacher": "pushforward.training.resume",
    "map": "pushforward.training.resume",
    "lm": "pushforward.lm.trainer",
}
CALLS = [
    *((builtins, "open"), (io, "open")),
    *((os, call) for call in ("open", "mkdir", "rename", "replace", "fsync", "chmod", "unlink", "rmdir")),
]
CODES = (errno.ENOSPC, errno.EROFS, errno.EACCES)
STEPS = 20


class Watched:
    """Stands in for `publishing`: most saves of a run meet trouble, and all checkpoints are whole afterwards."""

    def __init__(self, trouble: Callable[[int], AbstractContextManager[Any]]) -> None:
        self.trouble, self.met, self.refused = trouble, 0, 0
        self.saves: dict[Path, int] = {}
        self.last = 0

    @contextmanager
    def __call__(self, folder: Path, step: int, **how: Any) -> Generator[Path]:
        self.saves[folder] = self.saves.get(folder, 0) + 1
        troubled = self.saves[folder] % 5 != 1
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with self.trouble(self.met) if troubled else nullcontext(), publishing(folder, step, **how) as draft:
                yield draft
        refused = any(f"no checkpoint of step {step} in" in str(one.message) for one in said)
        assert troubled or not refused
        self.met, self.refused = self.met + troubled, self.refused + refused
        self.last = self.last if refused else step
        left = checkpoints(folder)
        assert left[0].name.endswith(f"-{self.last}")
        for path in left:
            verify(path)


def refusing(calls: list[int]) -> Callable[[int], AbstractContextManager[None]]:
    """A disk that refuses all that is asked of it from the n-th call on; `calls` gets how many it refused."""

    @contextmanager
    def refuse(first: int) -> Generator[None]:
        asked, code = 0, CODES[first % len(CODES)]

        def wrapped(owner: Any, name: str) -> Callable[..., Any]:
            call = getattr(owner, name)

            def answer(*args: Any, **more: Any) -> Any:
                nonlocal asked
                mode = more.get("mode", [*args, "r"][1])
                if owner is os or set(str(mode)) & set("wxa+"):
                    asked += 1
                    if asked > first:
                        raise OSError(code, os.strerror(code))
                return call(*args, **more)

            return answer

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in CALLS:
                patch.setattr(owner, name, wrapped(owner, name))
            yield
        calls.append(max(0, asked - first))

    return refuse


@contextmanager
def files_no_larger_than(size: int) -> Generator[None]:
    """The kernel's own refusal to write, which a full disk gives too, whatever the language that writes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", RUNS)
def test_a_disk_that_refuses_any_call_ends_no_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    watched = Watched(refusing(calls))
    monkeypatch.setattr(importlib.import_module(PLACES[name]), "publishing", watched)
    while not calls or calls[-1]:  # until a save was through before its turn came
        RUNS[name](tmp_path / f"run-{len(calls)}", STEPS)
    assert 10 < watched.refused < len(calls)


@pytest.mark.parametrize("name", RUNS)
def test_a_disk_that_fills_up_ends_no_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    watched = Watched(lambda number: files_no_larger_than(20 * 3**number))
    monkeypatch.setattr(importlib.import_module(PLACES[name]), "publishing", watched)
    RUNS[name](tmp_path / "run", STEPS)
    assert 3 <= watched.refused < watched.met
