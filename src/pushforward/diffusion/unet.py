"""A U-Net of diffusers', built from a few numbers, for teachers that are trained here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pushforward._checks import check_count, check_instance
from pushforward._typed import typed
from pushforward.diffusion.adapters import DiffusersNetwork
from pushforward.diffusion.processes import check_times
from pushforward.errors import InvalidArgument, ShapeError

__all__ = ["UNet", "UNetConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetConfig:
    """What a `UNet` is built from.

    Args:
        shape: The shape of one image, (C, H, W).
        channels: The channels of each level, multiples of 8; each level but the last halves the pixels.
        layers: The residual blocks of a level.
        attention: Whether the lowest level has attention over all pixels.
        classes: The number of labels; None for a network that takes none.

    Raises:
        InvalidArgument: Numbers that no such network has.
    """

    shape: tuple[int, ...]
    channels: tuple[int, ...] = (16, 32, 32)
    layers: int = 1
    attention: bool = True
    classes: int | None = None

    def __post_init__(self) -> None:
        for name in ("shape", "channels"):
            if not check_instance(name, getattr(self, name), tuple):
                raise InvalidArgument(f"{name} is (); at least one integer is needed")
            for size in getattr(self, name):
                check_count(name, size)
        check_count("layers", self.layers)
        if self.classes is not None:
            check_count("classes", self.classes)
        check_instance("attention", self.attention, bool)
        halved = 2 ** (len(self.channels) - 1)
        if len(self.shape) != 3 or any(pixels % halved for pixels in self.shape[1:]):
            raise InvalidArgument(
                f"shape is {self.shape}; images (C, H, W) with sides that {len(self.channels)} levels can halve, "
                f"multiples of {halved}, are needed"
            )
        if any(width % 8 for width in self.channels):
            raise InvalidArgument(f"channels are {self.channels}; multiples of 8 are needed")


class UNet(DiffusersNetwork):
    """F(x, t, label) by diffusers' `UNet2DModel`, in the convention of its EDM schedulers; 0 at the start.

    Args:
        config: Its sizes.

    Raises:
        InvalidArgument: diffusers is not installed.
    """

    @typed
    def __init__(self, config: UNetConfig) -> None:
        super().__init__(_unet2d(config))
        self.config = config

    @typed
    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The network's output F.

        Args:
            x_t: Scaled noised images, (B, C, H, W).
            t: Their times, of order 1, (B,).
            condition: Labels up to `classes`, which stands for no label, (B,); None for no labels.

        Returns:
            F, like x_t.

        Raises:
            ShapeError: The images are of another shape, or t is neither one time nor one for each sample.
            InvalidArgument: A label for a network that takes none.
        """
        classes = self.config.classes
        if tuple(x_t.shape[1:]) != self.config.shape:
            raise ShapeError(f"x_t has samples of shape {tuple(x_t.shape[1:])}; the network takes {self.config.shape}")
        t = check_times(t, x_t)
        if classes is None and condition is not None:
            raise InvalidArgument("a label was given, but the network takes none: build it with classes=")
        if classes is not None and condition is None:
            condition = torch.full((len(x_t),), classes, device=x_t.device)
        return super().forward(x_t, t, condition)


def _unet2d(config: UNetConfig) -> nn.Module:
    try:
        from diffusers.models.unets.unet_2d import UNet2DModel
    except ImportError as error:
        raise InvalidArgument("a U-Net needs diffusers: pip install 'pushforward[diffusion]'") from error
    channels, height, width = config.shape
    between, lowest = len(config.channels) - 1, "Attn" if config.attention else ""
    unet: Any = UNet2DModel(
        # Some of diffusers' pipelines draw squares of one number only.
        sample_size=height if height == width else (height, width),
        in_channels=channels,
        out_channels=channels,
        layers_per_block=config.layers,
        block_out_channels=config.channels,
        down_block_types=("DownBlock2D",) * between + (f"{lowest}DownBlock2D",),
        up_block_types=(f"{lowest}UpBlock2D",) + ("UpBlock2D",) * between,
        add_attention=config.attention,
        attention_head_dim=8,
        norm_num_groups=8,
        num_class_embeds=None if config.classes is None else config.classes + 1,
    )
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    return unet
