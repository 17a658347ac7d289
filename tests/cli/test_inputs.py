"""What good files are read as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.arrays import is_picture
from pushforward.jobs.inputs.costs import read_cost
from pushforward.jobs.inputs.pictures import read_colours, read_pictures
from pushforward.jobs.inputs.points import read_points


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


DRAWN = np.full((7, 7), 250, dtype=np.uint8)  # a dark cross on light paper
DRAWN[3, 1:6] = DRAWN[1:6, 3] = 10
INK = np.where(DRAWN == 10, 1 / 9, 0.0).ravel()


def _clear(colour: int) -> Image.Image:
    """The cross on a transparent ground that hides another colour."""
    layers = np.full((7, 7, 4), (90, 200, 30, 0), dtype=np.uint8)
    layers[DRAWN == 10] = (colour, colour, colour, 255)
    return Image.fromarray(layers)


def test_dark_ink_on_light_paper_moves_only_where_it_is_said(here: Path):
    Image.fromarray(DRAWN).save("a.png")
    with pytest.raises(InputError, match=r"a\.png: is dark on a light ground.*--ink dark"):
        read_pictures(Path("a.png"), Path("a.png"), background=0)
    dark = read_pictures(Path("a.png"), Path("a.png"), background=0, ink="dark")
    np.testing.assert_allclose(dark.a, INK)
    assert dark.title.endswith("dark is mass")
    light = read_pictures(Path("a.png"), Path("a.png"), background=0, ink="light")
    np.testing.assert_allclose(light.a, (DRAWN / DRAWN.sum()).ravel())


def test_paper_may_be_grey_and_uneven_and_of_any_depth(here: Path):
    noise = np.random.default_rng(0).integers(0, 12, DRAWN.shape)
    Image.fromarray(np.uint8(np.where(DRAWN == 10, 20, 200 + noise))).save("a.png")
    Image.fromarray(np.uint16(np.where(DRAWN == 10, 900, 60000 + 99 * noise))).save("b.png")
    for name in ("a.png", "b.png"):
        with pytest.raises(InputError, match=f"{name}: is dark on a light ground"):
            read_pictures(Path(name), Path(name), background=0)


def test_one_picture_on_light_ground_and_one_on_dark_are_refused(here: Path):
    Image.fromarray(DRAWN).save("a.png")
    Image.fromarray(255 - DRAWN).save("b.png")
    for ink in (None, "light", "dark"):
        with pytest.raises(InputError, match=r"a\.png: is dark on a light ground but b\.png light on a dark one"):
            read_pictures(Path("b.png"), Path("a.png"), background=0, ink=ink)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_transparency_hides_is_no_mass(mode: str, here: Path):
    name = "a.png"
    for colour, ink in ((255, None), (255, "light"), (0, "dark")):
        picture = _clear(colour)
        (picture.quantize(4) if mode == "P" else picture.convert(mode)).save(name)
        np.testing.assert_allclose(read_pictures(Path(name), Path(name), background=0, ink=ink).a, INK)
    with pytest.raises(InputError, match="say --ink dark"):  # black ink, as light, lies on black
        read_pictures(Path(name), Path(name), background=0)


def test_colours_of_transparent_pixels_are_white(here: Path):
    _clear(0).save("a.png")
    np.testing.assert_array_equal(np.unique(read_colours(Path("a.png"))), [0, 1])


def test_a_picture_of_four_inks_is_grey_too(here: Path):
    Image.fromarray(255 - DRAWN).convert("RGB").convert("CMYK").save("a.tif")
    Image.fromarray(255 - DRAWN).save("b.png")
    problem = read_pictures(Path("a.tif"), Path("b.png"), background=0)
    np.testing.assert_allclose(problem.a, problem.b, atol=1e-3)


def test_a_file_of_several_pictures_is_refused(here: Path):
    frames = [Image.fromarray(np.full((4, 4), 50 * k, dtype=np.uint8)) for k in range(3)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"a\.gif: holds 3 pictures"):
        read_pictures(Path("a.gif"), Path("a.gif"), background=0)


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
