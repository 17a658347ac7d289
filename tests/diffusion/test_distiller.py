"""The losses of a distiller against their formulas, and the faults that distillers are known for."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from diffusion.small import PROCESS, Net, mixture, network_teacher, samples
from torch import Tensor, nn

from pushforward.diffusion import (
    Denoiser,
    Discriminator,
    Distiller,
    ExactRatio,
    GaussianMixture,
    Generator,
    Guided,
    RectifiedFlow,
)
from pushforward.divergences import CATALOGUE, JS, SQUARED_HELLINGER, TOTAL_VARIATION
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.training.random import seeded

SMOOTH = [name for name, entry in CATALOGUE.items() if entry.smooth]


def prepared(teacher: object = None, **settings: object) -> Distiller:
    distiller = Distiller(network_teacher() if teacher is None else teacher, **settings)  # pyright: ignore
    with seeded(0, "preparation"):
        distiller.prepare(samples(64))
    return distiller


def gradient(parameters: object) -> Tensor:
    return torch.cat([torch.zeros(0), *(p.grad.flatten() for p in parameters if p.grad is not None)])  # pyright: ignore


class Affine(nn.Module):
    """x_t -> W x_t / sigma + b: of pure noise of level sigma it makes N(b, W W^T)."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.w = nn.Parameter(0.4 * torch.eye(2))
        self.b = nn.Parameter(torch.tensor([0.1, -0.1]))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t / self.sigma @ self.w.T + self.b


@pytest.mark.parametrize("name", SMOOTH)
def test_the_students_gradient_is_the_formula(name: str):
    """With an exact teacher, an exact fake and an exact ratio, all of it written once more by hand."""
    sigma = 3.0
    student = Generator(Denoiser(Affine(sigma), PROCESS), times=(sigma,))
    law = GaussianMixture(weights=[1.0], means=[[0.1, -0.1]], covariances=[0.16], process=PROCESS)
    distiller = prepared(
        mixture(), divergence=name, student=student, ratio=ExactRatio(p=mixture(), q=law), gan_weight=0.0
    )
    distiller.fake = Denoiser(lambda x, t: law.x0(x, t), PROCESS)
    x = samples(512)
    with seeded(0, "loss"):
        distiller.student_loss(x).total.backward()
    found = gradient(student.parameters())

    affine = copy.deepcopy(student.denoiser.network)
    affine.zero_grad()
    with seeded(0, "loss"):
        torch.randint(1, ())
        z = torch.randn_like(x)
        x0 = affine(sigma * z, torch.tensor(sigma))
        t = distiller.levels.sample_t(512)
        x_t = x0.detach() + t[:, None] * torch.randn_like(x)
    log_r = (mixture().log_density(x_t, t) - law.log_density(x_t, t)).clamp(-6, 6)
    h = CATALOGUE[name].weight(log_r)
    gap = mixture().x0(x_t, t) - law.x0(x_t, t)
    length = (x0.detach() - mixture().x0(x_t, t)).abs().sum(-1).clamp_min(1e-4 * distiller.sigma_data * 2)
    (-(h / h.mean() / length)[:, None] * gap * x0).sum(-1).mean().backward()
    assert torch.allclose(found, gradient(affine.parameters()), rtol=1e-3, atol=1e-6)


def test_reverse_kl_without_a_gan_term_has_no_discriminator():
    distiller = prepared(divergence="reverse_kl", gan_weight=0.0)
    assert distiller.ratio is None
    assert set(distiller.state_dict()) == {"student", "bins", "fake", "times", "sigma_data"}
    distiller.student_loss(samples(8)).total.backward()
    assert set(distiller.critic_loss(samples(8)).parts) == {"fake_loss"}
    # The network needs no features either.
    plain = Denoiser(nn.Bilinear(2, 1, 2), PROCESS)
    plain.network.forward = lambda x, t: nn.functional.bilinear(x, t[:, None], *plain.network.parameters())  # pyright: ignore
    prepared(plain, divergence="reverse_kl", gan_weight=0.0)


@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "reverse_kl"])
def test_other_divergences_run_without_a_gan_term(name: str):
    distiller = prepared(divergence=name, gan_weight=0.0)
    distiller.fake.load_state_dict(network_teacher(1).state_dict())  # else it agrees with the teacher in everything
    for _ in range(2):
        distiller.critic_loss(samples(64)).total.backward()
    assert gradient(distiller.discriminator.parameters()).abs().sum() > 0  # pyright: ignore
    for parameter in distiller.critics():
        parameter.grad = None
    losses = distiller.student_loss(samples(64))
    losses.total.backward()
    assert gradient(distiller.student.parameters()).abs().sum() > 0
    assert not gradient(distiller.critics()).numel()
    assert {"mean_ratio", "effective_share", "clamped"} <= set(losses.parts)
    assert "generator_loss" not in losses.parts


