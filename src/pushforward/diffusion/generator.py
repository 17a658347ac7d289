"""A generator of one to four steps: a denoiser called at a few times, with fresh noise between the calls.

    x = prior(z),   x0 = D(x, t_1);      x = alpha_k x0 + sigma_k eps,   x0 = D(x, t_k)      k = 2, ..., K

symbol   meaning                                        shape
z, eps   noise of variance 1; eps is fresh each step    (B, ...)
t_k      the times, falling                             (K,)
D        the denoiser, E[x_0 | x_t] once, trained since
x0       what comes out                                 (B, ...)

Source: Song et al. 2023 (arXiv 2303.01469), algorithm 1; Yin et al. 2024 (DMD2, arXiv 2405.14867), section 4.5, for
training on the inputs that sampling sees (backward simulation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pushforward._checks import check_count, check_instance
from pushforward._typed import typed
from pushforward.diffusion.processes import Process
from pushforward.diffusion.teachers import Denoiser
from pushforward.errors import InvalidArgument

__all__ = ["MOST_STEPS", "Generator"]

MOST_STEPS = 4


class Generator(nn.Module):
    """A generator that draws each sample in one to four calls of a denoiser.

    Args:
        denoiser: Its network, with the process.
        times: t_1 > ... > t_K in the process's unit, one to four.

    Raises:
        InvalidArgument: Other times.

    Example:
        >>> from pushforward.diffusion import RectifiedFlow
        >>> half = Denoiser(lambda x_t, t: 0.5 * x_t, RectifiedFlow(), predicts="x0")
        >>> Generator(half, times=(1.0,))(torch.ones(1, 2))
        tensor([[0.5000, 0.5000]])
    """

    @typed
    def __init__(self, denoiser: Denoiser, times: Sequence[float]) -> None:
        super().__init__()
        self.denoiser = check_instance("denoiser", denoiser, Denoiser)
        self.times = tuple(float(t) for t in times)
        check_count("the number of times", len(self.times))
        falling = all(early > late for early, late in zip(self.times, self.times[1:], strict=False))
        if len(self.times) > MOST_STEPS or not falling or not all(math.isfinite(t) for t in self.times):
            raise InvalidArgument(f"times are {self.times}; one to {MOST_STEPS} finite numbers are needed, falling")

    @property
    def process(self) -> Process:
        """The noising process of the denoiser."""
        return self.denoiser.process

    @typed
    def forward(self, noise: Tensor, condition: Any = None, random_generator: torch.Generator | None = None) -> Tensor:
        """Samples x0, like the noise, with the gradient through the last step only.

        Args:
            noise: z, (B, ...).
            condition: As the network takes it.
            random_generator: Draws the noise of the steps after the first, on its own device; None for torch's global
                generator.

        Returns:
            x0, like the noise.
        """
        last = len(self.times) - 1
        return self.denoiser(*self.input_of(last, noise, condition, random_generator), condition)

    def input_of(
        self, step: int, noise: Tensor, condition: Any = None, random_generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The denoiser's input at one step of sampling, computed without a gradient.

        Args:
            step: From 0 to K - 1.
            noise: z, (B, ...).
            condition: As the network takes it.
            random_generator: As `forward` takes it.

        Returns:
            The input, (B, ...), and its time, ().
        """
        t = torch.tensor(self.times, dtype=torch.float32, device=noise.device)
        x = self.process.prior(noise, t[0])
        with torch.no_grad():
            for k in range(step):
                x0 = self.denoiser(x, t[k], condition)
                x = self.process.add_noise(x0, t[k + 1], _noise_like(x0, random_generator))
        return x, t[step]


def _noise_like(x: Tensor, random_generator: torch.Generator | None) -> Tensor:
    if random_generator is None:
        return torch.randn_like(x)
    return torch.randn(x.shape, generator=random_generator, device=random_generator.device).to(x.device)
