"""Networks for teachers that are trained here: small, fast on a CPU, and rebuilt from a few numbers in a JSON file.

    u = W_in x;   u <- u + W_2 silu((1 + a(e)) W_1 norm(u) + b(e));   F = W_out silu(norm(u))

symbol   meaning                                                            shape
x        scaled noised data, flattened                                      (B, d)
t        its times, of order 1 (EDM's log(sigma) / 4, or within [0, 1])     (B,)
label    classes; `classes` itself stands for none                          (B,), integer
e        embedding of t, and of the label                                   (B, EMBEDDING)
a, b     linear in e                                                        (B, width)
F        what `teachers.from_edm` preconditions                             like the data

The last layer of every block, and of the whole, is 0 at the start: under EDM's preconditioning F = 0 is the best linear
denoiser of centred data without correlations. By `feature_taps` a network says whose output is a good feature.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from pushforward._checks import check_count, check_instance
from pushforward._typed import typed
from pushforward.diffusion.processes import check_times
from pushforward.diffusion.unet import UNet, UNetConfig
from pushforward.errors import InvalidArgument, ShapeError

__all__ = [
    "MLP",
    "MLPConfig",
    "NetworkConfig",
    "UNet",
    "UNetConfig",
    "build",
    "config_for",
    "config_from_json",
    "config_to_json",
]

EMBEDDING = 64
# Half-waves per unit of t, slowest and fastest, of so many features: log(sigma) / 4 spans 2.6 units.
SLOWEST, FASTEST, WAVES = 0.25, 4.0, 16
# From so many pixels on a side an image has structure that convolutions are cheaper for.
FEWEST_PIXELS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPConfig:
    """What an `MLP` is built from.

    Args:
        shape: The shape of one sample, (C, H, W) for images, (d,) for points.
        width: The size of the hidden layers.
        blocks: The number of residual blocks.
        classes: The number of labels; None for a network that takes none.

    Raises:
        InvalidArgument: Numbers below 1.
    """

    shape: tuple[int, ...]
    width: int = 160
    blocks: int = 3
    classes: int | None = None

    def __post_init__(self) -> None:
        if not check_instance("shape", self.shape, tuple):
            raise InvalidArgument("shape is (); one sample needs at least one axis")
        for size in self.shape:
            check_count("shape", size)
        for name in ("width", "blocks"):
            check_count(name, getattr(self, name))
        if self.classes is not None:
            check_count("classes", self.classes)


NetworkConfig = MLPConfig | UNetConfig
_KINDS: dict[str, type[MLPConfig] | type[UNetConfig]] = {"mlp": MLPConfig, "unet": UNetConfig}


class MLP(nn.Module):
    """A residual perceptron F(x, t, label) for data of any small shape.

    Args:
        config: Its sizes. 8 x 8 pixels with the defaults make 240,000 parameters.

    Example:
        >>> network = MLP(MLPConfig(shape=(1, 8, 8), classes=10))
        >>> network(torch.randn(2, 1, 8, 8), torch.zeros(2), torch.tensor([3, 10])).shape
        torch.Size([2, 1, 8, 8])
    """

    @typed
    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        size, width = math.prod(config.shape), config.width
        self.time = _Waves()
        self.label = None if config.classes is None else nn.Embedding(config.classes + 1, EMBEDDING)
        self.first = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.last = _zero(nn.Linear(width, size))

    @property
    def feature_taps(self) -> tuple[str, ...]:
        """The name of the submodule for a discriminator's features: the middle block."""
        return (f"blocks.{self.config.blocks // 2}",)

    @typed
    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The network's output F.

        Args:
            x: Scaled noised data, (B, ...).
            t: Its times, of order 1, (B,).
            label: Integers up to `classes`, which stands for no label, (B,); None for no labels.

        Returns:
            F, like x.

        Raises:
            ShapeError: The samples are of another shape, or t or the labels are not one for each sample.
            InvalidArgument: A label for a network that takes none, or one above `classes`.
        """
        if tuple(x.shape[1:]) != self.config.shape:
            raise ShapeError(f"x has samples of shape {tuple(x.shape[1:])}; the network takes {self.config.shape}")
        e = self.time(check_times(t, x))
        if self.label is not None:
            e = e + _embedded(self.label, label, x)
        elif label is not None:
            raise InvalidArgument("a label was given, but the network takes none: build it with classes=")
        u, e = self.first(x.flatten(1)), silu(e)
        for block in self.blocks:
            u = block(u, e)
        return self.last(silu(self.norm(u))).reshape(x.shape)


def _embedded(table: nn.Embedding, label: Tensor | None, x: Tensor) -> Tensor:
    """The labels' embeddings, (B, EMBEDDING); that of none where there are none."""
    none = table.num_embeddings - 1
    if label is None:
        return table(torch.full((len(x),), none, device=x.device))
    if tuple(label.shape) != (len(x),) or label.dtype not in (torch.int64, torch.int32):
        raise ShapeError(
            f"label has shape {tuple(label.shape)}, {label.dtype}; one integer a sample, ({len(x)},), is needed"
        )
    try:
        return table(label)
    except IndexError as error:  # on the CPU; elsewhere a look at the numbers would hold up every step
        raise InvalidArgument(f"label has numbers outside 0 to {none}, which stands for none") from error


