"""Costs as objects: laws over the whole catalogue, and each formula against its definition."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import pushforward as pf
from pushforward.errors import InvalidArgument
from pushforward.maps.costs import (
    CallableCost,
    Cosine,
    Cost,
    ElasticKOverlap,
    ElasticL1,
    ElasticSubspace,
    Euclidean,
    Geodesic,
    Manhattan,
    PNorm,
    PowerCost,
    SquaredEuclidean,
    StructuredCost,
    TranslationCost,
    resolve,
)
from pushforward.ot.costs import classes, displacements

BASIS = torch.tensor([[1.0, 0.5], [0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
CATALOGUE = [
    SquaredEuclidean(),
    Euclidean(),
    Manhattan(),
    PNorm(p=1.5),
    PNorm(p=3.0),
    PowerCost(p=1.5),
    PowerCost(p=2.0),
    PowerCost(p=3.0),
    ElasticL1(gamma=0.4),
    ElasticKOverlap(gamma=0.7, k=2),
    ElasticSubspace(gamma=2.0, basis=BASIS),
    Cosine(),
    Geodesic(),
    CallableCost(lambda x, y: 1.0 - torch.exp(-(x[:, None] - y).square().sum(-1))),
]
TRANSLATIONS = [cost for cost in CATALOGUE if isinstance(cost, TranslationCost)]
STRUCTURED = [cost for cost in TRANSLATIONS if isinstance(cost, StructuredCost)]


def every(cases):
    return pytest.mark.parametrize("cost", cases, ids=lambda cost: re.split("basis| at 0x", repr(cost))[0])


def points(n: int, seed: int, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every(CATALOGUE)
def test_the_matrix_holds_the_paired_costs(cost):
    assert isinstance(cost, Cost)
    x, y = points(7, 0), points(5, 1)
    one_by_one = torch.stack([cost.paired(x, y[j].expand(7, 3)) for j in range(5)], 1)
    torch.testing.assert_close(cost(x, y), one_by_one, rtol=1e-12, atol=1e-12)


@every(CATALOGUE)
def test_symmetric_and_least_at_home(cost):
    x, y = points(7, 2), points(5, 3)
    torch.testing.assert_close(cost(x, y), cost(y, x).T, rtol=1e-12, atol=1e-12)
    assert cost.paired(x, x).abs().max() < 1e-12
    assert cost.paired(x[:5], y).min() > 1e-3


@every(CATALOGUE)
def test_derivatives_twice(cost):
    x, y = points(4, 4).requires_grad_(), points(3, 5).requires_grad_()
    torch.autograd.gradcheck(cost, (x, y))
    torch.autograd.gradgradcheck(cost, (x, y))
    torch.autograd.gradcheck(cost.paired, (x[:3], y))
    torch.autograd.gradgradcheck(cost.paired, (x[:3], y))


@every(CATALOGUE)
def test_gradients_are_finite_at_home(cost):
    x = points(4, 6).requires_grad_()
    for value in (cost(x, x).sum(), cost.paired(x, x.detach()).sum(), cost(x, -x).sum()):
        (gradient,) = torch.autograd.grad(value, x)
        assert gradient.isfinite().all()


@every(CATALOGUE)
def test_float32_is_close(cost):
    x, y = points(40, 7), points(30, 8)
    rough = cost(x.float(), y.float())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), cost(x, y), rtol=1e-5, atol=1e-5)


@every(CATALOGUE)
def test_the_solver_takes_it(cost):
    x, y = points(6, 9), points(6, 10).requires_grad_()
    solution = pf.solve(pf.PointCost(x, y, cost), epsilon=0.5)
    by_matrix = pf.solve(cost(x, y), epsilon=0.5)
    assert float(solution.value.detach()) == pytest.approx(float(by_matrix.value.detach()), abs=1e-10)
    assert torch.autograd.grad(solution.value, y)[0].isfinite().all()


@every(TRANSLATIONS)
def test_gradient_is_that_of_h(cost):
    z = points(9, 11).requires_grad_()
    (by_autograd,) = torch.autograd.grad(cost.h(z).sum(), z)
    torch.testing.assert_close(cost.gradient(z), by_autograd, rtol=1e-12, atol=1e-12)
    assert (cost.gradient(torch.zeros(1, 3, dtype=torch.float64)) == 0).all()


@every(TRANSLATIONS)
def test_blocks_are_the_whole(cost, monkeypatch):
    x, y = points(11, 12).requires_grad_(), points(4, 13).requires_grad_()
    weight = points(11, 14, 4)
    value = cost(x, y)
    whole = torch.autograd.grad((weight * value).sum(), (x, y))
    monkeypatch.setattr(displacements, "BLOCK", 3 * y.numel())
    torch.testing.assert_close(cost(x, y), value, rtol=1e-13, atol=1e-13)
    parts = torch.autograd.grad((weight * cost(x, y)).sum(), (x, y))
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


@every(STRUCTURED)
def test_conjugate_gradient_undoes_the_gradient(cost):
    z = points(50, 15)
    torch.testing.assert_close(cost.conjugate_gradient(cost.gradient(z)), z, rtol=1e-10, atol=1e-10)
    assert (cost.conjugate_gradient(torch.zeros(1, 3, dtype=torch.float64)) == 0).all()


@every(STRUCTURED)
def test_conjugate_gradient_is_the_best_reply(cost):
    """Grad h*(w) = argmax <w, z> - h(z), also where z has zeros and grad h is a set."""
    w = 1.5 * points(40, 16)
    z = cost.conjugate_gradient(w)
    reached = (w * z).sum(-1) - cost.h(z)
    for step in torch.logspace(-4, 0, 5).tolist():
        for seed in range(20):
            other = z + step * points(40, 100 + seed)
            assert ((w * other).sum(-1) - cost.h(other) <= reached + 1e-12).all()
        assert ((w * z * (1 - step)).sum(-1) - cost.h(z * (1 - step)) <= reached + 1e-12).all()


@every(STRUCTURED)
def test_structured_maps_have_derivatives(cost):
    w = points(6, 17).requires_grad_()
    torch.autograd.gradcheck(cost.conjugate_gradient, w)
    start = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(cost.conjugate_gradient(start).sum(), start)[0].isfinite().all()


def test_half_the_square_has_its_derivative_at_0():
    cost, start = PowerCost(p=2.0), torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(cost.conjugate_gradient(start).sum(), start)
    assert (slope == 1).all()


@every(TRANSLATIONS)
def test_displacements_are_not_kept_for_the_derivative(cost):
    x, y = points(60, 25).requires_grad_(), points(50, 26).requires_grad_()
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        cost(x, y)
    assert max(kept) <= 60 * 50


def test_norms_have_no_conjugate_gradient():
    assert not any(isinstance(cost, StructuredCost) for cost in (Euclidean(), Manhattan(), PNorm(p=3.0), Geodesic()))
    assert len(STRUCTURED) == 7


@pytest.mark.parametrize("d", [1, 2, 5, 9])
@pytest.mark.parametrize("k", [1, 2, 4, 20])
def test_k_support_norm_is_its_definition(d, k):
    """The dual of: the length of the k largest entries."""
    cost, z = ElasticKOverlap(gamma=1.0, k=k), points(30, 18 + d, d)
    z[:10, : d // 2] = 0.0
    norm = (2 * cost.h(z) - z.square().sum(-1)).sqrt()
    if k == 1:
        torch.testing.assert_close(norm, z.abs().sum(-1), rtol=1e-7, atol=1e-7)
    if k >= d:
        torch.testing.assert_close(norm, z.norm(dim=-1), rtol=1e-7, atol=1e-7)
    best = cost.gradient(z) - z  # norm * the u of dual norm 1 that reaches it
    dual = best.abs().sort(dim=-1, descending=True).values[:, :k].norm(dim=-1)
    torch.testing.assert_close(dual, norm, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close((best * z).sum(-1), norm.square(), rtol=1e-10, atol=1e-10)


def test_k_overlap_prox_against_a_numerical_one():
    gamma, w = 0.8, np.array([3.0, -2.0, 0.5, 1.2])

    def shares(theta):  # min over z in closed form; what is left is a smooth program over the shares
        return 0.5 * gamma * (w**2 / (theta + gamma)).sum()

    for k in (1, 2, 3):
        found = minimize(
            shares,
            np.full(4, k / 4),
            bounds=[(0, 1)] * 4,
            constraints={"type": "ineq", "fun": lambda theta, k=k: k - theta.sum()},
            options={"ftol": 1e-15, "maxiter": 500},
        )
        expected = w * found.x / (found.x + gamma)
        ours = ElasticKOverlap(gamma=gamma, k=k).conjugate_gradient(torch.from_numpy(w)[None])[0]
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_k_overlap_prox_at_ties_and_plateaus():
    """Equal sizes, flat stretches where the shares sum to k at once, zeros, and sizes of very different orders."""
    w = torch.tensor(
        [[10.0, 1.0, 0.0], [2.0, 2.0, 2.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1e9, 1.0, 1e-9], [1.0, 1.0, 1e-300]],
        dtype=torch.float64,
    )
    for k, gamma in itertools.product((1, 2, 3), (1e-3, 0.5, 10.0)):
        cost = ElasticKOverlap(gamma=gamma, k=k)
        z = cost.conjugate_gradient(w)
        assert z.isfinite().all()
        # w - z must be a subgradient of gamma/2 |.|_(k)^2 at z: on the support it is the gradient, off it no larger.
        rest, best = w - z, cost.gradient(z) - z
        torch.testing.assert_close(torch.where(z != 0, rest - best, 0.0), torch.zeros_like(z), rtol=0, atol=1e-6)
        dual = rest.abs().sort(dim=-1, descending=True).values[:, :k].square().sum(-1)
        torch.testing.assert_close(dual, gamma * (rest * z).sum(-1), rtol=1e-9, atol=1e-9)


def test_elastic_displacements_have_their_structure():
    w = points(30, 19, 8)
    assert (ElasticL1(gamma=0.5).conjugate_gradient(w) == 0).any(-1).all()
    few = (ElasticKOverlap(gamma=50.0, k=2).conjugate_gradient(w) != 0).sum(-1)
    assert (few <= 3).float().mean() > 0.8
    cost = ElasticSubspace(gamma=1e9, basis=BASIS)
    inside = cost.conjugate_gradient(points(10, 20))
    assert (inside @ torch.tensor([-2.0, 2.0, 1.0], dtype=torch.float64)).abs().max() < 1e-8
    torch.testing.assert_close(cost.basis.T @ cost.basis, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, math.pi / 2, math.pi - 1e-4, math.pi - 1e-9, math.pi])
def test_geodesic_keeps_its_digits_and_its_slope(angle):
    here = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    turn = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
    there = torch.stack([turn.cos(), turn.sin(), 0 * turn])[None]
    for value in (Geodesic()(here, there)[0, 0], Geodesic().paired(here, there)[0]):
        assert float(value.detach()) == pytest.approx(angle, abs=1e-15 if angle < 1 else 1e-14)
        (slope,) = torch.autograd.grad(value, turn, retain_graph=True)
        if 0 < angle < math.pi:
            assert float(slope) == pytest.approx(1.0, abs=1e-6)
        assert slope.isfinite()


def test_names():
    names = ("sqeuclidean", "euclidean", "manhattan", "cosine", "geodesic")
    assert [type(resolve(name)) for name in names] == [SquaredEuclidean, Euclidean, Manhattan, Cosine, Geodesic]
    x, y = points(5, 21), points(4, 22)
    for name in names:
        torch.testing.assert_close(resolve(name)(x, y), pf.ot.pairwise_cost(x, y, name), rtol=1e-13, atol=1e-13)
    assert resolve(resolve("cosine")) == Cosine()


@pytest.mark.parametrize("name", ["sqeuclidean", "euclidean", "manhattan", "cosine", "geodesic"])
def test_solve_takes_the_names_and_the_classes_of_maps(name):
    x, y = points(5, 21), points(4, 22)
    by_name, by_class = (pf.solve(pf.PointCost(x, y, cost), epsilon=0.1) for cost in (name, resolve(name)))
    assert float(by_name.value) == float(by_class.value)


def test_a_function_becomes_a_cost_without_its_whole_matrix():
    asked = []

    def wavy(x, y):
        asked.append((len(x), len(y)))
        return 1 - torch.cos(x @ y.T)

    cost = resolve(wavy)
    x, y = points(100, 23), points(100, 24)
    torch.testing.assert_close(cost.paired(x, y), cost(x, y).diagonal())
    assert max(n * m for n, m in asked[:-1]) <= classes.DIAGONAL_BLOCK**2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: resolve("l3"), "'geodesic'"),
        (lambda: resolve(3), "'sqeuclidean'"),
        (lambda: resolve(Euclidean), "cost must be one of"),
        (lambda: resolve(lambda x, y: x)(points(3, 0), points(2, 0)), r"\(3, 2\)"),
        (lambda: PNorm(p=0.5), "at least 1"),
        (lambda: PNorm(p=math.inf), "finite"),
        (lambda: PowerCost(p=1.0), r"above 1.*Manhattan"),
        (lambda: ElasticL1(gamma=-1.0), "gamma"),
        (lambda: ElasticKOverlap(gamma=1.0, k=0), "k must be"),
        (lambda: ElasticKOverlap(gamma=0.0, k=1), "gamma"),
        (lambda: ElasticSubspace(gamma=1.0, basis=torch.ones(3)), r"\(d, k\)"),
        (lambda: ElasticSubspace(gamma=1.0, basis=torch.ones(3, 2)), "linearly dependent"),
        (lambda: ElasticSubspace(gamma=1.0, basis=torch.full((3, 1), math.nan)), "basis"),
        (lambda: ElasticSubspace(gamma=1.0, basis=BASIS)(points(3, 0, 2), points(3, 0, 2)), "dimension 2"),
    ],
)
def test_what_cannot_be_used_is_named(make, says):
    with pytest.raises(InvalidArgument, match=says):
        make()
