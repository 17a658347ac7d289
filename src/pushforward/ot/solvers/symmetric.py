"""Transport of a measure to itself: one potential, by averaged steps of its own update.

With C symmetric and b = a the optimal potentials are equal, f = g, and solve

    f = T f,     (T f)_i = -epsilon log sum_j a_j exp((f_j - C_ij)/epsilon).

The derivative of T at the solution is -S, S_ij = P_ij/a_i, so that f <- f + w (T f - f) multiplies the component of an
eigenvalue p of S by 1 - w (1 + p). Where the kernel exp(-C/epsilon) is positive definite (the distance of `euclidean`
and `manhattan` costs, its square), p lies in [0, 1] whatever epsilon: I + S has condition 2 at most, w = 2/3 alone
would shrink every component by 1/3, and the secant's w, one number from two successive defects, takes a dozen products
to nine digits. Sinkhorn's own step multiplies by p^2, and takes the more of them the smaller epsilon is. Kernels that
are not positive definite may have p near -1: there the steps run out, and the general solver is needed.

symbol    meaning                                                    shape     unit
f         potential around which the kernel is built                 (B, n)    cost
log s     how far the potential has moved from there, over epsilon   (B, n)    1
defect    (f - T f)/epsilon after the move; P 1 = a exp(defect)      (B, n)    1
w         length of a step                                           (B, 1)    1

Sources: the averaged step with w = 1/2, Feydy et al. 2019 (arXiv 1810.08278), section 3; the secant's length, Barzilai
and Borwein 1988 (doi 10.1093/imanum/8.1.141), their second.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.ot.geometry.protocol import Kernel
from pushforward.ot.geometry.sparse import MARGIN, SparsePattern
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem

__all__ = ["MOST_STEPS", "self_transport"]

# The inverses of the eigenvalues that I + S has where the kernel is positive definite.
SHORTEST, LONGEST = 0.5, 1.0
# Share of pairs under which a plan between many points is held sparse, as in `newton.py`.
SPARSE_BELOW = 0.3
# Three times what such kernels were seen to take, to twelve digits.
MOST_STEPS = 60


def self_transport(problem: Problem, tol: float, recorder: Recorder, f: Tensor | None = None) -> tuple[Tensor, bool]:
    """The potential f = g of a measure's transport to itself, (B, n), and whether it reached the tolerance.

    Args:
        problem: Balanced, its cost symmetric and finite, b = a; where a is zero, potentials stay as they came.
        tol: L1 error of both marginals over the mass, of the plan at (T f, f).
        recorder: Counts, and sets the limit of steps.
        f: Where to start, (B, n); 0 by default.
    """
    a, epsilon, weightless = problem.a, problem.epsilon, problem.a <= 0
    f = torch.zeros_like(a) if f is None else f
    kernel, offset = _around(problem, f, tol, recorder)
    log_s, defect = torch.zeros_like(a), torch.where(weightless, 0.0, offset)
    step = torch.full_like(problem.mass, SHORTEST)  # exact where epsilon is too small for atoms to see one another
    for _ in range(MOST_STEPS):
        error = float(((a * torch.expm1(defect)).abs().sum(-1, keepdim=True) / problem.mass).max())
        if recorder.exhausted or math.isnan(error):
            break
        recorder.record("sinkhorn", epsilon, error)
        log_s = log_s - step * defect
        if error <= tol:  # that of f = g before this step, whose rows are off, too; (T f, f) after it is twice as close
            return f + epsilon * log_s, True
        if float(log_s.abs().max()) > min(kernel.farthest, 0.5 * kernel.together):
            f = f + epsilon * log_s
            del kernel  # it may be most of the memory
            kernel, offset = _around(problem, f, tol, recorder)
            log_s, new = torch.zeros_like(a), offset
        else:
            recorder.products += 1
            new = log_s + offset + (kernel.rows(log_s.exp()) / a).log()
        new = torch.where(weightless, 0.0, new)
        step, defect = _secant(a, step, defect, new), new
    return f + epsilon * log_s, False


def _around(problem: Problem, f: Tensor, tol: float, recorder: Recorder) -> tuple[Kernel, Tensor]:
    """The plan at (T f, f), and (f - T f)/epsilon; on the pairs that matter where there are many points."""
    geometry, epsilon, a = problem.geometry, problem.epsilon, problem.a
    recorder.plan_evaluations += 1
    by_rows = geometry.sparse_rows if geometry.streamed else None
    if by_rows is not None and not bool((a <= 0).any()):
        image = problem.measure(f).f
        # As in `newton.py`: with potentials of unit mass, what is left out is below the tolerance.
        unit, radius = image[0] + epsilon * math.log(float(problem.mass)), epsilon * (math.log(1 / tol) + MARGIN)
        if SparsePattern.density(by_rows, unit, f[0], radius) <= by_rows.most_sparse(SPARSE_BELOW):
            kernel, image, _ = SparsePattern(by_rows, unit, f[0], radius).kernel(image, f, epsilon, a, a)
            return kernel, (f - image) / epsilon
    kernel, image, _ = geometry.kernel(f, epsilon, a, a)
    return kernel, (f - image) / epsilon


def _secant(a: Tensor, step: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """The w that would have served the last step best: it moved f by -step * old, and the defect from old to new."""
    change = new - old
    squares = (a * change.square()).sum(-1, keepdim=True)
    length = -step * (a * old * change).sum(-1, keepdim=True) / squares
    return torch.where(squares > 0, length.clamp(SHORTEST, LONGEST), step)
