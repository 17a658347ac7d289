"""Check whether a teacher is what it is declared to be: its answers on noised data are read in every plausible way.

    R = |s F(x_t, g(t)) - y|^2 / |y - mean y|^2,     S = the same of the best linear denoiser
    score = mean over three noise levels of log((R + c) / (S + c))

symbol   meaning                                                                          shape
x_t      known data x0 under noise, at the quantiles .1, .5, .9 of the training times     (B, ...)
F        the network, as it is
s, g     1 or -1, and what the time may have been turned into: t, 1 - t, 1000 t           (), (B,)
y        what F would have been trained on: x0, eps, v, flow, score                       (B, ...)
c        the error that a trained network makes in its own unit, whatever that is         1

The teacher's own samples say which mean and standard deviation its data had. Where the declared reading fits the data
better once they are shifted and scaled to those, beyond chance, the data are what is wrong.

The declared reading is right unless another has a lower score, beyond chance. Errors are compared in the unit of y: in
that of x0, the small error of a network that predicts eps is multiplied by sigma / alpha, and at high noise a good one
would look worse than one that is misread. The best linear denoiser, m + k (x_t - alpha m), is what mean m and variance
of the data alone would do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from pushforward._checks import check_finite, check_instance
from pushforward._typed import typed
from pushforward.diffusion.loop import each
from pushforward.diffusion.processes import Prediction, Process, VarianceExploding
from pushforward.diffusion.readings import Predicted, Reading, mend, times_of
from pushforward.diffusion.samplers import heun
from pushforward.diffusion.teachers import Denoiser, Preconditioned
from pushforward.errors import ShapeError

__all__ = ["Examination", "Level", "examine"]

QUANTILES = 0.1, 0.5, 0.9
FEWEST = 32
_C = 0.05
# A reading is better beyond chance by so much, and by so many standard errors of the difference.
_MARGIN, _ERRORS = 0.03, 4.0
# A score above this: the teacher does worse than what is known without a network.
_UNTRAINED = math.log(1.1)
# Samples of the teacher's own that its data's mean and scale are read from, and their sampler's steps.
_DRAWN, _STEPS = 256, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What was measured at one noise level; errors are mean squares over samples and coordinates, in the data's unit.

    Args:
        t: The time.
        noise: sigma / alpha.
        error: The error of the teacher's x0, read as declared.
        linear: The error of the best linear denoiser.
        constant: The error of the data's mean.
    """

    t: float
    noise: float
    error: float
    linear: float
    constant: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """What `examine` found.

    Args:
        verdict: "ok"; "misdeclared", where another reading explains the answers better; "untrained", where none does
            better than the best linear denoiser; "rescaled", where the declared one is right for data of another mean
            or scale.
        declared, best: The declared reading, and the one that explains the answers best.
        scores: The score of each reading, the best first; 0 is as good as a linear denoiser, lower is better.
        levels: The errors under the declared reading, from little noise to much.
        unit: Scale and shift that make the data like the teacher's, scale x + shift; None where none are needed.
    """

    verdict: Literal["ok", "misdeclared", "untrained", "rescaled"]
    declared: Reading
    best: Reading
    scores: dict[Reading, float]
    levels: tuple[Level, ...]
    unit: tuple[float, float] | None = None

    @property
    def advice(self) -> str:
        """A sentence with the verdict and what to change."""
        if self.unit is not None:
            return _unit_advice(self.declared, *self.unit)
        share = f"{math.exp(self.scores[self.declared]):.2f}"
        if self.verdict == "ok":
            return f"ok: it predicts {self.declared}, as declared; its error is {share} of a linear denoiser's"
        if self.verdict == "untrained":
            return (
                f"no reading explains its answers better than a linear denoiser would (the best is {self.best}): it is "
                "untrained, or was trained on other data or under another process; is the data scaled alike, images to "
                "[-1, 1]?"
            )
        change = mend(self.declared, self.best)
        return f"it was declared to predict {self.declared}, but its answers are {self.best}: {change}"


class _Noised(NamedTuple):
    """Data at one noise level; the targets a network may have been trained on, and the best linear denoiser's."""

    x_t: Tensor
    t: Tensor
    targets: Mapping[Predicted, Tensor]
    linear: Mapping[Predicted, Tensor]


class _Score(NamedTuple):
    """A reading's score, and how far each sample moves it, (B,)."""

    value: float
    influence: Tensor


