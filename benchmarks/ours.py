"""This project's own solver, in the form that `peers.py` gives the others."""

from __future__ import annotations

from typing import Any

from measure import Answer, from_duals
from peer_calls import Prepared
from peers import Solver
from problems import Problem


def counts_of(iterations: Any) -> dict[str, int]:
    kinds = ("sinkhorn", "newton", "cg", "plan_evaluations", "products")
    return {kind: int(getattr(iterations, kind)) for kind in kinds}


def solve(problem: Problem, *, method: str, grid: bool = False) -> Prepared:
    """`pushforward.solve` at its default settings; a failure that it admits is returned and judged like any other."""
    import pushforward

    cost: Any = problem.cost
    if grid:
        assert problem.grid is not None
        shape, p = problem.grid
        cost = pushforward.GridCost(shape, p=p, scale=1.0 / shape[0] ** p)

    def run() -> Any:
        return pushforward.solve(cost, problem.a, problem.b, epsilon=problem.epsilon, method=method, throw=False)

    def read(solution: Any) -> Answer:
        counts, claim = counts_of(solution.iterations), solution.status.name
        return from_duals(problem, solution.f, solution.g, counts=counts, claim=claim)

    return run, read


def exact(problem: Problem) -> Prepared:
    """`pushforward.exact`, the unregularised optimum, beside POT's emd."""
    import pushforward

    def run() -> Any:
        return pushforward.exact(problem.cost, problem.a, problem.b)

    return run, lambda solution: Answer(plan=solution.plan.toarray(), claim=solution.status.name)


OURS: dict[str, Solver] = {
    "pushforward auto": Solver(prepare=solve, settings={"method": "auto"}),
    "pushforward newton": Solver(prepare=solve, settings={"method": "newton"}),
    "pushforward grid": Solver(prepare=solve, settings={"method": "auto", "grid": True}, grids_only=True),
    "pushforward sns": Solver(prepare=solve, settings={"method": "sns"}),
    "pushforward sinkhorn": Solver(prepare=solve, settings={"method": "sinkhorn"}),
    "pushforward exact": Solver(prepare=exact),
}
