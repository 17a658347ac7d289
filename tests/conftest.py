"""What every test may use.

`pytest --hypothesis-profile=thorough` (or HYPOTHESIS_PROFILE=thorough) draws 10,000 examples a property instead of 100;
the profile `thousand`, with which the scoreboard counts laws, 1,000.

`make test` runs the files in two processes: see `_LONGEST`.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

# Problems of a few dozen points are slower on several threads than on one. Libraries look as they are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# The usual run draws the same examples every time, so that a red test is red for whoever runs it next.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("usual", max_examples=100, derandomize=True, database=None, **_COMMON)
settings.register_profile("thousand", max_examples=1_000, derandomize=True, database=None, **_COMMON)
settings.register_profile("thorough", max_examples=10_000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))

# One after the other in one process: what measures memory, opens ports, builds, or starts many processes.
_ALONE = (
    *("tests/resume/", "tests/distributed/", "tests/test_packaging.py"),
    *("tests/ot/test_memory.py", "tests/ot/test_points.py", "tests/ot/native/test_threads.py"),
)
# What takes longest comes first, so that neither of two processes is left with it when the other is done.
_LONGEST = (
    *_ALONE,
    *("tests/maps/test_monge.py", "tests/test_house.py", "tests/cli/test_fit_map.py", "tests/lm/"),
    *("tests/cli/test_tour.py", "tests/maps/test_contract.py", "tests/ot/test_gradients.py", "tests/cli/"),
    *("tests/robustness/", "tests/diffusion/", "tests/benchmarks/", "tests/properties/", "tests/maps/"),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(
            key=lambda item: next((k for k, p in enumerate(_LONGEST) if item.nodeid.startswith(p)), len(_LONGEST))
        )


def pytest_collection_finish() -> None:
    gc.freeze()  # else every full collection of garbage goes through torch's modules and thousands of tests again


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out the tests file by file, for the fixtures of a file; those of `_ALONE` are handed out as one file."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "alone" if nodeid.startswith(_ALONE) else super()._split_scope(nodeid)

    return ByFile(config, log)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20240131)


@pytest.fixture
def data_sets() -> Path:
    """The folder of data sets that no package ships; a test that needs it is skipped, saying so, without it."""
    folder = os.environ.get("PUSHFORWARD_DATA")
    if not folder:
        pytest.skip("PUSHFORWARD_DATA names no folder with the data sets")
    return Path(folder)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """As in the environment above; also where torch was loaded before this file."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
