"""A student that images are drawn from: saved to a folder, loaded from it, called.

    folder/
      student.json           process, times, what the network is, the shape of a sample
      student.safetensors    its parameters
      unet/, scheduler/, model_index.json    of a student of a diffusers model: what plain diffusers loads

symbol   meaning                                             unit
x0       samples, (B, C, H, W) where they are images         [-1, 1]
images   (x0 / 2 + 1/2) within [0, 1], as diffusers has them [0, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from pushforward._checks import check_choice, check_count, check_instance
from pushforward._typed import typed
from pushforward.diffusion.adapters import DiffusersNetwork, save_student
from pushforward.diffusion.generator import Generator
from pushforward.diffusion.networks import UNet
from pushforward.diffusion.saved import load_denoiser, save_denoiser
from pushforward.diffusion.teachers import Preconditioned
from pushforward.errors import CheckpointError, InvalidArgument, ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Drawn", "OneStepPipeline"]

Output = Literal["pil", "pt", "np", "raw"]
_NAME = "student"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """The images of one call of a pipeline.

    Args:
        images: A list of PIL images; for "pt" (N, C, H, W) and for "np" (N, H, W, C), in [0, 1]; for "raw" the samples
            themselves, (N, ...).
    """

    images: Any


class OneStepPipeline:
    """A one- to four-step student with the shape of its samples, ready to draw from.

    Args:
        generator: The student.
        shape: The shape of one sample: (C, H, W) for images.

    Example:
        >>> from pushforward.diffusion import Denoiser, Generator, RectifiedFlow
        >>> half = Denoiser(lambda x_t, t: 0.5 * x_t, RectifiedFlow(), predicts="x0")
        >>> pipe = OneStepPipeline(Generator(half, times=(1.0,)), shape=(1, 8, 8))
        >>> pipe(num_images=3, generator=torch.Generator().manual_seed(0), output_type="np").images.shape
        (3, 8, 8, 1)
    """

    @typed
    def __init__(self, generator: Generator, *, shape: Sequence[int]) -> None:
        self.generator = check_instance("generator", generator, Generator)
        self.shape = tuple(check_count("shape", size) for size in shape)

    @classmethod
    @typed
    def from_pretrained(cls, folder: str | Path, *, network: nn.Module | None = None) -> OneStepPipeline:
        """Load the student that `save_pretrained` wrote, onto the CPU.

        Args:
            folder: The folder it was saved to.
            network: The network again, where it was the caller's own module; gets the saved parameters.

        Returns:
            The pipeline.

        Raises:
            CheckpointError: A file is missing or broken; the message names it. No code of a folder's is ever run.
            InvalidArgument: The network was the caller's own and is not given, or given and not needed.
        """
        folder = Path(folder)
        if not (folder / f"{_NAME}.json").is_file():
            raise CheckpointError(f"{folder / f'{_NAME}.json'} is missing: no student was saved there")
        denoiser, extra = load_denoiser(folder, _NAME, network)
        try:
            pipeline = cls(Generator(denoiser, extra["times"]), shape=extra["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / f'{_NAME}.json'} holds no student: {error}") from error
        pipeline.generator.eval()
        return pipeline

    @typed
    def save_pretrained(self, folder: str | Path) -> None:
        """Write the student to a folder. A module of the caller's own has to be given again when it is loaded.

        A student that is a UNet2DModel of diffusers is a pipeline of diffusers, too:
        `DiffusionPipeline.from_pretrained(folder)` draws the same images in as many steps, with `num_inference_steps`
        or `timesteps`. Where no scheduler of diffusers goes with its times a warning says so.

        Args:
            folder: Made if missing.

        Raises:
            InvalidArgument: The network is a plain function.
            OSError: The files cannot be written.
        """
        folder, denoiser = Path(folder), self.generator.denoiser
        folder.mkdir(parents=True, exist_ok=True)
        network = denoiser.network
        inner = network.network if isinstance(network, Preconditioned) else network
        part = None
        if isinstance(inner, DiffusersNetwork) and not isinstance(inner, UNet):  # which is rebuilt from a configuration
            part = save_student(folder, self.generator, inner)
        save_denoiser(folder, _NAME, denoiser, {"times": self.generator.times, "shape": self.shape}, part=part)

    @torch.no_grad()
    def __call__(
        self,
        num_images: int = 1,
        condition: Any = None,
        *,
        generator: torch.Generator | None = None,
        output_type: Output | None = None,
        batch_size: int = 64,
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> Drawn:
        """Draw images.

        Args:
            num_images: N.
            condition: Labels (N,), or another condition that the network takes for N samples: a tensor or a dict of
                tensors.
            generator: Draws all noise, on its own device; None for torch's global one.
            output_type: "pil", "pt" or "np" as in diffusers, or "raw" for the samples themselves, of any shape. None is
                "pil"; and "raw" where the samples are latents, or have not 1 or 3 channels, and are not decoded.
            batch_size: The samples drawn at a time.
            decode: For a latent model, the function from samples to images (n, C, H, W) within [-1, 1], on the samples'
                device; for instance `lambda z: vae.decode(z / vae.config.scaling_factor + shift).sample`. The shift of
                most decoders is 0.

        Returns:
            The images.

        Raises:
            ShapeError: Images are asked for, and the samples are none; or the condition is not for N samples.
        """
        check_count("num_images", num_images)
        if output_type is None:
            output_type = "pil" if decode is not None or self.draws_images or len(self.shape) != 3 else "raw"
        check_choice("output_type", output_type, ("pil", "pt", "np", "raw"))
        if output_type != "raw" and decode is None and not self.draws_images:
            what = "latents" if self.latent else "no images (C, H, W) of one or three channels"
            raise ShapeError(
                f'samples of shape {self.shape} are {what}; output_type="raw" gives them as they are, decode= makes '
                "images of them"
            )
        sizes = [min(check_count("batch_size", batch_size), num_images - k) for k in range(0, num_images, batch_size)]
        parts = _parts(condition, sizes)
        drawn = (self._draw(n, part, generator) for n, part in zip(sizes, parts, strict=True))
        x0 = torch.cat([part if decode is None else _decoded(decode, part) for part in drawn])
        return Drawn(images=x0 if output_type == "raw" else _images(x0, output_type))

    @property
    def latent(self) -> bool:
        """Whether the samples are latents, from which a decoder makes images, as far as is known."""
        network: Any = self.generator.denoiser.network
        return bool(getattr(getattr(network, "network", network), "latent", False))

    @property
    def draws_images(self) -> bool:
        """Whether the samples are images without a decoder."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3) and not self.latent

    def to(self, device: torch.device | str) -> OneStepPipeline:
        """Move the student to a device.

        Args:
            device: The device.

        Returns:
            The pipeline itself.
        """
        self.generator.to(device)
        return self

    def _draw(self, n: int, condition: Any, generator: torch.Generator | None) -> Tensor:
        """Samples whose noise, that of every step, comes from one source, as diffusers does it."""
        like = next(self.generator.parameters(), torch.empty(0))
        device = generator.device if generator else like.device
        noise = torch.randn((n, *self.shape), generator=generator, device=device).to(like.device)
        return self.generator(noise, condition, generator)


