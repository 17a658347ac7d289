"""What every test may use.

`pytest --hypothesis-profile=thorough` (or HYPOTHESIS_PROFILE=thorough) draws 10,000 examples a property instead of 100;
the profile `thousand`, with which the scoreboard counts laws, 1,000.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The usual run draws the same examples every time, so that a red test is red for whoever runs it next.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("usual", max_examples=100, derandomize=True, database=None, **_COMMON)
settings.register_profile("thousand", max_examples=1_000, derandomize=True, database=None, **_COMMON)
settings.register_profile("thorough", max_examples=10_000, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))


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
    """Problems of a few dozen points are slower on several threads than on one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
