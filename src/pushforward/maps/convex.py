"""Convex functions as networks, and the points where they have given slopes.

    phi(u) = <a, z_L> + |u R|^2 / 2 + <r, u>,   z_k = softplus(z_{k-1} W_k + u S_k + b_k),   W_k, a >= 0
    w(v) = argmax_w <w, v> - phi(w) = grad phi*(v)

symbol     meaning                                                    shape
u, v, w    points, slopes, and where phi has them                     (n, d), (m, d), (m, d)
S, b, W    skips from the input, biases, non-negative weights         (d, h), (h,), (h, h)
a, R, r    last weights, root of the quadratic part, slope            (h,), (d, d), (d,)

Whatever the weights are, phi is convex. Its gradient is written out layer by layer, since the search for w and the maps
made of it need no graph.

The search for w is Barzilai and Borwein's gradient method, with a step length for each point.

Sources: Amos, Xu and Kolter 2017; Barzilai and Borwein 1988.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = ["ConvexPotential", "conjugate_points"]

# First-layer slopes at the start, over unit-variance inputs: softplus then bends within the data, not across it.
BEND = 3.0


class ConvexPotential(nn.Module):
    """phi of the module, convex as long as `project` follows every change of its weights; |u|^2 / 2 at the start.

    Args:
        dim: d.
        hidden: Widths h of the layers.
        generator: Draws the weights.
    """

    def __init__(self, dim: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        scale = BEND / math.sqrt(dim)
        self.skips = nn.ParameterList([scale * torch.randn(dim, h, generator=generator) for h in hidden])
        self.biases = nn.ParameterList([0.5 * torch.randn(h, generator=generator) for h in hidden])
        pairs = zip(hidden[:-1], hidden[1:], strict=True)
        # Non-negative of mean 1/h: each unit starts as an average of those before it.
        self.weights = nn.ParameterList([torch.rand(h, after, generator=generator) * (2.0 / h) for h, after in pairs])
        self.last = nn.Parameter(torch.zeros(hidden[-1]))
        self.root = nn.Parameter(torch.eye(dim))
        self.slope = nn.Parameter(torch.zeros(dim))

    def forward(self, u: Tensor) -> Tensor:
        """Phi at points (n, d), (n,)."""
        return softplus(self._layers(u)[-1]) @ self.last + 0.5 * (u @ self.root).square().sum(1) + u @ self.slope

    @torch.no_grad()
    def gradient(self, u: Tensor) -> Tensor:
        """grad phi at points (n, d), without a graph."""
        layers = self._layers(u)
        out = torch.addmm(self.slope, u @ self.root, self.root.T)
        back = self.last
        for k in range(len(layers) - 1, -1, -1):
            back = back * torch.sigmoid(layers[k])  # softplus'
            out.addmm_(back, self.skips[k].T)
            if k:
                back = back @ self.weights[k - 1].T
        return out

    @torch.no_grad()
    def project(self) -> None:
        """Put the weights that must not be negative back to 0 where they are."""
        for weight in (*self.weights, self.last):
            weight.clamp_(min=0.0)

    def _layers(self, u: Tensor) -> list[Tensor]:
        """What softplus is applied to, layer by layer."""
        layers = [torch.addmm(self.biases[0], u, self.skips[0])]
        for weight, skip, bias in zip(self.weights, self.skips[1:], self.biases[1:], strict=True):
            layers.append(torch.addmm(torch.addmm(bias, u, skip), softplus(layers[-1]), weight))
        return layers


@torch.no_grad()
def conjugate_points(potential: ConvexPotential, v: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Points w where the potential has the slopes v, as nearly as so many steps find them.

    Args:
        potential: phi.
        v: Slopes, (m, d).
        start: Points to start from, (m, d).
        steps: Gradients beyond the first.

    Returns:
        Of each point the best that was met, (m, d), and its squared residual |v - grad phi(w)|^2, (m,).
    """
    w, residual = start, v - potential.gradient(start)
    best, least = w, residual.square().sum(1)
    length = torch.full_like(least, 0.5)[:, None]
    for _ in range(steps):
        move = length * residual
        w = w + move
        after = v - potential.gradient(w)
        # <move, residual - after> >= 0 by convexity; 0 only where nothing moved or phi is flat.
        bend = (move * (residual - after)).sum(1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
        length = (move.square().sum(1, keepdim=True) / bend).clamp(1e-3, 1e3)
        residual = after
        square = residual.square().sum(1)
        best, least = torch.where((square < least)[:, None], w, best), torch.minimum(square, least)
    return best, least