@typed
@torch.no_grad()
def examine(teacher: Denoiser, data: Tensor, condition: Any = None, *, seed: int = 0) -> Examination:
    """Check whether a teacher predicts what it is declared to predict, at the times it is declared to.

    Args:
        teacher: Any denoiser with a network.
        data: What it was trained on, or the like of it, (B, ...), scaled as in training; 32 samples or more.
        condition: The condition of these samples, as the network takes it.
        seed: The seed of the noise.

    Returns:
        The verdict, the best reading and the errors at each noise level.

    Raises:
        ShapeError: Fewer samples, or no batch of floating numbers.
        NonFiniteError: Data that is not finite.

    Example:
        >>> from pushforward.diffusion import GaussianMixture, RectifiedFlow
        >>> flow = RectifiedFlow()
        >>> truth = GaussianMixture(weights=[1, 1], means=[[1.0], [-1.0]], covariances=[0.01, 0.01], process=flow)
        >>> def predicts_eps(x_t, t):
        ...     return flow.convert(truth.x0(x_t, t), x_t, t, given="x0", wanted="eps")
        >>> data = truth.sample(500, torch.Generator().manual_seed(0)).float()
        >>> found = examine(Denoiser(predicts_eps, flow, predicts="flow"), data)
        >>> found.verdict, str(found.best)
        ('misdeclared', 'eps at time t')
    """
    check_instance("teacher", teacher, Denoiser)
    if check_instance("data", data, Tensor).ndim < 2 or len(data) < FEWEST or not data.is_floating_point():
        raise ShapeError(
            f"data has shape {tuple(data.shape)}, {data.dtype}; floating (B, ...) with B >= {FEWEST} is needed"
        )
    check_finite("data", data)
    measured, declared, found = _scores(teacher, data, condition, seed)
    best = next(iter(found))
    unit = _unit(teacher, data, condition, seed, found[best])
    return Examination(
        verdict=_verdict(found[declared], found[best]) if unit is None else "rescaled",
        declared=declared,
        best=best,
        scores={reading: score.value for reading, score in found.items()},
        levels=measured,
        unit=unit,
    )


def _unit(teacher: Denoiser, data: Tensor, condition: Any, seed: int, best: _Score) -> tuple[float, float] | None:
    """Scale and shift after which the declared reading explains the answers better than any does without; else None."""
    count = min(len(data), _DRAWN)
    noise = torch.randn(data[:count].shape, generator=torch.Generator().manual_seed(seed), dtype=data.dtype)
    conditions = each(condition, lambda part: part[:count])
    try:
        own = heun(teacher, noise.to(data.device), steps=_STEPS, condition=conditions)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None  # it cannot be asked so; its readings say whatever there is to say
    mean, spread, m, s = (float(value) for value in (own.mean(), own.std(), data.mean(), data.std()))
    if not (math.isfinite(spread) and spread > 0 and s > 0):
        return None
    lengths = float(own.square().mean().sqrt() / data.square().mean().sqrt())
    found: list[tuple[float, tuple[float, float]]] = []
    for scale, shift in ((1.0, mean - m), (lengths, 0.0), (spread / s, mean - m * spread / s)):
        _, declared, scores = _scores(teacher, scale * data + shift, condition, seed, only_declared=True)
        score = scores[declared]
        error = float((best.influence - score.influence).std()) / math.sqrt(len(data))
        if score.value < min(best.value, 0.0) - max(_MARGIN, _ERRORS * error):
            found.append((score.value, (scale, shift)))
    # The simplest that does as well as any: a shift, a scale, both.
    least = min((value for value, _ in found), default=0.0)
    return next((unit for value, unit in found if value <= least + _MARGIN), None)


def _unit_advice(declared: Reading, scale: float, shift: float) -> str:
    if scale == 1:
        difference, change = "shifted", f"add {shift:.3g} to them"
    elif shift == 0:
        difference, change = "scaled", f"multiply them by {scale:.3g}"
    else:
        difference, change = "scaled and shifted", f"multiply them by {scale:.3g} and then add {shift:.3g}"
    return (
        f"it predicts {declared}, as declared, but the data are {difference} against those it was trained on: {change} "
        "(images belong into [-1, 1], latents are multiplied by their decoder's scaling_factor)"
    )


