"""Answers of transport as they were before its modules were moved, to 1e-10: a change of any is a change of arithmetic.

`python tests/goldens/test_ot.py` writes them anew, for changes that are meant to change them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.lm import SinkhornKD
from pushforward.lm.losses import Context
from pushforward.maps import monge_gap
from pushforward.ot.costs import ElasticKOverlap, ElasticL1, PowerCost, resolve

FILE = Path(__file__).with_name("ot.json")
TOL = 1e-13
NAMES = ("sqeuclidean", "euclidean", "manhattan", "cosine", "geodesic")
OBJECTS = (PowerCost(p=3.0), ElasticL1(gamma=0.3), ElasticKOverlap(gamma=1.0, k=2))


def uniform(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def weights(seed: int, *shape: int) -> torch.Tensor:
    some = uniform(seed, *shape) + 0.1
    return some / some.sum(-1, keepdim=True)


def digest(x: Any) -> float:
    """One number that nearly every change of an array changes."""
    flat = torch.as_tensor(x).detach().double().reshape(-1)
    return float(flat @ torch.cos(torch.arange(len(flat), dtype=torch.float64) + 1.0))


def solved(cost: Any, *weights: Any, **settings: Any) -> list[float]:
    sol = pf.solve(cost, *weights, **{"tol": TOL} | settings)
    return [digest(x) for x in (sol.value, sol.transport_cost, sol.f, sol.g, sol.plan.to_dense())]


def derivatives(cost: torch.Tensor, a: torch.Tensor, b: torch.Tensor, **settings: Any) -> list[float]:
    inputs = [x.clone().requires_grad_() for x in (cost, a, b)]
    sol = pf.solve(*inputs, tol=TOL, **settings)
    total = sol.value.sum() + 0.1 * sol.transport_cost.sum() + (sol.f * torch.cos(sol.f.detach())).sum()
    return [digest(x) for x in torch.autograd.grad(total, inputs)]


def of_points(cost: Any) -> list[float]:
    x, y = (2 * uniform(seed, n, 3) - 1 for seed, n in ((1, 12), (2, 10)))
    x.requires_grad_()
    value = pf.sinkhorn_divergence(x, y, cost=cost, epsilon=0.3, tol=TOL)
    (slope,) = torch.autograd.grad(value, x)
    gap = monge_gap(x.detach(), x.detach() + 0.3, cost=resolve(cost), epsilon=0.3)
    return [digest(value), digest(slope), digest(gap)]


def distilled(classes: int, **settings: Any) -> list[float]:
    student = (4 * uniform(3, 14, classes)).requires_grad_()
    loss = SinkhornKD(epsilon=0.2, tol=TOL, **settings).rows(student, 4 * uniform(4, 14, classes), Context())
    return [digest(loss), digest(torch.autograd.grad(loss, student)[0])]


def exact(cost: Any, *weights: Any) -> list[float]:
    sol = pf.exact(cost, *weights)
    return [digest(sol.cost), digest(sol.plan.to_dense())]


def problems() -> dict[str, Callable[[], list[float]]]:
    cost, a, b = uniform(10, 30, 25), weights(11, 30), weights(12, 25)
    forbidden = torch.where(uniform(13, 30, 25) < 0.25, torch.inf, cost)
    batch, images = uniform(14, 4, 9, 11), (weights(15, 3, 20), weights(16, 3, 20))
    ground = uniform(17, 5, 5)
    ground = (ground + ground.T).fill_diagonal_(0)
    found: dict[str, Callable[[], list[float]]] = {
        "dense easy": lambda: solved(cost, a, b, epsilon=0.1),
        "dense hard": lambda: solved(cost.square(), a, b, epsilon=0.01, tol=1e-12),
        "dense large": lambda: solved(uniform(18, 80, 70), epsilon=0.03),
        "newton": lambda: solved(cost, a, b, epsilon=0.05, method="newton"),
        "sns": lambda: solved(cost, a, b, epsilon=0.1, method="sns", tol=1e-12),
        "sinkhorn": lambda: solved(cost, a, b, epsilon=0.2, method="sinkhorn"),
        "forbidden": lambda: solved(forbidden, epsilon=0.1),
        "relaxed": lambda: solved(cost, a, 1.4 * b, epsilon=0.1, unbalanced=0.7),
        "half relaxed": lambda: solved(cost, a, 1.4 * b, epsilon=0.1, unbalanced=(float("inf"), 0.7)),
        "forbidden relaxed": lambda: solved(forbidden, a, b, epsilon=0.1, unbalanced=1.0),
        "batch": lambda: solved(batch, epsilon=0.1),
        "derivatives": lambda: derivatives(cost, a, b, epsilon=0.1),
        "derivatives relaxed": lambda: derivatives(cost, a, b, epsilon=0.1, unbalanced=(0.5, 2.0)),
        "exact": lambda: exact(cost, a, b),
        "exact assignment": lambda: exact(uniform(19, 20, 20)),
        "classes": lambda: distilled(5, support="classes", cost=ground),
    }
    for p, shape in ((1, (20,)), (2, (4, 5)), (1, (5, 2, 2))):
        grid = pf.GridCost(shape, p=p, scale=0.2)
        found[f"grid {shape}"] = lambda grid=grid: solved(grid, *images, epsilon=0.1)
    for given in (*NAMES, *OBJECTS):
        found[f"points {given}"] = lambda given=given: of_points(given)
    for classes in (2, 4):
        for value in ("divergence", "optimum", "transport_cost"):
            found[f"samples {classes} {value}"] = lambda c=classes, v=value: distilled(c, value=v)
    return found


PROBLEMS = problems()


@pytest.mark.parametrize("name", PROBLEMS)
def test_an_answer_is_the_one_before(name: str):
    assert PROBLEMS[name]() == pytest.approx(json.loads(FILE.read_text())[name], rel=1e-10, abs=1e-10)


def test_no_answer_is_left_over():
    assert set(json.loads(FILE.read_text())) == set(PROBLEMS)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: compute() for name, compute in PROBLEMS.items()}, indent=1) + "\n")
