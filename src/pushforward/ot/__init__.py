"""Optimal transport on tensors: solve a problem, bound the answer's error, differentiate the answer."""

from pushforward.ot.costs import GridCost, PointCost, pairwise_cost
from pushforward.ot.history import Iterations, Step
from pushforward.ot.solution import Plan, Solution, Status
from pushforward.ot.solve import solve
from pushforward.ot.solvers.newton import Newton
from pushforward.ot.solvers.sinkhorn import Sinkhorn
from pushforward.ot.solvers.sns import SNS

__all__ = [
    "SNS",
    "GridCost",
    "Iterations",
    "Newton",
    "Plan",
    "PointCost",
    "Sinkhorn",
    "Solution",
    "Status",
    "Step",
    "pairwise_cost",
    "solve",
]
