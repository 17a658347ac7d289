from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def unet() -> Callable[..., Any]:
    """Makes small UNet2DModels of diffusers for images of 8 x 8, with the same numbers every time."""
    diffusers = pytest.importorskip("diffusers")

    def make(**settings: Any) -> Any:
        shape = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1}
        sizes = shape | {"block_out_channels": (8, 8), "norm_num_groups": 4} | settings
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return diffusers.UNet2DModel(**blocks, **sizes).eval()

    return make
