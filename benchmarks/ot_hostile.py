"""Does `solve` converge wherever Sinkhorn's iteration does? 10,000 hostile problems, and what any answer had wrong.

    python benchmarks/ot_hostile.py [--problems 10000] [--hopeless 1000] [--minutes 60] [--out FILE]

Problem k is drawn by the seed k: bells on a line and on a pixel grid (dense and separable) with tails down to 1e-300,
weights that are zero but for a few, costs with heavy tails, points; sides of 1 to 300; epsilon from 1e-6 to 1 of the
mean cost. `solve` has its default settings. Of every answer is recomputed, with numpy alone,

    unconverged   not CONVERGED, though Sinkhorn's iteration, plain, in the log domain, reaches the same tolerance in
                  50,000 steps from g = 0 (it is only run where `solve` gives up)
    lies          CONVERGED, but the marginal error of the plan returned exceeds the tolerance
    not finite    CONVERGED with a NaN or an infinity in any result

and of problems that nobody can solve (forbidden pairs that leave no plan; an epsilon under rounding; one step allowed)
that the failure is admitted. With `PUSHFORWARD_NATIVE=0` the torch path answers instead of the compiled one. The result
file is written as the run goes; one that stops is continued by the same command.
"""

from __future__ import annotations

import collections
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from lib import RESULTS, Lines, Row, conditions, cpu_seconds, parsed, read, say, write_json
from measure import TOLERANCE
from numpy.typing import NDArray

Array = NDArray[np.float64]
LARGEST, STEPS = 300, 50_000
ROUNDING = 1e-12  # that the sums and products of this file may add
SMALLEST = 1e-300
FAMILIES = ("line", "line apart", "pixels", "pixels separable", "sparse weights", "heavy tails", "random", "points")


@dataclass(frozen=True, kw_only=True, slots=True)
class Hostile:
    """One problem: cost (n, m), weights a (n,) and b (m,) of mass 1, epsilon in units of the cost.

    `grid` is the shape of the pixel grid where the cost is to be given as a `GridCost` of p = 2.
    """

    family: str
    cost: Array
    a: Array
    b: Array
    epsilon: float
    grid: tuple[int, ...] | None = None


def bell(points: Array, rng: np.random.Generator) -> Array:
    """One to three bells over points (k, d) in the unit cube, so narrow that their tails reach 1e-300."""
    weights = np.zeros(len(points))
    for _ in range(rng.integers(1, 4)):
        squares = ((points - rng.random(points.shape[1])) ** 2).sum(1)
        weights += rng.random() * np.exp(-np.minimum(squares / 10 ** rng.uniform(-3.2, 0), 700.0))
    weights = weights / weights.sum()
    return np.where(weights < SMALLEST, rng.choice([0.0, SMALLEST]), weights)


def sizes(rng: np.random.Generator) -> tuple[int, int]:
    """Sides from 1 to 300, half of the time small ones as often as large ones."""
    either = np.exp(rng.uniform(0, np.log(LARGEST), 2)), rng.uniform(1, LARGEST, 2)
    n, m = either[rng.integers(2)].round().astype(int)
    return (int(n), int(n)) if rng.random() < 0.3 else (int(n), int(m))


def squares(x: Array, y: Array, power: float = 2.0) -> Array:
    return (np.abs(x[:, None] - y) ** power).sum(-1)


