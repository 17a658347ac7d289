"""The blocks that show a transport problem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from scipy.sparse import coo_array, eye_array

from pushforward import plots
from pushforward.report import transport


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The lines of every picture that is drawn, each of shape (lines, 2, 2) as (horizontal, vertical)."""
    found: list[np.ndarray] = []
    arrows = plots.arrows

    def spy(*args, **settings):
        ax = arrows(*args, **settings)
        found.extend(np.array(lines.get_segments()) for lines in ax.collections if isinstance(lines, LineCollection))
        return ax

    monkeypatch.setattr(plots, "arrows", spy)
    return found


def _shift_right(side: int) -> coo_array:
    """All mass of a square picture moves one pixel to the right, that of the last column stays."""
    rows = np.arange(side * side)
    return coo_array((np.full(side * side, 1 / side**2), (rows, np.where(rows % side < side - 1, rows + 1, rows))))


def test_few_pixels_show_every_entry(tmp_path: Path, drawn: list[np.ndarray]):
    mass = np.full((3, 3), 1 / 9)
    picture = transport.pixels_picture(tmp_path, mass, mass, _shift_right(3))
    assert (tmp_path / picture.light).exists()
    assert (tmp_path / picture.dark).exists()
    moves = drawn[0][:, 1] - drawn[0][:, 0]
    assert sorted(moves.tolist()) == [[0, 0]] * 3 + [[1, 0]] * 6


def test_many_pixels_show_mean_moves_of_some(tmp_path: Path, drawn: list[np.ndarray]):
    mass = np.full((40, 40), 1 / 1600)
    blurred = (0.5 * _shift_right(40) + 0.5 * eye_array(1600) / 1600).tocoo()
    transport.pixels_picture(tmp_path, mass, mass, blurred)
    assert len(drawn[0]) == 400
    moves = drawn[0][:, 1] - drawn[0][:, 0]
    inner = drawn[0][:, 0, 0] < 39
    np.testing.assert_allclose(moves[inner], [[0.5, 0]] * inner.sum(), atol=1e-12)


def test_closing_bounds_say_how_close(tmp_path: Path):
    picture = transport.closing_bounds_picture(tmp_path, {0.1: (0.5, 2.0), 0.01: (0.98, 1.02)}, exact=1.0)
    assert "at epsilon = 0.01 they are 0.04 apart, 4 % of the exact cost" in picture.caption