def _scores(
    teacher: Denoiser, data: Tensor, condition: Any, seed: int, *, only_declared: bool = False
) -> tuple[tuple[Level, ...], Reading, dict[Reading, _Score]]:
    """The errors at the levels, the declared reading, and the scores of all readings, the best first."""
    network, process = teacher.network, teacher.process
    scales: set[float] = set()
    if isinstance(process, VarianceExploding):
        scales = {float(data.std()), 0.5}  # what EDM measures, and what it presumes
    declared = Reading(predicts=teacher.predicts)
    if isinstance(network, Preconditioned):
        declared = Reading(predicts="F", time="log(t) / 4", sigma_data=network.sigma_data)
        scales, network = scales | {network.sigma_data}, network.network
    times = process.quantile(torch.tensor(QUANTILES, device=data.device))
    levels = [_noised(process, data, t, seed) for t in times]
    measured = () if only_declared else tuple(_level(teacher, level, condition) for level in levels)
    found: dict[Reading, _Score] = {}
    usual = "log(t) / 4" if declared.sigma_data is not None else "t"
    for words, time in times_of(process).items():
        if only_declared and words != usual:
            continue
        found |= _read(network, levels, words, time, condition)
        for scale in scales:
            found |= _read(network, [_preconditioned(one, scale) for one in levels], words, time, condition, scale)
    return measured, declared, dict(sorted(found.items(), key=lambda item: item[1].value))


def _noised(process: Process, x0: Tensor, t: Tensor, seed: int) -> _Noised:
    generator = torch.Generator(x0.device).manual_seed(seed)
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
    x_t = process.add_noise(x0, t, eps)
    alpha, sigma = process.coefficients(x_t, t)
    mean, variance = x0.mean(0), x0.var(0).mean()
    k = alpha * variance / (alpha.square() * variance + sigma.square())
    exact, linear = (
        {name: process.convert(clean, x_t, t, given="x0", wanted=name) for name in get_args(Prediction)}
        for clean in (x0, mean + k * (x_t - alpha * mean))
    )
    return _Noised(x_t, t.expand(len(x0)), exact, linear)


def _preconditioned(one: _Noised, scale: float) -> _Noised:
    """The same for EDM's F alone, which sees its input scaled: F = (x0 - c_skip x_t) / c_out."""
    sigma = float(one.t[0])
    total = math.hypot(sigma, scale)
    raw: list[dict[Predicted, Tensor]] = [
        {"F": (named["x0"] - (scale / total) ** 2 * one.x_t) * total / (sigma * scale)}
        for named in (one.targets, one.linear)
    ]
    return _Noised(one.x_t / total, one.t, *raw)


def _read(
    network: Callable[..., Tensor],
    levels: list[_Noised],
    words: str,
    time: Callable[[Tensor], Tensor],
    condition: Any,
    scale: float | None = None,
) -> dict[Reading, _Score]:
    """Scores of everything the network may predict when called at these times; none where the call fails."""
    given = () if condition is None else (condition,)
    try:
        values = [network(one.x_t, time(one.t), *given) for one in levels]
    except (RuntimeError, IndexError, ValueError, TypeError):
        return {}
    return {
        Reading(predicts=name, time=words, sign=sign, sigma_data=scale): _score(
            levels, [sign * v for v in values], name
        )
        for name, sign in itertools.product(levels[0].targets, (1, -1))
    }


def _score(levels: list[_Noised], values: list[Tensor], name: Predicted) -> _Score:
    total, influence = 0.0, torch.zeros(len(values[0]))
    for one, value in zip(levels, values, strict=True):
        target = one.targets[name]
        unit = target.var(0).mean()
        r, s = (
            (guess - target).square().flatten(1).mean(1).cpu().double() / float(unit)
            for guess in (value, one.linear[name])
        )
        total += float(((r.mean() + _C) / (s.mean() + _C)).log()) / len(levels)
        # The derivative of that logarithm with respect to a sample's weight in the means.
        influence = influence + ((r - r.mean()) / (r.mean() + _C) - (s - s.mean()) / (s.mean() + _C)) / len(levels)
    return _Score(total if math.isfinite(total) else math.inf, influence)


def _verdict(declared: _Score, best: _Score) -> Literal["ok", "misdeclared", "untrained"]:
    difference = declared.influence - best.influence
    error = float(difference.std()) / math.sqrt(len(difference)) if math.isfinite(declared.value) else 0.0
    if declared.value <= best.value + max(_MARGIN, _ERRORS * error):
        return "ok" if declared.value < _UNTRAINED else "untrained"
    # Nothing that was learned is there to be misread.
    learned = best.value < -2 * float(best.influence.std()) / math.sqrt(len(difference))
    return "misdeclared" if learned else "untrained"


def _level(teacher: Denoiser, one: _Noised, condition: Any) -> Level:
    x0 = one.targets["x0"]
    alpha, sigma = teacher.process.coefficients(x0, one.t[0])
    return Level(
        t=float(one.t[0]),
        noise=float(sigma / alpha),
        error=float((teacher(one.x_t, one.t, condition) - x0).square().mean()),
        linear=float((one.linear["x0"] - x0).square().mean()),
        constant=float(x0.var(0).mean()),
    )
