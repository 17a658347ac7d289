"""Teachers that need no training, since p_t is known: mixtures of Gaussians, and finite sets of points.

    p_t = sum_k w_k N(alpha m_k, alpha^2 S_k + sigma^2 I),     points are a mixture with S_k = 0

symbol     meaning                                          shape
x_t        noised data                                      (B, d); (B, ...) for points
t          its times                                        () or (B,)
w_k        weight of a component                            ()
m_k, S_k   its mean and covariance                          (d,), (d, d)

Along the axes of S_k everything is diagonal, at every t: one eigendecomposition serves all times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from pushforward._checks import check_count, check_finite, check_instance, check_points
from pushforward._interop import compute_dtype, to_tensor
from pushforward._typed import typed, typed_fields
from pushforward.diffusion.processes import Process
from pushforward.diffusion.teachers import Teacher
from pushforward.errors import InvalidArgument, MassError, ShapeError

__all__ = ["Empirical", "ExactTeacher", "GaussianMixture"]


@runtime_checkable
class ExactTeacher(Teacher, Protocol):
    """A teacher that computes its density, and so the exact ratio to another one."""

    def log_density(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p_t(x_t), differentiable in x_t.

        Args:
            x_t: Noised data, (B, ...).
            t: Its times, () or (B,).

        Returns:
            (B,), in nats.
        """
        ...


