"""Images that are read, and those that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.images import read_images


def save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file)


def test_the_digits_are_there():
    read = read_images(Path("digits"))
    assert read.samples.shape == (1797, 1, 8, 8)
    assert read.classes == 10
    assert (float(read.samples.min()), float(read.samples.max())) == (-1.0, 1.0)


def test_a_folder_of_pictures(tmp_path: Path, rng: np.random.Generator):
    pixels = rng.integers(0, 256, (8, 5, 4, 3))
    for k, one in enumerate(pixels):
        save(tmp_path / f"{k}.png", one)
    (tmp_path / "notes.txt").write_text("not a picture")
    read = read_images(tmp_path)
    assert read.labels is None
    assert torch.allclose(read.samples, torch.from_numpy(pixels / 127.5 - 1).float().permute(0, 3, 1, 2), atol=1e-6)


def test_sixteen_bits_of_grey(tmp_path: Path):
    ramp = np.linspace(0, 65535, 16).round().astype(np.uint16).reshape(4, 4)
    for k in range(8):
        Image.fromarray(ramp // (k + 1)).save(tmp_path / f"{k}.png")
    read = read_images(tmp_path)
    assert read.samples.shape == (8, 1, 4, 4)
    for k in range(8):
        found = (read.samples[k, 0].numpy() + 1) / 2
        np.testing.assert_allclose(found, (ramp // (k + 1)) / 65535, atol=1e-6)
    Image.fromarray(np.full((4, 4), -3.5, np.float32)).save(tmp_path / "9.tiff")
    with pytest.raises(InputError, match=r"9.tiff: holds grey values between -3.5 and -3.5"):
        read_images(tmp_path)


def test_what_transparency_hides_is_not_seen(tmp_path: Path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0] = 200  # a hidden red
    pixels[1:3, 1:3] = (0, 0, 255, 255)
    pixels[0, 0] = (0, 0, 0, 51)
    for k in range(8):
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    first = ((read_images(tmp_path).samples[0] + 1) * 127.5).numpy()
    assert first[:, 3, 3].tolist() == [255, 255, 255]
    assert first[:, 1, 1].tolist() == [0, 0, 255]
    assert first[:, 0, 0] == pytest.approx([204] * 3, abs=1)


def test_folders_are_classes_and_grey_stays_grey(tmp_path: Path):
    for k in range(8):
        save(tmp_path / ("cat" if k < 3 else "dog") / f"{k}.png", np.full((4, 4), 30 * k))
    read = read_images(tmp_path)
    assert read.samples.shape == (8, 1, 4, 4)
    assert read.labels is not None
    assert read.labels.tolist() == [0] * 3 + [1] * 5


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (np.full((9, 4, 4), 255, np.uint8), (9, 1, 4, 4)),
        (np.ones((9, 4, 4, 3)), (9, 3, 4, 4)),
        (np.array([-1.0, 1.0]).repeat(72).reshape(9, 4, 4, 1), (9, 1, 4, 4)),
    ],
)
def test_an_npz(images: np.ndarray, shape: tuple[int, ...], tmp_path: Path):
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(9) % 2)
    read = read_images(tmp_path / "x.npz")
    assert tuple(read.samples.shape) == shape
    assert float(read.samples.max()) == 1.0
    assert read.classes == 2


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def two_sizes(folder: Path) -> Path:
    save(folder / "a.png", np.zeros((4, 4)))
    save(folder / "b.png", np.zeros((4, 5)))
    return folder


def broken(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture at all")
    return folder


def mixed(folder: Path) -> Path:
    save(folder / "a.png", np.zeros((4, 4)))
    save(folder / "cat" / "b.png", np.zeros((4, 4)))
    return folder


def no_cats(folder: Path) -> Path:
    save(folder / "dog" / "b.png", np.zeros((4, 4)))
    (folder / "cat").mkdir()
    return folder


def few(folder: Path) -> Path:
    save(folder / "a.png", np.zeros((4, 4)))
    return folder


def npz(**arrays: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        folder.mkdir()
        np.savez(folder / "x.npz", **arrays)  # pyright: ignore
        return folder / "x.npz"

    return make


NAN = np.zeros((9, 4, 4))
NAN[3, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (empty, "holds no pictures"),
        (two_sizes, r"b\.png: is 5 x 4 pixels but a\.png is 4 x 4"),
        (broken, r"a\.png: is not a picture"),
        (mixed, "the one or the other"),
        (no_cats, "cat: holds no pictures"),
        (few, "holds 1 images; 8"),
        (npz(images=NAN), r"images\[3\] has a pixel that is NaN"),
        (npz(images=np.zeros((9, 4))), r"shape \(9, 4\)"),
        (npz(images=np.zeros((9, 4, 4, 2))), r"\(9, 4, 4, 2\)"),
        (npz(images=np.full((9, 4, 4), 7.0)), "between 7 and 7"),
        (npz(images=np.zeros((9, 4, 4), np.int32)), "int32"),
        (npz(images=np.zeros((9, 4, 4)), labels=np.zeros(8, int)), "each of the 9 images"),
        (npz(images=np.zeros((9, 4, 4)), labels=np.full(9, -1)), "from 0"),
        (npz(pictures=np.zeros((9, 4, 4)), more=np.zeros(2)), "`images` is needed"),
        (npz(images=np.array([object()])), "pickled"),
        (lambda folder: folder / "none.npz", "no such file"),
        (lambda folder: folder, "no such file"),
    ],
)
def test_what_cannot_be_read_is_named(make: Callable[[Path], Path], words: str, tmp_path: Path):
    with pytest.raises(InputError, match=words):
        read_images(make(tmp_path / "data"))
