"""Bins that hold what they should, and a discriminator that finds a ratio which is known."""

from __future__ import annotations

import math

import pytest
import torch
from diffusion.small import PROCESS, Net, mixture, network_teacher, samples

from pushforward.diffusion import Denoiser, Discriminator, Empirical, ExactRatio, GaussianMixture
from pushforward.diffusion.losses import discriminator_loss
from pushforward.diffusion.processes import RectifiedFlow, VarianceExploding, VariancePreserving
from pushforward.diffusion.ratio import Bins, effective_share
from pushforward.errors import InvalidArgument


@pytest.mark.parametrize("process", [VarianceExploding(), VariancePreserving.linear(), RectifiedFlow(shift=3.0)])
def test_bins_are_equally_full(process: VarianceExploding):
    t = process.sample_t(20_000, torch.Generator().manual_seed(0))
    share = torch.bincount(Bins(process).index(t), minlength=10) / len(t)
    assert share.numel() == 10
    assert float(share.min()) > 0.09
    assert float(share.max()) < 0.11


def test_cut_evenly_in_t_one_bin_has_most_of_the_draws_of_edm():
    t = VarianceExploding().sample_t(20_000, torch.Generator().manual_seed(0))
    even = torch.bucketize(t, torch.linspace(0.0, 4.0, 11)[1:-1])
    assert float((even == 0).float().mean()) > 0.5


def test_the_ratio_has_mean_one_in_every_bin():
    bins, process = Bins(PROCESS), PROCESS
    generator = torch.Generator().manual_seed(0)
    t = process.sample_t(4000, generator)
    log_r = 0.5 * torch.randn(4000, generator=generator) + t.clamp(max=2.0)
    bins.update(log_r, t)
    ratio, index = bins(log_r, t).exp(), bins.index(t)
    for k in range(10):
        assert float(ratio[index == k].mean()) == pytest.approx(1.0, rel=1e-3)


def test_a_bin_of_one_sample_does_not_make_its_ratio_one():
    bins = Bins(RectifiedFlow(), count=2)
    t = torch.cat([torch.full((31,), 0.1), torch.tensor([0.9])])
    log_r = torch.cat([torch.zeros(31), torch.tensor([2.0])])
    bins.update(log_r, t)
    mean = (31 + torch.tensor(2.0).exp()) / 32
    assert float(bins(log_r, t)[-1]) == pytest.approx(2.0 - float(mean.log()), rel=1e-5)


def test_a_bin_forgets_by_its_decay():
    bins, t = Bins(RectifiedFlow(), count=1, decay=0.75), torch.full((16,), 0.5)
    bins.update(torch.zeros(16), t)
    bins.update(torch.full((16,), 4.0).log(), t)
    assert bins.sums[:, 0].tolist() == pytest.approx([0.75 * 16 + 16, 0.75 * 16 + 64])
    expected = math.log((0.75 + 4) / 1.75)
    assert float(bins(torch.zeros(1), torch.full((1,), 0.5))) == pytest.approx(-expected, rel=1e-5)


def test_what_is_no_process_and_no_law_is_refused():
    law = GaussianMixture(weights=[1.0], means=[[0.0]], covariances=[1.0], process=PROCESS)
    for wrong in (
        lambda: Bins("x"),  # pyright: ignore[reportArgumentType]
        lambda: GaussianMixture(weights=[1.0], means=[[0.0]], covariances=[1.0], process="x"),  # pyright: ignore
        lambda: Empirical(points=torch.zeros(1, 1), process="x"),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(InvalidArgument, match="process must be a Process, got a str"):
            wrong()
    with pytest.raises(InvalidArgument, match="q must be a ExactTeacher, got a str"):
        ExactRatio(p=law, q="x")  # pyright: ignore[reportArgumentType]


def test_ratios_beyond_belief_are_clamped_and_nothing_is_seen_before_the_first_batch():
    bins = Bins(RectifiedFlow(), clamp=3.0)
    assert bins(torch.tensor([9.0, -9.0, 1.0]), torch.tensor([0.1, 0.5, 0.9])).tolist() == [3.0, -3.0, 1.0]


def test_a_normalised_ratio_is_clamped_again():
    bins, t = Bins(RectifiedFlow(), count=1, clamp=3.0), torch.full((16,), 0.5)
    bins.update(torch.full((16,), -3.0), t)
    assert bins(torch.tensor([3.0]), t[:1]).tolist() == [3.0]  # of a mean of exp(-3), it would be 6


def test_an_exact_ratio_is_that_of_the_densities():
    p, q = mixture(), GaussianMixture(weights=[1.0], means=[[0.0, 0.0]], covariances=[0.3], process=PROCESS)
    x, t = samples(8).double(), torch.tensor(0.4, dtype=torch.float64)
    assert torch.allclose(ExactRatio(p=p, q=q)(x, t), p.log_density(x, t) - q.log_density(x, t))
    assert not ExactRatio(p=p, q=p)(x, t).any()


def test_a_discriminator_finds_a_ratio_that_is_known():
    """On features of an untrained network, whose width is enough for two Gaussians of one scale."""
    torch.manual_seed(0)
    p, q = (GaussianMixture(weights=[1.0], means=[[m, 0.0]], covariances=[0.2], process=PROCESS) for m in (0.3, -0.3))
    head = Discriminator(Denoiser(Net(64).requires_grad_(False), PROCESS))
    t = torch.tensor(0.5)
    head.prepare(torch.zeros(4, 2), t.expand(4))
    optimiser = torch.optim.Adam(head.parameters(), 3e-3)
    for _ in range(300):
        real, fake = (
            PROCESS.add_noise(x, t, torch.randn_like(x)) for x in (p.sample(256).float(), q.sample(256).float())
        )
        loss = discriminator_loss(head(head.features(real, t), t), head(head.features(fake, t), t)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = PROCESS.add_noise(q.sample(500).float(), t, torch.randn(500, 2))
    exact = ExactRatio(p=p, q=q)(x, t)
    found = head(head.features(x, t), t).detach()
    assert float((found - exact).abs().mean()) < 0.15
    assert float(torch.corrcoef(torch.stack([found, exact]))[0, 1]) > 0.97


def test_taps_are_closed_after_each_call_and_the_teacher_is_not_part_of_the_head():
    teacher = network_teacher()
    head = Discriminator(teacher)
    assert head.taps == ("network.middle",)
    head.prepare(samples(4), torch.ones(4))
    head(head.features(samples(4), torch.ones(4)), torch.ones(4))
    assert not any(module._forward_hooks for module in teacher.modules())
    assert not any("middle" in name for name in head.state_dict())


def test_a_network_without_features_says_what_to_do():
    with pytest.raises(InvalidArgument, match="feature_taps"):
        Discriminator(Denoiser(torch.nn.Linear(2, 2), PROCESS))
    with pytest.raises(InvalidArgument, match="prepare"):
        Discriminator(network_teacher())({}, torch.ones(4))


def test_the_effective_share_of_one_weight_among_four():
    assert float(effective_share(torch.tensor([0.0, 0.0, 3.0, 0.0]))) == pytest.approx(0.25)
