"""Each loss against its equation, written out; the gradient theorem that they are for is in test_theorem."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward.diffusion import RectifiedFlow, VarianceExploding
from pushforward.diffusion.losses import (
    denoising_loss,
    discriminator_loss,
    generator_loss,
    r1_penalty,
    score_difference_loss,
)
from pushforward.errors import InvalidArgument, ShapeError


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# ---- the surrogate


def test_the_surrogates_gradient_and_value():
    x0, weight = random(3, 2, 4, seed=0).requires_grad_(), torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    teacher, fake = random(3, 2, 4, seed=1).requires_grad_(), random(3, 2, 4, seed=2).requires_grad_()
    loss = score_difference_loss(x0, teacher, fake, weight)
    pull = weight[:, None, None] * (teacher - fake).detach()
    torch.testing.assert_close(loss, 0.5 * pull.square().sum((1, 2)))
    loss.sum().backward()
    torch.testing.assert_close(x0.grad, -pull)
    assert teacher.grad is None
    assert fake.grad is None


def test_a_small_pull_on_a_large_sample_is_not_rounded_away():
    x0 = torch.full((1, 2), 1000.0, requires_grad=True)
    score_difference_loss(x0, torch.full((1, 2), 1e-5), torch.zeros(1, 2), torch.ones(1)).sum().backward()
    torch.testing.assert_close(x0.grad, torch.full((1, 2), -1e-5), rtol=1e-5, atol=0.0)


def test_the_surrogate_takes_what_coefficients_gives():
    x0, t = random(3, 2, seed=3), torch.tensor([0.2, 0.4, 0.6])
    alpha, sigma = RectifiedFlow().coefficients(x0, t)
    assert alpha.shape == (3, 1)
    plain = score_difference_loss(x0, -x0, x0, (alpha / sigma)[:, 0])
    assert torch.equal(score_difference_loss(x0, -x0, x0, alpha / sigma), plain)


# ---- denoising score matching


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_denoising_is_edms_on_the_scaled_data(sigma):
    prediction, x0 = random(4, 3, 2, seed=4), random(4, 3, 2, seed=5)
    weight = (sigma**2 + 0.7**2) / (sigma * 0.7) ** 2
    expected = weight * (prediction - x0).square().mean((1, 2))
    one = torch.ones((), dtype=torch.float64)
    torch.testing.assert_close(denoising_loss(prediction, x0, one, sigma * one, sigma_data=0.7), expected)
    # Any process of the same signal-to-noise ratio weighs the same.
    rescaled = denoising_loss(prediction, x0, 0.3 * one, 0.3 * sigma * one, sigma_data=0.7)
    torch.testing.assert_close(rescaled, expected)


def test_an_untrained_denoisers_loss_is_1_at_every_noise():
    x0, eps = 0.5 * random(20_000, 2, seed=6), random(20_000, 2, seed=7)
    for t in (0.02, 0.5, 20.0):
        process, at = VarianceExploding(), torch.tensor(t, dtype=torch.float64)
        x_t = process.add_noise(x0, at, eps)
        skipped = 0.25 / (0.25 + t**2) * x_t
        assert float(denoising_loss(skipped, x0, *process.coefficients(x_t, at)).mean()) == pytest.approx(1, abs=0.03)


def test_denoising_is_least_at_the_posterior_mean():
    process, t = RectifiedFlow(), torch.tensor(0.4, dtype=torch.float64)
    x0, eps = random(50_000, 1, seed=8), random(50_000, 1, seed=9)
    x_t = process.add_noise(x0, t, eps)
    slope = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    best = 0.6 / (0.6**2 + 0.4**2)
    losses = [denoising_loss(s * x_t, x0, *process.coefficients(x_t, t)).mean() for s in (best - 0.1, best, best + 0.1)]
    assert losses[1] < min(losses[0], losses[2])
    denoising_loss(slope * x_t, x0, *process.coefficients(x_t, t)).mean().backward()
    assert slope.grad < 0


def test_denoising_where_nothing_of_the_data_is_left():
    prediction, x0 = random(2, 3, seed=10), random(2, 3, seed=11)
    loss = denoising_loss(prediction, x0, torch.zeros(2), torch.ones(2))
    torch.testing.assert_close(loss, 4 * (prediction - x0).square().mean(1))


# ---- the discriminator


def test_logistic_losses_are_the_equations():
    real, fake = random(8, seed=12), random(8, seed=13)
    torch.testing.assert_close(generator_loss(fake), -fake.sigmoid().log())
    torch.testing.assert_close(discriminator_loss(real, fake), -real.sigmoid().log() - (1 - fake.sigmoid()).log())
    assert generator_loss(torch.tensor([-500.0])) == 500


def test_the_best_logit_is_the_log_ratio():
    # One outcome with p = 0.6 in the data and q = 0.15 in the student; the other carries the rest.
    p, q = torch.tensor([0.6, 0.4]).double(), torch.tensor([0.15, 0.85]).double()
    logits = (p / q).log().requires_grad_()
    loss = p @ discriminator_loss(logits, torch.zeros_like(logits)) + q @ discriminator_loss(
        torch.zeros_like(logits), logits
    )
    (slope,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-12)


def test_logits_of_many_places_are_averaged():
    real, fake = random(3, 2, 4, seed=14), random(3, 2, 4, seed=15)
    flat = [discriminator_loss(real[:, i, j], fake[:, i, j]) for i in range(2) for j in range(4)]
    torch.testing.assert_close(discriminator_loss(real, fake), torch.stack(flat).mean(0))
    assert generator_loss(fake).shape == (3,)


def test_r1_is_the_squared_slope_and_can_be_differentiated():
    x = random(5, 3, seed=16).requires_grad_()
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty((x @ w).tanh(), x)
    slope = (1 - (x @ w).tanh() ** 2)[:, None] * w
    torch.testing.assert_close(penalty, slope.square().sum(1))
    assert torch.autograd.gradcheck(lambda w: r1_penalty((x @ w).tanh(), x), w)


def test_r1_on_features_stops_there():
    x = random(5, 3, seed=17)
    features = (2 * x).requires_grad_()
    torch.testing.assert_close(r1_penalty(features.sum(1), features), torch.full((5,), 3.0, dtype=torch.float64))


# ---- precision and errors


def test_half_precision_is_computed_in_single():
    x0, other = random(4, 8, seed=18, dtype=torch.bfloat16), random(4, 8, seed=19, dtype=torch.bfloat16)
    one = torch.ones(4)
    for loss in (
        lambda a, b: score_difference_loss(a, b, -b, one.to(a.dtype)),
        lambda a, b: denoising_loss(a, b, one, one),
        lambda a, b: discriminator_loss(a, b),
        lambda a, b: generator_loss(a),
    ):
        assert torch.equal(loss(x0, other), loss(x0.float(), other.float()))
        assert loss(x0, other).shape == (4,)


def test_bad_arguments_are_named():
    x = torch.zeros(4, 3)
    with pytest.raises(ShapeError, match=r"fake has shape \(4, 2\) but x0 \(4, 3\)"):
        score_difference_loss(x, x, x[:, :2], torch.ones(4))
    with pytest.raises(ShapeError, match=r"weight has shape \(3,\) but the data \(4, 3\)"):
        score_difference_loss(x, x, x, torch.ones(3))
    with pytest.raises(ShapeError, match=r"sigma has shape \(1, 4\)"):
        denoising_loss(x, x, torch.ones(4), torch.ones(1, 4))
    with pytest.raises(InvalidArgument, match="sigma_data must be a finite number, got nan"):
        denoising_loss(x, x, torch.ones(4), torch.ones(4), sigma_data=math.nan)
    with pytest.raises(ShapeError, match=r"real_logits has shape \(4,\) but fake_logits \(3,\)"):
        discriminator_loss(torch.zeros(4), torch.zeros(3))
    with pytest.raises(InvalidArgument, match=r"call inputs.requires_grad_\(\) before"):
        r1_penalty(x.sum(1), x)
