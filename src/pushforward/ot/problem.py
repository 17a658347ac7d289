"""A transport problem as the solvers take it: weights, regularisation and geometry, checked and in computing precision.

    min_P  <P, C> + epsilon KL(P | a b^T) + rho_a KL(P 1 | a) + rho_b KL(P^T 1 | b)

with KL(x | y) = sum x log(x/y) - x + y. rho = inf makes a marginal exact. The dual has the optimality conditions
P 1 = a exp(-f/rho_a), P^T 1 = b exp(-g/rho_b), called *targets* below; for rho = inf they are a and b themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.ot.geometry.protocol import Geometry, Measured

__all__ = ["NOBODY", "Problem"]

# No row or column, of however many.
NOBODY = torch.zeros(1, 1, dtype=torch.bool)


@dataclass(frozen=True, kw_only=True)  # no slots: `mass` is kept once computed
class Problem:
    """A transport problem, or a batch of B problems.

    Args:
        geometry: The cost, (B, n, m).
        a, b: Weights of rows and columns, (B, n) and (B, m), at least 0; of equal mass where both marginals are exact.
        epsilon: Entropic regularisation, in units of the cost.
        rho_a, rho_b: Price of leaving each marginal, in units of the cost; inf keeps it exact.
    """

    geometry: Geometry
    a: Tensor
    b: Tensor
    epsilon: float
    rho_a: float = math.inf
    rho_b: float = math.inf

    @functools.cached_property
    def mass(self) -> Tensor:
        """The mass of each problem, (B, 1), by which errors are divided."""
        return 0.5 * (self.a.sum(-1, keepdim=True) + self.b.sum(-1, keepdim=True))

    @property
    def balanced(self) -> bool:
        """Whether both marginals are exact."""
        return self.rho_a == self.rho_b == math.inf

    def lonely(self) -> tuple[Tensor, Tensor]:
        """Rows (B, n) and columns (B, m) of a relaxed problem whose weight has no partner with weight; or `NOBODY`.

        Where their side is relaxed the optimum leaves their mass where it is, at the price rho of all of it; where it
        is exact there is no plan.
        """
        if self.balanced or not self.geometry.forbidden:
            return NOBODY, NOBODY
        allowed = self.geometry.matrix() != math.inf
        rows = (self.a > 0) & ~(allowed & (self.b > 0)[:, None]).any(-1)
        cols = (self.b > 0) & ~(allowed & (self.a > 0)[..., None]).any(-2)
        return rows, cols

    def detached(self) -> Problem:
        """The same problem, its weights without a graph."""
        return dataclasses.replace(self, a=self.a.detach(), b=self.b.detach())

    def at(self, epsilon: float) -> Problem:
        """The same problem with another regularisation."""
        return dataclasses.replace(self, epsilon=epsilon)

    def transposed(self) -> Problem:
        """The problem with rows and columns exchanged."""
        return Problem(
            geometry=self.geometry.transposed(),
            a=self.b,
            b=self.a,
            epsilon=self.epsilon,
            rho_a=self.rho_b,
            rho_b=self.rho_a,
        )

    def damping(self, side: str) -> float:
        """lambda = rho/(rho + epsilon) of the update of the rows ("a") or columns ("b")."""
        rho = self.rho_a if side == "a" else self.rho_b
        return 1.0 if rho == math.inf else rho / (rho + self.epsilon)

    def targets(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The marginals (B, n) and (B, m) that the optimality conditions require at these potentials."""
        rows = self.a if self.rho_a == math.inf else self.a * torch.exp(-f / self.rho_a)
        return rows, self.b if self.rho_b == math.inf else self.b * torch.exp(-g / self.rho_b)

    def measure(self, g: Tensor) -> Measured:
        """The measures of the plan at g, from one exact pass over the cost."""
        return self.geometry.measure(g, self.epsilon, self.a, self.b, damping=self.damping("a"))

    def marginals(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """The marginals P 1 and P^T 1 of the plan at (f, g), (B, n) and (B, m)."""
        return self.geometry.marginals(f, g, self.epsilon, self.a, self.b)

    def error(self, measured: Measured, g: Tensor) -> Tensor:
        """L1 error of both marginals over the mass, (B, 1); the rows of a measured plan are exact."""
        _, target = self.targets(measured.f, g)
        return (measured.cols - target).abs().sum(-1, keepdim=True) / self.mass
