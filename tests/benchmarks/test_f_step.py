"""The published algorithm as transcribed: the same numbers as ours where the two should agree, and the instruments."""

from __future__ import annotations

import copy
from typing import Any

import f_step
import pytest
import torch

from pushforward.diffusion import Distiller
from pushforward.diffusion.networks import MLPConfig, build
from pushforward.diffusion.teachers import from_edm


def pair_of() -> tuple[Distiller, Any, torch.Tensor]:
    """Ours and the published one with equal weights, of networks that differ from one another."""
    torch.manual_seed(0)
    x = 0.5 * torch.randn(32, 1, 4, 4)
    teacher = from_edm(build(MLPConfig(shape=(1, 4, 4), width=16)))
    for parameter in teacher.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    ours = Distiller(teacher, divergence="js", gan_weight=f_step.GAN_WEIGHT, levels=teacher.process)
    ours.prepare(x)
    for parameter in [*ours.student.parameters(), *ours.fake.parameters()]:
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    head = copy.deepcopy(ours.discriminator)
    published = f_step.Published(
        teacher, head, start=ours.student.times[0], sigma_data=ours.sigma_data, decay=1.0
    )  # a mean that stays 1, as our bins say before they have seen anything
    published.student.load_state_dict(ours.student.denoiser.state_dict())
    published.fake.load_state_dict(ours.fake.state_dict())
    return ours, published, x


def gradients(loss: torch.Tensor, parameters: Any) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(parameters)))


def test_the_students_step_is_ours() -> None:
    ours, published, x = pair_of()
    torch.manual_seed(1)
    mine = gradients(ours.student_loss(x).total, ours.student.parameters())
    torch.manual_seed(1)
    torch.randint(1, ())  # ours draws which of its steps to train
    theirs = gradients(published.student_loss(x), published.student.parameters())
    torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-6)
    assert max(float(each.abs().max()) for each in mine) > 1e-4


def test_the_critics_step_is_ours() -> None:
    ours, published, x = pair_of()
    torch.manual_seed(1)
    mine = gradients(ours.critic_loss(x).total, ours.critics())
    torch.manual_seed(1)
    torch.randint(1, ())
    theirs = gradients(published.critic_loss(x), published.critics())
    torch.testing.assert_close(theirs, mine, rtol=1e-3, atol=1e-5)


def test_a_pass_that_ends_early_has_the_same_features() -> None:
    _, published, x = pair_of()
    t = torch.full((len(x),), 0.5)
    early, none = published._features(x, t, early=True)
    full, x0 = published._features(x, t, early=False)
    torch.testing.assert_close(early, full)
    assert none is None
    torch.testing.assert_close(x0, published.teacher(x, t))


def test_the_weight_has_mean_1_and_a_bins_mean_is_that_of_its_ratios() -> None:
    _, published, _ = pair_of()
    published.decay = 0.0
    t = torch.tensor([0.1, 0.2, 20.0, 25.0])
    h = published._weight(torch.tensor([1.0, 3.0, 2.0, 2.0]), t)
    assert float(h.mean()) == pytest.approx(1.0)
    assert float(published.bins[0]) == pytest.approx((torch.e + torch.e**3) / 2, rel=1e-5)
    assert float(h[2]) == float(h[3])


def test_the_instruments_read_what_is_known() -> None:
    layer, x = torch.nn.Linear(256, 128, bias=False), torch.randn(64, 256)

    def step(x: torch.Tensor) -> None:
        with torch.no_grad():
            layer(x)

    assert f_step.flops(step, x) == 2 * 64 * 256 * 128

    def two_at_once(x: torch.Tensor) -> None:
        first = torch.empty(2**20)
        second = torch.empty(2**20)
        del first, second
        torch.empty(2**20)

    assert f_step.peak(two_at_once, x) == pytest.approx(8 * 2**20, rel=0.01)