@typed_fields
@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianMixture:
    """The exact denoiser, score and density of a mixture of Gaussians at every time; computed in float64.

    Args:
        weights: w_k, at least 0, of any sum, (K,).
        means: m_k, (K, d).
        covariances: S_k as variances (K,), as diagonals (K, d), or in full, (K, d, d); 0 and singular ones are allowed.
        process: Noises it.

    Raises:
        InvalidArgument: Shapes that do not fit, weights that sum to nothing, a covariance with a negative direction.

    Example:
        >>> from pushforward.diffusion import VarianceExploding
        >>> one = GaussianMixture(
        ...     weights=[1.0], means=[[0.0]], covariances=[1.0], process=VarianceExploding()
        ... )
        >>> x_t, t = torch.tensor([[2.0]]), torch.tensor(1.0)
        >>> one.x0(x_t, t), one.score(x_t, t)
        (tensor([[1.]]), tensor([[-1.]]))
    """

    weights: Any
    means: Any
    covariances: Any
    process: Process

    def __post_init__(self) -> None:
        check_instance("process", self.process, Process)
        _ = self._law

    @typed
    def x0(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """E[x_0 | x_t]; the condition is ignored.

        Args:
            x_t: Noised data, (B, d).
            t: Its times, () or (B,).
            condition: Ignored.

        Returns:
            Like x_t.
        """
        at = self._at(x_t, t)
        law = self._law.to(x_t.device)
        pulled = _rotated(at.alpha * law.variances / at.variances * at.centred, law.axes)
        return at.mean_of(law.means + pulled).to(x_t.dtype)

    @typed
    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        """grad log p_t(x_t).

        Args:
            x_t: Noised data, (B, d).
            t: Its times, () or (B,).

        Returns:
            Like x_t.
        """
        at = self._at(x_t, t)
        return -at.mean_of(_rotated(at.centred / at.variances, self._law.to(x_t.device).axes)).to(x_t.dtype)

    @typed
    def log_density(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p_t(x_t).

        Args:
            x_t: Noised data, (B, d).
            t: Its times, () or (B,).

        Returns:
            (B,), in nats.
        """
        return self._at(x_t, t).log_joint.logsumexp(-1).to(x_t.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent samples of the mixture, without noise.

        Args:
            n: The number of samples.
            generator: Draws them; None for torch's global one.

        Returns:
            (n, d), float64.
        """
        law = self._law
        which = torch.multinomial(law.log_weights.exp(), check_count("n", n), replacement=True, generator=generator)
        means = law.means[which]
        noise = torch.randn(means.shape, dtype=means.dtype, device=means.device, generator=generator)
        return means + torch.einsum("nde,ne->nd", law.axes[which], law.variances[which].sqrt() * noise)

    def _at(self, x_t: Tensor, t: Tensor) -> _Noised:
        law = self._law.to(x_t.device)
        if x_t.ndim != 2 or x_t.shape[1] != law.means.shape[1]:
            raise ShapeError(f"x_t has shape {tuple(x_t.shape)}; points (B, {law.means.shape[1]}) are needed")
        points = x_t.to(law.means.dtype)
        alpha, sigma = (c[..., None] for c in self.process.coefficients(points, t))
        variances = (alpha.square() * law.variances + sigma.square()).clamp_min(torch.finfo(points.dtype).tiny)
        centred = torch.einsum("bkd,kde->bke", points[:, None] - alpha * law.means, law.axes)
        log_normal = -0.5 * (centred.square() / variances + variances.log() + math.log(2 * math.pi)).sum(-1)
        return _Noised(alpha, variances, centred, law.log_weights + log_normal)

    @cached_property
    def _law(self) -> _Law:
        means = check_points("means", self.means)
        weights = check_finite("weights", to_tensor("weights", self.weights).to(means))
        if weights.shape != means.shape[:1]:
            raise ShapeError(f"weights has shape {tuple(weights.shape)} but there are {len(means)} means; one each")
        if bool((weights < 0).any()) or not bool(weights.sum() > 0):
            raise MassError(f"weights are {weights.tolist()}; they must be at least 0 and not all 0")
        given = check_finite("covariances", to_tensor("covariances", self.covariances).to(means))
        variances, axes = _spectrum(given, *means.shape)
        if bool((variances < 0).any()):
            raise InvalidArgument(
                f"covariances has a direction of variance {float(variances.min()):g}; it must be 0 or more"
            )
        return _Law((weights / weights.sum()).log(), means, variances, axes)


@typed_fields
@dataclass(frozen=True, kw_only=True, eq=False)
class Empirical:
    """The exact denoiser of a set of points: what a network with no bias and no gap would learn by heart.

    Args:
        points: The data, (N, ...), equally likely.
        process: Noises it.

    Example:
        >>> from pushforward.diffusion import VarianceExploding
        >>> pair = Empirical(points=torch.tensor([[-1.0], [1.0]]), process=VarianceExploding())
        >>> pair.x0(torch.tensor([[0.0], [0.5]]), torch.tensor([1.0, 0.1]))
        tensor([[0.],
                [1.]])
    """

    points: Tensor
    process: Process

    def __post_init__(self) -> None:
        check_instance("process", self.process, Process)
        points = check_instance("points", self.points, Tensor)
        if points.ndim < 2 or 0 in points.shape or not points.is_floating_point():
            raise ShapeError(f"points has shape {tuple(points.shape)}, {points.dtype}; floating (N, ...) is needed")
        check_finite("points", points)

    @typed
    def x0(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """E[x_0 | x_t], the mean of the points under their posterior probabilities given x_t; the condition is ignored.

        Args:
            x_t: Noised data, (B, ...).
            t: Its times, () or (B,).
            condition: Ignored.

        Returns:
            Like x_t.
        """
        log_joint, points = self._log_joint(x_t, t)
        return (log_joint.softmax(-1) @ points).reshape(x_t.shape).to(x_t.dtype)

    @typed
    def log_density(self, x_t: Tensor, t: Tensor) -> Tensor:
        """log p_t(x_t).

        Args:
            x_t: Noised data, (B, ...).
            t: Its times, () or (B,).

        Returns:
            (B,), in nats.
        """
        return self._log_joint(x_t, t)[0].logsumexp(-1).to(x_t.dtype)

    def _log_joint(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if x_t.shape[1:] != self.points.shape[1:]:
            raise ShapeError(f"x_t has shape {tuple(x_t.shape)} but the points {tuple(self.points.shape)}")
        # In float32 the squared distances of images, over a small sigma^2, are wrong by more than a nat.
        dtype = compute_dtype(x_t.device)
        x, points = x_t.flatten(1).to(dtype), self.points.flatten(1).to(x_t.device, dtype)
        alpha, sigma = self.process.coefficients(x, t)
        variance = sigma.square().clamp_min(torch.finfo(dtype).tiny)
        squared = (
            x.square().sum(-1, keepdim=True) - 2 * alpha * (x @ points.T) + alpha.square() * points.square().sum(-1)
        )
        log_normal = -0.5 * (squared / variance + x.shape[1] * (2 * math.pi * variance).log())
        return log_normal - math.log(len(points)), points


class _Law(NamedTuple):
    """A mixture in its components' principal axes: log w_k, m_k, and S_k = axes diag(variances) axes^T."""

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor

    def to(self, device: torch.device) -> _Law:
        return _Law(*(tensor.to(device) for tensor in self))


class _Noised(NamedTuple):
    """What a mixture's functions share at x_t, along the axes: variances and x_t - alpha m_k, (B, K, d)."""

    alpha: Tensor
    variances: Tensor
    centred: Tensor
    log_joint: Tensor

    def mean_of(self, values: Tensor) -> Tensor:
        """The mean of values (B, K, d) over the components, under their posterior probabilities given x_t."""
        return torch.einsum("bk,bkd->bd", self.log_joint.softmax(-1), values)


def _spectrum(covariances: Tensor, components: int, dim: int) -> tuple[Tensor, Tensor]:
    """Variances (K, d) and axes (K, d, d) of covariances in any of the three shapes."""
    shape, K, d = tuple(covariances.shape), components, dim
    if shape == (K, d, d):
        symmetric = (covariances + covariances.mT) / 2
        variances, axes = torch.linalg.eigh(symmetric)
        # A singular matrix's least eigenvalue is 0 up to rounding, on either side.
        rounding = 1e-12 * variances.abs().amax(-1, keepdim=True)
        return torch.where(variances.abs() <= rounding, 0.0, variances), axes
    if shape not in ((K,), (K, d)):
        raise ShapeError(f"covariances has shape {shape}; ({K},), ({K}, {d}) or ({K}, {d}, {d}) is needed")
    variances = covariances if covariances.ndim == 2 else covariances[:, None].expand(K, d)
    return variances, torch.eye(d).to(covariances).expand(K, d, d)


def _rotated(along_axes: Tensor, axes: Tensor) -> Tensor:
    """Vectors (B, K, d) from coordinates along each component's axes."""
    return torch.einsum("bkd,ked->bke", along_axes, axes)
