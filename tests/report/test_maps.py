"""The blocks that show maps: what is in the tables, and what is left of a photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from pushforward.report import maps as show


def test_a_table_shows_what_is_known_in_one_order():
    rows = {
        "identity": {"mean_shift": 1.5, "w2": 2.0, "cosine": float("nan")},
        "Monge": {"w2": 0.25, "cosine": 0.5, "seconds": 3.0, "train_loss": 1.0},
    }
    table = show.maps_table(rows, caption="Two\nlines.")
    assert table.columns == ("map", "cosine", "W2²", "mean shift", "seconds")
    assert table.rows == (("identity", "", "2", "1.500", ""), ("Monge", "0.500", "0.25", "", "3.0"))
    assert table.caption == "Two lines."


@pytest.mark.parametrize(("shape", "shown"), [((40, 60), (40, 60)), ((1000, 1500), (333, 500)), ((3, 9000), (1, 3000))])
def test_a_photograph_keeps_its_colours_at_a_size_for_the_page(
    shape: tuple[int, int], shown: tuple[int, int], tmp_path: Path
):
    colours = np.broadcast_to([0.2, 0.4, 0.8], (*shape, 3))
    block = show.photograph_picture(tmp_path, "sky", colours, alt="Blue.", caption="Blue.")
    assert block.light == block.dark == "pictures/sky.jpg"
    found = imread(tmp_path / block.light)
    assert found.shape == (*shown, 3)
    np.testing.assert_allclose(found.reshape(-1, 3).mean(axis=0) / 255, [0.2, 0.4, 0.8], atol=0.02)


@pytest.mark.parametrize("dimension", [2, 5])
def test_moves_are_drawn_in_the_plane(dimension: int, tmp_path: Path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, dimension)), rng.normal(size=(30, dimension))
    block = show.moves_picture(tmp_path, "moves", (x, x + 1.0, y), caption="A shift.")
    assert (tmp_path / block.light).read_bytes() != (tmp_path / block.dark).read_bytes()
    assert "30 points" in block.alt


def test_the_plane_is_that_of_the_largest_variation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)) * [0.1, 9.0, 0.1, 3.0]
    seen, _, _ = show._projected(x, x, x)
    np.testing.assert_allclose(np.abs(seen), np.abs((x - x.mean(axis=0))[:, [1, 3]]), atol=0.6)
