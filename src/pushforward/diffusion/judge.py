"""What a generator is judged by: features of its samples beside those of the data, of which half is the measure.

    with labels      the last hidden layer of a small classifier that is trained on the data
    without          the samples' leading principal components

The Frechet distance and its relatives are taken from one half of the data. What the other half is away from it is the
floor: nobody can be asked for less.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pushforward._checks import check_finite
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.metrics import judge_samples
from pushforward.metrics.samples import class_histogram
from pushforward.training.random import generator, seeded

__all__ = ["FEWEST", "Judge"]

FEATURES = 64
FEWEST = 24
# Noise on the classifier's inputs, so that samples which are slightly off are not far off in its features.
_HIDDEN, _STEPS, _BATCH, _RATE, _NOISE = 128, 1500, 128, 1e-3, 0.1


class Judge:
    """Figures of generated samples, against data.

    Args:
        samples: The data, (N, ...), 24 or more.
        labels: Its classes from 0, (N,); None where there are none.
        seed: Of the halves and of the classifier. Figures of two seeds are not comparable.

    Raises:
        ShapeError: The labels are not one a sample.
        InvalidArgument: Too few samples.

    Example:
        >>> judge = Judge(torch.randn(400, 2, generator=torch.Generator().manual_seed(0)))
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
        self._classify: nn.Module | None = None
        self._features: Callable[[Tensor], Tensor]
        if labels is None:
            self._features, self._histogram = _components(samples), None
        else:
            labels = labels.cpu()
            with seeded(seed, "classifier"):
                body, head = _classifier(samples, labels)
            self._features, self._classify = body, head
            self._histogram = _shares(labels, int(labels.max()) + 1)
        order = torch.randperm(len(samples), generator=generator(seed, "halves"))
        features = self.features(samples[order])
        self.reference, self.other = features[: len(order) // 2], features[len(order) // 2 :]

    @torch.no_grad()
    def features(self, samples: Tensor) -> Tensor:
        """Of samples like the data, (n, d)."""
        return self._features(samples.detach().float().cpu().flatten(1))

    @torch.no_grad()
    def classes(self, samples: Tensor) -> Tensor | None:
        """What the classifier takes each sample for, (n,); None where there is none."""
        return None if self._classify is None else self._classify(self.features(samples)).argmax(-1)

    def __call__(self, generated: Tensor) -> dict[str, float]:
        """The figures of `metrics.judge_samples`, and with labels class_distance.

        Args:
            generated: Samples, (n, ...), more than 5.

        Returns:
            By name; class_distance is the total variation between the classes' shares, generated and true.
        """
        labels = self.classes(generated)
        report = judge_samples(self.reference, self.features(generated), other=self.other, labels=labels)
        figures = report.figures()
        if labels is not None and self._histogram is not None:
            found = _shares(labels, len(self._histogram))
            figures["class_distance"] = float((found - self._histogram).abs().sum() / 2)
        return figures


def _shares(labels: Tensor, classes: int) -> Tensor:
    return class_histogram(labels, classes) / len(labels)


def _components(samples: Tensor) -> Callable[[Tensor], Tensor]:
    flat = samples.flatten(1)
    mean = flat.mean(0)
    _, axes = torch.linalg.eigh((flat - mean).T @ (flat - mean))
    return lambda points: (points - mean) @ axes[:, -FEATURES:]


def _classifier(samples: Tensor, labels: Tensor) -> tuple[nn.Module, nn.Module]:
    """Up to the last hidden layer, and what is left."""
    flat = samples.flatten(1)
    body = nn.Sequential(nn.Linear(flat.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, FEATURES), nn.ReLU())
    head = nn.Linear(FEATURES, int(labels.max()) + 1)
    optimiser = torch.optim.Adam([*body.parameters(), *head.parameters()], _RATE)
    for _ in range(_STEPS):
        rows = torch.randint(len(flat), (_BATCH,))
        noised = flat[rows] + _NOISE * torch.randn(_BATCH, flat.shape[1])
        loss = nn.functional.cross_entropy(head(body(noised)), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return body.requires_grad_(False), head.requires_grad_(False)