def drawn(k: int) -> Hostile:
    """Problem k."""
    rng = np.random.default_rng(k)
    family = FAMILIES[k % len(FAMILIES)]
    n, m = sizes(rng)
    grid = None
    if family.startswith("line"):
        x, y = (np.linspace(0, 1, size)[:, None] if size > 1 else np.zeros((1, 1)) for size in (n, m))
        cost = squares(x, y + (rng.random() if family == "line apart" else 0.0), rng.choice([1.0, 2.0]))
        a, b = bell(x, rng), bell(y, rng)
    elif family.startswith("pixels"):
        shape = tuple(int(s) for s in rng.integers(2, 18, 2))
        x = np.argwhere(np.ones(shape)).astype(float)
        cost = squares(x, x)
        a, b = bell(x / np.array(shape), rng), bell(x / np.array(shape), rng)
        grid = shape if family.endswith("separable") else None
    else:
        if family == "points":
            cost = squares(rng.normal(size=(n, 3)), 0.5 + rng.normal(size=(m, 3)))
        elif family == "heavy tails":
            cost = rng.choice([rng.lognormal(0, 2, (n, m)), 1 / rng.random((n, m)), rng.standard_cauchy((n, m)) ** 2])
        else:
            cost = rng.random((n, m))
        orders = rng.choice([0, 2, 10, 30])
        a, b = (10.0 ** -(orders * rng.random(size)) for size in (n, m))
        if family == "sparse weights":
            few = rng.choice([0.0, SMALLEST, 1e-20])
            a, b = (np.where(rng.random(len(w)) < rng.choice([0.5, 0.9]), few, w) for w in (a, b))
            a[rng.integers(n)] = b[rng.integers(m)] = 1.0
    mean = float(np.abs(cost).mean()) or 1.0
    epsilon = mean * 10 ** rng.uniform(-6, 0)
    return Hostile(family=family, cost=cost, a=a / a.sum(), b=b / b.sum(), epsilon=epsilon, grid=grid)


def error_of(plan: Array, p: Hostile) -> float:
    return float(np.abs(plan.sum(1) - p.a).sum() + np.abs(plan.sum(0) - p.b).sum())


def log_sum(x: Array, axis: int) -> Array:
    top = x.max(axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis)) + np.squeeze(top, axis)


def sinkhorn(p: Hostile, steps: int = STEPS, tolerance: float = TOLERANCE) -> tuple[int, float]:
    """Steps of Sinkhorn's iteration to the tolerance, and the error then; at most `steps`.

    In the log domain, but that potentials are only taken up every so often: between, two products make a step.
    """
    rows, cols = p.a > 0, p.b > 0
    cost, a, b = p.cost[rows][:, cols] / p.epsilon, p.a[rows], p.b[cols]
    log_a, log_b = np.log(a)[:, None], np.log(b)
    g, taken, error = np.zeros(len(b)), 0, np.inf
    while taken < steps:
        f = -log_sum(g + log_b - cost, 1)
        g = -log_sum(f[:, None] + log_a - cost, 0)
        f = -log_sum(g + log_b - cost, 1)
        taken += 1
        plan = np.exp(np.maximum(f[:, None] + g + log_a + log_b - cost, -700.0))
        error = float(np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum())
        if error <= tolerance:
            break
        v = np.ones(len(b))
        for _ in range(min(100, steps - taken)):
            c = plan.T @ (a / (plan @ v))
            with np.errstate(divide="ignore", invalid="ignore"):
                new = np.where(c > 0, b / c, 1.0)
            if not (new.min() > 1e-100 and new.max() < 1e100):
                break
            v, taken = new, taken + 1
        g = g + np.log(v)
    return taken, error


def hopeless(k: int) -> tuple[Hostile, dict[str, Any]]:
    """A problem without an answer, and what else `solve` is asked."""
    rng = np.random.default_rng(k)
    n, m = (int(s) for s in rng.integers(2, 40, 2))
    cost, a, b = rng.random((n, m)), np.full(n, 1 / n), np.full(m, 1 / m)
    kind, more, epsilon = ("forbidden", "rounding", "one step")[k % 3], {}, 0.05
    if kind == "forbidden":  # more rows than fit share one column
        few = max(1, int(np.ceil(n / m)) + (1 if n % m == 0 else 0))
        few = min(few, n - 1) if n > 1 and m > 1 else few
        b = np.full(m, (1 - 0.4 * few / n) / (m - 1))
        b[0] = 0.4 * few / n
        cost[:few, 1:] = np.inf
    elif kind == "rounding":
        cost, epsilon, more = 1e6 * (1 + cost), 1e-9, {"tol": 1e-15}
        a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    else:
        epsilon, more = 1e-3, {"max_iterations": 1, "tol": 1e-12}
        a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    return Hostile(family=kind, cost=cost, a=a, b=b, epsilon=epsilon), more


