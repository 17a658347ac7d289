"""Picture files -> grey values as distributions on the pixel grid, or colours as points.

A picture is .png .jpg .jpeg .bmp .gif .tif .tiff .webp .pgm or .ppm. Its mass is its grey value, or its darkness.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.arrays import Array, must_be_readable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Ink", "Pictures", "read_colours", "read_pictures"]

Ink = Literal["light", "dark"]
# White, of 16 bits.
_WHITE = 65535


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Two pictures of one size.

    Args:
        title: The problem in a few words.
        shape: (height, width) in pixels.
        a: Source weights, shape (height * width,), of mass 1.
        b: Target weights, shape (height * width,), of mass 1.
    """

    title: str
    shape: tuple[int, int]
    a: Array
    b: Array


def read_pictures(first: Path, second: Path, *, background: float, ink: Ink | None = None) -> Pictures:
    """Two pictures of one size as distributions over the pixel grid.

    Args:
        first: The source.
        second: The target.
        background: Added to every pixel, as a share of the largest mass of a pixel; 0 leaves those of none without.
        ink: What is mass. light: the grey value, with transparent pixels on black. dark: how much darker a pixel is
            than the picture's lightest, with transparent ones on white. None: light, and a picture of dark ink on
            light paper is refused.

    Raises:
        InputError: A file cannot be read or holds no mass, the sizes differ, or it is not clear what is mass.
    """
    files, dark = (first, second), ink == "dark"
    grey = [_grey(file, ground=255 if dark else 0) for file in files]
    sizes = [f"{picture.shape[1]} x {picture.shape[0]}" for picture in grey]
    if sizes[0] != sizes[1]:
        raise InputError(f"{second}: is {sizes[1]} pixels but {first} is {sizes[0]}; both must have one size")
    _refuse_unclear_ink(files, grey, ink)
    weights: list[Array] = []
    for file, picture in zip(files, grey, strict=True):
        ink_only = picture.max() - picture if dark else picture
        mass = ink_only + background * ink_only.max()
        if mass.sum() <= 0:
            raise InputError(
                f"{file}: is {'of one grey' if dark else 'black (or transparent)'} everywhere, so there is no mass to "
                f"move{'' if dark else '; if it is dark ink on a transparent ground, say --ink dark'}"
            )
        weights.append((mass / mass.sum()).ravel())
    height, width = grey[0].shape
    title = f"two pictures of {sizes[0]} pixels, {'dark' if dark else 'light'} is mass"
    return Pictures(title=title, shape=(height, width), a=weights[0], b=weights[1])


def _refuse_unclear_ink(files: tuple[Path, Path], grey: list[Array], ink: Ink | None) -> None:
    """Raise for a picture on light paper without --ink, and for a pair of which one picture is on dark ground."""
    on_light = [_has_light_ground(picture) for picture in grey]
    on_dark = [_has_light_ground(picture.max() - picture) for picture in grey]
    for here, there in ((0, 1), (1, 0)):
        if on_light[here] and on_dark[there]:
            raise InputError(
                f"{files[here]}: is dark on a light ground but {files[there]} light on a dark one; invert one of them"
            )
        if on_light[here] and ink is None:
            raise InputError(
                f"{files[here]}: is dark on a light ground, and the light is what would be moved; --ink dark moves the "
                "dark, --ink light the light"
            )


def _has_light_ground(grey: Array) -> bool:
    """Whether most pixels, and nearly all at the border, are about as light as the lightest, and others much darker."""
    ground = grey >= 0.9 * grey.max()
    border = np.concatenate([ground[0], ground[-1], ground[1:-1, 0], ground[1:-1, -1]])
    return bool(ground.mean() >= 0.5 and border.mean() >= 0.8 and grey.min() < 0.5 * grey.max())


def read_colours(file: Path) -> Array:
    """A picture's colours in [0, 1], shape (height, width, 3): grey ones too; transparent pixels lie on white.

    Raises:
        InputError: The file cannot be read, or its grey values are neither of 8 nor of 16 bits.
    """
    return _pixels(file, "RGB", ground=255) / 255.0


def _grey(file: Path, *, ground: int) -> Array:
    values = _pixels(file, "L", ground=ground)
    if not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"{file}: holds grey values that are negative or not finite")
    return values


def _pixels(file: Path, mode: Literal["L", "RGB"], *, ground: int) -> Array:
    from PIL import Image, ImageOps, UnidentifiedImageError

    must_be_readable(file)
    try:
        with Image.open(file) as picture:
            # Telephones put two pictures into one file (MPO), of which the first is the photograph.
            if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
                raise InputError(
                    f"{file}: holds {getattr(picture, 'n_frames', 1)} pictures; save the one that is meant"
                )
            # 16-bit and float pictures are grey already, and conversion would cut them to 8 bits.
            if picture.mode.startswith(("I", "F")):
                values = _deep(ImageOps.exif_transpose(picture), picture.info.get("transparency"), ground)
                return values if mode == "L" else _as_colours(file, values)
            if picture.has_transparency_data:
                # What a pixel hides behind its transparency is no colour of the picture.
                layer = Image.new("RGBA", picture.size, (ground, ground, ground, 255))
                shown = Image.alpha_composite(layer, picture.convert("RGBA")).convert(mode)
                shown.info["exif"] = picture.info.get("exif", b"")
            else:
                shown = picture.convert(mode)
            return np.asarray(ImageOps.exif_transpose(shown), dtype=np.float64)
    except UnidentifiedImageError:
        raise InputError(f"{file}: is not a picture, whatever its name says") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: cannot be read as a picture: {error}") from None


def _as_colours(file: Path, values: Array) -> Array:
    """Grey values of 16 bits as colours of 8, with their fractions."""
    if not (values >= 0).all() or (values > _WHITE).any() or not (values == values.round()).all():
        raise InputError(
            f"{file}: holds grey values between {values.min():g} and {values.max():g}; of pictures with more than 8 "
            f"bits those of 16, integers from 0 to {_WHITE}, can be read as colours"
        )
    return np.repeat(values[..., None] * (255 / _WHITE), 3, axis=-1)


def _deep(picture: Image, clear: object, ground: int) -> Array:
    """Grey values of more than 8 bits, of which one may be declared transparent."""
    values = np.asarray(picture, dtype=np.float64)
    return np.where(values == clear, values.max() if ground else 0.0, values) if isinstance(clear, int) else values
