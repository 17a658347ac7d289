"""Laws over the whole catalogue, so that a new entry gets them for free; then what each entry promises by itself."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pushforward import divergences
from pushforward.divergences import (
    CATALOGUE,
    JEFFREYS,
    JS,
    KL,
    REVERSE_KL,
    SOFTENED_REVERSE_KL,
    SQUARED_HELLINGER,
    TOTAL_VARIATION,
    FDivergence,
    generalised_js,
    named,
    skewed_kl,
)
from pushforward.errors import InvalidArgument, ShapeError

PEARSON = FDivergence(name="pearson", f=lambda s: torch.expm1(s).square())
OURS = [*CATALOGUE.values(), generalised_js(0.1), generalised_js(0.7), skewed_kl(0.1), skewed_kl(0.9)]
SMOOTH = [d for d in OURS if d.smooth]
SYMMETRIC = [JS, JEFFREYS, SQUARED_HELLINGER, TOTAL_VARIATION, generalised_js(0.5)]
# f(0) and lim f(r)/r: what an outcome costs that only q, or only p, allows.
LIMITS = [
    (KL, 0, math.inf),
    (REVERSE_KL, math.inf, 0),
    (JS, math.log(2), math.log(2)),
    (SOFTENED_REVERSE_KL, math.inf, -math.log(2)),
    (JEFFREYS, math.inf, math.inf),
    (SQUARED_HELLINGER, 0.5, 0.5),
    (TOTAL_VARIATION, 0.5, 0.5),
    (generalised_js(0.3), -0.7 * math.log(0.7), -0.3 * math.log(0.3)),
    (skewed_kl(0.1), 0, math.log(10)),
    (PEARSON, 1, math.inf),
]
# h(r), diffusion's table and the second derivatives that it leaves to the reader.
WEIGHTS = [
    (REVERSE_KL, torch.ones_like),
    (SOFTENED_REVERSE_KL, lambda r: 1 / (r + 1)),
    (JS, lambda r: r / (r + 1)),
    (SQUARED_HELLINGER, lambda r: r.sqrt() / 4),
    (KL, lambda r: r),
    (JEFFREYS, lambda r: r + 1),
    (generalised_js(0.3), lambda r: 0.3 * 0.7 * r / (0.3 * r + 0.7)),
    (skewed_kl(0.1), lambda r: 0.81 * r / (0.1 * r + 0.9) ** 2),
    (PEARSON, lambda r: 2 * r**2),
]


def each(entries: list[FDivergence]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("divergence", entries, ids=lambda d: d.name)


def with_values(names: str, rows: list[tuple]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(f"divergence, {names}", rows, ids=[row[0].name for row in rows])  # noqa: PT006


def random_logits(*shape: int, seed: int) -> Tensor:
    return 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_pair(*shape: int, seed: int) -> tuple[Tensor, Tensor]:
    log_p, log_q = random_logits(2, *shape, seed=seed).log_softmax(-1)
    return log_p, log_q


# ---- the generator


@each([*OURS, PEARSON])
def test_f_is_convex_and_zero_at_one(divergence):
    assert divergence.f(torch.zeros(1, dtype=torch.float64)).abs() < 1e-15
    r = torch.linspace(0.01, 20, 2000, dtype=torch.float64)
    f = divergence.f(r.log())
    assert (f[2:] - 2 * f[1:-1] + f[:-2] > -1e-12).all()


@each([*OURS, PEARSON])
def test_integrand_is_the_definition(divergence):
    log_p, log_q = random_pair(32, 9, seed=0)
    definition = (log_q.exp() * divergence.f(log_p - log_q)).sum(-1)
    torch.testing.assert_close(divergence.between(log_p, log_q), definition, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("divergence", "closed_form"),
    [
        (KL, lambda p, q: p * (p / q).log()),
        (REVERSE_KL, lambda p, q: q * (q / p).log()),
        (JS, lambda p, q: p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()),
        (SOFTENED_REVERSE_KL, lambda p, q: (p + q) * ((p + q) / (2 * p)).log()),
        (JEFFREYS, lambda p, q: (p - q) * (p / q).log()),
        (SQUARED_HELLINGER, lambda p, q: q - (p * q).sqrt()),
        (TOTAL_VARIATION, lambda p, q: (p - q).abs() / 2),
        (
            generalised_js(0.3),
            lambda p, q: 0.3 * p * (p / (0.3 * p + 0.7 * q)).log() + 0.7 * q * (q / (0.3 * p + 0.7 * q)).log(),
        ),
        (skewed_kl(0.1), lambda p, q: p * (p / (0.1 * p + 0.9 * q)).log()),
        (PEARSON, lambda p, q: (p - q) ** 2 / q),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_textbooks_sums(divergence, closed_form):
    # Log-ratios to +-40, where a softplus that gives up early shows.
    log_p, log_q = (5 * random_logits(2, 64, 9, seed=1)).log_softmax(-1)
    expected = closed_form(log_p.exp(), log_q.exp()).sum(-1)
    torch.testing.assert_close(divergence.between(log_p, log_q), expected, rtol=1e-12, atol=1e-13)


# ---- the divergence


@each([*OURS, PEARSON])
def test_zero_only_at_equality(divergence):
    log_p, log_q = random_pair(32, 9, seed=2)
    assert divergence.between(log_p, log_p).abs().max() < 1e-14
    assert divergence.between(log_p, log_q).min() > 1e-3


@each([*OURS, PEARSON])
def test_symmetric_where_it_should_be_and_only_there(divergence):
    log_p, log_q = random_pair(32, 9, seed=3)
    gap = (divergence.between(log_p, log_q) - divergence.between(log_q, log_p)).abs().max()
    assert (gap < 1e-13) == any(divergence.name == d.name for d in SYMMETRIC)


def test_reversal_swaps_the_arguments():
    log_p, log_q = random_pair(8, 9, seed=4)
    assert torch.equal(REVERSE_KL.between(log_p, log_q), KL.between(log_q, log_p))
    backward = generalised_js(0.7).between(log_q, log_p)
    torch.testing.assert_close(generalised_js(0.3).between(log_p, log_q), backward, rtol=1e-13, atol=0)


@each([*OURS, PEARSON])
def test_gradient_in_both_arguments(divergence):
    logits = [random_logits(2, 4, seed=seed).requires_grad_() for seed in (5, 6)]
    for of in (logits, [logits[0].detach(), logits[1]], [logits[0], logits[1].detach()]):
        assert torch.autograd.gradcheck(lambda p, q: divergence.between(p.log_softmax(-1), q.log_softmax(-1)), of)


@each(SMOOTH)
def test_second_gradient_in_the_students_logits(divergence):
    teacher, student = random_logits(1, 4, seed=7).log_softmax(-1), random_logits(1, 4, seed=8).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda q: divergence.between(teacher, q.log_softmax(-1)), student)


@each([*OURS, PEARSON])
@given(data=st.data())
def test_merging_two_outcomes_never_raises_it(divergence, data):
    numbers = st.lists(st.floats(-12, 12), min_size=5, max_size=5)
    log_p, log_q = (torch.tensor(data.draw(numbers), dtype=torch.float64).log_softmax(-1) for _ in "pq")
    merged = [torch.cat([x[:2].logsumexp(0, keepdim=True), x[2:]]) for x in (log_p, log_q)]
    fine = divergence.between(log_p, log_q)
    assert divergence.between(*merged) <= fine + 1e-13 + 1e-12 * fine


@each([*OURS, PEARSON])
def test_jointly_convex(divergence):
    (p0, q0), (p1, q1) = random_pair(64, 5, seed=9), random_pair(64, 5, seed=10)
    for t in (0.1, 0.5, 0.8):
        mixed = [torch.logaddexp(x + math.log(1 - t), y + math.log(t)) for x, y in ((p0, p1), (q0, q1))]
        chord = (1 - t) * divergence.between(p0, q0) + t * divergence.between(p1, q1)
        assert (divergence.between(*mixed) <= chord + 1e-12).all()


@each(OURS)
def test_bounded_by_its_limits(divergence):
    # D_f <= f(0) + lim f(r)/r, reached by disjoint supports.
    impossible = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]])
    most = divergence.between(impossible[0], impossible[1])
    log_p, log_q = (8 * random_logits(2, 64, 9, seed=11)).log_softmax(-1)
    assert (divergence.between(log_p, log_q) <= most + 1e-6).all()


# ---- the weight


@with_values("h", WEIGHTS)
def test_weight_is_the_table(divergence, h):
    s = torch.linspace(-12, 12, 49, dtype=torch.float64)
    torch.testing.assert_close(divergence.weight(s), h(s.exp()), rtol=1e-12, atol=2e-15)


@each([*SMOOTH, PEARSON])
def test_weight_is_the_second_derivative(divergence):
    r = torch.linspace(0.2, 4, 20, dtype=torch.float64)
    step = 5e-3 * r
    f = [divergence.f((r + k * step).log()) for k in (-2, -1, 0, 1, 2)]
    second = (-f[0] + 16 * f[1] - 30 * f[2] + 16 * f[3] - f[4]) / (12 * step**2)
    torch.testing.assert_close(divergence.weight(r.log()), r**2 * second, rtol=1e-7, atol=1e-8)


@each([*SMOOTH, PEARSON])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weight_of_hopeless_ratios_is_a_number(divergence, dtype):
    s = torch.tensor([-math.inf, -1000, -200, 0, 200, 1000, math.inf], dtype=dtype)
    h = divergence.weight(s)
    assert h.dtype == dtype
    assert h.isfinite().all()
    assert (h >= 0).all()


def test_weight_keeps_its_accuracy_where_f_cancels():
    # F'' - F' of JS at s = 60 is the difference of two numbers near 1e25, whose result is 1.
    s = torch.tensor([60.0, 200.0], dtype=torch.float64)
    torch.testing.assert_close(JS.weight(s), torch.ones_like(s), rtol=1e-15, atol=0)
    torch.testing.assert_close(generalised_js(0.3).weight(s), torch.full_like(s, 0.7), rtol=1e-14, atol=0)


def test_weight_leaves_its_argument_alone_and_ignores_no_grad():
    s = torch.tensor([0.5], requires_grad=True)
    with torch.no_grad():
        h = KL.weight(s)
    assert not h.requires_grad
    assert s.grad is None
    assert KL.weight(torch.empty(0, 3)).shape == (0, 3)


def test_weight_of_nan_is_nan():
    assert JS.weight(torch.tensor(math.nan)).isnan()


# ---- the edges


@each(OURS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_where_the_supports_barely_meet(divergence, dtype):
    far = torch.tensor([-200.0, -100, -1, 0, -88, -104]), torch.tensor([0.0, -1, -100, -200, -104, -88])
    for first, second in (far, far[::-1]):
        log_p, log_q = (x.to(dtype).requires_grad_() for x in (first, second))
        value = divergence.between(log_p, log_q)
        assert value.dtype == torch.float32
        value.backward()
        for tensor in (value, log_p.grad, log_q.grad):
            assert tensor.isfinite().all()


@with_values("at_zero, slope", LIMITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_impossible_outcomes_cost_their_limit(divergence, at_zero, slope, dtype):
    inf = math.inf
    # Outcomes: both; neither; only q; only p.
    log_p = torch.tensor([[math.log(0.5), -inf, -inf, math.log(0.5)]], dtype=dtype).requires_grad_()
    log_q = torch.tensor([[math.log(0.5), -inf, math.log(0.5), -inf]], dtype=dtype).requires_grad_()
    terms = divergence.integrand(log_p, log_q)
    # Up to multiples of p - q, which the definition leaves open: only sums over normalised p and q are compared.
    expected = 0.5 * at_zero + 0.5 * slope
    torch.testing.assert_close(terms.sum(), torch.tensor(expected, dtype=dtype), rtol=1e-5, atol=1e-7)
    assert terms[0, 1] == 0
    terms.sum().backward()
    for gradient in (log_p.grad, log_q.grad):
        assert not gradient.isnan().any()
        assert gradient[0, 1] == 0


@each([*OURS, PEARSON])
@pytest.mark.parametrize("log_p_requires_grad", [True, False])
def test_an_outcome_that_neither_allows_changes_nothing(divergence, log_p_requires_grad):
    padding = torch.full((3, 2), -math.inf, dtype=torch.float64)
    plain = [random_logits(3, 5, seed=seed).requires_grad_() for seed in (12, 13)]
    padded = [x.detach().clone().requires_grad_() for x in plain]
    plain[0].requires_grad_(log_p_requires_grad)
    padded[0].requires_grad_(log_p_requires_grad)
    value = divergence.between(*(x.log_softmax(-1) for x in plain))
    same = divergence.between(*(torch.cat([x, padding], -1).log_softmax(-1) for x in padded))
    torch.testing.assert_close(same, value, rtol=1e-13, atol=1e-15)
    value.sum().backward()
    same.sum().backward()
    torch.testing.assert_close(padded[1].grad, plain[1].grad, rtol=1e-11, atol=1e-15)
    if log_p_requires_grad:
        torch.testing.assert_close(padded[0].grad, plain[0].grad, rtol=1e-11, atol=1e-15)


@each(OURS)
def test_logits_masked_by_the_lowest_number_act_as_impossible(divergence):
    lowest = torch.finfo(torch.float32).min
    log_p = torch.tensor([0.3, 0.1, lowest]).log_softmax(-1)
    log_q = torch.tensor([0.1, 0.5, lowest]).log_softmax(-1).requires_grad_()
    value = divergence.between(log_p, log_q)
    torch.testing.assert_close(value, divergence.between(log_p[:2], log_q[:2]), rtol=1e-6, atol=1e-8)
    assert torch.autograd.grad(value, log_q)[0].isfinite().all()


@each([*OURS, PEARSON])
@pytest.mark.parametrize("side", [0, 1])
def test_a_broken_model_does_not_pass_for_a_perfect_one(divergence, side):
    pair = [x.clone() for x in random_pair(2, 4, seed=14)]
    pair[side][0, 1] = math.nan
    assert divergence.between(*pair).isnan().tolist() == [True, False]


@each([*OURS, PEARSON])
def test_arguments_are_left_as_they_were(divergence):
    log_p, log_q = random_pair(2, 4, seed=15)
    copies = log_p.clone(), log_q.clone()
    divergence.between(log_p, log_q)
    divergence.integrand(log_p, log_q)
    assert torch.equal(log_p, copies[0])
    assert torch.equal(log_q, copies[1])


@each([*OURS, PEARSON])
def test_half_precision_is_computed_in_single(divergence):
    log_p, log_q = (x.bfloat16() for x in random_pair(4, 9, seed=16))
    assert torch.equal(divergence.between(log_p, log_q), divergence.between(log_p.float(), log_q.float()))
    assert divergence.between(log_p, log_q.double()).dtype == torch.float64


# ---- the families and the user's own


def test_generalised_js_at_its_ends():
    log_p, log_q = random_pair(16, 9, seed=17)
    small = 1e-7
    near_0 = generalised_js(small).between(log_p, log_q) / small
    near_1 = generalised_js(1 - small).between(log_p, log_q) / small
    torch.testing.assert_close(near_0, KL.between(log_p, log_q), rtol=1e-4, atol=0)
    torch.testing.assert_close(near_1, REVERSE_KL.between(log_p, log_q), rtol=1e-4, atol=0)


def test_families_meet_the_catalogue():
    log_p, log_q = random_pair(16, 9, seed=18)
    torch.testing.assert_close(
        2 * generalised_js(0.5).between(log_p, log_q), JS.between(log_p, log_q), rtol=1e-13, atol=0
    )
    torch.testing.assert_close(skewed_kl(1e-9).between(log_p, log_q), KL.between(log_p, log_q), rtol=1e-5, atol=0)


@each([*OURS])
def test_derived_integrand_agrees_with_the_written_one(divergence):
    derived = FDivergence(name="derived", f=divergence.f)
    log_p, log_q = random_pair(16, 9, seed=19)
    log_p[:, 0], log_q[:, 1] = log_p[:, 0] - 250, log_q[:, 1] - 30
    value, expected = derived.between(log_p, log_q), divergence.between(log_p, log_q)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-11)
    assert derived.between(log_p.float(), log_q.float()).dtype == torch.float32


@with_values("at_zero, slope", LIMITS)
def test_derived_integrand_finds_the_limits(divergence, at_zero, slope):
    derived = FDivergence(name="derived", f=divergence.f)
    for only, limit in ((0, slope), (1, at_zero)):
        pair = torch.tensor([[-math.inf], [-math.inf]], dtype=torch.float64)
        pair[only] = 0
        torch.testing.assert_close(float(derived.between(*pair)), float(limit), rtol=1e-12, atol=1e-12)


def test_derived_integrand_checks_what_f_returns():
    with pytest.raises(ShapeError, match="f of mine"):
        FDivergence(name="mine", f=lambda s: s.sum()).between(*random_pair(2, 3, seed=20))


@each(OURS)
def test_a_name_finds_its_entry(divergence):
    found = named(divergence.name)
    assert found.name == divergence.name
    log_p, log_q = random_pair(2, 5, seed=21)
    assert torch.equal(found.between(log_p, log_q), divergence.between(log_p, log_q))


def test_named_accepts_what_float_writes():
    assert named("skewed_kl(1e-05)").name == skewed_kl(1e-5).name
    assert named("js") is JS


def test_every_public_entry_is_in_the_catalogue():
    entries = [value for value in vars(divergences).values() if isinstance(value, FDivergence)]
    assert {d.name for d in entries} == set(CATALOGUE)


# ---- errors


@pytest.mark.parametrize("name", ["renyi", "skewed_kl", "skewed_kl()", "skewed_kl(x)", "kl(0.5)", "", None])
def test_unknown_name_lists_the_names(name):
    with pytest.raises(InvalidArgument, match=r"reverse_kl.*generalised_js\(beta\), skewed_kl\(alpha\)"):
        named(name)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, -0.5, 2])
def test_families_refuse_their_ends(value):
    with pytest.raises(InvalidArgument, match="beta must lie strictly between 0 and 1.*KL for the limit at 0"):
        generalised_js(value)
    with pytest.raises(InvalidArgument, match="alpha must lie strictly between 0 and 1.*KL for 0"):
        skewed_kl(value)


@pytest.mark.parametrize("value", [math.nan, "0.5", None, True])
def test_families_refuse_what_is_no_number(value):
    with pytest.raises(InvalidArgument, match="beta must be a finite number, got"):
        generalised_js(value)
    with pytest.raises(InvalidArgument, match="alpha must be a finite number, got"):
        skewed_kl(value)


def test_named_family_refuses_its_ends():
    with pytest.raises(InvalidArgument, match="use KL"):
        named("generalised_js(0)")


def test_total_variation_has_no_weight():
    with pytest.raises(InvalidArgument, match="total_variation has no weight"):
        TOTAL_VARIATION.weight(torch.zeros(3))


def test_bad_input_is_named():
    log_p, log_q = random_pair(3, 5, seed=22)
    with pytest.raises(ShapeError, match=r"log_p has shape \(3, 5\) but log_q \(3, 4\)"):
        KL.between(log_p, log_q[:, :4])
    with pytest.raises(ShapeError, match="K outcomes"):
        KL.between(torch.zeros(()), torch.zeros(()))
    with pytest.raises(InvalidArgument, match="log_q is torch.int64"):
        KL.between(log_p, log_q.long())
    with pytest.raises(InvalidArgument, match="log_p is a list"):
        KL.between([0.0], log_q)
    with pytest.raises(InvalidArgument, match="on cpu but log_p is on meta"):
        KL.between(log_p.to("meta"), log_q)
    with pytest.raises(InvalidArgument, match="log_r is torch.int64"):
        KL.weight(torch.zeros(3, dtype=torch.int64))


def test_entries_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        KL.name = "mine"
