"""Noising processes: how much is left of a sample at time t, and what a prediction says once that is known.

    x_t = alpha_t x_0 + sigma_t eps,     eps ~ N(0, I)

Given x_t, one vector says everything; what networks predict are five names for it:

name     what it is                                              unit
x0       E[x_0 | x_t]                                            data
eps      (x_t - alpha x0) / sigma                                1
v        (alpha eps - sigma x0) / sqrt(alpha^2 + sigma^2)        data, 1
flow     eps - x0, the direction from data to noise              data, 1
score    grad log p_t(x_t) = -eps / sigma                        1 / data

symbol          meaning                                                   shape
x0, x_t, eps    data, noised data, noise                                  (B, ...)
t               time, in the process's own unit; more is noisier          () or (B,)
alpha, sigma    what is left of the data, and how much noise is on it     like t
u               share of the training times that lie below                any

The square root makes v independent of the scale of x_t, so that one v serves a variance-preserving process and the
variance-exploding one that it is a rescaling of; where alpha^2 + sigma^2 = 1 it is the v of the literature.

Sources: Karras et al. 2022 (EDM, arXiv 2206.00364), equation 5 and Table 1; Ho et al. 2020 (arXiv 2006.11239); Salimans
and Ho 2022 (arXiv 2202.00512) for v; Lin et al. 2024 (arXiv 2305.08891), section 3.3, for the times at which a
discrete process is sampled; Esser et al. 2024 (arXiv 2403.03206), equation 23, for the shift.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from pushforward._checks import check_choice, check_count, check_instance, check_positive, check_real, check_weight
from pushforward._interop import compute_dtype
from pushforward._typed import typed, typed_fields
from pushforward.errors import InvalidArgument, ShapeError

__all__ = [
    "Prediction",
    "Process",
    "RectifiedFlow",
    "VarianceExploding",
    "VariancePreserving",
    "check_times",
    "per_sample",
]

Prediction = Literal["x0", "eps", "v", "flow", "score"]

# Where alpha or sigma is 0 a prediction says nothing of the other end, and 0 / _LEAST = 0 is returned instead of 0 / 0.
# It lies below every alpha and sigma that a quotient of float32 numbers has a correct digit at.
_LEAST = 1e-7


class Process(ABC):
    """A noising process: `alpha` and `sigma`, and the times at which it is trained and sampled."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The share of the data in x_t.

        Args:
            t: Times, () or (B,).

        Returns:
            alpha, like t.
        """

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The standard deviation of the noise in x_t.

        Args:
            t: Times, () or (B,).

        Returns:
            sigma, like t.
        """

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The quantiles of the training times; bins cut at them are equally full.

        Args:
            u: Shares in [0, 1].

        Returns:
            The times below which these shares of the training times lie, like u.
        """

    @abstractmethod
    def timesteps(self, n: int) -> Tensor:
        """The times at which a sampler of n steps calls the denoiser; the last step ends at the denoiser's answer.

        Args:
            n: The number of steps.

        Returns:
            (n,), falling.
        """

    def sample_t(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> Tensor:
        """Independent training times.

        Args:
            n: The number of times.
            generator: Draws them, on any device; None for torch's global one.
            device: The device of the result; the generator's if None.

        Returns:
            (n,), float32.
        """
        u = torch.rand(check_count("n", n), generator=generator, device=generator.device if generator else device)
        return self.quantile(u.to(device or u.device))

    @typed
    def coefficients(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at times t, shaped to multiply x.

        Args:
            x: Data or noised data, floating, (B, ...).
            t: Times, () or (B,).

        Returns:
            (alpha, sigma), () or (B, 1, ...) each, in float32 at least.

        Raises:
            InvalidArgument: x is not floating, or t is in half precision.
            ShapeError: t is neither one time nor one for each sample.
        """
        if not x.is_floating_point():
            raise InvalidArgument(f"data has dtype {x.dtype}; floating numbers are needed, images as x / 127.5 - 1")
        if t.dtype in (torch.bfloat16, torch.float16):
            raise InvalidArgument(f"t has dtype {t.dtype}, which holds not even every timestep to 1000; use float32")
        t = per_sample("t", t if t.is_floating_point() else t.float(), x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        return self.alpha(t).to(dtype), self.sigma(t).to(dtype)

    @typed
    def add_noise(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The noised data x_t = alpha x0 + sigma eps.

        Args:
            x0: Data, (B, ...).
            t: Times, () or (B,).
            eps: Noise of variance 1, like x0.

        Returns:
            x_t, like x0.

        Raises:
            ShapeError: eps has another shape than x0, or t is neither one time nor one for each sample.

        Example:
            >>> RectifiedFlow().add_noise(torch.zeros(2, 1), torch.tensor([0.25, 1.0]), torch.ones(2, 1)).tolist()
            [[0.25], [1.0]]
        """
        if eps.shape != x0.shape:
            raise ShapeError(f"eps has shape {tuple(eps.shape)} but x0 {tuple(x0.shape)}; they must be the same")
        alpha, sigma = self.coefficients(x0, t)
        return (alpha * x0 + sigma * eps).to(x0.dtype)

    @typed
    def prior(self, noise: Tensor, t: Tensor) -> Tensor:
        """The start of a sampler at time t: noise scaled by sigma.

        It stands for x_t where the data's share in that is too small to tell samples apart.

        Args:
            noise: Noise of variance 1, (B, ...).
            t: The time, () or (B,).

        Returns:
            Like the noise.
        """
        return self.add_noise(torch.zeros_like(noise), t, noise)

    @typed
    def convert(self, value: Tensor, x_t: Tensor, t: Tensor, *, given: Prediction, wanted: Prediction) -> Tensor:
        """A prediction under another name; differentiable in `value` and `x_t`.

        Args:
            value: The prediction, (B, ...).
            x_t: What it was made from, of the same shape.
            t: Its times, () or (B,).
            given: What `value` is.
            wanted: What it shall be.

        Returns:
            Like `value`, in the finer dtype of the two; computed in float32 at least. Rounding of the arguments is
            magnified by what the definitions divide by: alpha on the way to x0, sigma to eps, v and flow, sigma^2 to
            score. Where that is 0 the result is finite and means nothing.

        Raises:
            InvalidArgument: An unknown name, or as `coefficients`.
            ShapeError: value and x_t differ in shape.

        Example:
            >>> x_t, t = torch.tensor([[0.5]]), torch.tensor(0.5)
            >>> RectifiedFlow().convert(torch.tensor([[1.0]]), x_t, t, given="flow", wanted="x0")
            tensor([[0.]])
        """
        check_choice("given", given, get_args(Prediction))
        check_choice("wanted", wanted, get_args(Prediction))
        if value.shape != x_t.shape:
            raise ShapeError(f"value has shape {tuple(value.shape)} but x_t {tuple(x_t.shape)}; they must be the same")
        dtype = torch.promote_types(value.dtype, x_t.dtype)
        if given == wanted:
            return value.to(dtype)
        alpha, sigma = self.coefficients(x_t, t)
        precise = torch.promote_types(dtype, torch.float32)
        x0, eps = _ends(value.to(precise), x_t.to(precise), alpha, sigma, given)
        return _named(x0, eps, alpha, sigma, wanted).to(dtype)


@typed_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class VarianceExploding(Process):
    """EDM's process: alpha = 1, and t is the noise's standard deviation itself, in the unit of the data.

    Args:
        sigma_min, sigma_max: The least and the most noise; training draws are clamped between them.
        rho: How much of the sampling times lies at low noise; 1 spaces them evenly.
        log_mean, log_std: Mean and standard deviation of log sigma in training, where it is normal.

    Example:
        >>> VarianceExploding().timesteps(3)
        tensor([8.0000e+01, 2.5152e+00, 2.0000e-03])
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    log_mean: float = -1.2
    log_std: float = 1.2

    def __post_init__(self) -> None:
        for name in ("sigma_min", "sigma_max", "rho", "log_std"):
            check_positive(name, getattr(self, name))
        check_real("log_mean", self.log_mean, allow_inf=False)
        if not self.sigma_min < self.sigma_max:
            raise InvalidArgument(f"sigma_min is {self.sigma_min} but sigma_max {self.sigma_max}; it must be smaller")

    @typed
    def alpha(self, t: Tensor) -> Tensor:
        """The share of the data, 1 at every time, like t."""
        return torch.ones_like(t)

    @typed
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation, which is the time t itself."""
        return t

    @typed
    def quantile(self, u: Tensor) -> Tensor:
        """The training times' quantiles exp(log_mean + log_std Phi^-1(u)), between sigma_min and sigma_max."""
        return (self.log_mean + self.log_std * torch.special.ndtri(u)).exp().clamp(self.sigma_min, self.sigma_max)

    def timesteps(self, n: int) -> Tensor:
        """Times evenly spaced in sigma^(1/rho) from sigma_max to sigma_min (EDM, equation 5)."""
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return torch.linspace(*ends, check_count("n", n), dtype=torch.float64).pow(self.rho).float()


@typed_fields
@dataclass(frozen=True, kw_only=True, eq=False)
class VariancePreserving(Process):
    """A process with alpha^2 + sigma^2 = 1 on T timesteps, as a scheduler's `alphas_cumprod` gives it.

    Args:
        alphas_cumprod: alpha^2 at timesteps 0 to T - 1, falling, (T,).
        continuous: Whether the network was trained on times between the timesteps, too. `alpha` and `sigma` accept
            those in either case, and clamp times past either end.

    Example:
        >>> process = VariancePreserving.linear()
        >>> process.timesteps(4).tolist(), round(float(process.sigma(torch.tensor(0.0))), 6)
        ([999.0, 749.0, 499.0, 249.0], 0.01)
    """

    alphas_cumprod: Tensor
    continuous: bool = False

    def __post_init__(self) -> None:
        given = check_instance("alphas_cumprod", self.alphas_cumprod, Tensor).detach()
        if given.ndim != 1 or len(given) < 2:
            raise ShapeError(f"alphas_cumprod has shape {tuple(given.shape)}; one number a timestep is needed, (T,)")
        if not bool((given[0] <= 1) & (given[-1] >= 0) & (given.diff() < 0).all()):
            raise InvalidArgument(
                f"alphas_cumprod goes from {float(given[0]):.6g} to {float(given[-1]):.6g}; "
                "it must fall from timestep to timestep, within [0, 1]: it is the running product of 1 - beta"
            )

    @classmethod
    @typed
    def linear(cls, *, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> VariancePreserving:
        """DDPM's schedule: beta rises linearly, and alpha^2 is the running product of 1 - beta.

        Args:
            steps: The number of timesteps T.
            beta_start, beta_end: The first and the last beta.

        Returns:
            The process.

        Raises:
            InvalidArgument: beta_start and beta_end give no process, as outside [0, 1].
        """
        betas = torch.linspace(beta_start, beta_end, check_count("steps", steps, least=2), dtype=torch.float64)
        try:
            return cls(alphas_cumprod=(1 - betas).cumprod(0))
        except InvalidArgument as error:
            raise InvalidArgument(
                f"beta_start is {beta_start:g} and beta_end {beta_end:g}; numbers within [0, 1] are needed, such as "
                f"1e-4 and 0.02: {error}"
            ) from error

    @typed
    def alpha(self, t: Tensor) -> Tensor:
        """The cosine of the angle at t."""
        # Where only float32 is to be had, the cosine of pi/2 is -4e-8.
        return self._angle(t).cos().clamp_min(0.0).to(t.dtype)

    @typed
    def sigma(self, t: Tensor) -> Tensor:
        """The sine of the angle at t."""
        return self._angle(t).sin().to(t.dtype)

    @typed
    def quantile(self, u: Tensor) -> Tensor:
        """Times distributed evenly over the timesteps."""
        steps = len(self.alphas_cumprod)
        return u * (steps - 1) if self.continuous else (u * steps).floor().clamp(max=steps - 1)

    @typed
    def prior(self, noise: Tensor, t: Tensor) -> Tensor:
        """The noise itself; x_t has its variance for data of variance 1."""
        return noise

    @typed
    def timesteps(self, n: int) -> Tensor:
        """Evenly spaced times from the last timestep, the one that looks like the noise a sampler starts from."""
        steps = len(self.alphas_cumprod)
        if check_count("n", n) > steps:
            raise InvalidArgument(f"n is {n} but the process has {steps} timesteps; ask for as many at most")
        return torch.linspace(steps, steps / n, n, dtype=torch.float64).round().float() - 1

    def _angle(self, t: Tensor) -> Tensor:
        """atan(sigma / alpha), linear between timesteps; unlike a log signal-to-noise ratio, finite at both ends."""
        # An angle rounded to float32 has an error of 1e-5 in a cosine near pi/2.
        angles = self._angles.to(t.device, compute_dtype(t.device))
        t = t.to(angles.dtype).clamp(0, len(angles) - 1)
        below = t.floor().clamp(max=len(angles) - 2)
        index = below.long()
        return torch.lerp(angles[index], angles[index + 1], t - below)

    @cached_property
    def _angles(self) -> Tensor:
        squares = self.alphas_cumprod.detach().cpu().double()
        return torch.atan2((1 - squares).sqrt(), squares.sqrt())


@dataclass(frozen=True, kw_only=True, slots=True)
class RectifiedFlow(Process):
    """The straight line from data to noise: alpha = 1 - t, sigma = t, t in [0, 1].

    Args:
        shift: Moves the times of training and sampling towards the noise, t -> shift t / (1 + (shift - 1) t), since
            large images keep their coarse content under more noise. A network gets the time after the shift.
        t_min: The least time drawn in training; at 0 a score is infinite.

    Example:
        >>> RectifiedFlow(shift=3.0).timesteps(4)
        tensor([1.0000, 0.9000, 0.7500, 0.5000])
    """

    shift: float = 1.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("shift", self.shift)
        if not check_weight("t_min", self.t_min) < 1:
            raise InvalidArgument(f"t_min must lie in [0, 1), got {self.t_min}")

    @typed
    def alpha(self, t: Tensor) -> Tensor:
        """The share of the data, 1 - t, like t."""
        return 1 - t

    @typed
    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation, which is the time t itself."""
        return t

    @typed
    def quantile(self, u: Tensor) -> Tensor:
        """The shifted shares u, at least t_min."""
        return self._shifted(u).clamp_min(self.t_min)

    @typed
    def timesteps(self, n: int) -> Tensor:
        """Times evenly spaced from 1, and then shifted."""
        return self._shifted(torch.linspace(1, 1 / check_count("n", n), n, dtype=torch.float64)).float()

    def _shifted(self, t: Tensor) -> Tensor:
        return self.shift * t / (1 + (self.shift - 1) * t)


def per_sample(name: str, values: Tensor, x: Tensor) -> Tensor:
    """One number, or one a sample, shaped to multiply data x: () stays, (B,) becomes (B, 1, ...).

    Raises:
        ShapeError: It is neither.
    """
    _check_per_sample(name, values, x)
    return values.reshape(-1, *[1] * (x.ndim - 1)) if values.ndim else values


def check_times(t: Tensor, x_t: Tensor) -> Tensor:
    """Times for a network, one a sample, (B,), of one time or one a sample.

    Raises:
        ShapeError: They are neither, or x_t, (B, ...), has no axis of samples.
    """
    if x_t.ndim == 0:
        raise ShapeError("x_t has shape (); noised data with an axis of samples, (B, ...), is needed")
    _check_per_sample("t", t, x_t)
    return t if t.ndim == 1 else t.reshape(-1).expand(len(x_t))


def _check_per_sample(name: str, values: Tensor, x: Tensor) -> None:
    # What `coefficients` gave is welcome back.
    if values.ndim and tuple(values.shape) not in (tuple(x.shape[:1]), (len(x), *[1] * (x.ndim - 1))):
        raise ShapeError(
            f"{name} has shape {tuple(values.shape)} but the data {tuple(x.shape)}; one number, or one a sample, "
            f"({len(x)},), is needed"
        )


def _ends(value: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, given: Prediction) -> tuple[Tensor, Tensor]:
    """The pair (x0, eps) that a prediction implies."""
    if given == "x0":
        return value, (x_t - alpha * value) / sigma.clamp_min(_LEAST)
    if given == "v":
        scale = torch.hypot(alpha, sigma)
        x_t, alpha, sigma = x_t / scale, alpha / scale, sigma / scale
        return alpha * x_t - sigma * value, sigma * x_t + alpha * value
    if given == "flow":
        total = alpha + sigma
        return (x_t - sigma * value) / total, (x_t + alpha * value) / total
    eps = -sigma * value if given == "score" else value
    return (x_t - sigma * eps) / alpha.clamp_min(_LEAST), eps


def _named(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor, wanted: Prediction) -> Tensor:
    """The wanted prediction, computed from (x0, eps)."""
    if wanted == "x0":
        return x0
    if wanted == "eps":
        return eps
    if wanted == "v":
        return (alpha * eps - sigma * x0) / torch.hypot(alpha, sigma)
    return eps - x0 if wanted == "flow" else -eps / sigma.clamp_min(_LEAST)