def _parts(condition: Any, sizes: Sequence[int]) -> Iterator[Any]:
    """A condition of N samples, split into batches."""
    if condition is None:
        yield from [None] * len(sizes)
    elif isinstance(condition, Tensor):
        if len(condition) != sum(sizes):
            raise ShapeError(f"condition is of {len(condition)} samples, but num_images is {sum(sizes)}")
        yield from condition.split(list(sizes))
    elif isinstance(condition, dict):
        for parts in zip(*(_parts(value, sizes) for value in condition.values()), strict=True):
            yield dict(zip(condition, parts, strict=True))
    else:
        raise InvalidArgument(f"condition is a {type(condition).__name__}; a tensor or a dict of tensors is needed")


def _decoded(decode: Callable[[Tensor], Tensor], latents: Tensor) -> Tensor:
    """The images that a caller's decoder makes of latents.

    Raises:
        ShapeError: The result is not one image of one or three channels for each sample.
    """
    images: Any = decode(latents)
    shape = tuple(images.shape) if isinstance(images, Tensor) else ()
    if len(shape) != 4 or shape[0] != len(latents) or shape[1] not in (1, 3):
        what = shape or type(images).__name__
        raise ShapeError(f"decode gives {what}; images ({len(latents)}, C, H, W) with C 1 or 3 are needed")
    return images


def _images(x0: Tensor, output_type: Output) -> Tensor | Any | list[Image]:
    images = (x0.float() / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return images
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return arrays
    from PIL import Image

    bytes_ = (arrays * 255).round().astype("uint8")
    return [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one) for one in bytes_]