def answered(p: Hostile, **more: Any) -> dict[str, Any]:
    """What `solve` says of a problem, and what is found about it."""
    import pushforward as pf

    cost: Any = p.cost if p.grid is None else pf.GridCost(p.grid, p=2)
    sol, seconds = cpu_seconds(lambda: pf.solve(cost, p.a, p.b, epsilon=p.epsilon, throw=False, **more))
    plan = sol.plan.to_dense()
    numbers = (sol.f, sol.g, sol.value, sol.transport_cost, sol.marginal_error, sol.duality_gap, plan)
    error = error_of(plan, p)
    counts = sol.iterations
    return {
        "status": sol.status.name,
        "error": error if np.isfinite(error) else None,
        "steps": counts.sinkhorn + counts.newton,
        "seconds": seconds,
        "converged": sol.converged,
        "lies": bool(sol.converged and not error <= more.get("tol", TOLERANCE) + ROUNDING),
        "not finite": bool(sol.converged and not all(np.isfinite(x).all() for x in numbers)),
    }


def summary(rows: list[dict[str, Any]], admitted: list[bool]) -> dict[str, Any]:
    families = collections.Counter(row["family"] for row in rows)
    failed = [row for row in rows if not row["converged"]]
    return {
        "problems": len(rows),
        "families": dict(families),
        "converged": len(rows) - len(failed),
        "unconverged where Sinkhorn's iteration converges": sum(row["sinkhorn error"] <= TOLERANCE for row in failed),
        "lies": sum(row["lies"] for row in rows),
        "not finite": sum(row["not finite"] for row in rows),
        "CPU seconds": round(sum(row["seconds"] for row in rows), 1),
        "longest, CPU seconds": max((row["seconds"] for row in rows), default=0.0),
        "most steps": max((row["steps"] for row in rows), default=0),
        "hopeless problems": len(admitted),
        "hopeless problems admitted": sum(admitted),
    }


def doubtful(row: Row) -> bool:
    return not row["converged"] or row["lies"] or row["not finite"]


def row_of(k: int) -> Row:
    """Problem k, what `solve` answers, and what Sinkhorn's iteration does where `solve` gives up."""
    p = drawn(k)
    row = {"k": k, "family": p.family} | answered(p)
    if not row["converged"]:
        taken, error = sinkhorn(p)
        row |= {"sinkhorn steps": taken, "sinkhorn error": error}
    return row


def main() -> None:
    options = {"problems": 10_000, "hopeless": 1_000, "minutes": 60.0, "out": RESULTS / "ot_hostile.json"}
    asked = parsed(__doc__, options)
    import torch

    torch.set_num_threads(1)
    from pushforward.ot import _native

    path = _native.instruction_set() or "torch"
    ends = time.monotonic() + 60 * asked.minutes
    lines = Lines(asked.out.with_suffix(f".{path}.jsonl"))
    rows = lines.rows()
    for k in range(len(rows), asked.problems):
        if time.monotonic() > ends:
            break
        rows.append(row_of(k))
        lines.add(rows[-1])
        if doubtful(rows[-1]):
            say(json.dumps(rows[-1]))
    admitted = []
    for k in range(asked.hopeless):
        p, more = hopeless(k)
        found = answered(p, **more)
        admitted.append(not found["converged"])
        if found["converged"]:
            say(f"hopeless {k} ({p.family}): {found}")
    run = conditions(tolerance=TOLERANCE) | {"summary": summary(rows, admitted), "failed": list(filter(doubtful, rows))}
    write_json(asked.out, {"paths": read(asked.out).get("paths", {}) | {path: run}})
    say(json.dumps(run["summary"], indent=1))


if __name__ == "__main__":
    main()
