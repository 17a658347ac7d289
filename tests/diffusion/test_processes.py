"""Noising processes against their definitions, and every prediction under every other name."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from pushforward.diffusion import Prediction, RectifiedFlow, VarianceExploding, VariancePreserving
from pushforward.diffusion.processes import per_sample
from pushforward.errors import InvalidArgument, ShapeError

NAMES = get_args(Prediction)
# Ends at pure noise, where alpha is exactly 0.
ZERO_TERMINAL = VariancePreserving(alphas_cumprod=torch.linspace(0.9999, 0, 1000, dtype=torch.float64))
PROCESSES = [VarianceExploding(), VariancePreserving.linear(), ZERO_TERMINAL, RectifiedFlow(), RectifiedFlow(shift=3.0)]
each = pytest.mark.parametrize("process", PROCESSES, ids=["ve", "vp", "vp_zero", "flow", "flow_shifted"])


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ends(process) -> Tensor:
    return process.quantile(torch.tensor([0.0, 1.0]))


# ---- what noise does


@each
def test_noise_has_the_mean_and_spread_that_it_says(process):
    t = process.quantile(torch.tensor([0.1, 0.5, 0.9]))
    x_t = process.add_noise(torch.full((3, 40_000), 2.0), t, random(3, 40_000, seed=0, dtype=torch.float32))
    torch.testing.assert_close(x_t.std(1), process.sigma(t), rtol=0.02, atol=0)
    assert ((x_t.mean(1) - 2 * process.alpha(t)).abs() < 0.02 * process.sigma(t)).all()


@each
def test_more_time_is_more_noise(process):
    t = process.quantile(torch.linspace(0, 1, 101, dtype=torch.float64)[1:-1])
    ratio = process.sigma(t) / process.alpha(t)
    assert (t.diff() > 0).all()
    assert (ratio.diff() > 0).all()
    assert (process.alpha(t) >= 0).all()


def test_variance_preserving_is_the_schedulers_table():
    process = VariancePreserving.linear()
    t = torch.arange(1000)
    torch.testing.assert_close(process.alpha(t.double()) ** 2, process.alphas_cumprod, rtol=1e-12, atol=0)
    alpha, sigma = process.coefficients(torch.zeros(1000, 2), t)
    assert alpha.dtype == torch.float32
    torch.testing.assert_close(alpha[:, 0], process.alphas_cumprod.sqrt().float(), rtol=2e-7, atol=0)
    torch.testing.assert_close(sigma[:, 0], (1 - process.alphas_cumprod).sqrt().float(), rtol=2e-7, atol=0)


def test_variance_preserving_between_and_beyond_its_timesteps():
    t = torch.linspace(-5, 1004, 5000, dtype=torch.float64)
    alpha, sigma = ZERO_TERMINAL.alpha(t), ZERO_TERMINAL.sigma(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=1e-13, atol=0)
    assert (alpha.diff() <= 0).all()
    assert alpha[-1] == pytest.approx(0, abs=1e-15)
    assert 0 <= ZERO_TERMINAL.alpha(torch.tensor(999.0)) < 1e-15  # the cosine of float32's pi/2 is below 0


# ---- the times


@each
def test_bins_between_quantiles_are_equally_full(process):
    # Bins linear in t hold 64 % of EDM's draws in the first of ten.
    t = process.sample_t(40_000, torch.Generator().manual_seed(1))
    edges = process.quantile(torch.linspace(0, 1, 11))
    shares = torch.bincount(torch.bucketize(t, edges[1:-1], right=True), minlength=10) / len(t)
    assert (shares - 0.1).abs().max() < 0.01
    assert t.min() >= edges[0]
    assert t.max() <= edges[-1]


def test_linear_bins_are_not():
    t = VarianceExploding().sample_t(40_000, torch.Generator().manual_seed(1))
    assert (t < 8.0).float().mean() > 0.9


def test_edm_draws_are_log_normal():
    log_t = VarianceExploding().sample_t(100_000, torch.Generator().manual_seed(2)).log()
    assert log_t.mean() == pytest.approx(-1.2, abs=0.02)
    assert log_t.std() == pytest.approx(1.2, abs=0.02)


def test_discrete_draws_are_timesteps():
    discrete, continuous = (
        VariancePreserving(alphas_cumprod=PROCESSES[1].alphas_cumprod, continuous=continuous)
        for continuous in (False, True)
    )
    t = discrete.sample_t(20_000, torch.Generator().manual_seed(3))
    assert t.dtype == torch.float32
    assert torch.equal(t, t.round())
    assert (t.min(), t.max()) == (0, 999)
    t = continuous.sample_t(1000, torch.Generator().manual_seed(3))
    assert (t != t.round()).any()


@each
def test_the_same_seed_draws_the_same_times(process):
    draws = [process.sample_t(8, torch.Generator().manual_seed(4)) for _ in range(2)]
    assert torch.equal(*draws)


@each
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_sampling_times_fall_from_the_noisiest(process, n):
    t = process.timesteps(n)
    assert t.shape == (n,)
    assert t.dtype == torch.float32
    assert (t.diff() < 0).all()
    torch.testing.assert_close(t[0], ends(process)[1])
    assert (process.sigma(t) > 0).all()


def test_sampling_times_are_the_papers():
    # EDM's equation 5, written out for the middle of three.
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    assert VarianceExploding().timesteps(3)[1] == pytest.approx(middle, rel=1e-6)
    assert VariancePreserving.linear().timesteps(1000).tolist() == list(range(999, -1, -1))


# ---- the five names


def naive(name: str, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return {
        "x0": x0,
        "eps": eps,
        "v": (alpha * eps - sigma * x0) / (alpha**2 + sigma**2).sqrt(),
        "flow": eps - x0,
        "score": -eps / sigma,
    }[name]


@each
@pytest.mark.parametrize(("given", "wanted"), list(itertools.product(NAMES, NAMES)))
def test_every_name_from_every_other(process, given, wanted):
    t = process.quantile(torch.linspace(0.05, 0.95, 19, dtype=torch.float64))
    x0, eps = random(19, 3, 2, seed=5), random(19, 3, 2, seed=6)
    x_t = process.add_noise(x0, t, eps)
    alpha, sigma = process.coefficients(x0, t)
    value, expected = (naive(name, x0, eps, alpha, sigma) for name in (given, wanted))
    torch.testing.assert_close(
        process.convert(value, x_t, t, given=given, wanted=wanted), expected, rtol=1e-9, atol=1e-9
    )


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("given", "wanted"), list(itertools.permutations(NAMES, 2)))
def test_round_trips(process, given, wanted, dtype):
    """There and back loses no more than rounding the value in between does, by the slope of the way back."""
    t = process.quantile(torch.linspace(0.02, 0.98, 25))
    x0, eps = random(25, 16, seed=7), random(25, 16, seed=8)
    alpha, sigma = process.coefficients(x0, t)
    value = naive(given, x0, eps, alpha, sigma).to(dtype)
    x_t = process.add_noise(x0, t, eps).to(dtype)
    there = process.convert(value, x_t, t, given=given, wanted=wanted)
    back = process.convert(there, x_t, t, given=wanted, wanted=given)
    assert there.dtype == back.dtype == dtype
    # |d/dx0| of each name at fixed x_t: their quotient is the slope; x_t enters as over alpha or sigma.
    size = {"x0": 1.0, "eps": alpha / sigma, "score": alpha / sigma**2}
    size["v"], size["flow"] = torch.hypot(alpha, sigma) / sigma, (alpha + sigma) / sigma
    rounding = torch.finfo(dtype).eps * (there.abs() * size[given] / size[wanted] + value.abs())
    inside = 8 * torch.finfo(torch.float32).eps * (x0.abs() + x_t.abs() / alpha.clamp_min(1e-7)) * size[given]
    assert ((back.double() - value.double()).abs() <= rounding + inside).all()


@pytest.mark.parametrize("wanted", NAMES)
@pytest.mark.parametrize("given", NAMES)
def test_finite_at_the_ends(given, wanted):
    for process, t in ((ZERO_TERMINAL, 999.0), (RectifiedFlow(), 0.0), (RectifiedFlow(), 1.0)):
        for dtype in (torch.float32, torch.bfloat16):
            x0, eps, at = random(4, 3, seed=9, dtype=dtype), random(4, 3, seed=10, dtype=dtype), torch.tensor(t)
            x_t = process.add_noise(x0, at, eps)
            value = {"x0": x0, "eps": eps, "v": -x0, "flow": eps - x0, "score": -eps}[given]
            assert process.convert(value, x_t, at, given=given, wanted=wanted).isfinite().all()


def test_v_and_flow_know_the_data_where_nothing_of_it_is_left():
    x0, eps = random(4, 3, seed=11), random(4, 3, seed=12)
    for process, t, given, value in (
        (ZERO_TERMINAL, 999.0, "v", -x0),
        (RectifiedFlow(), 1.0, "flow", eps - x0),
    ):
        at = torch.tensor(t, dtype=torch.float64)
        x_t = process.add_noise(x0, at, eps)
        torch.testing.assert_close(process.convert(value, x_t, at, given=given, wanted="x0"), x0)


def test_one_v_serves_a_process_and_its_rescaling():
    vp = VariancePreserving.linear()
    x0, eps, t = random(5, 3, seed=13), random(5, 3, seed=14), torch.tensor([1.0, 100, 400, 700, 900]).double()
    alpha, sigma = vp.alpha(t), vp.sigma(t)
    v = {
        name: process.convert(x0, process.add_noise(x0, at, eps), at, given="x0", wanted="v")
        for name, process, at in (("vp", vp, t), ("ve", VarianceExploding(), sigma / alpha))
    }
    torch.testing.assert_close(v["ve"], v["vp"])


def test_flow_is_the_paths_slope():
    x0, eps, t = random(3, 2, seed=15), random(3, 2, seed=16), torch.tensor([0.2, 0.5, 0.9]).double()
    flow = RectifiedFlow()
    slope = (flow.add_noise(x0, t + 1e-4, eps) - flow.add_noise(x0, t - 1e-4, eps)) / 2e-4
    x_t = flow.add_noise(x0, t, eps)
    torch.testing.assert_close(flow.convert(x0, x_t, t, given="x0", wanted="flow"), slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("wanted", NAMES)
@pytest.mark.parametrize("given", NAMES)
def test_derivatives_of_conversions(given, wanted):
    value, x_t = random(2, 3, seed=17).requires_grad_(), random(2, 3, seed=18).requires_grad_()
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *pair: RectifiedFlow().convert(*pair, t, given=given, wanted=wanted),
        (value, x_t),
        check_undefined_grad=False,
    )


# ---- shapes and dtypes


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 8, 8), (4, 2, 3, 8, 8)])
@each
def test_times_broadcast_over_whatever_a_sample_is(process, shape):
    x0, eps, t = random(*shape, seed=19), random(*shape, seed=20), process.quantile(torch.tensor([0.2, 0.4, 0.6, 0.8]))
    batch = process.add_noise(x0, t, eps)
    singles = [process.add_noise(x0[k : k + 1], t[k], eps[k : k + 1]) for k in range(4)]
    assert torch.equal(batch, torch.cat(singles))


def test_half_precision_is_computed_in_single():
    x0, eps, t = random(4, 3, seed=21).bfloat16(), random(4, 3, seed=22).bfloat16(), torch.rand(4)
    x_t = RectifiedFlow().add_noise(x0, t, eps)
    assert torch.equal(x_t, RectifiedFlow().add_noise(x0.float(), t, eps.float()).bfloat16())
    assert RectifiedFlow().convert(x0, x_t.float(), t, given="x0", wanted="v").dtype == torch.float32


def test_whole_numbers_are_times_and_half_precision_is_not():
    process, x = VariancePreserving.linear(), torch.zeros(2, 3)
    whole, floating = (
        process.coefficients(x, torch.tensor([3, 999]).to(dtype)) for dtype in (torch.int64, torch.float32)
    )
    assert torch.equal(whole[0], floating[0])
    with pytest.raises(InvalidArgument, match="t has dtype torch.bfloat16, which holds not even"):
        process.coefficients(x, torch.tensor([3.0, 999.0]).bfloat16())


def test_arguments_are_left_as_they_were():
    x0, eps, t = random(2, 3, seed=23), random(2, 3, seed=24), torch.tensor([0.1, 0.9])
    copies = x0.clone(), eps.clone(), t.clone()
    RectifiedFlow().convert(x0, RectifiedFlow().add_noise(x0, t, eps), t, given="x0", wanted="score")
    for tensor, copy in zip((x0, eps, t), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_per_sample_takes_back_what_it_gave():
    x = torch.zeros(4, 3, 2)
    once = per_sample("w", torch.arange(4.0), x)
    assert once.shape == (4, 1, 1)
    assert torch.equal(per_sample("w", once, x), once)
    assert per_sample("w", torch.tensor(2.0), x).shape == ()


# ---- errors


def test_bad_arguments_are_named():
    flow, x = RectifiedFlow(), torch.zeros(4, 3)
    with pytest.raises(
        ShapeError, match=r"t has shape \(3,\) but the data \(4, 3\); one number, or one a sample, \(4,\)"
    ):
        flow.add_noise(x, torch.rand(3), x)
    with pytest.raises(InvalidArgument, match=r"data has dtype torch.uint8.*x / 127.5 - 1"):
        flow.add_noise(x.byte(), torch.rand(4), x)
    with pytest.raises(ShapeError, match=r"value has shape \(4, 2\) but x_t \(4, 3\)"):
        flow.convert(x[:, :2], x, torch.rand(4), given="x0", wanted="eps")
    with pytest.raises(InvalidArgument, match="given must be one of 'x0', 'eps', 'v', 'flow', 'score'; got 'noise'"):
        flow.convert(x, x, torch.rand(4), given="noise", wanted="eps")
    with pytest.raises(InvalidArgument, match="n must be an integer of at least 1, got 0"):
        flow.timesteps(0)
    with pytest.raises(InvalidArgument, match="n is 1001 but the process has 1000 timesteps"):
        VariancePreserving.linear().timesteps(1001)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VarianceExploding(sigma_min=1.0, sigma_max=0.5), "sigma_min is 1.0 but sigma_max 0.5"),
        (lambda: VarianceExploding(rho=0), "rho must be a positive"),
        (lambda: VarianceExploding(log_mean=math.nan), "log_mean must be a finite number, got nan"),
        (lambda: RectifiedFlow(shift=-1), "shift must be a positive"),
        (lambda: RectifiedFlow(t_min=1.0), r"t_min must lie in \[0, 1\)"),
        (lambda: VariancePreserving(alphas_cumprod=torch.ones(3, 2)), r"shape \(3, 2\); one number a timestep"),
        (lambda: VariancePreserving(alphas_cumprod=torch.linspace(0, 1, 9)), "must fall from timestep to timestep"),
        (lambda: VariancePreserving(alphas_cumprod=torch.tensor([0.9, math.nan, 0.1])), "must fall"),
        (lambda: VariancePreserving(alphas_cumprod=[0.9, 0.1]), "alphas_cumprod must be a Tensor"),
    ],
)
def test_a_process_that_cannot_be_is_refused(make, message):
    with pytest.raises(InvalidArgument, match=message):
        make()
