"""Metrics of a generator: features of its samples are compared with features of one half of the data.

The Frechet distance and its relatives are taken from that half. The distance of the other half from it is the floor:
no generator can be expected below it. The distance of noise with the data's mean and spread at every pixel is the
ceiling: a generator that is no nearer has learned nothing. Where floor and ceiling are equal within their errors, the
data are too few, or too much like noise, for any metric to mean something.

    with labels      the last hidden layer of a small classifier that is trained on the data, 64 numbers
    without          the leading principal components of the samples, and the length of what they leave out

A covariance of k features takes some ten rows for each: of 60 images in 64 components it is of rank 59, and noise is as
near as data. So there are as many components as a tenth of the reference's rows, 64 at most, and the classifier's
features are cut to their components likewise where the rows are fewer than two for each. Samples of over 2,000 numbers
are projected to so many first (`projections`). The features' name tells all that, and belongs beside every metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from pushforward._checks import check_finite
from pushforward.diffusion.projections import MOST_NUMBERS, Components, Sketch
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.metrics import frechet_distance, judge_samples
from pushforward.metrics.samples import class_histogram
from pushforward.training.random import generator, seeded

__all__ = ["FEWEST", "SampleMetrics", "comparison", "remarks", "with_error", "written"]

FEATURES = 64
FEWEST = 24
# Rows of the reference for each component; with fewer than these for each, a classifier's features are cut, too.
_ROWS, _FEWEST_ROWS = 10, 2
# Noise on the classifier's inputs, so that samples which are slightly off are not far off in its features.
_HIDDEN, _STEPS, _BATCH, _RATE, _NOISE = 128, 1500, 128, 1e-3, 0.1
# Samples of noise that are compared with the data, and how many of them are in memory at a time.
_NOISES, _CHUNK = 1000, 100
# Standard errors beyond which a difference is not chance.
_ERRORS = 3.0


class SampleMetrics:
    """Metrics of generated samples, against data.

    Args:
        samples: The data, (N, ...), 24 or more.
        labels: Its classes from 0, (N,); None where there are none.
        seed: The seed of the halves and of the classifier. Metrics of two seeds are not comparable.

    Raises:
        ShapeError: The labels are not one a sample.
        InvalidArgument: Too few samples.

    Example:
        >>> judge = SampleMetrics(torch.randn(400, 2, generator=torch.Generator().manual_seed(0)))
        >>> figures = judge(torch.randn(400, 2, generator=torch.Generator().manual_seed(1)))
        >>> figures["frechet"] < 0.1, figures["recall"] > 0.8
        (True, True)
    """

    def __init__(self, samples: Tensor, labels: Tensor | None = None, *, seed: int = 0) -> None:
        if len(samples) < FEWEST:
            raise InvalidArgument(f"samples are {len(samples)}; {FEWEST} are the least to be judged by")
        if labels is not None and len(labels) != len(samples):
            raise ShapeError(f"labels are {len(labels)} but there are {len(samples)} samples; one each is needed")
        check_finite("samples", samples)
        samples = samples.detach().float().cpu()
        labels = None if labels is None else labels.cpu()
        self._features = _Features(samples, labels, seed=seed)
        self._histogram = None if labels is None else _shares(labels, int(labels.max()) + 1)
        self._seed, self._pixels = seed, torch.std_mean(samples, 0)
        order = torch.randperm(len(samples), generator=generator(seed, "halves"))
        features = self.features(samples[order])
        self.reference, self.other = features[: len(order) // 2], features[len(order) // 2 :]

    @property
    def name(self) -> str:
        """The description of the features that the metrics are computed in."""
        return self._features.name

    def features(self, samples: Tensor) -> Tensor:
        """The features, (n, d), of samples (n, ...) shaped like the data."""
        return self._features(samples)

    def classes(self, samples: Tensor) -> Tensor | None:
        """The class that the classifier assigns to each sample, (n,); None where the data have no labels."""
        return self._features.classes(samples)

    @cached_property
    def noise(self) -> float:
        """Frechet distance of independent Gaussian pixels, each with the data's mean and standard deviation."""
        (spread, mean), random = self._pixels, generator(self._seed, "noise")
        drawn = [
            self.features(mean + spread * torch.randn(_CHUNK, *mean.shape, generator=random))
            for _ in range(0, _NOISES, _CHUNK)
        ]
        return frechet_distance(self.reference, torch.cat(drawn))

    def __call__(self, generated: Tensor) -> dict[str, float]:
        """The metrics of generated samples: `metrics.judge_samples`', frechet_noise, and with labels class_distance.

        Args:
            generated: Samples, (n, ...), more than 5.

        Returns:
            The metrics by name. frechet_noise is the distance of noise, see `noise`; class_distance is the total
            variation between the shares of the classes among generated and true samples.
        """
        labels = self.classes(generated)
        report = judge_samples(self.reference, self.features(generated), other=self.other, labels=labels)
        figures = report.figures() | {"frechet_noise": self.noise}
        if labels is not None and self._histogram is not None:
            found = _shares(labels, len(self._histogram))
            figures["class_distance"] = float((found - self._histogram).abs().sum() / 2)
        return figures


