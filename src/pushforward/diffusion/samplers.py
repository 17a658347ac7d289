"""A teacher's own samples: Heun's second-order steps along the probability-flow ODE, of any process.

    x = alpha x0 + sigma eps,  x0 = D(x, t),  eps = (x - alpha x0) / sigma:

    d(x / alpha) / d(sigma / alpha) = eps       steps average eps: EDM's own, where alpha = 1
    d(x / sigma) / d(alpha / sigma) = x0        steps average x0

The two are one equation, and a step of either is exact where x0 and eps do not change. The first is EDM's algorithm, to
the digit. The second is for where there is next to no data, sigma > 100 alpha: it is regular at alpha = 0.

symbol         meaning                                                        shape
D              the teacher's x0                                               (B, ...)
t              times, falling; the n of `Process.timesteps`                   ()
alpha, sigma   at the time before a step; with _ after it                     ()

Source: Karras et al. 2022 (EDM, arXiv 2206.00364), algorithm 1 and equation 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pushforward._checks import check_count, check_instance
from pushforward._typed import typed
from pushforward.diffusion.teachers import Teacher
from pushforward.errors import InvalidArgument, ShapeError

__all__ = ["heun", "sample"]

# EDM's number for small images: 35 evaluations of the network.
STEPS = 18
# Taken earlier, from 3 or 1 on, the second kind ends nearer to the ODE's own end, and yet on a teacher of digits the
# Frechet distance from the data rose, from 0.75 to 0.89 and 1.26.
NOISY = 100.0


@typed
@torch.no_grad()
def heun(teacher: Teacher, noise: Tensor, *, steps: int = STEPS, condition: Any = None) -> Tensor:
    """Samples of the teacher, one for each noise, in 2 steps - 1 calls; the same noise gives the same sample.

    Args:
        teacher: The teacher that is sampled.
        noise: Noise of variance 1, floating, (B, ...).
        steps: n; the last step ends at the teacher's x0 at the least time.
        condition: The samples' condition, as the teacher takes it.

    Returns:
        x0, like the noise. Its distance from the ODE's own end falls as 1 / steps^2, as long as the least of the times
        is near enough to 0 for its x0 to be the sample.

    Raises:
        InvalidArgument: The noise is not floating, or the process has fewer times than steps.

    Example:
        >>> from pushforward.diffusion import GaussianMixture, VarianceExploding
        >>> process = VarianceExploding()
        >>> one = GaussianMixture(weights=[1.0], means=[[3.0]], covariances=[4.0], process=process)
        >>> heun(one, torch.tensor([[-1.0], [0.0], [1.0]])).round().flatten()
        tensor([1., 3., 5.])
    """
    check_instance("teacher", teacher, Teacher)
    if not check_instance("noise", noise, Tensor).is_floating_point():
        raise InvalidArgument(f"noise has dtype {noise.dtype}; floating numbers of variance 1 are needed")
    process, times = teacher.process, teacher.process.timesteps(check_count("steps", steps)).to(noise.device)
    x = process.prior(noise.to(torch.promote_types(noise.dtype, torch.float32)), times[0])
    for before, after in zip(times, times[1:], strict=False):
        (alpha, sigma), (alpha_, sigma_) = process.coefficients(x, before), process.coefficients(x, after)
        x0 = teacher.x0(x, before, condition)
        eps = (x - alpha * x0) / sigma
        guess = alpha_ * x0 + sigma_ * eps
        x0_ = teacher.x0(guess, after, condition)
        if sigma > NOISY * alpha:
            x = sigma_ * (x / sigma + (alpha_ / sigma_ - alpha / sigma) * (x0 + x0_) / 2)
        else:
            eps_ = (guess - alpha_ * x0_) / sigma_
            x = alpha_ * (x / alpha + (sigma_ / alpha_ - sigma / alpha) * (eps + eps_) / 2)
    return teacher.x0(x, times[-1], condition).to(noise.dtype)


@typed
def sample(
    teacher: Teacher,
    count: int,
    shape: Sequence[int],
    *,
    steps: int = STEPS,
    condition: Tensor | None = None,
    generator: torch.Generator | None = None,
    batch_size: int = 1000,
    device: torch.device | str | None = None,
) -> Tensor:
    """Samples of a teacher by `heun`, in batches.

    Args:
        teacher: The teacher that is sampled.
        count: The number of samples.
        shape: The shape of one sample.
        steps: The number of steps, as in `heun`.
        condition: The samples' conditions, (count, ...); None for none.
        generator: Draws the noise, the same for any batch size; None for torch's global one.
        batch_size: The samples drawn at a time.
        device: The teacher's device; the generator's if None. Noise from a generator on the CPU is the same for all
            devices.

    Returns:
        (count, ...).

    Raises:
        ShapeError: The conditions are not one for each sample.

    Example:
        >>> from pushforward.diffusion import Empirical, VarianceExploding
        >>> data = Empirical(points=torch.tensor([[-1.0, 1.0]]), process=VarianceExploding())
        >>> sample(data, 3, (2,)).shape
        torch.Size([3, 2])
    """
    if condition is not None and len(condition) != check_count("count", count):
        raise ShapeError(f"condition has {len(condition)} entries but count is {count}; one a sample is needed")
    source = None if generator is None else generator.device
    size = (check_count("count", count), *(check_count("shape", axis) for axis in shape))
    noise = torch.randn(size, generator=generator, device=source).to(device or source)
    parts = noise.split(check_count("batch_size", batch_size))
    conditions = [None] * len(parts) if condition is None else condition.split(batch_size)
    return torch.cat([heun(teacher, z, steps=steps, condition=c) for z, c in zip(parts, conditions, strict=True)])
