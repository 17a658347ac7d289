"""Projections of many numbers to few: sums with random signs, and principal components with what they leave out.

    y = S x                                       2,000 sums over random groups of the numbers, with random signs
    z = (A^T (y - m), |(y - m) - A A^T (y - m)|)  k components, and the length of the rest

symbol   meaning                                  shape
x        a sample's numbers                       (D,)
S        signs, one in each column                (2000, D)
m, A     mean and principal axes of the data      (d,), (d, k)

The sums keep lengths and inner products up to a share of about 2000^(-1/2), and no D x D matrix is made. Components
alone are blind to what lies across them: hence the length.

Source: Charikar, Chen and Farach-Colton 2002 for the sums (count sketch).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.training.random import generator

__all__ = ["MOST_NUMBERS", "Components", "Sketch"]

MOST_NUMBERS = 2000
# Samples that are projected at a time.
_CHUNK = 256


class Sketch:
    """Sums of a sample's numbers with random signs, over random groups.

    Args:
        size: D, the numbers of a sample.
        seed: The seed of groups and signs.
    """

    def __init__(self, size: int, seed: int) -> None:
        random = generator(seed, "random projection")
        self._group = torch.randint(MOST_NUMBERS, (size,), generator=random)
        self._sign = 2.0 * torch.randint(2, (size,), generator=random) - 1.0

    def __call__(self, flat: Tensor) -> Tensor:
        """The sums, (n, 2000), of samples (n, D)."""
        parts = flat.split(_CHUNK)
        return torch.cat([p.new_zeros(len(p), MOST_NUMBERS).index_add_(1, self._group, p * self._sign) for p in parts])


class Components:
    """Principal components, and the length of the rest of each sample where the components leave out some.

    Args:
        numbers: The data, (N, d).
        count: The largest number of components.
    """

    def __init__(self, numbers: Tensor, count: int) -> None:
        self.mean = numbers.mean(0)
        centred = numbers - self.mean
        if len(centred) < centred.shape[1]:
            axes = torch.linalg.svd(centred, full_matrices=False).Vh.T
        else:
            axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
        self.count = min(count, axes.shape[1])
        self.axes = axes[:, : self.count].contiguous()
        self.leaves_out = self.count < numbers.shape[1]

    def __call__(self, numbers: Tensor) -> Tensor:
        """The components of samples (n, d), and the length of the rest where there is one, (n, k + 1)."""
        centred = numbers - self.mean
        found = centred @ self.axes
        if not self.leaves_out:
            return found
        return torch.cat([found, (centred - found @ self.axes.T).norm(dim=1, keepdim=True)], 1)
