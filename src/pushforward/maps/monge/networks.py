"""The maps that are trained: small networks around a linear map, from which training starts.

    residual      T(x) = A x + b + D c + s V(z, c)                   V a free network
    structured    T(x) = x - grad h*(F(x)),  F = F_0(x) - s V        V a free network, for costs h(x - y)
    potential     the same with V = grad_z psi(z, c)                 psi a network with one output

    z = (x - m)/s;   F_0(x) = grad h(x - A x - b - D c), so that V = 0 gives T(x) = A x + b + D c.

For the elastic costs, whose grad h jumps at 0, F_0 is that gradient's argument itself: T then starts at the linear
map's displacements made sparse. An optimal map's F is a gradient, which V = grad psi makes it; where V is free,
`asymmetry` is what says how far its Jacobian J is from a gradient's:

    E_v |J v - J^T v|^2 = |J - J^T|_F^2,   v of independent signs.

symbol    meaning                                            shape       unit
x, T(x)   points and their images                            (n, d)      length
A, b      the start: Gaussian map, or identity               (d, d), (d,)
D         how the start's shift depends on the condition     (d, k)
m, s      the source's mean and root mean variance           (d,), 1     length
c         conditions, further inputs of V                    (n, k)
V         zero at the start                                  (n, d)

Source: Uscidda and Cuturi 2023 (arXiv 2302.04953), section 4, for structured maps and their penalty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from pushforward.maps.costs import Cost, Geodesic, PowerCost, SquaredEuclidean, StructuredCost
from pushforward.maps.linear import Affine

__all__ = ["Form", "Gradient", "MapNetwork", "Perceptron", "asymmetry"]

Form = Literal["residual", "structured", "potential"]


class _Layers(nn.Module):
    """SiLU layers u_k = silu(W_k u_{k-1} + b_k), and what a last layer multiplies."""

    def __init__(self, inputs: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        sizes = [inputs, *hidden]
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        # torch's own default for linear layers, from a generator of ours: uniform within 1/sqrt(inputs).
        self.weights = nn.ParameterList([_uniform(shape, shape[1], generator) for shape in shapes])
        self.biases = nn.ParameterList([_uniform(shape[:1], shape[1], generator) for shape in shapes])


class Perceptron(_Layers):
    """V(z) = W u_L: a free vector field, zero at the start.

    Args:
        dim: d.
        condition: k, the numbers that a condition has.
        hidden: Widths of the layers.
        generator: Draws the weights.
    """

    def __init__(self, dim: int, condition: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__(dim + condition, hidden, generator)
        self.last = nn.Parameter(torch.zeros(dim, hidden[-1]))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The vector field V at points (n, d), under conditions (n, k); (n, d)."""
        u = z if c is None else torch.cat([z, c], -1)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            u = nn.functional.silu(linear(u, weight, bias))
        return linear(u, self.last)


class Gradient(_Layers):
    """V(z) = grad_z psi(z, c), psi = <w, u_L>; w = 0 at the start.

    The chain rule is written out, layer by layer: its own derivative then costs one backward pass, and not one through
    a graph that differentiates a graph.

    Args:
        dim, condition, hidden, generator: As of `Perceptron`.
    """

    def __init__(self, dim: int, condition: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__(dim + condition, hidden, generator)
        self.dim = dim
        self.last = nn.Parameter(torch.zeros(hidden[-1]))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """The vector field V at points (n, d), under conditions (n, k); (n, d)."""
        u = z if c is None else torch.cat([z, c], -1)
        slopes: list[Tensor] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            before = linear(u, weight, bias)
            gate = torch.sigmoid(before)
            u = before * gate
            slopes.append(gate + u * (1.0 - gate))  # silu'
        back = self.last * slopes[-1]
        for weight, slope in zip(reversed(self.weights[1:]), reversed(slopes[:-1]), strict=True):
            back = (back @ weight) * slope
        return back @ self.weights[0][:, : self.dim]


class MapNetwork(nn.Module):
    """The map T of the module's table, in float32.

    Args:
        form: The row of the table.
        start: A and b.
        drift: D, (d, k); k = 0 for a map without conditions.
        centre: m, (d,).
        scale: s, positive.
        cost: Decides on grad h and grad h*; for the geodesic cost, images are put on the sphere.
        hidden: Widths of V's layers.
        generator: Draws V's weights.
    """

    matrix: Tensor
    shift: Tensor
    drift: Tensor
    centre: Tensor

    def __init__(  # noqa: PLR0913 - the symbols of the table
        self,
        *,
        form: Form,
        start: Affine,
        drift: Tensor,
        centre: Tensor,
        scale: float,
        cost: Cost,
        hidden: Sequence[int] = (256, 256, 256),
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        kind = Gradient if form == "potential" else Perceptron
        self.field = kind(drift.shape[0], drift.shape[1], hidden, generator)
        self.form = form
        self.cost = cost
        self.scale = scale
        buffers = {"matrix": start.matrix, "shift": start.shift, "drift": drift, "centre": centre}
        for name, value in buffers.items():
            self.register_buffer(name, value.to(torch.float32))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """The mapped points of (n, d) under conditions (n, k); (n, d)."""
        if self.form == "residual":
            images = self._linear(x, c) + self.scale * self.field(self._unit(x), c)
        elif isinstance(self.cost, SquaredEuclidean):  # the general line without its cancellation of x
            images = self._linear(x, c) + 0.5 * self.scale * self.field(self._unit(x), c)
        else:
            images = x - structured(self.cost).conjugate_gradient(self.force(x, c))
        return normalize(images, dim=-1) if isinstance(self.cost, Geodesic) else images

    def force(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """The field F of a structured map at points (n, d); (n, d)."""
        moved = x - self._linear(x, c)
        smooth = isinstance(self.cost, SquaredEuclidean | PowerCost)
        first = structured(self.cost).gradient(moved) if smooth else moved
        return first - self.scale * self.field(self._unit(x), c)

    def _linear(self, x: Tensor, c: Tensor | None) -> Tensor:
        images = linear(x, self.matrix, self.shift)
        return images if c is None else images + linear(c, self.drift)

    def _unit(self, x: Tensor) -> Tensor:
        return (x - self.centre) / self.scale


def structured(cost: Cost) -> StructuredCost:
    """`cost`, known to have the form h(x - y) with a grad h*; the estimator has checked it."""
    assert isinstance(cost, StructuredCost)
    return cost


def asymmetry(network: MapNetwork, x: Tensor, c: Tensor | None, signs: Tensor) -> Tensor:
    """The mean over points of |J v - J^T v|^2, J the Jacobian of F, for one v a point; differentiable in the weights.

    Args:
        network: A structured map.
        x, c: Points (n, d) and their conditions.
        signs: v, (n, d), entries -1 and 1.
    """

    def force(points: Tensor) -> Tensor:
        return network.force(points, c)

    along: Any = torch.func.jvp(force, (x,), (signs,))[1]
    across: Any = torch.func.vjp(force, x)[1](signs)[0]
    return (along - across).square().sum(-1).mean()


def _uniform(shape: Sequence[int], inputs: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter((2.0 * torch.rand(shape, generator=generator) - 1.0) / math.sqrt(inputs))
