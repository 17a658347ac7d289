"""Linear systems of the semi-dual: conjugate gradients, and the factorisation that helps where they are slow.

    H x = r,    H = diag(d) - diag(right) K^T diag(left) K diag(right)      (`semidual.py`)

Jacobi-preconditioned CG needs few products while the plan is well mixed, and thousands once it has nearly come apart
into pieces (small epsilon, high dimension). There a Cholesky factor of H, used as a preconditioner and kept over
several Newton steps, takes a handful. Which is cheaper is not known beforehand, so the choice is the ski rental's:
rent CG iterations until they have cost as much as a factor would, then buy one. That is never worse than twice the
better choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.ot.plan import Kernel, small_matrix_share

__all__ = ["LinearSolver", "System"]

# Speeds of one core of a current CPU: only their ratios matter, and those within a factor of two. m^3 of a
# factorisation a second; bytes a second; seconds that the calls of one iteration take.
FACTOR, BYTES, CALL = 6e10, 1e10, 1.2e-4
# Systems get harder along the way, so the factor is bought when this share of its price has gone into rent.
SHARE = 0.7
# A factor of more unknowns than this takes longer than any CG run it replaces, and 1 GB and more.
LARGEST_FACTOR = 6000


@dataclass(frozen=True, slots=True)
class System:
    """The matrix H, as an operator.

    Args:
        kernel: K.
        diagonal: d, (B, m), positive.
        left, right: The scalings of the coupling, (B, n) and (B, m).
        singular: Whether H has the constants as its null space.
    """

    kernel: Kernel
    diagonal: Tensor
    left: Tensor
    right: Tensor
    singular: bool

    def __call__(self, x: Tensor) -> Tensor:
        """H x."""
        return self.diagonal * x - self.right * self.kernel.cols(self.left * self.kernel.rows(self.right * x))


class _Factor:
    """Cholesky factor of S^-1/2 H S^-1/2, S = diag(H's diagonal part)."""

    def __init__(self, system: System) -> None:
        self._root = system.diagonal.sqrt()
        matrix = system.kernel.normal(system.left, system.right).neg_()
        matrix.div_(self._root[:, None]).div_(self._root[..., None])
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        diagonal.add_(1.0)
        if system.singular:
            # Constants are the null space of H: lift them, so that the factor exists; residuals have no such component.
            null = self._root / torch.linalg.vector_norm(self._root, dim=-1, keepdim=True)
            matrix.add_(null[:, None] * null[..., None])
        lift = 1e-13
        self._lower, failed = torch.linalg.cholesky_ex(matrix)
        while bool(failed.any()) and lift < 1:  # rounding can push the smallest eigenvalues below zero
            diagonal.add_(torch.where(failed > 0, lift, 0.0)[:, None])
            lift *= 100
            self._lower, failed = torch.linalg.cholesky_ex(matrix)

    def __call__(self, residual: Tensor) -> Tensor:
        return torch.cholesky_solve((residual / self._root)[..., None], self._lower)[..., 0] / self._root


class LinearSolver:
    """Solves the Newton systems of one level; a factor, once bought, stays from one system to the next."""

    def __init__(self) -> None:
        self._factor: _Factor | None = None
        self._rent = 0.0
        self.iterations = 0

    @property
    def has_factor(self) -> bool:
        """Whether a factor has been bought."""
        return self._factor is not None

    def solve(self, system: System, rhs: Tensor, tolerance: Tensor, most: int = 500) -> Tensor:
        """The x with |rhs - H x|_1 <= tolerance, or the best after `most` iterations.

        Any CG iterate is an ascent direction.

        Args:
            system: H.
            rhs: (B, m).
            tolerance: L1 residual to reach, (B, 1).
            most: Iterations at which to settle for what there is.
        """
        x, residual = torch.zeros_like(rhs), rhs
        for _ in range(3):  # rented; with a bought factor; with a fresher one
            left = self._price(system) - self._rent
            allowed = max(0, math.ceil(min(most, left / self._iteration_cost(system))))
            x, residual, used, done = self._cg(system, x, residual, tolerance, allowed)
            self._rent += used * self._iteration_cost(system)
            self.iterations += used
            most -= used
            if done or most <= 0:
                break
            self._factor, self._rent = _Factor(system), 0.0
        return x

    def _iteration_cost(self, system: System) -> float:
        solve = 24.0 * system.diagonal.numel() * system.diagonal.shape[-1] if self.has_factor else 0.0
        return CALL + (2 * 8.0 * system.kernel.entries + solve) / BYTES

    @staticmethod
    def _price(system: System) -> float:
        batch, m = system.right.shape
        return (
            math.inf
            if m > LARGEST_FACTOR
            else SHARE * (system.kernel.normal_seconds + batch * m**3 / (FACTOR * small_matrix_share(m)))
        )

    def _cg(
        self, system: System, x: Tensor, residual: Tensor, tolerance: Tensor, most: int
    ) -> tuple[Tensor, Tensor, int, bool]:
        """CG from x; problems of the batch that are done stand still."""
        direction, power = None, residual
        for used in range(most + 1):
            active = residual.abs().sum(-1, keepdim=True) > tolerance
            if not bool(active.any()):
                return x, residual, used, True
            if used == most:
                break
            z = residual / system.diagonal if self._factor is None else self._factor(residual)
            new_power = (residual * z).sum(-1, keepdim=True)
            direction = z if direction is None else z + (new_power / power) * direction
            power = new_power
            image = system(direction)
            length = power / (direction * image).sum(-1, keepdim=True)
            if len(active) > 1:
                length = torch.where(active, length, 0.0)
            x = x + length * direction
            residual = residual - length * image
        return x, residual, most, False
