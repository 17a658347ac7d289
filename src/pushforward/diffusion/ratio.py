"""The density ratio r = p_t / q_t of data to student at x_t: a discriminator's estimate of it, and its calibration.

    logit(x_t, t) -> log r               where the discriminator is trained to the end
    r'  = r / E_q[r | bin of t]          since E_q[p / q] = 1 at every noise level
    h'  = h(r') / E_q[h(r')]             so that a divergence changes directions, not the length of a step

symbol     meaning                                              shape
x_t, t     noised samples, and their times                      (B, ...), (B,)
log_r      log-ratios                                           (B,)
K          bins of noise, cut at quantiles of training times    1

Cut evenly in t itself, one bin gets 64 % of EDM's draws; and the mean of a bin that holds one sample turns its r' into
1, whatever the divergence. Hence the quantiles, and the mean over all bins wherever one has seen fewer than 8 samples.

Source: Xu et al. 2025 (f-distill, arXiv 2502.15681), section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pushforward._checks import check_count, check_instance, check_positive
from pushforward._typed import typed, typed_fields
from pushforward.diffusion.exact import ExactTeacher
from pushforward.diffusion.processes import Process, check_times
from pushforward.diffusion.teachers import Denoiser, submodule
from pushforward.errors import InvalidArgument
from pushforward.training.distributed import gather

__all__ = ["Bins", "Discriminator", "ExactRatio", "LogRatio", "effective_share", "mean_over_processes"]

LogRatio = Callable[[Tensor, Tensor, Any], Tensor]

# A bin with fewer samples than this has no usable mean.
FEWEST = 8
_HIDDEN = 64


@typed_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class ExactRatio:
    """The ratio of two teachers that compute their densities: without training, and without error.

    Args:
        p: The teacher of the target distribution.
        q: The teacher of the student's distribution.

    Example:
        >>> from pushforward.diffusion import GaussianMixture, VarianceExploding
        >>> p, q = (
        ...     GaussianMixture(weights=[1.0], means=[[m]], covariances=[1.0], process=VarianceExploding())
        ...     for m in (1.0, 0.0)
        ... )
        >>> ExactRatio(p=p, q=q)(torch.tensor([[0.5]]), torch.tensor(1.0))
        tensor([0.])
    """

    p: ExactTeacher
    q: ExactTeacher

    def __post_init__(self) -> None:
        for name in ("p", "q"):
            check_instance(name, getattr(self, name), ExactTeacher)

    def __call__(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """log p_t(x_t) - log q_t(x_t), (B,)."""
        return self.p.log_density(x_t, t) - self.q.log_density(x_t, t)


class Discriminator(nn.Module):
    """A small head on features of the teacher, whose logit estimates log r. The teacher is not part of it.

    Each feature is turned into vectors over positions, normalised, and mixed by a layer of its own; the mean over
    positions, joined with the noise level, passes through one more layer.

    Args:
        teacher: The denoiser whose features are read. Its parameters get no gradient here if its owner has frozen it;
            the noised samples do.
        taps: The submodules whose output is read, as in `network.named_modules()`. None takes those that the network
            names in `feature_taps`, or else its `mid_block`.

    Raises:
        InvalidArgument: There are no such submodules.
    """

    @typed
    def __init__(self, teacher: Denoiser, taps: Sequence[str] | None = None) -> None:
        super().__init__()
        check_instance("teacher", teacher, Denoiser)
        # In a tuple a module is not registered: neither saved, nor trained, nor sent to another device with the head.
        self._teacher = (teacher,)
        self.taps = _taps_of(teacher.network) if taps is None else tuple(taps)
        for name in self.taps:
            submodule(teacher.network, name)
        self.mixers = nn.ModuleList()
        self.head = nn.Sequential(nn.Linear(_HIDDEN * len(self.taps) + 1, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 1))

    @property
    def teacher(self) -> Denoiser:
        """The denoiser whose features the head reads."""
        return self._teacher[0]

    def prepare(self, x_t: Tensor, t: Tensor, condition: Any = None) -> None:
        """Size the layers for the features of one batch; a second call changes nothing.

        Args:
            x_t: Noised samples, (B, ...).
            t: Their times, () or (B,).
            condition: Their condition, as the network takes it.

        Raises:
            InvalidArgument: A feature has another shape than (B, C), (B, N, C) or (B, C, H, W).
        """
        if len(self.mixers):
            return
        with torch.no_grad():
            features = self.features(x_t, t, condition)
        for name in self.taps:
            width = _positions(name, features[name]).shape[-1]
            self.mixers.append(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, _HIDDEN), nn.SiLU()))
        self.to(x_t.device)

    def features(self, x_t: Tensor, t: Tensor, condition: Any = None) -> dict[str, Tensor]:
        """The teacher's features of noised samples at the taps, differentiable in x_t.

        Args:
            x_t: Noised samples, (B, ...).
            t: Their times, () or (B,).
            condition: Their condition, as the network takes it.

        Returns:
            The features by the taps' names.
        """
        return self.teacher.features(x_t, t, condition, taps=self.taps)

    @typed
    def forward(self, features: dict[str, Tensor], t: Tensor) -> Tensor:
        """The logits that estimate log r, differentiable in the features.

        Args:
            features: From `features`, or from the teacher's `x0_and_features`.
            t: Their times, () or (B,).

        Returns:
            (B,).

        Raises:
            InvalidArgument: `prepare` was not called.
            ShapeError: t is neither one time nor one for each sample.
        """
        if not len(self.mixers):
            raise InvalidArgument("the discriminator has no size yet: call prepare with a batch first")
        mixed = [
            mixer(_positions(name, features[name]).float()).mean(1)
            for name, mixer in zip(self.taps, self.mixers, strict=True)
        ]
        alpha, sigma = self.teacher.process.coefficients(mixed[0], check_times(t, mixed[0]))
        noise = (sigma / alpha.clamp_min(1e-3)).clamp_min(1e-3).log() / 4
        return self.head(torch.cat([*mixed, noise], -1)).squeeze(-1)


class Bins(nn.Module):
    """Running means of the ratio within bins of noise, and the ratio divided by them.

    Args:
        process: Gives the quantiles of its training times, at which the bins are cut.
        count: K, the number of bins.
        decay: The factor of the sums from one batch to the next.
        clamp: The largest |log r| that is used, before and after the normalisation.

    Example:
        >>> from pushforward.diffusion import RectifiedFlow
        >>> bins, t = Bins(RectifiedFlow(), count=2), torch.linspace(0.0, 1.0, 32)
        >>> bins.update(torch.where(t < 0.5, 1.0, 2.0), t)
        >>> bins(torch.where(t < 0.5, 1.0, 2.0), t).abs().max() < 1e-6
        tensor(True)
    """

    def __init__(self, process: Process, *, count: int = 10, decay: float = 0.99, clamp: float = 6.0) -> None:
        super().__init__()
        check_instance("process", process, Process)
        inner = torch.linspace(0, 1, check_count("count", count) + 1, dtype=torch.float64)[1:-1]
        self.decay, self.clamp = check_positive("decay", decay), check_positive("clamp", clamp)
        if not decay < 1:
            raise InvalidArgument(f"decay must be below 1, got {decay}")
        self.edges: Tensor
        self.sums: Tensor
        self.register_buffer("edges", process.quantile(inner.float()), persistent=False)
        self.register_buffer("sums", torch.zeros(2, count))  # of samples, and of their ratios

    def index(self, t: Tensor) -> Tensor:
        """The index of each time's bin, (B,)."""
        return torch.bucketize(t, self.edges, right=True)

    @torch.no_grad()
    def update(self, log_r: Tensor, t: Tensor) -> None:
        """Add the ratios of a batch of the student's samples, from all processes, to the sums."""
        r = log_r.float().clamp(-self.clamp, self.clamp).exp()
        batch = torch.zeros_like(self.sums)
        batch.index_add_(1, self.index(t), torch.stack([torch.ones_like(r), r]))
        self.sums.mul_(self.decay).add_(gather(batch[None]).sum(0))

    def forward(self, log_r: Tensor, t: Tensor) -> Tensor:
        """log r', (B,): the ratios over their bin's mean, or over the mean of all bins where theirs has too few."""
        samples, ratios = self.sums
        overall = ratios.sum() / samples.sum() if bool(samples.sum() > 0) else torch.ones_like(samples[0])
        mean = torch.where(samples >= FEWEST, ratios / samples.clamp_min(1.0), overall)
        shifted = log_r.clamp(-self.clamp, self.clamp) - mean.log()[self.index(t)].to(log_r.dtype)
        return shifted.clamp(-self.clamp, self.clamp)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of values (B,) over the batches of all processes, (), without gradient."""
    return gather(values.detach().double().mean()[None]).mean().to(values.dtype)


def effective_share(weights: Tensor) -> Tensor:
    """The effective share of a batch under weights h, (sum h)^2 / (B sum h^2), (): 1 where all weights are equal.

    Example:
        >>> effective_share(torch.tensor([1.0, 1.0, 0.0, 0.0]))
        tensor(0.5000)
    """
    return weights.mean().square() / weights.square().mean().clamp_min(torch.finfo(weights.dtype).tiny)


def _taps_of(network: Any) -> tuple[str, ...]:
    """The names of the submodules for features: those that the network names, or its `mid_block`."""
    modules = dict(network.named_modules()) if isinstance(network, nn.Module) else {}
    for prefix, module in modules.items():
        named = getattr(module, "feature_taps", None)
        if named:
            return tuple(f"{prefix}.{name}" if prefix else str(name) for name in named)
    for name in modules:
        if name.split(".")[-1] == "mid_block":
            return (name,)
    raise InvalidArgument(
        "teacher: its network names no feature_taps and has no mid_block for a discriminator to look at; give "
        "ratio=Discriminator(teacher, taps=[...]), or do without one: divergence='reverse_kl' and gan_weight=0"
    )


def _positions(name: str, feature: Tensor) -> Tensor:
    """A feature as vectors over positions, (B, N, C)."""
    if feature.ndim == 4:
        return feature.flatten(2).mT
    if feature.ndim == 3:
        return feature
    if feature.ndim == 2:
        return feature[:, None]
    raise InvalidArgument(f"taps: {name!r} gives {tuple(feature.shape)}; (B, C), (B, N, C) or (B, C, H, W) is needed")
