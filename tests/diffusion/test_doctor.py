"""Teachers that are what they are declared to be, and all that are not, told apart by their answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from pushforward.diffusion import (
    Denoiser,
    GaussianMixture,
    Prediction,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
)
from pushforward.diffusion.doctor import examine
from pushforward.diffusion.readings import Reading
from pushforward.diffusion.teachers import from_diffusers, from_edm
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError

NAMES = get_args(Prediction)
PROCESSES = {"ve": VarianceExploding(), "vp": VariancePreserving.linear(), "flow": RectifiedFlow(shift=2.0)}
each = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())

# What a network may take for its time: in words, and the process's time from it.
TIMES = {
    "ve": {"log(t) / 4": lambda s: (4 * s).exp(), "log(t)": torch.exp, "250 log(t)": lambda s: (s / 250).exp()},
    "vp": {"999 - t": lambda s: 999 - s, "t / 1000": lambda s: 1000 * s, "1 - t / 1000": lambda s: 1000 - 1000 * s},
    "flow": {"1 - t": lambda s: 1 - s, "1000 t": lambda s: s / 1000, "1000 (1 - t)": lambda s: 1 - s / 1000},
}


def truth(process: Process) -> GaussianMixture:
    return GaussianMixture(
        weights=[0.5, 0.3, 0.2],
        means=[[0.8, 0.8], [-0.8, 0.3], [0.1, -0.7]],
        covariances=[0.02, 0.05, 0.02],
        process=process,
    )


def data(n: int = 500) -> Tensor:
    return truth(RectifiedFlow()).sample(n, torch.Generator().manual_seed(0)).float()


def network(
    process: Process, kind: Prediction, time: Callable[[Tensor], Tensor] = lambda s: s
) -> Callable[..., Tensor]:
    """The exact teacher as a network that predicts `kind`, and takes its time in another way."""

    def predict(x_t: Tensor, s: Tensor) -> Tensor:
        t = time(s)
        return process.convert(truth(process).x0(x_t, t), x_t, t, given="x0", wanted=kind)

    return predict


@each
@pytest.mark.parametrize("kind", NAMES)
def test_a_teacher_is_what_it_is_declared_to_be(process: Process, kind: Prediction):
    found = examine(Denoiser(network(process, kind), process, predicts=kind), data())
    assert (found.verdict, found.best) == ("ok", Reading(predicts=kind)), found.advice
    assert found.advice.startswith(f"ok: it predicts {kind} at time t")
    for level in found.levels:
        assert level.error < 1.01 * level.linear < 1.02 * level.constant


@each
@pytest.mark.parametrize(("kind", "declared"), list(itertools.permutations(NAMES, 2)))
def test_a_wrong_declaration_is_caught_with_the_right_one(process: Process, kind: Prediction, declared: Prediction):
    found = examine(Denoiser(network(process, kind), process, predicts=declared), data())
    assert (found.verdict, found.best) == ("misdeclared", Reading(predicts=kind))
    assert f"declare predicts={kind!r}" in found.advice


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "flow"])
@pytest.mark.parametrize(("name", "words"), [(name, words) for name in TIMES for words in TIMES[name]])
def test_another_time_is_caught(name: str, words: str, kind: Prediction):
    process = PROCESSES[name]
    found = examine(Denoiser(network(process, kind, TIMES[name][words]), process, predicts=kind), data())
    assert (found.verdict, found.best) == ("misdeclared", Reading(predicts=kind, time=words)), found.advice
    assert f"call the network at {words} where it is called at t now" in found.advice


def test_a_flow_from_noise_to_data_is_caught():
    flow = network(RectifiedFlow(), "flow")
    found = examine(Denoiser(lambda x, s: -flow(x, 1 - s), RectifiedFlow(), predicts="flow"), data())
    assert found.best == Reading(predicts="flow", time="1 - t", sign=-1)
    assert found.advice.endswith(
        "call the network at 1 - t where it is called at t now; turn the sign of what it gives"
    )


class Raw(nn.Module):
    """EDM's F of the exact teacher."""

    def __init__(self, time: Callable[[Tensor], Tensor] = lambda s: (4 * s).exp()) -> None:
        super().__init__()
        self.time = time

    def forward(self, scaled: Tensor, s: Tensor) -> Tensor:
        sigma = self.time(s)[:, None]
        total = torch.hypot(sigma, torch.tensor(0.5))
        x_t = scaled * total
        x0 = truth(VarianceExploding()).x0(x_t, sigma[:, 0])
        return (x0 - (0.5 / total) ** 2 * x_t) / (sigma * 0.5 / total)


def test_edms_preconditioning_is_missed_or_found_to_be_too_much():
    process = VarianceExploding()
    right = examine(from_edm(Raw()), data())
    assert (right.verdict, right.best) == ("ok", right.declared)
    bare = examine(Denoiser(Raw(), process, predicts="x0"), data())
    assert bare.best == Reading(predicts="F", time="log(t) / 4", sigma_data=0.5)
    assert bare.advice.endswith("use from_edm with sigma_data=0.5")
    scaled = examine(from_edm(Raw(), sigma_data=0.2), data())
    assert (scaled.verdict, scaled.best) == ("misdeclared", bare.best)
    twice = examine(from_edm(_Module(network(process, "x0"))), data())
    assert (twice.verdict, twice.best) == ("misdeclared", Reading(predicts="x0"))
    assert twice.advice.endswith("use from_callable with predicts='x0'")
    by_sigma = examine(from_edm(Raw(time=lambda s: s)), data())
    assert by_sigma.best == Reading(predicts="F", time="t", sigma_data=0.5)
    assert by_sigma.advice.endswith("call the network at t where it is called at log(t) / 4 now")


