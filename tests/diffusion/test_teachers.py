"""Exact teachers against numerical integration, and networks under every convention against an exact teacher."""

from __future__ import annotations

import copy
import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from pushforward.diffusion import (
    Denoiser,
    Empirical,
    ExactTeacher,
    GaussianMixture,
    Guided,
    Prediction,
    RectifiedFlow,
    Teacher,
    VarianceExploding,
    VariancePreserving,
)
from pushforward.diffusion.teachers import from_callable, from_edm, from_velocity
from pushforward.errors import InvalidArgument, ShapeError

PROCESSES = [
    (VarianceExploding(), torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64)),
    (VariancePreserving.linear(), torch.tensor([20.0, 300.0, 900.0], dtype=torch.float64)),
    (RectifiedFlow(), torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)),
]
each = pytest.mark.parametrize(("process", "t"), PROCESSES, ids=["ve", "vp", "flow"])
FULL = torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.4]]], dtype=torch.float64)
MEANS = torch.tensor([[0.9, 0.3], [-0.8, 0.7]], dtype=torch.float64)


def mixture(process, covariances=FULL) -> GaussianMixture:
    return GaussianMixture(weights=[0.6, 0.4], means=MEANS, covariances=covariances, process=process)


def points(n: int, d: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Small(nn.Module):
    """A network with a submodule to look into, and one that gives a pair."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer, self.idle = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(1, 1)
        self.pair = Pair()

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        shift = 0.0 if label is None else label[:, None].to(x.dtype)
        hidden = self.inner(torch.cat([x, t[:, None].to(x.dtype)], 1))
        return self.outer(self.pair(hidden)[0].tanh()) + shift


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


# ---- mixtures


@each
def test_a_mixtures_density_is_torchs(process, t):
    x_t = 2 * points(3)
    alpha, sigma = process.alpha(t), process.sigma(t)
    for k in range(3):
        spread = alpha[k] ** 2 * FULL + sigma[k] ** 2 * torch.eye(2, dtype=torch.float64)
        law = MixtureSameFamily(
            Categorical(torch.tensor([0.6, 0.4], dtype=torch.float64)), MultivariateNormal(alpha[k] * MEANS, spread)
        )
        torch.testing.assert_close(mixture(process).log_density(x_t, t[k]), law.log_prob(x_t), rtol=1e-11, atol=1e-11)


@each
def test_a_mixtures_score_is_the_gradient_and_tweedies_formula(process, t):
    x_t = (2 * points(3, seed=1)).requires_grad_()
    teacher = mixture(process)
    (gradient,) = torch.autograd.grad(teacher.log_density(x_t, t).sum(), x_t)
    torch.testing.assert_close(teacher.score(x_t, t), gradient, rtol=1e-10, atol=1e-11)
    x0 = teacher.x0(x_t, t)
    from_x0 = process.convert(x0, x_t, t, given="x0", wanted="score")
    torch.testing.assert_close(from_x0, gradient, rtol=1e-8, atol=1e-8)


def test_a_mixtures_x0_is_the_posterior_mean_by_quadrature():
    axis = torch.linspace(-4, 4, 161, dtype=torch.float64)
    clean = torch.cartesian_prod(axis, axis)
    for process, t in ((process, t[1]) for process, t in PROCESSES):
        teacher, x_t = mixture(process), points(4, seed=2)
        prior = mixture(RectifiedFlow()).log_density(clean, torch.zeros((), dtype=torch.float64))
        off = x_t[:, None] - process.alpha(t) * clean
        posterior = (prior - off.square().sum(-1) / (2 * process.sigma(t) ** 2)).softmax(-1)
        torch.testing.assert_close(teacher.x0(x_t, t), posterior @ clean, rtol=1e-8, atol=1e-8)


def test_covariances_in_three_shapes():
    x_t, t = points(5, seed=3), torch.tensor(0.4)
    variances = torch.tensor([0.3, 0.5], dtype=torch.float64)
    shapes = [variances, variances[:, None].expand(2, 2), torch.diag_embed(variances[:, None].expand(2, 2))]
    first, *others = [mixture(RectifiedFlow(), shape).x0(x_t, t) for shape in shapes]
    for other in others:
        torch.testing.assert_close(other, first)


def test_draws_of_a_mixture_have_its_moments():
    draws = mixture(RectifiedFlow()).sample(100_000, torch.Generator().manual_seed(0))
    mean = 0.6 * MEANS[0] + 0.4 * MEANS[1]
    between = 0.24 * torch.outer(MEANS[0] - MEANS[1], MEANS[0] - MEANS[1])
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(draws.T.cov(), 0.6 * FULL[0] + 0.4 * FULL[1] + between, rtol=0, atol=0.02)


def test_float32_and_autocast_lose_nothing_of_a_mixture():
    x_t, t = points(6, seed=4).float(), torch.tensor(0.01)
    teacher = mixture(VarianceExploding())
    expected = teacher.x0(x_t.double(), t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x0 = teacher.x0(x_t, t)
    assert x0.dtype == torch.float32
    torch.testing.assert_close(x0.double(), expected, rtol=1e-6, atol=1e-6)


# ---- points


@each
def test_points_are_a_mixture_without_variance(process, t):
    clean, x_t = points(7, seed=5), points(3, seed=6)
    empirical = Empirical(points=clean, process=process)
    limit = GaussianMixture(weights=torch.ones(7), means=clean, covariances=torch.zeros(7), process=process)
    torch.testing.assert_close(empirical.x0(x_t, t), limit.x0(x_t, t), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(empirical.log_density(x_t, t), limit.log_density(x_t, t), rtol=1e-9, atol=1e-9)


def test_images_come_back_as_images():
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(7))
    teacher = Empirical(points=images, process=VarianceExploding())
    x_t = images + 0.02 * torch.randn(images.shape, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(teacher.x0(x_t, torch.full((5,), 0.02)), images)


def test_everything_exact_is_an_exact_teacher():
    for teacher in (mixture(RectifiedFlow()), Empirical(points=MEANS, process=RectifiedFlow())):
        assert isinstance(teacher, ExactTeacher)
    assert isinstance(Guided(teacher=mixture(RectifiedFlow()), scale=2.0), Teacher)
    assert not isinstance(Denoiser(Small(), RectifiedFlow()), ExactTeacher)


# ---- networks


@each
@pytest.mark.parametrize("name", get_args(Prediction))
def test_a_network_of_any_convention_gives_x0(process, t, name):
    exact, x_t = mixture(process), points(3, seed=9)
    t = t.clamp(max=0.99) if isinstance(process, RectifiedFlow) else t

    def network(x: Tensor, t: Tensor) -> Tensor:
        return process.convert(exact.x0(x, t), x, t, given="x0", wanted=name)

    torch.testing.assert_close(from_callable(network, process, predicts=name).x0(x_t, t), exact.x0(x_t, t))


def test_a_velocity_points_from_data_to_noise():
    eps, x0 = points(4, seed=10), points(4, seed=11)
    teacher = from_velocity(lambda x, t: eps - x0, RectifiedFlow(shift=3.0))
    t = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)
    torch.testing.assert_close(teacher.x0(teacher.process.add_noise(x0, t, eps), t), x0)


def test_edms_preconditioning_is_table_1():
    seen = {}

    def network(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.update(x=x, t=t, label=label)
        return torch.ones_like(x)

    x_t, sigma, label = points(3, seed=12), torch.tensor([0.01, 0.5, 40.0]).double(), torch.arange(3)
    x0 = from_edm(network, sigma_data=0.7).x0(x_t, sigma, label)
    s, d = sigma[:, None], 0.7
    torch.testing.assert_close(seen["x"], x_t / (s**2 + d**2).sqrt())
    torch.testing.assert_close(seen["t"], sigma.log() / 4)
    assert seen["label"] is label
    torch.testing.assert_close(x0, d**2 / (s**2 + d**2) * x_t + s * d / (s**2 + d**2).sqrt())


def test_edms_target_has_variance_1_at_every_noise():
    data = 0.5 * points(20_000, 1, seed=13)
    for sigma in (0.02, 0.5, 20.0):
        x_t, s2 = data + sigma * points(20_000, 1, seed=14), sigma**2 + 0.25
        skipped = from_edm(lambda x, t: torch.zeros_like(x)).x0(x_t, torch.tensor(sigma).double())
        target = (data - skipped) / (sigma * 0.5 / math.sqrt(s2))
        assert float(target.var()) == pytest.approx(1, abs=0.03)


def test_one_time_is_given_to_a_network_as_one_a_sample():
    shapes = []
    Denoiser(lambda x, t: shapes.append(tuple(t.shape)) or x, RectifiedFlow()).x0(points(4), torch.tensor(0.5))
    assert shapes == [(4,)]


def test_half_precision_networks():
    teacher = from_edm(Small().bfloat16())
    x0 = teacher.x0(points(4).bfloat16(), torch.tensor(0.5))
    assert x0.isfinite().all()


def test_guidance_is_the_same_under_every_name():
    process, x_t, t, label = RectifiedFlow(), points(4).float(), torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.arange(4)
    network, scale = Small(), 3.0
    teacher = Guided(teacher=from_velocity(network, process), scale=scale)
    null, told = network(x_t, t), network(x_t, t, label)
    expected = process.convert(null + scale * (told - null), x_t, t, given="flow", wanted="x0")
    torch.testing.assert_close(teacher.x0(x_t, t, label), expected)
    for scale, condition in ((0.0, None), (1.0, label)):
        guided = Guided(teacher=teacher.teacher, scale=scale).x0(x_t, t, label)
        torch.testing.assert_close(guided, teacher.teacher.x0(x_t, t, condition))
    assert torch.equal(teacher.x0(x_t, t), teacher.teacher.x0(x_t, t))


def test_guidance_against_a_label_that_stands_for_none():
    seen = []
    inner = Denoiser(lambda x, t, label: seen.append(int(label[0])) or x, RectifiedFlow())
    Guided(teacher=inner, scale=2.0, null=torch.tensor([10])).x0(points(1), torch.tensor(0.5), torch.tensor([3]))
    assert sorted(seen) == [3, 10]


# ---- features, and the gradient through a frozen teacher


class Told(nn.Module):
    """Gives the mean of its condition, whatever that is."""

    def forward(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
        parts = condition.values() if isinstance(condition, dict) else [condition]
        return torch.zeros_like(x_t) + sum(part.float().flatten(1).mean(1) for part in parts)[:, None]


@pytest.mark.parametrize(
    ("null", "condition"),
    [
        (torch.zeros(1, 3, 4), torch.ones(5, 3, 4)),
        (torch.zeros(5, 4).unbind()[0], torch.ones(5, 4)),
        (torch.zeros(5, 3, 4), torch.ones(5, 3, 4)),
        ({"a": torch.zeros(1, 4), "b": torch.zeros(1, 2)}, {"a": torch.ones(5, 4), "b": torch.zeros(5, 2)}),
        (0, torch.ones(5, dtype=torch.long)),
        (torch.tensor(0), torch.ones(5, dtype=torch.long)),
    ],
)
def test_one_null_is_enough_for_a_batch(null: Any, condition: Any):
    class Labelled(Told):
        def forward(self, x_t: Tensor, t: Tensor, condition: Any) -> Tensor:
            return super().forward(x_t, t, condition if isinstance(condition, dict) else condition.reshape(5, -1))

    guided = Guided(teacher=Denoiser(Labelled(), VarianceExploding()), scale=3.0, null=null)
    assert torch.equal(guided.x0(torch.zeros(5, 2), torch.tensor(1.0), condition), torch.full((5, 2), 3.0))
    if not isinstance(null, torch.Tensor) or len(null.shape) != 1:  # else it may be labels
        assert torch.equal(guided.x0(torch.zeros(5, 2), torch.tensor(1.0)), torch.zeros(5, 2))


def test_a_null_of_another_number_is_named():
    guided = Guided(teacher=Denoiser(Told(), VarianceExploding()), scale=3.0, null=torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="null is of 2 samples, but the batch has 5"):
        guided.x0(torch.zeros(5, 2), torch.tensor(1.0), torch.zeros(5, 4))
    with pytest.raises(InvalidArgument, match="scale must be a finite number, got nan"):
        Guided(teacher=guided, scale=math.nan)
    with pytest.raises(InvalidArgument, match="network is a NoneType"):
        Denoiser(None, VarianceExploding())  # pyright: ignore[reportArgumentType]


def test_the_gradient_goes_through_a_frozen_teacher():
    # A no_grad around the teacher would leave the GAN term without effect, silently.
    teacher = from_edm(Small()).requires_grad_(False).eval()
    name, t = "network.inner", torch.tensor(0.5)
    x_t = points(4).float().requires_grad_()
    features = teacher.features(x_t, t, taps=[name])[name]
    (by_features,) = torch.autograd.grad(features.square().sum(), x_t)
    (by_x0,) = torch.autograd.grad(teacher.x0(x_t, t).square().sum(), x_t)
    assert by_features.abs().min() > 0
    assert by_x0.abs().min() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_features_are_what_the_submodule_gives():
    network = Small()
    teacher = from_callable(network, RectifiedFlow())
    x_t, t = points(4).float(), torch.full((4,), 0.5)
    features = teacher.features(x_t, t, taps=["outer", "inner"])
    assert set(features) == {"inner", "outer"}
    assert torch.equal(features["inner"], network.inner(torch.cat([x_t, t[:, None]], 1)))
    assert torch.equal(features["outer"], network(x_t, t))
    assert not network.inner._forward_hooks


def test_no_hook_is_left_behind_by_a_failure():
    network = Small()
    with pytest.raises(RuntimeError):
        from_callable(network, RectifiedFlow()).features(points(4, 5).float(), torch.tensor(0.5), taps=["inner"])
    assert not network.inner._forward_hooks


def test_a_copy_can_be_trained_while_the_teacher_stays():
    teacher = from_callable(Small(), RectifiedFlow()).requires_grad_(False)
    fake = copy.deepcopy(teacher).requires_grad_(True)
    x_t, t = points(4).float(), torch.tensor(0.5)
    fake(x_t, t).square().sum().backward()
    assert fake.network.inner.weight.grad.abs().sum() > 0
    assert teacher.network.inner.weight.grad is None


# ---- errors


def test_bad_taps_are_named():
    x_t, t = points(4).float(), torch.tensor(0.5)
    teacher = from_callable(Small(), RectifiedFlow())
    with pytest.raises(InvalidArgument, match="no submodule 'middle'; it has 'inner', 'outer'"):
        teacher.features(x_t, t, taps=["middle"])
    with pytest.raises(InvalidArgument, match="'idle' was never called"):
        teacher.features(x_t, t, taps=["idle"])
    with pytest.raises(InvalidArgument, match="'pair' gave a tuple"):
        teacher.features(x_t, t, taps=["pair"])
    with pytest.raises(InvalidArgument, match="plain function"):
        Denoiser(lambda x, t: x, RectifiedFlow()).features(x_t, t, taps=["inner"])


def test_bad_networks_are_named():
    with pytest.raises(ShapeError, match=r"network returned shape \(4, 1\); a tensor of shape \(4, 2\)"):
        Denoiser(lambda x, t: x[:, :1], RectifiedFlow()).x0(points(4), torch.tensor(0.5))
    with pytest.raises(InvalidArgument, match="predicts must be one of 'x0'"):
        Denoiser(Small(), RectifiedFlow(), predicts="epsilon")
    with pytest.raises(InvalidArgument, match="process must be a Process, got a str"):
        Denoiser(Small(), "ve")
    with pytest.raises(InvalidArgument, match="process must be a RectifiedFlow"):
        from_velocity(Small(), VarianceExploding())
    with pytest.raises(InvalidArgument, match="sigma_data must be a positive"):
        from_edm(Small(), sigma_data=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0]}, r"weights has shape \(1,\) but there are 2 means"),
        ({"weights": [1.0, -0.1]}, "weights are .* at least 0"),
        ({"weights": [0.0, 0.0]}, "not all 0"),
        ({"weights": [math.nan, 1.0]}, r"weights\[0\] is nan"),
        ({"means": [1.0, 2.0]}, r"means has shape \(2,\)"),
        ({"covariances": [[1.0]]}, r"covariances has shape \(1, 1\); \(2,\), \(2, 2\) or \(2, 2, 2\)"),
        ({"covariances": [1.0, -1.0]}, "direction of variance -1"),
        ({"covariances": torch.tensor([[[1.0, 2.0], [2.0, 1.0]]]).expand(2, 2, 2)}, "direction of variance -1"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(change, message):
    arguments = {"weights": [0.5, 0.5], "means": MEANS, "covariances": FULL, "process": RectifiedFlow()} | change
    with pytest.raises(InvalidArgument, match=message):
        GaussianMixture(**arguments)


def test_points_that_cannot_be_are_refused():
    for bad in (torch.zeros(3), torch.zeros(0, 2), torch.zeros(3, 2, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match="points has shape"):
            Empirical(points=bad, process=RectifiedFlow())
    with pytest.raises(InvalidArgument, match=r"points\[1, 0\] is nan"):
        Empirical(points=torch.tensor([[0.0], [math.nan]]), process=RectifiedFlow())
    with pytest.raises(ShapeError, match=r"x_t has shape \(4, 3\)"):
        Empirical(points=MEANS, process=RectifiedFlow()).x0(points(4, 3), torch.tensor(0.5))
    with pytest.raises(ShapeError, match=r"points \(B, 2\) are needed"):
        mixture(RectifiedFlow()).x0(points(4, 3), torch.tensor(0.5))


def test_a_pass_for_features_ends_at_the_last_of_them():
    first, last = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    calls: list[str] = []
    last.register_forward_hook(lambda *_: calls.append("last"))
    network = torch.nn.Sequential(first, last)
    network.forward = lambda x, t: last(first(x))  # pyright: ignore
    teacher = Denoiser(network, VarianceExploding())
    x, t = torch.randn(3, 2), torch.ones(3)
    features = teacher.features(x, t, taps=["0"])
    assert not calls
    x0, beside = teacher.x0_and_features(x, t, taps=["0"])
    assert calls == ["last"]
    assert torch.equal(features["0"], beside["0"])
    assert torch.equal(x0, teacher.x0(x, t))
    assert not first._forward_hooks
