"""The concave function that the solvers climb: the dual with the row potentials eliminated.

With a kernel K (a plan built at f0, g0) and scalings u, v the plan is P = diag(u) K diag(v), at the potentials
f = f0 + epsilon log u - s, g = g0 + epsilon log v + s. The row update is exact for every v,

    u = (a0 / K v)^lambda e^(s/(rho_a + epsilon)),     a0 = a exp(-f0/rho_a),  lambda = rho_a/(rho_a + epsilon),

which leaves a concave function of g alone with gradient t - c, where c = P^T 1 and t = b exp(-g/rho_b), and, in units
of 1/epsilon, minus its Hessian

    H = diag(c + (epsilon/rho_b) t) - lambda P^T diag(1/P1) P.

The shift s moves no pair against another and is almost free where rho is large: H has an eigenvalue of about
2 epsilon/rho there, which no iteration on g finds. But along s the masses are known, sum c ~ e^(s/(rho_a + epsilon))
and sum t ~ e^(-s/rho_b), so that the best s makes them equal in closed form, and every point here is at its best s
(translation invariance: Sejourne, Vialard, Peyre 2022, arXiv 2201.00730). For exact marginals s = 0.

One evaluation costs two products with K, a Hessian product two more. No exponential of an n x m array is taken here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from pushforward.ot.geometry.protocol import Kernel
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem

__all__ = ["Point", "SemiDual"]


@dataclass(frozen=True, slots=True)
class Point:
    """A plan during the iteration: its scalings, column sums c, their target, and the residual.

    Args:
        v, u: Column and row scalings, (B, m) and (B, n).
        shift: s over epsilon, (B, 1).
        rows, cols: P 1 and c, (B, n) and (B, m).
        target: t, (B, m).
        residual: The gradient t - c, (B, m).
        error: Its L1 norm over the mass, (B, 1).
    """

    v: Tensor
    u: Tensor
    shift: Tensor
    rows: Tensor
    cols: Tensor
    target: Tensor
    residual: Tensor
    error: Tensor


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
        self._slope_a, self._slope_b = problem.epsilon / problem.rho_a, problem.epsilon / problem.rho_b
        # What a shift of epsilon does to log sum c; 0 where the rows are exact.
        self._growth = problem.epsilon / (problem.rho_a + problem.epsilon)
        self._mass, self._unshifted = problem.mass, torch.zeros_like(problem.mass)
        self._tiny = torch.finfo(f.dtype).tiny  # what empty rows are divided by

    def start(self, cols: Tensor | None = None) -> Point:
        """The point at the kernel's own potentials; `cols` are its column sums, if known and its rows are exact."""
        v = torch.ones_like(self.target_b)
        return self.at(v) if cols is None else self._point(v, torch.ones_like(self.target_a), self.target_a, cols)

    def row_scaling(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The u that makes the rows exact at v and s = 0, and the rows P 1 that it makes; (B, n) each."""
        self.recorder.products += 1
        masses = self.kernel.rows(v)
        u = (self.target_a / masses).nan_to_num_(nan=1.0, posinf=1.0)  # a row of weight zero has no mass to scale
        if self._slope_a == 0:
            return u, self.target_a
        u = u**self._damping_a
        return u, u * masses

    def at(self, v: Tensor, scaled: tuple[Tensor, Tensor] | None = None) -> Point:
        """The point at column scalings v; `scaled` is `row_scaling(v)` where that is known."""
        u, rows = self.row_scaling(v) if scaled is None else scaled
        self.recorder.products += 1
        return self._point(v, u, rows, v * self.kernel.cols(u))

    def _point(self, v: Tensor, u: Tensor, rows: Tensor, cols: Tensor) -> Point:
        target = self.target_b if self._slope_b == 0 else self.target_b * v**-self._slope_b
        shift = self._unshifted
        if not self.problem.balanced:
            wanted, there = target.sum(-1, keepdim=True), cols.sum(-1, keepdim=True)
            apart = torch.where((wanted > 0) & (there > 0), torch.log(wanted / there), 0.0)
            shift = apart / (self._growth + self._slope_b)
            more = torch.exp(self._growth * shift)
            u, rows, cols = more * u, more * rows, more * cols
            target = target * torch.exp(-self._slope_b * shift)
        residual = target - cols
        error = vector_norm(residual, 1, dim=-1, keepdim=True) / self._mass
        return Point(v, u, shift, rows, cols, target, residual, error)

    def sinkhorn(self, point: Point) -> Point:
        """One Sinkhorn step: the columns made exact, then the rows."""
        return self.at(point.v * self._col_factor(point))

    def _col_factor(self, point: Point) -> Tensor:
        ratio = torch.where((point.cols > 0) & (point.target > 0), point.target / point.cols, 1.0)
        return ratio if self._slope_b == 0 else ratio**self._damping_b

    def potentials(self, point: Point, *, exact_cols: bool = False) -> tuple[Tensor, Tensor]:
        """(f, g) of a point; with `exact_cols`, g after one more column update."""
        v = point.v * self._col_factor(point) if exact_cols else point.v
        epsilon = self.problem.epsilon
        return self.f + epsilon * (point.u.log() - point.shift), self.g + epsilon * (v.log() + point.shift)

    def gain(self, old: Point, log_v: Tensor, u: Tensor) -> Tensor:
        """How far the dual rises, in units of epsilon, when log v grows by `log_v` at the same shift; (B, 1).

        `u` is `row_scaling` of the new v.
        """
        log_u = torch.log(u / old.u)
        if self._slope_a != 0:
            log_u = torch.expm1(-self._slope_a * (log_u + self._growth * old.shift)) * -(1 / self._slope_a + 1)
        cols = log_v if self._slope_b == 0 else torch.expm1(-self._slope_b * log_v) / -self._slope_b
        return (old.rows * log_u).sum(-1, keepdim=True) + (old.target * cols).sum(-1, keepdim=True)

    def diagonal(self, point: Point) -> Tensor:
        """The diagonal part of H, (B, m)."""
        return point.cols if self._slope_b == 0 else point.cols + self._slope_b * point.target

    def coupling(self, point: Point) -> tuple[Tensor, Tensor]:
        """(left, right) with H = diagonal - diag(right) K^T diag(left) K diag(right)."""
        left = point.u.square() / point.rows.clamp_min(self._tiny)
        return left if self._slope_a == 0 else self._damping_a * left, point.v

    def farthest(self, point: Point) -> tuple[float, float]:
        """The distance that the scalings have moved: the largest |log u| or |log v|, and the largest log u + log v."""
        extremes = [float(x) for pair in (point.u.aminmax(), point.v.aminmax()) for x in pair]
        if not min(extremes) > 0:  # a scaling that underflowed, or is no number
            return math.inf, math.inf
        least_u, most_u, least_v, most_v = map(math.log, extremes)
        return max(-least_u, most_u, -least_v, most_v), most_u + most_v
