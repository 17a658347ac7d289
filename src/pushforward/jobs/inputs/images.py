"""Files as images for the training and the evaluation of generators.

`digits`      scikit-learn's handwritten digits, with their labels
a folder      pictures of one size; one folder of them a class where it has folders
an .npz       `images` (N, H, W) or (N, H, W, C): uint8, or numbers within [0, 1] or [-1, 1]; `labels` (N,) if known

symbol    meaning                                        shape
samples   within [-1, 1], float32                        (N, C, H, W), C is 1 or 3
labels    classes, from 0                                (N,), int64
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.arrays import PICTURES, must_be_readable, read_arrays
from pushforward.jobs.inputs.pictures import read_colours

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DIGITS", "Images", "read_images"]

DIGITS = "digits"
FEWEST = 8
_MOST_CLASSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images with their labels.

    Args:
        samples: (N, C, H, W) within [-1, 1].
        labels: (N,) from 0, or None where nobody knows.
        name: What the data is called.
    """

    samples: Tensor
    labels: Tensor | None
    name: str

    @property
    def classes(self) -> int | None:
        """The number of classes; None without labels."""
        return None if self.labels is None else int(self.labels.max()) + 1


def read_images(source: Path) -> Images:
    """The images of a folder, of an .npz file, or the digits.

    Raises:
        InputError: There are fewer than 8, or what is wrong with the file that is named.
    """
    import torch

    if str(source) == DIGITS and not source.exists():
        from pushforward.samples import digits

        pixels, labels = digits()
    elif source.is_dir():
        pixels, labels = _folder(source)
    elif source.suffix.lower() == ".npz":
        pixels, labels = _npz(source)
    else:
        must_be_readable(source)
        raise InputError(f"{source}: is no folder of pictures and no .npz with `images`; or write {DIGITS}")
    if len(pixels) < FEWEST:
        raise InputError(f"{source}: holds {len(pixels)} images; {FEWEST} are the least to learn from")
    samples = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) * 2 - 1, dtype=np.float32))
    return Images(
        samples=samples, labels=None if labels is None else torch.from_numpy(labels.astype(np.int64)), name=source.stem
    )


def _folder(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Pixels within [0, 1], (N, H, W, C), of the pictures in it, or in the folders in it, each of which is a class."""
    kinds = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    here = _pictures(folder)
    if here and any(_pictures(kind) for kind in kinds):
        raise InputError(f"{folder}: holds pictures and folders of pictures; the one or the other is meant")
    groups = [here] if here else [_pictures(kind) for kind in kinds]
    for kind, group in zip(kinds, groups, strict=False):
        if not group:
            raise InputError(f"{kind}: holds no pictures ({' '.join(sorted(PICTURES))}); its folder would be a class")
    files = [file for group in groups for file in group]
    if not files:
        raise InputError(f"{folder}: holds no pictures ({' '.join(sorted(PICTURES))})")
    pixels = [read_colours(file) for file in files]
    for file, one in zip(files, pixels, strict=True):
        if one.shape != pixels[0].shape:
            size, first = (f"{shape[1]} x {shape[0]}" for shape in (one.shape, pixels[0].shape))
            raise InputError(f"{file}: is {size} pixels but {files[0].name} is {first}; all must have one size")
    every = np.stack(pixels)
    grey = bool((every == every[..., :1]).all())
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups]) if not here else None
    return every[..., :1] if grey else every, labels


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.is_file())


def _npz(file: Path) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    found = read_arrays(file, {"images", "labels"}, main="images")
    images = found["images"]
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise InputError(
            f"{file}: images have shape {found['images'].shape}; (N, H, W), (N, H, W, 1) or (N, H, W, 3) is needed"
        )
    return _scaled(file, images), _labels(file, found.get("labels"), len(images))


def _scaled(file: Path, images: NDArray[np.generic]) -> NDArray[np.float64]:
    """Pixels scaled to [0, 1], like the images."""
    if images.dtype == np.uint8:
        return images.astype(np.float64) / 255.0
    if not (np.issubdtype(images.dtype, np.floating)):
        raise InputError(f"{file}: images are {images.dtype}; uint8, or floats within [0, 1] or [-1, 1] are needed")
    values = images.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise InputError(f"{file}: images[{int(bad.any((1, 2, 3)).argmax())}] has a pixel that is NaN or infinite")
    low, high = float(values.min()), float(values.max())
    if low < -1 or high > 1:
        raise InputError(f"{file}: images lie between {low:g} and {high:g}; uint8, or floats within [0, 1] or [-1, 1]")
    return values if low >= 0 else (values + 1) / 2


def _labels(file: Path, labels: NDArray[np.generic] | None, count: int) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{file}: labels have shape {labels.shape}, {labels.dtype}; an integer for each of the {count} images"
        )
    if labels.min() < 0 or labels.max() >= _MOST_CLASSES:
        raise InputError(f"{file}: labels lie between {labels.min()} and {labels.max()}; they count classes from 0")
    return labels.astype(np.int64)
