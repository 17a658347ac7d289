"""A small network, a mixture, and a teacher of its shape, for tests of the distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.diffusion import Denoiser, GaussianMixture, VarianceExploding, teachers

PROCESS = VarianceExploding(sigma_min=0.01, sigma_max=20.0)


class Net(nn.Module):
    """A perceptron of points in the plane, their noise, and a label if asked."""

    feature_taps = ("middle",)

    def __init__(self, width: int = 16, labels: int = 0) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.middle = nn.Sequential(nn.SiLU(), nn.Linear(width, width))
        self.last = nn.Sequential(nn.SiLU(), nn.Linear(width, 2))
        self.labels = nn.Embedding(labels, width) if labels else None

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        hidden = self.first(torch.cat([x, t.to(x)[:, None]], -1))
        if self.labels is not None and label is not None:
            hidden = hidden + self.labels(label)
        return self.last(self.middle(hidden))


def mixture() -> GaussianMixture:
    return GaussianMixture(
        weights=[0.7, 0.3], means=[[0.6, 0.1], [-0.5, -0.3]], covariances=[0.02, 0.05], process=PROCESS
    )


def network_teacher(seed: int = 0, labels: int = 0) -> Denoiser:
    torch.manual_seed(seed)
    return teachers.from_edm(Net(labels=labels), PROCESS)


def samples(count: int, seed: int = 0) -> Tensor:
    return mixture().sample(count, torch.Generator().manual_seed(seed)).float()
