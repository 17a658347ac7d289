"""What good files are read as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pushforward.cli.errors import InputError
from pushforward.cli.inputs import is_picture, read_cost, read_pictures, read_points


def test_grey_value_is_mass(here: Path):
    grey = np.array([[0, 10], [30, 60]], dtype=np.uint8)
    Image.fromarray(grey).save("a.png")
    Image.fromarray(grey[::-1]).save("b.png")
    problem = read_pictures(Path("a.png"), Path("b.png"), background=0)
    assert problem.shape == (2, 2)
    np.testing.assert_allclose(problem.a, [0, 0.1, 0.3, 0.6])
    np.testing.assert_allclose(problem.b, [0.3, 0.6, 0, 0.1])


def test_background_is_a_share_of_the_largest_grey_value(here: Path):
    Image.fromarray(np.array([[0, 100]], dtype=np.uint8)).save("a.png")
    problem = read_pictures(Path("a.png"), Path("a.png"), background=0.5)
    np.testing.assert_allclose(problem.a, [0.25, 0.75])


def test_colour_is_turned_to_grey(here: Path):
    colour = np.zeros((1, 2, 3), dtype=np.uint8)
    colour[0, 0] = 50
    colour[0, 1] = 150
    Image.fromarray(colour).save("a.png")
    problem = read_pictures(Path("a.png"), Path("a.png"), background=0)
    np.testing.assert_allclose(problem.a, [0.25, 0.75])


def test_sixteen_bits_are_kept(here: Path):
    Image.fromarray(np.array([[1, 65535]], dtype=np.uint16)).save("a.png")
    problem = read_pictures(Path("a.png"), Path("a.png"), background=0)
    np.testing.assert_allclose(problem.a, [1 / 65536, 65535 / 65536])


def test_csv_with_weights(here: Path):
    Path("x.csv").write_text("\ufeffx,weight,y\n0,1,2\n\n3,3,4\n", encoding="utf-8")
    problem = read_points(Path("x.csv"), Path("x.csv"))
    np.testing.assert_array_equal(problem.x, [[0, 2], [3, 4]])
    np.testing.assert_allclose(problem.a, [0.25, 0.75])


def test_csv_of_a_cost_keeps_every_column(here: Path):
    Path("c.csv").write_text("0,inf\n2,3\n")
    np.testing.assert_array_equal(read_cost(Path("c.csv")).cost, [[0, np.inf], [2, 3]])


def test_npz_by_name_and_by_being_alone(here: Path):
    np.savez("named.npz", points=np.ones((3, 2)), weights=np.array([1, 1, 2]))
    np.savez("alone.npz", coordinates=np.zeros((2, 2), dtype=np.float32))
    problem = read_points(Path("named.npz"), Path("alone.npz"))
    np.testing.assert_allclose(problem.a, [0.25, 0.25, 0.5])
    assert problem.b is None
    assert problem.y.dtype == np.float64


def test_cost_with_weights_keeps_their_ratio(here: Path):
    np.savez("c.npz", cost=np.ones((2, 3)), a=np.array([1.0, 3.0]))
    problem = read_cost(Path("c.npz"))
    np.testing.assert_allclose(problem.a, [0.25, 0.75])
    assert problem.b is None


def test_the_name_decides_the_kind():
    assert is_picture(Path("a.PNG"))
    assert not is_picture(Path("a.Npy"))
    with pytest.raises(InputError, match=r"a\.doc"):
        is_picture(Path("a.doc"))