def remarks(figures: Mapping[str, float], *, name: str) -> list[str]:
    """The warnings that belong beside a generator's metrics: they compare nothing, or it has learned nothing.

    Args:
        figures: The metrics, as `SampleMetrics` returns them.
        name: The generator's name in the sentences.

    Returns:
        Sentences; none where there is nothing to warn of.
    """
    distance, error, noise = figures["frechet"], figures["frechet_error"], figures["frechet_noise"]
    floor, floor_error = figures["frechet_floor"], figures["floor_error"]
    far = f"Frechet distance {distance:.3g}, noise with the data's mean and spread at every pixel {noise:.3g}"
    if distance > noise + _ERRORS * error:
        return [f"{name} is worse than noise: {far}"]
    if noise < max(2 * floor, floor + _ERRORS * floor_error):
        return [
            f"the data do not differ from noise: the Frechet distance to one half of them is {noise:.3g} for noise and "
            f"{floor:.3g} for the other half; the metrics of {name} mean nothing. Give more images"
        ]
    if distance > noise - _ERRORS * error:
        return [f"{name} is no better than noise: {far}"]
    if distance > noise / 2:
        return [f"{name} is nearer to noise than to the data: {far}"]
    return []


def comparison(student: Mapping[str, float], teacher: Mapping[str, float]) -> list[str]:
    """A warning that student and teacher do not differ, where their Frechet distances differ by less than the errors.

    Args:
        student, teacher: The metrics of each, as `SampleMetrics` returns them.

    Returns:
        One sentence, or none.
    """
    difference = abs(student["frechet"] - teacher["frechet"])
    if difference > 2 * math.hypot(student["frechet_error"], teacher["frechet_error"]):
        return []
    ours, theirs = (with_error(metrics["frechet"], metrics["frechet_error"]) for metrics in (student, teacher))
    return [f"Frechet distances of {ours} (student) and {theirs} (teacher) do not differ on so few images"]


def written(figures: Mapping[str, float], *, rows: int) -> dict[str, str]:
    """Metrics as text, with the digits that the number of samples can carry, and standard errors beside their values.

    Args:
        figures: The metrics, as `SampleMetrics` returns them, and others.
        rows: The number of samples among which nearest neighbours were searched.

    Returns:
        The texts by the metrics' names.

    Example:
        >>> written({"frechet": 45.853, "frechet_error": 3.21, "recall": 0.91667}, rows=60)
        {'frechet': '45.9 ± 3.2', 'recall': '0.92'}
    """
    # A share of n rows has a standard error of 1 / (2 sqrt(n)) at most.
    decimals = max(1, math.ceil(math.log10(2 * math.sqrt(rows))))
    errors = {"frechet": figures.get("frechet_error"), "frechet_floor": figures.get("floor_error")}
    text: dict[str, str] = {}
    for figure, value in figures.items():
        if figure in ("frechet_error", "floor_error"):
            continue
        error = errors.get(figure)
        if error is not None:
            text[figure] = with_error(value, error)
        elif figure in ("precision", "recall", "density", "coverage", "class_distance"):
            text[figure] = f"{value:.{decimals}f}"
        else:
            text[figure] = f"{value:.3g}" if figure == "frechet_noise" else f"{value:.4g}"
    return text


