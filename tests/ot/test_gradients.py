"""First and second derivatives against finite differences, and the laws that they obey."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import pushforward as pf
from pushforward.errors import InvalidArgument
from pushforward.ot.costs import pairwise_cost

TOL = 1e-14  # finite differences divide errors by 1e-6

READINGS: dict[str, Callable[..., Tensor]] = {
    "value": lambda sol: sol.value,
    "transport_cost": lambda sol: sol.transport_cost,
    "f": lambda sol: sol.f,
    "g": lambda sol: sol.g,
    "plan": lambda sol: sol.plan.to_dense(),
    "plan @ v": lambda sol: sol.plan @ torch.arange(1.0, sol.plan.shape[-1] + 1, dtype=torch.float64),
}
READING = pytest.mark.parametrize("reading", READINGS)


def leaf(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array)).clone().requires_grad_()


def softmax(logits: Tensor) -> Tensor:
    """Weights that stay of mass 1 while finite differences move what they come from."""
    return logits.softmax(-1)


@READING
def test_derivatives_in_the_cost(rng, reading: str):
    cost = leaf(rng.random((3, 2)))

    def function(c: Tensor) -> Tensor:
        return READINGS[reading](pf.solve(c, epsilon=0.3, tol=TOL))

    assert gradcheck(function, (cost,), atol=1e-7)
    assert gradgradcheck(function, (cost,), atol=1e-6)


@READING
def test_derivatives_in_the_weights(rng, reading: str):
    cost = torch.from_numpy(rng.random((3, 2)))
    a, b = leaf(rng.normal(size=3)), leaf(rng.normal(size=2))

    def function(p: Tensor, q: Tensor) -> Tensor:
        return READINGS[reading](pf.solve(cost, softmax(p), softmax(q), epsilon=0.3, tol=TOL))

    assert gradcheck(function, (a, b), atol=1e-7)
    assert gradgradcheck(function, (a, b), atol=1e-6)


@READING
@pytest.mark.parametrize("rho", [(0.7, 0.7), (0.4, 2.0), (math.inf, 0.5), (0.5, math.inf)], ids=str)
def test_derivatives_of_relaxed_problems(rng, reading: str, rho: tuple[float, float]):
    cost, a, b = leaf(rng.random((3, 2))), leaf(rng.random(3) + 0.5), leaf(rng.random(2) + 0.5)

    def function(c: Tensor, p: Tensor, q: Tensor) -> Tensor:
        return READINGS[reading](pf.solve(c, p, q, epsilon=0.3, unbalanced=rho, tol=TOL))

    assert gradcheck(function, (cost, a, b), atol=1e-7)
    if reading in ("value", "f"):
        assert gradgradcheck(function, (cost, a, b), atol=1e-6)


@READING
def test_derivatives_of_a_batch(rng, reading: str):
    costs, a = leaf(rng.random((2, 3, 2))), leaf(rng.normal(size=(2, 3)))

    def function(c: Tensor, p: Tensor) -> Tensor:
        sol = pf.solve(c, softmax(p), epsilon=0.3, tol=TOL)
        return sol.plan @ torch.ones(2, 2, dtype=torch.float64) if reading == "plan @ v" else READINGS[reading](sol)

    assert gradcheck(function, (costs, a), atol=1e-7)
    if reading == "transport_cost":
        assert gradgradcheck(function, (costs, a), atol=1e-6)


@READING
def test_derivatives_in_a_grids_weights(rng, reading: str):
    a, b = leaf(rng.normal(size=4)), leaf(rng.normal(size=4))

    def function(p: Tensor, q: Tensor) -> Tensor:
        return READINGS[reading](pf.solve(pf.GridCost((2, 2)), softmax(p), softmax(q), epsilon=0.7, tol=TOL))

    assert gradcheck(function, (a, b), atol=1e-7)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "manhattan", "cosine"])
def test_derivatives_in_the_points(rng, cost: str):
    x, y = leaf(rng.normal(size=(3, 2))), leaf(rng.normal(size=(2, 2)))

    def function(p: Tensor, q: Tensor) -> Tensor:
        return pf.solve(pf.PointCost(p, q, cost), epsilon=0.3, tol=TOL).value

    assert gradcheck(function, (x, y), atol=1e-7)
    assert gradgradcheck(function, (x, y), atol=1e-6)


@READING
@pytest.mark.parametrize("rho", [None, (0.4, math.inf)], ids=str)
def test_the_default_epsilon_is_differentiated(rng, reading: str, rho: tuple[float, float] | None):
    """It is 0.05 of the mean cost, which changes with the cost."""
    cost = leaf(rng.random((3, 2)))

    def function(c: Tensor) -> Tensor:
        return READINGS[reading](pf.solve(c, unbalanced=rho, tol=TOL))

    assert gradcheck(function, (cost,), atol=1e-6)
    if rho is not None:
        assert gradgradcheck(function, (cost,), atol=1e-5)


@READING
def test_derivatives_in_epsilon(rng, reading: str):
    cost, epsilon = leaf(rng.random((2, 3, 2))), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def function(c: Tensor, e: Tensor) -> Tensor:
        sol = pf.solve(c, epsilon=e, tol=TOL)
        return sol.plan @ torch.ones(2, 2, dtype=torch.float64) if reading == "plan @ v" else READINGS[reading](sol)

    assert gradcheck(function, (cost, epsilon), atol=1e-6)
    if reading in ("value", "f"):
        assert gradgradcheck(function, (cost, epsilon), atol=1e-5)


def test_the_derivative_of_the_value_in_epsilon_is_a_divergence(rng):
    """KL(P | a b^T), by the envelope theorem; on a grid, too."""
    a = torch.from_numpy(rng.dirichlet(np.ones(9)))
    epsilon = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    sol = pf.solve(pf.GridCost((3, 3)), a, epsilon=epsilon)
    sol.value.backward()
    plan = sol.plan.to_dense().detach()
    assert float(epsilon.grad) == pytest.approx(float((plan * (plan / (a[:, None] / 9)).log()).sum()), rel=1e-9)


def test_forbidden_pairs_are_not_in_the_default_epsilon(rng):
    finite, allowed = leaf(rng.random(7)), torch.ones(3, 3, dtype=torch.bool)
    allowed[0, 1] = allowed[2, 0] = False

    def function(c: Tensor) -> Tensor:
        costs = torch.full((3, 3), torch.inf, dtype=torch.float64).masked_scatter(allowed, c)
        sol = pf.solve(costs, tol=TOL)
        return torch.stack([sol.value, sol.transport_cost])

    assert gradcheck(function, (finite,), atol=1e-6)
    assert gradgradcheck(function, (finite,), atol=1e-5)


def test_a_cost_of_zero_has_a_derivative():
    cost = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    pf.solve(cost).value.backward()
    torch.testing.assert_close(cost.grad, torch.full_like(cost, 1 / 6))


def test_distances_from_a_point_to_itself_count_as_constant(rng):
    x = leaf(rng.normal(size=(4, 3)))
    for cost in ("euclidean", "manhattan"):
        (gradient,) = torch.autograd.grad(pairwise_cost(x, x, cost).diagonal().sum(), x)
        assert not gradient.any()
        assert gradgradcheck(lambda p, cost=cost: pairwise_cost(p, p.flip(0) + 0.3, cost).square().sum(), (x,))


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "manhattan", "cosine", "a function"])
def test_no_graph_keeps_the_differences_of_all_pairs(rng, cost: str, monkeypatch):
    """What a forward pass saves, and what any operation of the backward pass makes, is below n m d numbers."""
    monkeypatch.setattr("pushforward.ot.costs.functions.HELD_DIFFERENCES", 1 << 15)
    n, m, d = 60, 50, 40
    x, y = leaf(rng.normal(size=(n, d))), leaf(rng.normal(size=(m, d)))
    ground = (lambda p, q: (p[:, None] - q).abs().pow(1.5).sum(-1)) if cost == "a function" else cost
    largest = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = pf.solve(pf.PointCost(x, y, ground), epsilon=3.0).value
    value.backward()
    assert largest <= n * m
    x_again, y_again = (t.detach().clone().requires_grad_() for t in (x, y))
    monkeypatch.undo()
    plain = ground if callable(ground) else PLAIN[cost]
    pf.solve(plain(x_again, y_again), epsilon=3.0).value.backward()
    torch.testing.assert_close(x.grad, x_again.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(y.grad, y_again.grad, rtol=1e-9, atol=1e-12)


PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sqeuclidean": lambda x, y: (x[:, None] - y).square().sum(-1),
    "euclidean": lambda x, y: (x[:, None] - y).square().sum(-1).sqrt(),
    "manhattan": lambda x, y: (x[:, None] - y).abs().sum(-1),
    "cosine": lambda x, y: 1 - torch.cosine_similarity(x[:, None], y[None], dim=-1),
}


def test_a_function_by_blocks_has_the_derivatives_of_one_call(rng, monkeypatch):
    x, y, w = leaf(rng.normal(size=(7, 3))), leaf(rng.normal(size=(5, 3))), torch.from_numpy(rng.random((7, 5)))

    def cubes(p: Tensor, q: Tensor) -> Tensor:
        return (p[:, None] - q).abs().pow(3).sum(-1)

    def total(p: Tensor, q: Tensor) -> Tensor:
        return (pairwise_cost(p, q, cubes) * w).sum() + pairwise_cost(p, p, cubes).square().sum()

    expected = torch.autograd.grad(total(x, y), (x, y))
    monkeypatch.setattr("pushforward.ot.costs.functions.HELD_DIFFERENCES", 40)
    for one, two in zip(torch.autograd.grad(total(x, y), (x, y)), expected, strict=True):
        torch.testing.assert_close(one, two)
    assert gradgradcheck(total, (x, y))
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)  # a parameter of the function itself
    (learnt,) = torch.autograd.grad(pairwise_cost(x, y, lambda p, q: scale * cubes(p, q)).sum(), scale)
    assert float(learnt) == pytest.approx(float(cubes(x, y).detach().sum()))


def test_a_cost_that_depends_on_all_points_goes_by_no_blocks(rng, monkeypatch):
    x, y = leaf(rng.normal(size=(7, 3))), leaf(rng.normal(size=(5, 3)))

    def relative(p: Tensor, q: Tensor) -> Tensor:
        return torch.cdist(p, q) / torch.cdist(p, q).mean()

    pf.solve(pf.PointCost(x, y, relative), epsilon=0.3)
    monkeypatch.setattr("pushforward.ot.costs.functions.HELD_DIFFERENCES", 40)
    with pytest.raises(InvalidArgument, match="for a pair of points among many"):
        pf.solve(pf.PointCost(x, y, relative), epsilon=0.3)


def test_derivatives_of_the_divergence(rng):
    x, y, a = leaf(rng.normal(size=(3, 2))), leaf(rng.normal(size=(2, 2))), leaf(rng.normal(size=3))

    def function(p: Tensor, q: Tensor, logits: Tensor) -> Tensor:
        return pf.sinkhorn_divergence(p, q, softmax(logits), epsilon=0.3, tol=TOL)

    assert gradcheck(function, (x, y, a), atol=1e-7)
    assert gradgradcheck(function, (x, y, a), atol=1e-6)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "manhattan", "cosine"])
def test_gradcheck_holds_with_every_default(rng, cost: str):
    x, y = leaf(rng.normal(size=(3, 2))), leaf(rng.normal(size=(2, 2)))
    assert gradcheck(lambda p, q: pf.sinkhorn_divergence(p, q, cost=cost), (x, y))
    assert gradcheck(pf.SinkhornLoss(cost=cost), (x, y))
    assert gradcheck(pf.SinkhornLoss(cost=cost, debias=False), (x, y))
    assert gradcheck(lambda p, q: pf.solve(pf.PointCost(p, q, cost)).value, (x, y))


def test_second_derivatives_hold_with_the_default_epsilon(rng):
    x, y = leaf(rng.normal(size=(3, 2))), leaf(rng.normal(size=(2, 2)))
    assert gradgradcheck(lambda p, q: pf.sinkhorn_divergence(p, q, tol=1e-13), (x, y), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 2, 31])
def test_second_derivatives_where_a_plan_is_in_pieces(seed: int):
    """A cloud's plan to itself is nearly diagonal: its linear system is singular to rounding, and gave NaN."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(3, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    epsilon = 0.05 * float(pf.PointCost(x, y).matrix().mean())

    def function(p: Tensor) -> Tensor:
        return pf.sinkhorn_divergence(p, y, epsilon=epsilon, tol=1e-12)

    assert gradgradcheck(function, (x.requires_grad_(),), atol=1e-5)


