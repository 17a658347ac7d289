"""The losses of distribution matching, as pure functions: one number a sample, (B,).

Their mean is what is minimised; their means within bins of t are what is worth logging.

    grad_theta D_f(p_t || q_t) = -E[ h(r) (grad log p_t(x_t) - grad log q_t(x_t)) alpha dG_theta(z)/dtheta ]

symbol     meaning                                                 shape
x0         a clean sample: of the student, G_theta(z), or of data  (B, ...)
x_t        alpha x0 + sigma eps                                    (B, ...)
alpha      what is left of the data at t, sigma how noisy it is    () or (B,), or as `Process.coefficients` gives it
p, q       teacher (or data) and student; r = p / q at x_t         (B,)
h          r^2 f''(r), `FDivergence.weight` of log r               (B,)
logits     a discriminator's estimate of log r                     (B,) or (B, ...), averaged over the latter

Half precision is computed in float32.

Sources: Xu et al. 2025 (f-distill, arXiv 2502.15681), theorem 1; Karras et al. 2022 (EDM, arXiv 2206.00364), section 5;
Goodfellow et al. 2014 (arXiv 1406.2661) for the losses; Mescheder et al. 2018 (arXiv 1801.04406) for R1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pushforward._checks import check_positive
from pushforward._typed import typed
from pushforward.diffusion.processes import per_sample
from pushforward.errors import InvalidArgument, ShapeError

__all__ = ["denoising_loss", "discriminator_loss", "generator_loss", "r1_penalty", "score_difference_loss"]

# Its square, and one over it, are numbers of single precision.
LEAST_SIGMA_DATA = 1e-15


@typed
def score_difference_loss(x0: Tensor, teacher: Tensor, fake: Tensor, weight: Tensor) -> Tensor:
    """A loss whose gradient is the theorem's, though no divergence is computed: -weight (teacher - fake) dx0/dtheta.

    Its value is half the squared length of weight (teacher - fake).

    Args:
        x0: G_theta(z), with its gradient, (B, ...).
        teacher: The teacher's score or x0 at x_t, like x0; taken as a constant.
        fake: The score or x0 of the student's own denoiser there, like x0; taken as a constant.
        weight: h alpha for scores, h alpha^2 / sigma^2 for x0, times any weight of the times; (B,).

    Returns:
        (B,).

    Raises:
        ShapeError: x0, teacher and fake differ in shape, or weight is not one for each sample.

    Example:
        >>> x0 = torch.zeros(1, 2, requires_grad=True)
        >>> loss = score_difference_loss(x0, torch.tensor([[3.0, 1.0]]), torch.ones(1, 2), torch.tensor([0.5]))
        >>> loss.sum().backward()
        >>> x0.grad
        tensor([[-1., 0.]])
    """
    _check_same("teacher", teacher, "x0", x0)
    _check_same("fake", fake, "x0", x0)
    teacher, fake, x0 = _as_float32(teacher.detach()), _as_float32(fake.detach()), _as_float32(x0)
    pull = _as_float32(per_sample("weight", weight.detach(), x0)) * (teacher - fake)
    # x0 minus itself is exactly 0, where x0 - (x0 + pull) would lose what of the pull lies below x0's last digit.
    return 0.5 * (x0 - x0.detach() - pull).square().flatten(1).sum(-1)


@typed
def denoising_loss(prediction: Tensor, x0: Tensor, alpha: Tensor, sigma: Tensor, *, sigma_data: float = 0.5) -> Tensor:
    """Denoising score matching with EDM's weight, under which an untrained network's loss is 1 at every noise level.

        (sigma^2 + alpha^2 sigma_data^2) / (sigma sigma_data)^2 |prediction - x0|^2 / d

    It is EDM's for x_t / alpha, whose noise is sigma / alpha, and is finite down to alpha = 0.

    Args:
        prediction: The denoiser's x0 at x_t, (B, ...).
        x0: The clean sample that x_t was made from, taken as a constant, (B, ...).
        alpha, sigma: Those of the samples' times, () or (B,).
        sigma_data: Standard deviation of the data.

    Returns:
        (B,).

    Raises:
        ShapeError: The shapes differ, or alpha or sigma is not one for each sample.
        InvalidArgument: sigma_data is not positive, or too small to divide by.

    Example:
        >>> denoising_loss(torch.zeros(1, 4), torch.full((1, 4), 0.5), torch.tensor(1.0), torch.tensor(0.5))
        tensor([2.])
    """
    _check_same("prediction", prediction, "x0", x0)
    data = check_positive("sigma_data", sigma_data)
    if data < LEAST_SIGMA_DATA:
        raise InvalidArgument(f"sigma_data is {data:g}, too small for single precision; multiply the data by a number")
    alpha, sigma = _as_float32(per_sample("alpha", alpha, x0)), _as_float32(per_sample("sigma", sigma, x0))
    weight = (sigma / data).square() + alpha.square()
    errors = (_as_float32(prediction) - _as_float32(x0.detach())) / sigma
    return (weight * errors.square()).flatten(1).mean(-1)


@typed
def generator_loss(fake_logits: Tensor) -> Tensor:
    """-log D of the student's samples. Its gradient does not vanish where the discriminator is sure.

    Args:
        fake_logits: The logits of the student's samples, (B,) or (B, ...), with the gradient through the features and
            so through the teacher.

    Returns:
        (B,).
    """
    return _one_a_sample(softplus(-_as_float32(fake_logits)))


@typed
def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(real) - log(1 - D(fake)), which is least where the logits are log p / q.

    Args:
        real_logits: The logits of as many samples of the data, (B,) or (B, ...).
        fake_logits: The logits of the student's samples, (B,) or (B, ...).

    Returns:
        (B,).

    Example:
        >>> discriminator_loss(torch.zeros(1), torch.zeros(1))
        tensor([1.3863])
    """
    _check_same("real_logits", real_logits, "fake_logits", fake_logits)
    return _one_a_sample(softplus(-_as_float32(real_logits)) + softplus(_as_float32(fake_logits)))


@typed
def r1_penalty(real_logits: Tensor, inputs: Tensor) -> Tensor:
    """|grad logits|^2 at the data, differentiable in the discriminator's parameters. Usually gamma / 2 of it is added.

    Args:
        real_logits: The discriminator's logits at `inputs`, (B,) or (B, ...).
        inputs: The data, or the teacher's features of it, with requires_grad; (B, ...).

    Returns:
        (B,).

    Raises:
        InvalidArgument: The logits do not depend on the inputs.

    Example:
        >>> x = torch.ones(2, 3, requires_grad=True)
        >>> r1_penalty(2 * x.sum(-1), x)
        tensor([12., 12.])
    """
    if not (inputs.requires_grad and real_logits.requires_grad):
        raise InvalidArgument("inputs and real_logits need gradients: call inputs.requires_grad_() before the network")
    total = _one_a_sample(_as_float32(real_logits)).sum()
    (slope,) = torch.autograd.grad(total, inputs, create_graph=True, materialize_grads=True)
    return _as_float32(slope).square().flatten(1).sum(-1)


def _one_a_sample(values: Tensor) -> Tensor:
    return values if values.ndim == 1 else values.flatten(1).mean(-1)


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _check_same(name: str, tensor: Tensor, other: str, reference: Tensor) -> None:
    if tensor.shape != reference.shape:
        raise ShapeError(
            f"{name} has shape {tuple(tensor.shape)} but {other} {tuple(reference.shape)}; they must be the same"
        )
