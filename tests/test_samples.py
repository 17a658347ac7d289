from __future__ import annotations

import numpy as np
import pytest

from pushforward import samples


@pytest.mark.parametrize("label", range(10))
def test_a_digit_is_a_distribution(label: int):
    ink = samples.digit(label, index=3)
    assert ink.shape == (8, 8)
    assert ink.min() == 0
    assert ink.sum() == pytest.approx(1)


def test_a_pair_is_its_two_digits():
    a, b = samples.digit_pair(1, 7, index=2)
    np.testing.assert_array_equal(a, samples.digit(1, index=2))
    np.testing.assert_array_equal(b, samples.digit(7, index=2))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize(
    ("label", "index", "message"),
    [
        (10, 0, "label is 10"),
        (-1, 0, "label is -1"),
        (3, 10_000, "index is 10000, but there are 183 samples of digit 3"),
    ],
)
def test_what_is_not_there_is_refused(label: int, index: int, message: str):
    with pytest.raises(ValueError, match=message):
        samples.digit(label, index=index)


def test_a_pairs_error_names_the_one_that_is_wrong():
    with pytest.raises(ValueError, match="target is -5"):
        samples.digit_pair(3, -5)


def test_photographs():
    assert samples.photograph("china").shape == (427, 640, 3)
    small = samples.photograph("flower", height=40)
    assert small.shape == (40, 60, 3)
    assert 0 <= small.min() < small.max() <= 1
    np.testing.assert_allclose(small.mean((0, 1)), samples.photograph("flower").mean((0, 1)), atol=0.01)
    with pytest.raises(ValueError, match="height is 428"):
        samples.photograph("china", height=428)
    with pytest.raises(ValueError, match="name must be one of"):
        samples.photograph("dog")  # pyright: ignore[reportArgumentType]


def test_prose_is_the_language_reference():
    text = samples.prose()
    assert len(text) > 300_000
    assert "assert_stmt" in text
    assert text == samples.prose()