class _Block(nn.Module):
    """One residual step, modulated by an embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.modulation = nn.Linear(EMBEDDING, 2 * width)
        self.outer = _zero(nn.Linear(width, width))

    def forward(self, u: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.modulation(e).chunk(2, -1)
        return u + self.outer(silu(torch.addcmul(shift, self.inner(self.norm(u)), 1 + scale)))


class _Waves(nn.Module):
    """Sines and cosines of t, followed by a linear layer."""

    waves: Tensor

    def __init__(self) -> None:
        super().__init__()
        waves = torch.logspace(math.log2(SLOWEST), math.log2(FASTEST), WAVES, base=2.0) * math.pi
        self.register_buffer("waves", waves, persistent=False)
        self.layer = nn.Linear(2 * WAVES, EMBEDDING)

    def forward(self, t: Tensor) -> Tensor:
        phases = t[:, None] * self.waves
        return self.layer(torch.cat([phases.cos(), phases.sin()], -1))


@typed
def build(config: NetworkConfig) -> MLP | UNet:
    """The network of a configuration, with weights drawn from torch's global generator.

    Args:
        config: The kind of network and its sizes.

    Returns:
        The network.
    """
    return MLP(config) if isinstance(config, MLPConfig) else UNet(config)


@typed
def config_for(shape: tuple[int, ...], *, classes: int | None = None) -> NetworkConfig:
    """The configuration for samples of a shape: a U-Net for images of 12 or more pixels a side, else a perceptron.

    Args:
        shape: The shape of one sample; images are (C, H, W).
        classes: The number of labels; None for no labels.

    Returns:
        The configuration.

    Example:
        >>> config_for((1, 8, 8))
        MLPConfig(shape=(1, 8, 8), width=160, blocks=3, classes=None)
        >>> config_for((1, 28, 28)).channels
        (16, 32, 32)
    """
    if len(shape) != 3 or min(shape[1:]) < FEWEST_PIXELS:
        return MLPConfig(shape=shape, classes=classes)
    halvings = min(2, *(_halvings(pixels) for pixels in shape[1:]))
    return UNetConfig(shape=shape, channels=(16, 32, 32)[: halvings + 1], classes=classes)


@typed
def config_to_json(config: NetworkConfig) -> dict[str, Any]:
    """A network's configuration as a dictionary that JSON can hold.

    Example:
        >>> config_to_json(MLPConfig(shape=(2,), width=32))
        {'kind': 'mlp', 'shape': [2], 'width': 32, 'blocks': 3, 'classes': None}
    """
    kind = next((name for name, known in _KINDS.items() if isinstance(config, known)), None)
    if kind is None:
        raise InvalidArgument(f"config must be the configuration of a network, one of {', '.join(_KINDS)}: {config!r}")
    fields = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(config).items()}
    return {"kind": kind, **fields}


def config_from_json(words: Any) -> NetworkConfig:
    """The configuration that `config_to_json` encoded.

    Raises:
        InvalidArgument: It is nothing that is written there.

    Example:
        >>> config_from_json({"kind": "mlp", "shape": [2], "width": 32})
        MLPConfig(shape=(2,), width=32, blocks=3, classes=None)
    """
    if not isinstance(words, Mapping) or words.get("kind") not in _KINDS:
        raise InvalidArgument(f"words: a network's kind must be one of {', '.join(_KINDS)}; got {words!r}")
    kind = _KINDS[words["kind"]]
    fields: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in words.items() if name != "kind"
    }
    strange = fields.keys() - {field.name for field in dataclasses.fields(kind)}
    if strange or "shape" not in fields:
        raise InvalidArgument(f"words: a network of kind {words['kind']} is not described by {sorted(fields)}")
    return kind(**fields)


def _halvings(pixels: int) -> int:
    return (pixels & -pixels).bit_length() - 1


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
