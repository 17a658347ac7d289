"""The digits' data sets, and the judges of what is generated like them.

data         what it is                                                                modes
digits       all 1,797, 8 x 8                                                          10
imbalanced   digit k kept with probability 2^-k                                        those that are left
stacked      three digits as the channels of one image, 20,000 drawn                   1,000
"""

from __future__ import annotations

from functools import cache
from statistics import mean

import torch
from digits_teacher import COUNT, digits
from lib import Row
from torch import Tensor

from pushforward import metrics
from pushforward.diffusion.judge import SampleMetrics
from pushforward.training.random import generator

DATA = ("digits", "imbalanced", "stacked")
STACKED = 20_000
PLACES = torch.tensor([100, 10, 1])


@cache
def data_of(name: str) -> tuple[Tensor, Tensor]:
    """Images and the label of each; of stacked digits the number that their three labels make."""
    images, labels = digits()
    if name == "imbalanced":
        kept = torch.rand(len(labels), generator=generator(0, name)) < 0.5**labels
        return images[kept], labels[kept]
    return stacked(STACKED, seed=0) if name == "stacked" else (images, labels)


def stacked(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    images, labels = digits()
    rows = torch.randint(len(images), (count, 3), generator=generator(seed, "stacked"))
    return images[rows, 0], labels[rows] @ PLACES


class StackedJudge:
    """Judges three digits at once by the classifier of single ones.

    Frechet distance and modes are of all three: its features side by side, and the number that its three classes make.
    Neighbours are sought a channel at a time, and their figures averaged. For the data are copies: most images share a
    digit, to the pixel, with another, which no sample does, so that among whole images no generator has any precision.
    """

    def __init__(self) -> None:
        images, labels = data_of("stacked")
        self.single = SampleMetrics(*digits())
        features = self.features(images)
        self.reference, self.other = features[: STACKED // 2], features[STACKED // 2 :]
        self.floor = metrics.frechet_distance(self.reference, self.other)
        self.shares = shares(labels)
        self.off = total_variation(shares(self.classes(stacked(COUNT, seed=1)[0])), self.shares)

    def features(self, drawn: Tensor) -> Tensor:
        return torch.cat([self.single.features(channel) for channel in drawn.split(1, 1)], 1)

    def classes(self, drawn: Tensor) -> Tensor:
        return torch.stack([classes_of(self.single, channel) for channel in drawn.split(1, 1)], 1) @ PLACES

    def __call__(self, drawn: Tensor) -> dict[str, float]:
        channels = [self.single(channel) for channel in drawn.split(1, 1)]
        return {name: mean(one[name] for one in channels) for name in channels[0]} | {
            "frechet": metrics.frechet_distance(self.reference, self.features(drawn)),
            "frechet_floor": self.floor,
            "class_distance": total_variation(shares(self.classes(drawn)), self.shares),
            "class_distance_floor": self.off,
        }


def classes_of(judge: SampleMetrics | StackedJudge, drawn: Tensor) -> Tensor:
    found = judge.classes(drawn)
    assert found is not None  # all judges here know labels
    return found


def shares(modes: Tensor) -> Tensor:
    """Of the stacked digits' modes, (1000,)."""
    return metrics.class_histogram(modes, 1000) / len(modes)


def total_variation(p: Tensor, q: Tensor) -> float:
    return float((p - q).abs().sum() / 2)


@cache
def judge_of(name: str) -> SampleMetrics | StackedJudge:
    return StackedJudge() if name == "stacked" else SampleMetrics(*data_of(name))


def figures(name: str, drawn: list[Tensor]) -> Row:
    judge = judge_of(name)
    _, labels = data_of(name)
    # By a classifier that has seen all the digits: one of imbalanced digits knows little of the rare ones.
    shown = classes_of(judge if name == "stacked" else judge_of("digits"), drawn[0])
    found = judge(drawn[0]) | {
        "draws": [metrics.frechet_distance(judge.reference, judge.features(one)) for one in drawn],
        "modes": int(torch.isin(labels.unique(), shown).sum()),
        "of": len(labels.unique()),
    }
    if name == "imbalanced":
        found["rare"] = float((shown >= 4).float().mean() / (labels >= 4).float().mean())
    return found