def test_derivatives_of_the_loss(rng):
    x, y = leaf(rng.normal(size=(2, 3, 2))), leaf(rng.normal(size=(2, 2, 2)))
    for debias in (True, False):
        loss = pf.SinkhornLoss(epsilon=0.5, debias=debias)
        assert gradcheck(loss, (x, y), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_derivative_has_its_inputs_dtype(rng, dtype: torch.dtype):
    cost = torch.from_numpy(rng.random((4, 5))).to(dtype).requires_grad_()
    a = torch.full((4,), 0.25, dtype=dtype).requires_grad_()
    sol = pf.solve(cost, a, epsilon=0.3)
    (sol.value + sol.transport_cost + sol.f.sum() + sol.plan.to_dense().max()).backward()
    assert cost.grad.dtype == a.grad.dtype == dtype
    reference = cost.detach().double().requires_grad_()
    sol = pf.solve(reference, a.detach(), epsilon=0.3)
    (sol.value + sol.transport_cost + sol.f.sum() + sol.plan.to_dense().max()).backward()
    accuracy = {torch.float16: 2e-3, torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(cost.grad.double(), reference.grad, rtol=0, atol=accuracy)


def test_the_derivative_of_the_value_is_the_plan(rng):
    cost = leaf(rng.random((7, 5)))
    sol = pf.solve(cost, epsilon=0.1)
    sol.value.backward()
    torch.testing.assert_close(cost.grad, sol.plan.to_dense().detach(), rtol=0, atol=1e-12)


def test_the_derivative_in_the_weights_is_the_potential(rng):
    a = torch.from_numpy(rng.dirichlet(np.ones(6))).requires_grad_()
    sol = pf.solve(torch.from_numpy(rng.random((6, 5))), a, epsilon=0.1)
    sol.value.backward()
    direction = a.grad - a.grad.mean()  # only changes that keep the mass have a meaning
    f = sol.f.detach()
    torch.testing.assert_close(direction, f - f.mean(), rtol=0, atol=1e-8)


def test_shifting_the_cost_moves_no_plan(rng):
    cost = leaf(rng.random((5, 4)))
    sol = pf.solve(cost, epsilon=0.1, tol=1e-12)
    picked = torch.from_numpy(rng.normal(size=(5, 4)))
    (sol.plan.to_dense() * picked).sum().backward()
    assert cost.grad.abs().max() > 1e-3
    assert float(cost.grad.sum(0).abs().max()) < 1e-9
    assert float(cost.grad.sum(1).abs().max()) < 1e-9


def test_small_epsilons_and_larger_problems(rng):
    """Against one directional difference: a whole Jacobian would take a solve for each entry."""
    cost, direction = torch.from_numpy(rng.random((25, 20))), torch.from_numpy(rng.normal(size=(25, 20)))

    def reading(c: Tensor) -> Tensor:
        sol = pf.solve(c, epsilon=5e-3, tol=1e-13)
        return sol.transport_cost + sol.f[:5].square().sum()

    c = cost.clone().requires_grad_()
    reading(c).backward()
    h = 1e-6
    slope = float(reading(cost + h * direction) - reading(cost - h * direction)) / (2 * h)
    assert float((c.grad * direction).sum()) == pytest.approx(slope, rel=1e-5)


def test_zero_weights_have_finite_derivatives(rng):
    cost = leaf(rng.random((5, 4)))
    a = torch.tensor([0.5, 0.0, 0.2, 0.3, 0.0], dtype=torch.float64, requires_grad=True)
    sol = pf.solve(cost, a, epsilon=0.2)
    (sol.value + sol.transport_cost + sol.f.sum()).backward()
    assert torch.isfinite(cost.grad).all()
    assert torch.isfinite(a.grad).all()
    kept = cost.detach()[a.detach() > 0].requires_grad_()
    rest = pf.solve(kept, a.detach()[a.detach() > 0], epsilon=0.2)
    rest.value.backward()
    value = leaf(cost.detach().numpy())
    pf.solve(value, a.detach(), epsilon=0.2).value.backward()
    torch.testing.assert_close(value.grad[a.detach() > 0], kept.grad, rtol=0, atol=1e-10)
    assert not value.grad[a.detach() == 0].any()


def test_no_graph_where_none_is_wanted(rng):
    cost = leaf(rng.random((4, 3)))
    with torch.no_grad():
        assert not pf.solve(cost, epsilon=0.2).value.requires_grad
    assert not pf.solve(cost.detach(), epsilon=0.2).value.requires_grad
    with torch.inference_mode():
        assert not pf.solve(cost.detach().clone(), epsilon=0.2).f.requires_grad


def test_the_solvers_steps_are_not_unrolled(rng):
    """The graph behind a solution does not grow with the number of its steps."""

    def nodes(tensor: Tensor) -> int:
        seen, left = set(), [tensor.grad_fn]
        while left:
            node = left.pop()
            if node is not None and node not in seen:
                seen.add(node)
                left += [parent for parent, _ in node.next_functions]
        return len(seen)

    cost = leaf(rng.random((8, 6)))
    few, many = (pf.solve(cost, epsilon=epsilon, method="sinkhorn") for epsilon in (1.0, 0.02))
    assert len(many.history) > 5 * len(few.history)
    assert nodes(many.f) == nodes(few.f) < 60