class _Module(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Any) -> Tensor:
        return self.function(*arguments)


def test_a_network_that_has_learned_nothing():
    torch.manual_seed(0)
    layer = nn.Linear(2, 2)
    found = examine(Denoiser(lambda x, t: layer(x), RectifiedFlow(), predicts="eps"), data())
    assert found.verdict == "untrained"
    assert "untrained" in found.advice


def test_a_network_that_cannot_be_asked_at_other_times():
    exact = network(RectifiedFlow(), "v")

    def strict(x: Tensor, t: Tensor) -> Tensor:
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise IndexError("no such time")
        return exact(x, t)

    found = examine(Denoiser(strict, RectifiedFlow(), predicts="v"), data())
    assert found.verdict == "ok"
    assert {reading.time for reading in found.scores} == {"t", "1 - t", "t / 1000"}


def test_the_condition_reaches_the_network():
    exact = network(RectifiedFlow(), "v")

    def told(x: Tensor, t: Tensor, shift: Tensor) -> Tensor:
        # Data shifted by a known amount: x_t is by alpha as much, and v by -sigma / norm.
        alpha, sigma = 1 - t[:, None], t[:, None]
        return exact(x - alpha * shift, t) - sigma / torch.hypot(alpha, sigma) * shift

    shift = 5 * torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    teacher = Denoiser(told, RectifiedFlow(), predicts="v")
    assert examine(teacher, data() + shift, shift).verdict == "ok"
    assert examine(teacher, data() + shift, shift.roll(1, 0)).verdict != "ok"


def test_scores_are_what_the_module_says():
    found = examine(Denoiser(lambda x, t: torch.zeros_like(x), RectifiedFlow(), predicts="x0"), data() - data().mean(0))
    # Of centred data, 0 has R = 1.
    shares = [level.linear / level.constant for level in found.levels]
    expected = sum(math.log(1.05 / (share + 0.05)) for share in shares) / 3
    assert found.scores[found.declared] == pytest.approx(expected, abs=5e-3)
    assert [level.error for level in found.levels] == pytest.approx(
        [level.constant for level in found.levels], rel=5e-3
    )


def test_bad_data_is_named():
    teacher = Denoiser(network(RectifiedFlow(), "v"), RectifiedFlow(), predicts="v")
    with pytest.raises(ShapeError, match=r"data has shape \(31, 2\)"):
        examine(teacher, data(31))
    with pytest.raises(NonFiniteError, match=r"data\[0, 0\] is nan"):
        examine(teacher, data().index_fill(0, torch.tensor([0]), math.nan))
    with pytest.raises(InvalidArgument, match="teacher must be a Denoiser"):
        examine(truth(RectifiedFlow()), data())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_trained_model_of_diffusers(unet, kind: str):
    diffusers = pytest.importorskip("diffusers")
    from sklearn.datasets import load_digits

    digits, model = (
        torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1,
        unet(block_out_channels=(16, 16)),
    )
    schedulers = {name: diffusers.DDPMScheduler(prediction_type=name) for name in ("epsilon", "v_prediction", "sample")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _train(from_diffusers(model, schedulers[kind]), digits[:1200], steps=150)
    for name, scheduler in schedulers.items():
        found = examine(from_diffusers(model, scheduler), digits[1200:1500])
        if name == kind:
            assert found.verdict == "ok", found.advice
        else:
            assert found.verdict == "misdeclared", found.advice
            assert f"prediction_type {kind!r}" in found.advice


def _train(teacher: Denoiser, digits: Tensor, steps: int) -> None:
    teacher.train()
    optimiser = torch.optim.Adam(teacher.parameters(), 5e-3)
    for _ in range(steps):
        x0 = digits[torch.randint(len(digits), (32,))]
        t, eps = teacher.process.sample_t(32), torch.randn(32, 1, 8, 8)
        x_t = teacher.process.add_noise(x0, t, eps)
        target = teacher.process.convert(x0, x_t, t, given="x0", wanted=teacher.predicts)
        loss = (teacher.network(x_t, t) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    teacher.eval()


@pytest.mark.parametrize(
    ("scale", "shift", "said"),
    [
        (1.0, 0.6, "the data are shifted"),
        (5.49, 0.0, "the data are scaled against"),
        (0.182, 0.0, "the data are scaled against"),
        (0.5, 0.5, "the data are scaled and shifted"),
    ],
)
def test_data_in_another_unit_are_named_and_the_reading_is_not_blamed(scale: float, shift: float, said: str):
    # Images within [0, 1], and latents without their scaling factor.
    process = VariancePreserving.linear()
    law = GaussianMixture(weights=[1, 1], means=[[1.5] * 8, [-1.5] * 8], covariances=[0.2, 0.2], process=process)
    teacher = Denoiser(
        lambda x, t: process.convert(law.x0(x, t), x, t, given="x0", wanted="eps"), process, predicts="eps"
    )
    data = law.sample(500, torch.Generator().manual_seed(0)).float()
    assert examine(teacher, data).verdict == "ok"
    found = examine(teacher, scale * data + shift)
    assert found.verdict == "rescaled"
    assert said in found.advice
    assert found.unit is not None
    k, c = found.unit
    assert k * scale == pytest.approx(1.0, rel=0.1)
    assert k * shift + c == pytest.approx(0.0, abs=0.2)
