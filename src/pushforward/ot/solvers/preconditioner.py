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
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.linalg.blas import dtrsv
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
    """The matrix H.

    Args:
        kernel: K.
        diagonal: d, (B, m), at least 0.
        left, right: The scalings of the coupling, (B, n) and (B, m).
        singular: Whether H has the constants as its null space.
    """

    kernel: Kernel
    diagonal: Tensor
    left: Tensor
    right: Tensor
    singular: bool


def _cholesky(system: System, root: Tensor) -> Tensor:
    """Cholesky factor of D^-1/2 H D^-1/2, whose diagonal part is one; `root` is d^-1/2."""
    matrix = system.kernel.normal(system.left, system.right * root).neg_()
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(1.0)
    if system.singular:
        # Constants are the null space of H: lift them, so that the factor exists; residuals have no such component.
        null = 1 / root
        null = null / torch.linalg.vector_norm(null, dim=-1, keepdim=True)
        matrix.add_(null[:, None] * null[..., None])
    lift = 1e-13
    lower, failed = torch.linalg.cholesky_ex(matrix)
    while bool(failed.any()) and lift < 1:  # rounding can push the smallest eigenvalues below zero
        diagonal.add_(torch.where(failed > 0, lift, 0.0)[:, None])
        lift *= 100
        lower, failed = torch.linalg.cholesky_ex(matrix)
    return lower


def _inverse_product(lower: Tensor, x: Tensor) -> Tensor:
    """(L L^T)^-1 x; (B, m, m) and (B, m) to (B, m)."""
    if len(x) > 1 or x.device.type != "cpu":
        return torch.cholesky_solve(x[..., None], lower)[..., 0]
    # One right side: BLAS's own routine for that takes a quarter of the time.
    matrix = lower[0].T.numpy().T if lower[0].T.is_contiguous() else lower[0].numpy()
    half = dtrsv(matrix, x[0].numpy(), lower=1)
    return torch.from_numpy(dtrsv(matrix, half, lower=1, trans=1))[None]


class LinearSolver:
    """Solves the Newton systems of one level; a factor, once bought, stays from one system to the next.

    All is done in the coordinates D^1/2 x, D = diag(d), in which the matrix is one minus a product and Jacobi's
    preconditioner is nothing.

    Args:
        rent: Seconds that have gone into CG iterations already.
    """

    def __init__(self, *, rent: float = 0.0) -> None:
        self._factor: Tensor | None = None
        self._rent = rent
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
        diagonal = system.diagonal.clamp_min(torch.finfo(rhs.dtype).tiny)  # columns without mass have residual 0
        root = diagonal.rsqrt()
        product = system.kernel.normal_product(system.left, system.right * root)
        # |r|_1 <= |D^1/2|_2 |D^-1/2 r|_2, and the square of the last of these is what CG knows.
        goal = tolerance.square() / diagonal.sum(-1, keepdim=True)
        x, residual = torch.zeros_like(rhs), root * rhs
        cost = self._iteration_cost(system)
        rented = int(min(most, max(0.0, self.price(system) - self._rent) / cost))
        if rented > 0:
            x, residual, used, done = self._cg(product, x, residual, goal, rented)
            self._rent += used * cost
            self.iterations += used
            if done or used == most:
                return root * x
            most -= used
        self._factor = _cholesky(system, root)
        x, _, used, _ = self._cg(product, x, residual, goal, most)
        self._rent = used * self._iteration_cost(system)
        self.iterations += used
        return root * x

    def _iteration_cost(self, system: System) -> float:
        solve = 24.0 * system.diagonal.numel() * system.diagonal.shape[-1] if self.has_factor else 0.0
        return CALL + (2 * 8.0 * system.kernel.entries + solve) / BYTES

    @staticmethod
    def price(system: System) -> float:
        """Seconds in CG iterations at which a factor of this system is bought."""
        batch, m = system.right.shape
        return (
            math.inf
            if m > LARGEST_FACTOR
            else SHARE * (system.kernel.normal_seconds + batch * m**3 / (FACTOR * small_matrix_share(m)))
        )

    def _cg(
        self, product: Callable[[Tensor], Tensor], x: Tensor, residual: Tensor, goal: Tensor, most: int
    ) -> tuple[Tensor, Tensor, int, bool]:
        """CG from x, to a square of the residual of `goal`; problems of the batch that are done stand still."""
        direction, power = None, residual
        for used in range(most + 1):
            square = (residual * residual).sum(-1, keepdim=True)
            active = square > goal
            if not bool(active.any()):
                return x, residual, used, True
            if used == most:
                break
            if self._factor is None:
                z, new_power = residual, square
            else:
                z = _inverse_product(self._factor, residual)
                new_power = (residual * z).sum(-1, keepdim=True)
            direction = z if direction is None else torch.addcmul(z, new_power / power, direction)
            power = new_power
            image = direction - product(direction)
            length = power / (direction * image).sum(-1, keepdim=True)
            if active.shape[0] > 1:
                length = torch.where(active, length, 0.0)
            x = torch.addcmul(x, length, direction)
            residual = torch.addcmul(residual, length, image, value=-1)
        return x, residual, most, False
