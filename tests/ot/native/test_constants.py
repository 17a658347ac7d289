"""Numbers that a descent has in C++ and in Python, where torch makes the same steps: they are the same."""

import re
from pathlib import Path

import pytest

from pushforward.ot import _native
from pushforward.ot.geometry import protocol
from pushforward.ot.solvers import native, newton

SOURCE = (Path(_native.__file__).parent / "kernels.cpp").read_text(encoding="utf-8")
NUMBERS = {
    **{
        name: newton for name in ("LONGEST_STEP", "STEEPENING", "GAINED", "SHORT", "FINEST", "RISE", "HIDDEN", "TRIALS")
    },
    **dict.fromkeys(("PATIENCE", "LONGEST_AXIS"), native),
    "LOWEST_COST": protocol,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_the_same_in_both_languages(name: str):
    (text,) = re.findall(rf"\b{name} = ([-+.e\d]+)[,;]", SOURCE)
    assert float(text) == getattr(NUMBERS[name], name)
