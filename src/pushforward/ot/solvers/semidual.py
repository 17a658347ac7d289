"""The concave function that the solvers climb: the dual with the row potentials eliminated.

With a kernel K (a plan built at f0, g0) and scalings u = exp((f - f0)/epsilon), v = exp((g - g0)/epsilon), P =
diag(u) K diag(v), the row update is exact for every v,

    u = (a0 / K v)^lambda,     a0 = a exp(-f0/rho_a),  lambda = rho_a/(rho_a + epsilon),

which leaves a concave function of g alone with gradient t - c, where c = P^T 1 and t = b exp(-g/rho_b), and, in units
of 1/epsilon, minus its Hessian

    H = diag(c + (epsilon/rho_b) t) - lambda P^T diag(1/P1) P.

One evaluation costs two products with K, a Hessian product two more. No exponential of an n x m array is taken here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.ot.history import Recorder
from pushforward.ot.plan import Kernel
from pushforward.ot.problem import Problem

__all__ = ["Point", "SemiDual"]


@dataclass(frozen=True, slots=True)
class Point:
    """A plan on the way: its scalings, column sums c, and what c should be.

    Args:
        v, u: Column and row scalings, (B, m) and (B, n).
        cols: c, (B, m).
        target: t, (B, m).
    """

    v: Tensor
    u: Tensor
    cols: Tensor
    target: Tensor

    @property
    def residual(self) -> Tensor:
        """The gradient t - c, (B, m)."""
        return self.target - self.cols


class SemiDual:
    """The semi-dual around one kernel.

    Args:
        problem: Weights and regularisation.
        kernel: K.
        f, g: The potentials at which K was built, (B, n) and (B, m).
        recorder: Counts the products.
    """

    def __init__(self, problem: Problem, kernel: Kernel, f: Tensor, g: Tensor, recorder: Recorder) -> None:
        self.problem, self.kernel, self.f, self.g, self.recorder = problem, kernel, f, g, recorder
        self.target_a, self.target_b = problem.targets(f, g)
        self._damping_a, self._damping_b = problem.damping("a"), problem.damping("b")
        self._slope_b = problem.epsilon / problem.rho_b

    def start(self, cols: Tensor | None = None) -> Point:
        """The point at the kernel's own potentials; `cols` are its column sums, if known and its rows are exact."""
        v = torch.ones_like(self.target_b)
        return self.at(v) if cols is None else Point(v, torch.ones_like(self.target_a), cols, self.target_b)

    def row_scaling(self, v: Tensor) -> Tensor:
        """The u that makes the rows exact at v, (B, n)."""
        self.recorder.products += 1
        masses = self.kernel.rows(v)
        u = torch.where(masses > 0, self.target_a / masses, 1.0)  # a row of weight zero has no mass to scale
        return u if self._damping_a == 1 else u**self._damping_a

    def at(self, v: Tensor, u: Tensor | None = None) -> Point:
        """The point at column scalings v; `u` is its row scaling where that is known."""
        u = self.row_scaling(v) if u is None else u
        self.recorder.products += 1
        target = self.target_b if self._slope_b == 0 else self.target_b * v**-self._slope_b
        return Point(v, u, v * self.kernel.cols(u), target)

    def sinkhorn(self, point: Point) -> Point:
        """One Sinkhorn step: the columns made exact, then the rows."""
        return self.at(point.v * self._col_factor(point))

    def _col_factor(self, point: Point) -> Tensor:
        ratio = torch.where((point.cols > 0) & (point.target > 0), point.target / point.cols, 1.0)
        return ratio if self._damping_b == 1 else ratio**self._damping_b

    def potentials(self, point: Point, *, exact_cols: bool = False) -> tuple[Tensor, Tensor]:
        """(f, g) of a point; with `exact_cols`, g after one more column update."""
        v = point.v * self._col_factor(point) if exact_cols else point.v
        return self.f + self.problem.epsilon * point.u.log(), self.g + self.problem.epsilon * v.log()

    def gain(self, old: Point, log_v: Tensor, u: Tensor) -> Tensor:
        """How far the dual rises, in units of epsilon, when log v grows by `log_v` and u follows; (B, 1)."""
        p, log_u = self.problem, torch.log(u / old.u)
        if self._damping_a == 1:
            rows = (self.target_a * log_u).sum(-1, keepdim=True)
        else:
            masses = self.target_a * old.u ** (-p.epsilon / p.rho_a)
            rows = -(p.rho_a / p.epsilon + 1) * (masses * torch.expm1(-p.epsilon / p.rho_a * log_u)).sum(
                -1, keepdim=True
            )
        cols = log_v if self._slope_b == 0 else torch.expm1(-self._slope_b * log_v) / -self._slope_b
        return rows + (old.target * cols).sum(-1, keepdim=True)

    def diagonal(self, point: Point) -> Tensor:
        """The part of H that is diagonal, (B, m); one where a column has no mass, so that it can be divided by."""
        diagonal = point.cols + self._slope_b * point.target
        return torch.where(diagonal > 0, diagonal, 1.0)

    def coupling(self, point: Point) -> tuple[Tensor, Tensor]:
        """(left, right) with H = diagonal - diag(right) K^T diag(left) K diag(right)."""
        masses = self.target_a if self._damping_a == 1 else self.target_a * point.u ** (-self._slope_a)
        left = torch.where(masses > 0, self._damping_a * point.u**2 / masses, 0.0)
        return left, point.v

    @property
    def _slope_a(self) -> float:
        return self.problem.epsilon / self.problem.rho_a