def test_the_gan_gradient_goes_through_the_frozen_teacher():
    """A student whose fake is the teacher has no score to follow: what is left of its gradient is the GAN's."""
    distiller = prepared(divergence="reverse_kl", gan_weight=1.0)
    torch.manual_seed(1)
    distiller.student_loss(samples(32)).total.backward()
    assert gradient(distiller.student.parameters()).abs().sum() > 1e-6
    assert not gradient(distiller.teacher.parameters()).numel()  # pyright: ignore
    assert not gradient(distiller.critics()).numel()
    assert all(parameter.requires_grad for parameter in distiller.critics())


def test_the_weight_of_hellinger_grows_with_the_ratio():
    assert torch.allclose(SQUARED_HELLINGER.weight(torch.tensor([0.0, 2.0])), torch.tensor([0.0, 1.0]).exp() / 4)


def test_a_gan_weight_of_zero_leaves_the_term_out_and_another_scales_it():
    gradients: dict[float, Tensor] = {}
    for weight in (0.0, 1.0, 3.0):
        distiller = prepared(divergence="js", gan_weight=weight)
        with seeded(1, "loss"):
            losses = distiller.student_loss(samples(32))
        losses.total.backward()
        gradients[weight] = gradient(distiller.student.parameters())
        assert ("generator_loss" in losses.parts) == (weight > 0)
    added = gradients[1.0] - gradients[0.0]
    assert float(added.norm()) > 0
    assert torch.allclose(gradients[3.0] - gradients[0.0], 3 * added, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_trained_in_single(dtype: torch.dtype):
    teacher = Denoiser(Net().to(dtype), PROCESS)
    distiller = Distiller(teacher, divergence="js", student=copy.deepcopy(teacher), critic_steps=1)
    trained = [*distiller.trained(), *distiller.critics()]
    assert {weight.dtype for weight in trained} == {torch.float32}
    assert {weight.dtype for weight in teacher.parameters()} == {dtype}, "the teacher stays as it is"
    batch = samples(32).to(dtype)
    distiller.prepare(batch)
    before = [weight.detach().clone() for weight in distiller.trained()]
    # A step of 1e-6 of a weight of order .1 is nothing in bfloat16.
    optimiser = torch.optim.Adam(distiller.trained(), 1e-6)
    distiller.critic_loss(batch).total.backward()
    distiller.student_loss(batch).total.backward()
    optimiser.step()
    moved = [(old != new).float().mean() for old, new in zip(before, distiller.trained(), strict=True)]
    assert min(moved) > 0.5


def test_frozen_parts_of_a_student_stay_frozen():
    student = network_teacher()
    network: Net = student.network.network  # pyright: ignore[reportAssignmentType, reportFunctionMemberAccess]
    network.first.requires_grad_(False)
    distiller = Distiller(network_teacher(), student=student, divergence="reverse_kl", gan_weight=0)
    assert not any(weight.requires_grad for weight in network.first.parameters())
    assert len(distiller.trained()) == len(list(student.parameters())) - 2


def test_batches_that_are_not_finite_are_named():
    distiller = prepared(divergence="reverse_kl", gan_weight=0)
    bad = samples(8)
    bad[3, 1] = torch.nan
    for ask in (distiller.prepare, distiller.student_loss, distiller.critic_loss):
        with pytest.raises(NonFiniteError, match=r"batch\[3, 1\] is nan"):
            ask(bad)
        with pytest.raises(NonFiniteError, match=r"condition\['words'\]\[0\] is inf"):
            ask((samples(8), {"words": torch.full((8,), torch.inf)}))


def test_bins_are_no_part_of_the_student():
    distiller = prepared(divergence="js")
    before = copy.deepcopy(distiller.student.state_dict())
    distiller.critic_loss(samples(64))
    assert distiller.bins.sums.sum() > 0
    assert before.keys() == distiller.student.state_dict().keys()
    assert not any("sums" in name for name in before)


def test_the_start_is_the_noisiest_from_which_samples_differ():
    process = PROCESS
    teacher = GaussianMixture(weights=[1.0], means=[[0.0, 0.0]], covariances=[1.0], process=process)
    student = Denoiser(Net(), process)
    distiller = Distiller(teacher, divergence="reverse_kl", student=student, gan_weight=0.0, generator_steps=3)
    with seeded(0, "preparation"):
        distiller.prepare(teacher.sample(4000).float())
    # E[x_0 | sigma z] = sigma z / (1 + sigma^2), of variance sigma^2 / (1 + sigma^2)^2 in either direction
    start, second, third = distiller.student.times
    times = process.timesteps(64)
    index = int((times - start).abs().argmin())
    assert (start / (1 + start**2)) ** 2 > 0.095 > 0.9 * (times[index - 1] / (1 + times[index - 1] ** 2)) ** 2
    assert start > second > third >= process.sigma_min


def test_conditions_reach_teacher_student_and_critics():
    teacher = network_teacher(labels=3)
    seen: list[Tensor] = []
    teacher.network.network.labels.register_forward_hook(lambda _m, given, _out: seen.append(given[0]))  # pyright: ignore
    distiller = Distiller(Guided(teacher=teacher, scale=2.0, null=torch.zeros(8, dtype=torch.long)), divergence="js")
    label = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    batch = (samples(8), label)
    distiller.prepare(batch)
    distiller.critic_loss(batch).total.backward()
    losses = distiller.student_loss(batch)
    losses.total.backward()
    assert any(torch.equal(each, label) for each in seen)
    embedding = distiller.student.denoiser.network.network.labels  # pyright: ignore
    assert embedding.weight.grad.abs().sum() > 0


def test_what_training_changes_is_saved_and_the_teacher_is_not():
    one, other = prepared(divergence="kl"), prepared(network_teacher(0), divergence="kl")
    one.critic_loss(samples(64))
    with torch.no_grad():
        for parameter in [*one.student.parameters(), *one.critics()]:
            parameter.add_(1.0)
    other.load_state_dict(one.state_dict())
    for name, value in other.state_dict()["student"].items():
        assert torch.equal(value, one.state_dict()["student"][name])
    assert torch.equal(one.bins.sums, other.bins.sums)
    teachers_own = sum(parameter.numel() for parameter in one.teacher.parameters())  # pyright: ignore
    assert sum(value.numel() for value in one.state_dict()["student"].values()) == teachers_own


def test_distributions_are_matched_at_the_levels():
    distiller = prepared(levels=dataclasses.replace(PROCESS, log_mean=math.log(5.0), log_std=1e-4))
    seen: list[Tensor] = []
    distiller.fake.register_forward_hook(lambda module, given, out: seen.append(given[1]))
    distiller.student_loss(samples(8))
    distiller.critic_loss(samples(8))
    torch.testing.assert_close(torch.cat(seen), torch.full((16,), 5.0), rtol=1e-3, atol=0)
    assert distiller.bins.edges.min() > 4.9


def test_levels_are_noisier_than_edms_training_and_else_the_teachers_own():
    u = torch.tensor([0.2, 0.5, 0.7])
    found = Distiller(network_teacher()).levels
    torch.testing.assert_close(found.quantile(u).log(), PROCESS.quantile(u).log() + PROCESS.log_std)
    torch.testing.assert_close(found.timesteps(5), PROCESS.timesteps(5))
    flow = RectifiedFlow(shift=3.0)
    assert Distiller(Denoiser(Net(), flow), divergence="reverse_kl", gan_weight=0.0).levels is flow


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"divergence": "total_variation"}, "second derivative"),
        ({"divergence": TOTAL_VARIATION}, "second derivative"),
        ({"divergence": "jensen"}, "jensen"),
        ({"generator_steps": 5}, "generator_steps is 5"),
        ({"generator_steps": 0}, "generator_steps"),
        ({"gan_weight": -1.0}, "gan_weight"),
        ({"critic_steps": 0}, "critic_steps"),
        ({"student": "net"}, "student"),
        ({"student": Denoiser(lambda x, t: x, PROCESS)}, "no parameters"),
        ({"teacher": 3}, "teacher"),
        ({"teacher": mixture(), "divergence": "js"}, "student is None"),
        ({"teacher": mixture(), "divergence": "js", "student": Denoiser(Net(), PROCESS)}, "finds no features"),
        ({"ratio": ExactRatio(p=mixture(), q=mixture())}, "gan_weight=0"),
        ({"levels": RectifiedFlow()}, "levels is a RectifiedFlow, but the teacher's process is a VarianceExploding"),
    ],
)
def test_settings_that_no_distiller_can_have_are_named(settings: dict[str, object], words: str):
    given = {"teacher": network_teacher(), "divergence": JS} | settings
    with pytest.raises(InvalidArgument, match=words):
        Distiller(**given)  # pyright: ignore


def test_a_student_that_is_the_teacher_itself_is_refused():
    teacher = network_teacher()
    with pytest.raises(InvalidArgument, match="copy.deepcopy"):
        Distiller(teacher, student=Generator(teacher, times=(1.0,)))


def test_batches_are_checked_and_losses_want_preparation():
    distiller = Distiller(network_teacher())
    with pytest.raises(InvalidArgument, match="prepare"):
        distiller.student_loss(samples(8))
    with pytest.raises(ShapeError, match="pair"):
        distiller.prepare([samples(8)])


def test_a_discriminator_of_ones_own_taps_is_used():
    teacher = network_teacher()
    distiller = prepared(teacher, ratio=Discriminator(teacher, taps=["network.first"]))
    assert distiller.discriminator is not None
    assert distiller.discriminator.taps == ("network.first",)
    distiller.student_loss(samples(8)).total.backward()
