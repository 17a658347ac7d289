"""Newton's method on the semi-dual, along a path of falling epsilon: the default solver.

What is ours beside the published algorithm (`sns.py`): the row potentials are eliminated, so that a line search costs
one product and the Hessian is half as large; the plan is kept and rescaled instead of exponentiated again; on a CPU
only the entries that can matter are kept; the linear solver buys a Cholesky factor when CG is slow
(`preconditioner.py`). The path starts where Sinkhorn needs a step or two and ends at the epsilon asked; each level
only has to hand a good start to the next.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from pushforward._checks import check_positive
from pushforward.errors import InvalidArgument
from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.geometry.protocol import RowGeometry
from pushforward.ot.geometry.sparse import MARGIN, SparsePattern
from pushforward.ot.history import Recorder
from pushforward.ot.problem import Problem
from pushforward.ot.solvers.native import HAND_OVER, PATIENCE, SHARPENING, Reason, Rebuild, descend
from pushforward.ot.solvers.preconditioner import LinearSolver, System
from pushforward.ot.solvers.semidual import Point, SemiDual

__all__ = ["Newton", "newton"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Newton:
    """Settings of `newton`. The defaults are right for all that we measured.

    Args:
        start: First epsilon of the path, over the mean cost.
        factor: At most this ratio between one epsilon and the next.
        level_tol: L1 marginal error at which a level other than the last is left.
        forcing: CG stops at this share of the residual, or a smaller one as the error gets small.
        shift: Levenberg shift of the Hessian over the marginal error.
        sparse_below: Share of entries under which a plan is held sparse.
    """

    start: float = 0.03
    factor: float = 3.0
    level_tol: float = 1e-2
    forcing: float = 0.3
    shift: float = 0.03
    sparse_below: float = 0.3

    def __post_init__(self) -> None:
        for name in ("start", "factor", "level_tol", "forcing", "shift", "sparse_below"):
            check_positive(name, getattr(self, name))
        if self.factor <= 1 or self.forcing >= 1:
            raise InvalidArgument(f"factor must be above 1 and forcing below 1, got {self.factor} and {self.forcing}")


# Steps that a warm start may take.
WARM_STEPS = 100
# In units of epsilon: a step moves no log v further.
LONGEST_STEP = 10.0
# Radii that a pattern is tried with, over what it needs: a wider one serves the next levels, too.
RADII = (1.15, 1.0)
# Points of a sample.
SAMPLE = 5000
# Steps without gain after which a step that LONGEST_STEP cuts short is tried at any length, and trials of one such.
LEAP_AFTER, LEAP_TRIALS = 6, 80
# Error at which CG's share of the residual begins to fall, inverted.
STEEPENING = 1e3
# A step has gained if it leaves less than this share of the best error; one cut this short is followed by Sinkhorn's.
GAINED, SHORT = 0.66, 0.2
# Newton's systems are solved to this share of the tolerance at the finest.
FINEST = 0.2
# The line search halves a step so many times, until the dual rises by this share of what its slope promises; what
# rounding hides of the rise, over the mass.
TRIALS, RISE, HIDDEN = 30, 1e-4, 1e-14


class _Plans:
    """Builds kernels along the path, reusing memory and sparse patterns."""

    def __init__(self, settings: Newton, recorder: Recorder) -> None:
        self._settings, self._recorder = settings, recorder
        self._pattern: SparsePattern | None = None
        self._buffer: Tensor | None = None

    def around(self, problem: Problem, f: Tensor | None, g: Tensor, tol: float) -> tuple[SemiDual, Point]:
        """The semi-dual and its first point at potentials g (and f, once there are any)."""
        epsilon, by_rows = problem.epsilon, problem.geometry.sparse_rows
        if f is not None and by_rows is not None:
            # With f of the problem of unit mass, what is left out sums to exp(-radius/epsilon) at most; the drift
            # allowed makes that tol/7.
            unit_f = f[0] + epsilon * math.log(float(problem.mass))
            pattern = self._find(by_rows, unit_f, g[0], _radius(epsilon, tol))
            if pattern is not None:
                kernel, f, cols = pattern.kernel(f, g, epsilon, problem.a, problem.b)
                dual = SemiDual(problem, kernel, f, g, self._recorder)
                return dual, dual.start(cols)
        self._recorder.plan_evaluations += 1
        kernel, f, cols = problem.geometry.kernel(
            g, epsilon, problem.a, problem.b, damping=problem.damping("a"), out=self._buffer
        )
        self._buffer = getattr(kernel, "matrix", None)
        dual = SemiDual(problem, kernel, f, g, self._recorder)
        return dual, dual.start(cols)

    def _find(self, geometry: RowGeometry, f: Tensor, g: Tensor, radius: float) -> SparsePattern | None:
        most = geometry.most_sparse(self._settings.sparse_below)
        if self._pattern is not None and self._pattern.covers(f, g, radius):
            if self._pattern.radius > 1.5 * radius:
                self._pattern.shrink(f, g, 1.15 * radius)
            return self._pattern
        fitting = (r for r in (w * radius for w in RADII) if SparsePattern.density(geometry, f, g, r) <= most)
        found = next(fitting, None)
        if found is None:
            return None
        self._recorder.products += 1
        self._pattern = self._buffer = None  # its memory goes before the next one's comes
        self._pattern = SparsePattern(geometry, f, g, found)
        return self._pattern


def _radius(epsilon: float, tol: float) -> float:
    """The slack of the pairs that matter, in units of the cost."""
    return epsilon * (math.log(1 / tol) + MARGIN)


def newton(
    problem: Problem, g: Tensor | None, tol: float, recorder: Recorder, settings: Newton | None = None
) -> tuple[Tensor, bool]:
    """Column potentials at which the plan's marginal error is at most `tol`, and whether it got there.

    Args:
        problem: Weights positive, or any on a grid or in a batch.
        g: Where to start, (B, m): on the last level alone. A start that leads nowhere in WARM_STEPS is left for the
            path's own.
        tol: L1 error of the marginals over the mass.
        recorder: Counts, and sets the limit of steps.
        settings: `Newton()` by default.
    """
    settings = Newton() if settings is None else settings
    if g is not None:
        with recorder.at_most(min(WARM_STEPS, recorder.left // 2 + 1)):
            found, done = _from(problem, g, tol, recorder, settings)
        # Potentials far off are rounded by more than the tolerance allows, and stay so.
        rounded = torch.finfo(found.dtype).eps * float(found.abs().max()) / problem.epsilon > 0.05 * tol
        if (done and not rounded) or recorder.exhausted:
            return found, done
    return _from(problem, None, tol, recorder, settings)


def _from(problem: Problem, g: Tensor | None, tol: float, recorder: Recorder, settings: Newton) -> tuple[Tensor, bool]:
    _, n, m = problem.geometry.shape
    if m > n:  # the smaller side holds the unknowns
        start = None if g is None else problem.measure(g).f
        f, _, done = _Path(problem.transposed(), tol, recorder, settings).run(start)
        return f, done
    _, g, done = _Path(problem, tol, recorder, settings).run(g)
    return g, done


class _Path:
    """One run along the path of falling epsilon."""

    def __init__(self, problem: Problem, tol: float, recorder: Recorder, settings: Newton) -> None:
        self.problem, self.tol, self.recorder, self.settings = problem, tol, recorder, settings
        self.plans = _Plans(settings, recorder)

    def levels(self) -> list[float]:
        """The values of epsilon, falling geometrically to the problem's own."""
        epsilon = self.problem.epsilon
        mean = abs(self.problem.geometry.mean)
        first = max(epsilon, self.settings.start * mean)
        least = max(epsilon, torch.finfo(self.problem.a.dtype).eps * mean)  # below, levels differ by rounding alone
        steps = math.ceil(math.log(first / least) / math.log(self.settings.factor) - 1e-9)
        return [least * (first / least) ** (1 - k / steps) for k in range(steps)] + [epsilon]

    def run(self, g: Tensor | None) -> tuple[Tensor, Tensor, bool]:
        """(f, g) at the end of the path, and whether its error is within the tolerance."""
        levels = self.levels() if g is None else [self.problem.epsilon]
        f, done, behind = None, False, None
        if self.problem.geometry.streamed:
            if g is None:
                g, levels = self._from_sample(levels)
            self.recorder.plan_evaluations += 1
            f = self.problem.at(levels[0]).measure(g).f
        g = torch.zeros_like(self.problem.b) if g is None else g
        for k, epsilon in enumerate(levels):
            if k > 0:
                assert f is not None
                here = f, g
                if behind is not None:
                    # Potentials are nearly linear in epsilon: the line through two levels spares half of the steps.
                    ahead = (epsilon - levels[k - 1]) / (levels[k - 1] - levels[k - 2])
                    f, g = f + ahead * (f - behind[0]), g + ahead * (g - behind[1])
                behind = here
            last = k == len(levels) - 1
            tol = 0.5 * self.tol if last else max(self.settings.level_tol, self.tol)
            f, g, done = self.level(self.problem.at(epsilon), f, g, tol, last=last)
        assert f is not None
        return f, g, done

    def _from_sample(self, levels: list[float]) -> tuple[Tensor, list[float]]:
        """Column potentials from a sample of the points, and the levels left: from the first whose plan is sparse."""
        geometry, rng = self.problem.geometry, torch.Generator().manual_seed(0)
        rows, cols = (torch.randperm(size, generator=rng)[:SAMPLE] for size in geometry.shape[1:])
        a, b = self.problem.a, self.problem.b
        some_a, some_b = (weights[:, which] / weights[:, which].sum() for weights, which in ((a, rows), (b, cols)))
        matrix = DenseGeometry.of(geometry.select(rows, cols).matrix())
        sample = dataclasses.replace(self.problem, geometry=matrix, a=some_a, b=some_b)
        path = _Path(sample, self.tol, Recorder(self.recorder.limit), self.settings)
        every, few = torch.arange(geometry.shape[2]), rows[:32]
        f, g, prices = None, torch.zeros_like(some_b), torch.zeros_like(b)
        for k, epsilon in enumerate(levels):
            tol = max(self.settings.level_tol, self.tol)
            f, g, _ = path.level(sample.at(epsilon), f, g, tol, last=False)
            prices = geometry.select(rows, every).transposed().measure(f, epsilon, b, some_a).f
            near = geometry.select(few, every)
            near_f = near.measure(prices, epsilon, a[:, few], b).f[0]
            every_row, some_rows = geometry.sparse_rows, near.sparse_rows
            if every_row is not None and some_rows is not None:
                share = SparsePattern.density(some_rows, near_f, prices[0], RADII[0] * _radius(epsilon, tol))
                if share <= every_row.most_sparse(self.settings.sparse_below):
                    return prices, levels[k:]
        return prices, levels[-1:]

    def level(
        self, problem: Problem, f: Tensor | None, g: Tensor, tol: float, *, last: bool
    ) -> tuple[Tensor, Tensor, bool]:
        """(f, g) at one epsilon, from those before it, and whether their error is within `tol`."""

        def rebuild(f: Tensor | None, g: Tensor) -> tuple[SemiDual, Point]:
            return self.plans.around(problem, f, g, tol)

        dual, point, reason = descend(rebuild, f, g, tol, self.settings)
        done = reason is Reason.DONE
        if reason in (Reason.FACTOR, Reason.STALLED, Reason.UNFIT):
            linear = LinearSolver(rent=0.0 if reason is Reason.UNFIT else math.inf)
            dual, point, done = self._descend(dual, point, tol, rebuild, linear)
        f, g = dual.potentials(point, exact_cols=not last)
        return f, g, done

    def _descend(
        self, dual: SemiDual, point: Point, tol: float, rebuild: Rebuild, linear: LinearSolver
    ) -> tuple[SemiDual, Point, bool]:
        """The same as `native.descend` with torch, for any problem, buying a factor where that pays."""
        sinkhorn_left, before, best, waited = 2, 0.0, math.inf, 0
        done, leaps = False, True
        while True:
            worst = float(point.error.max())
            done = worst <= tol
            if done or self.recorder.exhausted or waited > PATIENCE or not math.isfinite(worst):
                break
            waited = 0 if worst < GAINED * best else waited + 1
            best = min(best, worst)
            if sinkhorn_left > 0 or worst < self.settings.forcing * before:
                # It goes on while a step takes off as much as CG would: it costs less than a Newton step.
                sinkhorn_left, before = sinkhorn_left - 1, worst
                self.recorder.record("sinkhorn", dual.problem.epsilon, worst)
                point = dual.sinkhorn(point)
            else:
                self.recorder.record("newton", dual.problem.epsilon, worst)
                if waited > HAND_OVER:
                    linear.buy()
                move = self._direction(dual, point, tol, linear, 0.1 ** (waited // SHARPENING))
                far = self._leap(dual, point, move) if waited > LEAP_AFTER and leaps else None
                leaps = waited <= LEAP_AFTER or far is not None  # where one led nowhere, others do not, either
                if far is not None:
                    sinkhorn_left, before = 2, 0.0
                    dual, point = rebuild(*far)
                    continue
                point, length = self._step(dual, point, move)
                sinkhorn_left, before = 2 if length < SHORT else 0, 0.0
            if self._drifted(dual, point):
                dual, point = rebuild(*dual.potentials(point))
        return dual, point, done

    def _leap(self, dual: SemiDual, point: Point, move: Tensor) -> tuple[Tensor, Tensor] | None:
        """Potentials (f, g) at which the dual, along `move`, has stopped rising as it does here; None if that is near.

        Where the plan has come apart into pieces of unequal mass, the dual rises along a line, as far as the next pair
        between them that can carry the difference: thousands of epsilons. The kernel knows nothing of pairs that far,
        hence passes over the whole cost; the slope, falling along the line, says when to turn back.
        """
        problem, slope = dual.problem, (point.residual * move).sum(-1, keepdim=True)
        length = LONGEST_STEP / vector_norm(move, math.inf, dim=-1, keepdim=True)
        if bool((length >= 0.5).all()) or not bool((slope > 0).all()):
            return None
        start, low, high = dual.potentials(point)[1], torch.zeros_like(length), torch.full_like(length, math.inf)
        for _ in range(LEAP_TRIALS):
            self.recorder.plan_evaluations += 1
            g = start + problem.epsilon * length * move
            measured = problem.measure(g)
            here = ((problem.targets(measured.f, g)[1] - measured.cols) * move).sum(-1, keepdim=True) / slope
            rising = here > 0.5
            if bool(((here > -0.1) & ~rising | (length == low)).all()):
                return measured.f, g
            low, high = torch.where(rising, length, low), torch.where(rising, high, length)
            length = torch.where(high < math.inf, 0.5 * (low + high), 4 * length)
        return None

    def _step(self, dual: SemiDual, point: Point, move: Tensor) -> tuple[Point, float]:
        """One Newton step with its line search; also the length that the worst problem of the batch took."""
        slope = (point.residual * move).sum(-1, keepdim=True)
        length = torch.clamp(LONGEST_STEP / vector_norm(move, math.inf, dim=-1, keepdim=True), max=1.0)
        rounding = HIDDEN * dual.problem.mass
        for _ in range(TRIALS):
            log_v = length * move
            v = point.v * torch.exp(log_v)
            scaled = dual.row_scaling(v)
            good = dual.gain(point, log_v, scaled[0]) + rounding >= length * slope * RISE
            if bool(good.all()):
                return dual.at(v, scaled), float(length.min())
            length = torch.where(good, length, 0.5 * length)
        return dual.sinkhorn(point), 0.0

    def _direction(self, dual: SemiDual, point: Point, tol: float, linear: LinearSolver, sharpness: float) -> Tensor:
        """Where Newton's method points: H with a Levenberg shift, solved as well as error and sharpness deserve.

        Problems of the batch that are at the tolerance are left where they are.
        """
        # Superlinear once the error is small: steps are fewer, and CG gets the faster the longer it runs. A factor
        # makes digits cheap, so ask for quadratic convergence.
        near = STEEPENING * point.error
        share = sharpness * self.settings.forcing * torch.clamp(near if linear.has_factor else near.sqrt(), max=1.0)
        tolerance = dual.problem.mass * torch.clamp(share * point.error, min=FINEST * tol)
        tolerance.masked_fill_(point.error <= tol, math.inf)
        left, right = dual.coupling(point)
        diagonal = dual.diagonal(point)
        diagonal = torch.addcmul(diagonal, diagonal, point.error, value=self.settings.shift)
        system = System(dual.kernel, diagonal, left, right, singular=dual.problem.balanced)
        before = linear.iterations
        move = linear.solve(system, point.residual, tolerance)
        self.recorder.cg += linear.iterations - before
        self.recorder.products += 2 * (linear.iterations - before)
        return move

    def _drifted(self, dual: SemiDual, point: Point) -> bool:
        """Whether the kernel has to be rebuilt at the potentials reached."""
        either, together = dual.farthest(point)
        return either > dual.kernel.farthest or together > dual.kernel.together
