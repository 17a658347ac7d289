"""Many small images as one picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["save_grid"]

# An image of fewer pixels is drawn with several pixels each.
_LEAST = 32


def save_grid(file: Path, samples: Tensor) -> None:
    """Write images side by side, in rows from the left, with a line between them.

    Args:
        file: Where to; its end says in which form.
        samples: (N, C, H, W) in [-1, 1], C = 1 or 3; what lies outside is cut.

    Raises:
        OSError: It cannot be written.
    """
    import torch
    from PIL import Image

    columns = math.ceil(math.sqrt(len(samples)))
    times = math.ceil(_LEAST / max(samples.shape[2:]))
    pixels = (samples.detach().float().cpu().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(times, 2).repeat_interleave(times, 3)
    _, channels, height, width = pixels.shape
    rows = math.ceil(len(pixels) / columns)
    page = torch.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 127, dtype=torch.uint8)
    for k, image in enumerate(pixels):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        page[top : top + height, left : left + width] = image.permute(1, 2, 0)
    Image.fromarray(page.squeeze(-1).numpy()).save(file)