def with_error(value: float, error: float) -> str:
    """A number with its standard error, both cut at the error's second digit.

    Example:
        >>> with_error(45.853, 3.21), with_error(1234.5, 250.0), with_error(0.71, 0.0123)
        ('45.9 ± 3.2', '1230 ± 250', '0.710 ± 0.012')
    """
    if not (math.isfinite(error) and error > 0):
        return f"{value:.3g}"
    place = 1 - math.floor(math.log10(error))
    if place >= 0:
        return f"{value:.{place}f} ± {error:.{place}f}"
    return f"{round(value, place):.0f} ± {round(error, place):.0f}"


def _shares(labels: Tensor, classes: int) -> Tensor:
    return class_histogram(labels, classes) / len(labels)


class _Features:
    """Features that are fitted to data and computed from samples.

    Args:
        samples: The data, (N, ...), float32 on the CPU.
        labels: Its classes from 0, (N,), or None.
        seed: The seed of the classifier and of the random signs.
    """

    def __init__(self, samples: Tensor, labels: Tensor | None, *, seed: int = 0) -> None:
        size = samples[0].numel()
        self._sketch = None if size <= MOST_NUMBERS else Sketch(size, seed)
        pixels = "pixels" if self._sketch is None else f"{size:,} pixels' {MOST_NUMBERS:,} random projections"
        rows, numbers = len(samples) // 2, self._numbers(samples)
        few = rows < _FEWEST_ROWS * FEATURES
        self._body: nn.Module | None = None
        self._head: nn.Module | None = None
        self._components: Components | None = None
        if labels is not None:
            with seeded(seed, "classifier"):
                self._body, self._head = _classifier(numbers, labels)
            self.name = f"{FEATURES} features of a small classifier of the data"
            pixels = f"a small classifier's {FEATURES} features"
            numbers = self._layer(numbers)
        if labels is None or few:
            self._components = Components(numbers, min(FEATURES, max(1, rows // _ROWS)))
            left = " and the length of what they leave out" if self._components.leaves_out else ""
            self.name = f"{self._components.count} principal components of {_the(pixels)}{left}"
        elif self._sketch is not None:
            self.name += f", which sees {pixels}"

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Tensor:
        """Features of samples like the data, (n, d)."""
        found = self._layer(self._numbers(samples.detach().float().cpu()))
        return found if self._components is None else self._components(found)

    @torch.no_grad()
    def classes(self, samples: Tensor) -> Tensor | None:
        """The class that the classifier assigns to each sample, (n,); None without labels."""
        if self._head is None:
            return None
        return self._head(self._layer(self._numbers(samples.detach().float().cpu()))).argmax(-1)

    def _numbers(self, samples: Tensor) -> Tensor:
        flat = samples.flatten(1)
        return flat if self._sketch is None else self._sketch(flat)

    def _layer(self, numbers: Tensor) -> Tensor:
        return numbers if self._body is None else self._body(numbers)


def _the(what: str) -> str:
    return what if what.startswith("a ") else f"the {what}"


def _classifier(numbers: Tensor, labels: Tensor) -> tuple[nn.Module, nn.Module]:
    """A trained classifier in two parts: the layers up to the last hidden one, and the rest."""
    body = nn.Sequential(nn.Linear(numbers.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, FEATURES), nn.ReLU())
    head = nn.Linear(FEATURES, int(labels.max()) + 1)
    optimiser = torch.optim.Adam([*body.parameters(), *head.parameters()], _RATE)
    for _ in range(_STEPS):
        rows = torch.randint(len(numbers), (_BATCH,))
        noised = numbers[rows] + _NOISE * torch.randn(_BATCH, numbers.shape[1])
        loss = nn.functional.cross_entropy(head(body(noised)), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return body.requires_grad_(False), head.requires_grad_(False)
