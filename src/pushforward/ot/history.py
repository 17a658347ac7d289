"""A record of a solve: counts of its work, its curve of errors, and the hook that shows progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

__all__ = ["Iterations", "Recorder", "Step"]


@dataclass(frozen=True, slots=True)
class Iterations:
    """The work that a solve took, in counts.

    Args:
        sinkhorn: Sinkhorn steps, each of which makes one marginal exact and then the other.
        newton: Newton steps.
        cg: Conjugate-gradient iterations inside all Newton steps.
        plan_evaluations: Passes that exponentiate all n x m entries.
        products: Products of a plan, whole or sparse, with a vector.
    """

    sinkhorn: int
    newton: int
    cg: int
    plan_evaluations: int
    products: int


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration, as the hook of `solve(..., progress=hook)` gets it and `Solution.history` keeps it.

    Args:
        kind: "sinkhorn" or "newton".
        epsilon: Regularisation of the level that the step worked on; the last level's is the problem's own.
        error: L1 error of both marginals over the mass, before the step; the largest of a batch.
        evaluations: Passes over the plan so far, exponentials and products alike.
        seconds: Wall-clock time since the solve began.
    """

    kind: str
    epsilon: float
    error: float
    evaluations: int
    seconds: float


@dataclass(slots=True)
class Recorder:
    """Counts the work of a solver while it runs.

    Args:
        limit: Sinkhorn and Newton steps allowed together.
        hook: Called with every `Step`.
    """

    limit: int
    hook: Callable[[Step], None] | None = None
    sinkhorn: int = 0
    newton: int = 0
    cg: int = 0
    plan_evaluations: int = 0
    products: int = 0
    steps: list[Step] = field(default_factory=list)
    _spent: bool = False
    _began: float = field(default_factory=time.perf_counter)

    @property
    def exhausted(self) -> bool:
        """Whether the limit of steps is used up; of a batch solved one by one, whether any problem's is."""
        return self._spent or self.left <= 0

    @property
    def left(self) -> int:
        """The number of steps that are still allowed."""
        return self.limit - self.sinkhorn - self.newton

    @contextlib.contextmanager
    def at_most(self, steps: int) -> Generator[None]:
        """Allow only `steps` steps within the block, and leave the rest to another method."""
        whole = self.limit
        self.limit = min(whole, whole - self.left + steps)
        try:
            yield
        finally:
            self.limit = whole

    def record(self, kind: str, epsilon: float, error: float, at: float | None = None) -> None:
        """Record the error before a step of this kind, and count the step; `at` is its time on `time.perf_counter`."""
        if kind == "newton":
            self.newton += 1
        else:
            self.sinkhorn += 1
        step = Step(
            kind, epsilon, error, self.plan_evaluations + self.products, (at or time.perf_counter()) - self._began
        )
        self.steps.append(step)
        if self.hook is not None:
            self.hook(step)

    def absorb(self, other: Recorder) -> None:
        """Add the counts and steps of another problem of the same batch, which had a limit of its own."""
        self.limit += other.sinkhorn + other.newton
        self._spent |= other.exhausted
        for name in ("sinkhorn", "newton", "cg", "plan_evaluations", "products"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.steps += other.steps

    def counts(self) -> Iterations:
        """The counts of the work so far."""
        return Iterations(self.sinkhorn, self.newton, self.cg, self.plan_evaluations, self.products)
