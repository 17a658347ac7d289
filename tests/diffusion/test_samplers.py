"""Heun's sampler against the flow of a Gaussian in closed form, its order, EDM's count, and its batches."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.diffusion import (
    Denoiser,
    Empirical,
    GaussianMixture,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
)
from pushforward.diffusion.samplers import heun, sample
from pushforward.errors import InvalidArgument, ShapeError

EXPLODING = VarianceExploding(sigma_min=1e-4)
# alpha = 0 at its last time
TO_ZERO = VariancePreserving(alphas_cumprod=torch.linspace(1e-4, math.pi / 2, 300, dtype=torch.float64).cos().square())
PROCESSES = {"ve": EXPLODING, "vp": TO_ZERO, "flow": RectifiedFlow(), "shifted": RectifiedFlow(shift=3.0)}


def noise(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PROCESSES)
def test_a_gaussian_flows_along_its_closed_form(name: str):
    process, z = PROCESSES[name], noise(20, 2)
    mean, deviation = torch.tensor([1.0, -3.0], dtype=torch.float64), torch.tensor([0.5, 2.0], dtype=torch.float64)
    teacher = GaussianMixture(weights=[1.0], means=mean[None], covariances=deviation.square()[None], process=process)
    # (x - alpha m) / (alpha^2 S + sigma^2)^(1/2) does not change along the flow
    first = process.timesteps(300)[0]
    alpha, sigma = process.coefficients(z, first)
    start = process.prior(z, first)
    expected = mean + deviation * (start - alpha * mean) / (alpha**2 * deviation**2 + sigma**2).sqrt()
    torch.testing.assert_close(heun(teacher, z, steps=300), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["ve", "flow"])
def test_the_error_falls_with_the_square_of_the_steps(name: str):
    teacher = GaussianMixture(
        weights=[0.3, 0.7], means=[[-1.0, 0.0], [1.0, 0.5]], covariances=[0.09, 0.04], process=PROCESSES[name]
    )
    z = noise(100, 2)
    end = heun(teacher, z, steps=800)
    coarse, fine = ((heun(teacher, z, steps=n) - end).norm(dim=1).median() for n in (40, 80))
    assert 3.3 < coarse / fine < 5.5


def test_it_is_edms_where_the_process_is():
    process = VarianceExploding()
    teacher = GaussianMixture(weights=[0.5, 0.5], means=[[-1.0], [1.0]], covariances=[0.25, 0.04], process=process)
    z, times = noise(9, 1), [*process.timesteps(7).tolist(), 0.0]
    x = z * times[0]
    for t, after in zip(times, times[1:], strict=False):  # EDM, algorithm 1
        slope = (x - teacher.x0(x, torch.tensor(t))) / t
        guess = x + (after - t) * slope
        if after:
            slope = (slope + (guess - teacher.x0(guess, torch.tensor(after))) / after) / 2
        x = x + (after - t) * slope
    torch.testing.assert_close(heun(teacher, z, steps=7), x, atol=1e-6, rtol=1e-6)


def test_eighteen_steps_are_thirty_five_evaluations_without_gradient():
    calls = []

    def network(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        return 0.5 * x_t

    given = torch.randn(3, 2, 4, requires_grad=True)
    out = heun(Denoiser(network, EXPLODING), given)
    assert (len(calls), any(calls), out.shape, out.requires_grad) == (35, False, (3, 2, 4), False)


def test_points_are_found_again_and_conditions_stay_with_their_noise():
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    found = sample(Empirical(points=points, process=EXPLODING), 50, (3,), generator=torch.Generator().manual_seed(2))
    assert torch.cdist(found, points).min(1).values.max() < 1e-3

    def network(x_t: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return label[:, None].expand_as(x_t).to(x_t.dtype)

    labels = torch.arange(7)
    told = sample(Denoiser(network, RectifiedFlow()), 7, (2,), condition=labels, batch_size=3)
    assert told[:, 0].tolist() == labels.tolist()


def test_a_batch_size_changes_nothing():
    teacher = GaussianMixture(weights=[1.0], means=[[0.0, 1.0]], covariances=[1.0], process=RectifiedFlow())
    one, other = (
        sample(teacher, 10, (2,), steps=5, generator=torch.Generator().manual_seed(0), batch_size=n) for n in (10, 3)
    )
    torch.testing.assert_close(one, other)


def test_what_cannot_be_sampled_is_refused():
    teacher = GaussianMixture(weights=[1.0], means=[[0.0]], covariances=[1.0], process=VariancePreserving.linear())
    with pytest.raises(InvalidArgument, match="steps must be an integer of at least 1"):
        heun(teacher, torch.zeros(1, 1), steps=0)
    with pytest.raises(InvalidArgument, match="n is 1001 but the process has 1000"):
        heun(teacher, torch.zeros(1, 1), steps=1001)
    with pytest.raises(InvalidArgument, match="noise has dtype torch.int64"):
        heun(teacher, torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match="condition has 2 entries but count is 3"):
        sample(teacher, 3, (1,), condition=torch.zeros(2))
