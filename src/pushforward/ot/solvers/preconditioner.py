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

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.linalg.blas import dtrsv  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs
from scipy.sparse.linalg import splu
from torch import Tensor

from pushforward.ot.geometry.protocol import Kernel, small_matrix_share
from pushforward.ot.geometry.sparse import SparseKernel

__all__ = ["LinearSolver", "System"]

# Speeds of one core of a current CPU: only their ratios matter, and those within a factor of two. m^3 of a
# factorisation a second; bytes a second; seconds that the calls of one iteration take.
FACTOR, BYTES, CALL = 6e10, 1e10, 1.2e-4
# Systems get harder along the way, so the factor is bought when this share of its price has gone into rent.
SHARE = 0.7
# A dense factor of more unknowns than this takes 300 MB and more; a sparse one of m unknowns takes about SPARSE_FACTOR
# m^1.5 seconds (points in three dimensions), when entries of S under THIN are left out: 3 % of the mass at 20,000.
LARGEST_FACTOR, SPARSE_FACTOR, THIN = 6000, 2.3e-6, 1e-2


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


def _factorise(system: System, root: Tensor) -> Callable[[Tensor], Tensor]:
    """The product with about the inverse of D^-1/2 H D^-1/2; `root` is d^-1/2; (B, m) to (B, m)."""
    if system.right.shape[-1] > LARGEST_FACTOR:
        assert isinstance(system.kernel, SparseKernel)  # or no factor has a price
        return _sparse_factor(system.kernel, system, root)
    lower = _cholesky(system, root)
    if len(lower) > 1 or lower.device.type != "cpu":
        return lambda x: torch.cholesky_solve(x[..., None], lower)[..., 0]
    # One right side: BLAS's own routine for that takes a quarter of the time.
    matrix = lower[0].T.contiguous().numpy().T

    def product(x: Tensor) -> Tensor:
        return torch.from_numpy(dtrsv(matrix, dtrsv(matrix, x[0].numpy(), lower=1), lower=1, trans=1))[None]

    return product


def _sparse_factor(kernel: SparseKernel, system: System, root: Tensor) -> Callable[[Tensor], Tensor]:
    """The same from a sparse factorisation, of more unknowns.

    With S = diag(left)^1/2 K diag(right) D^-1/2, thinned to its large entries, the solution of
    [[1, S], [S^T, 1]] (p, x) = (0, r) has (1 - S^T S) x = r. Nothing fills in as S^T S would. Thinning keeps the matrix
    positive definite: S has the largest singular value 1, and less without some of its entries, which are not negative.
    """
    n, m = kernel.shape
    half = kernel.matrix.copy()
    scale = (system.right * root)[0].numpy()
    half.data *= np.repeat(system.left[0].sqrt().numpy(), np.diff(half.indptr)) * scale[half.indices]
    half.data[half.data < THIN] = 0.0
    half.eliminate_zeros()
    both = sparse.block_array([[sparse.eye_array(n), half], [half.T, sparse.eye_array(m)]], format="csc")
    factor = splu(both, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def product(x: Tensor) -> Tensor:
        return torch.from_numpy(factor.solve(np.concatenate([np.zeros(n), x[0].numpy()]))[n:])[None]

    return product


class LinearSolver:
    """Solves the Newton systems of one level; a factor, once bought, stays from one system to the next.

    All is done in the coordinates D^1/2 x, D = diag(d), in which the matrix is one minus a product and Jacobi's
    preconditioner is nothing.

    Args:
        rent: Seconds that have gone into CG iterations already.
    """

    def __init__(self, *, rent: float = 0.0) -> None:
        self._factor: Callable[[Tensor], Tensor] | None = None
        self._rent = rent
        self.iterations = 0

    @property
    def has_factor(self) -> bool:
        """Whether a factor has been bought."""
        return self._factor is not None

    def buy(self) -> None:
        """Factorise the next system, if its factor has a price and there is none yet."""
        if self._factor is None:
            self._rent = math.inf

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
        cost, price = self._iteration_cost(system), self.price(system)
        # What has no price is never bought, whatever was paid: the kernel may not be the one that the rent was for.
        rented = int(min(most, max(0.0, price - self._rent) / cost)) if price < math.inf else most
        if rented > 0:
            x, residual, used, done = self._cg(product, x, residual, goal, rented)
            self._rent += used * cost
            self.iterations += used
            if done or used == most:
                return root * x
            most -= used
        self._factor = _factorise(system, root)
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
        if m > LARGEST_FACTOR:
            return SPARSE_FACTOR * m**1.5 if isinstance(system.kernel, SparseKernel) else math.inf
        return SHARE * (system.kernel.normal_seconds + batch * m**3 / (FACTOR * small_matrix_share(m)))

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
                z = self._factor(residual)
                new_power = (residual * z).sum(-1, keepdim=True)
            direction = z if direction is None else torch.addcmul(z, new_power / power, direction)
            power = new_power
            image = direction - product(direction)
            curvature = (direction * image).sum(-1, keepdim=True)
            # A plan in pieces makes H singular to rounding: across the pieces there is nothing to divide by.
            seen = curvature > torch.finfo(x.dtype).eps * (direction * direction).sum(-1, keepdim=True)
            if not bool((active & seen).any()):
                return x, residual, used, True
            length = power / curvature
            if active.shape[0] > 1:
                length = torch.where(active & seen, length, 0.0)
            x = torch.addcmul(x, length, direction)
            residual = torch.addcmul(residual, length, image, value=-1)
        return x, residual, most, False
