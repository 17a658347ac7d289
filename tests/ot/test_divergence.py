"""The Sinkhorn divergence, its module, and the names for people who come from POT."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pushforward as pf


@pytest.fixture
def clouds(rng) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(rng.normal(size=(12, 2))), torch.from_numpy(rng.normal(size=(9, 2)) + 0.5)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "manhattan"])
def test_it_is_what_its_name_says(clouds, rng, cost):
    x, y = clouds
    a, b = torch.from_numpy(rng.dirichlet(np.ones(12))), torch.from_numpy(rng.dirichlet(np.ones(9)))

    def ot(p, q, w, v):
        return float(pf.solve(pf.PointCost(p, q, cost), w, v, epsilon=0.2).value)

    expected = ot(x, y, a, b) - 0.5 * ot(x, x, a, a) - 0.5 * ot(y, y, b, b)
    assert float(pf.sinkhorn_divergence(x, y, a, b, cost=cost, epsilon=0.2)) == pytest.approx(expected, abs=1e-10)
    mirrored = pf.sinkhorn_divergence(y, x, b, a, cost=cost, epsilon=0.2)
    assert float(mirrored) == pytest.approx(expected, abs=1e-8)
    assert expected > 0


def wavy(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Symmetric, and far from a positive definite kernel."""
    return 1 + torch.cos(9 * (p[:, None] + q).sum(-1))


def test_costs_without_a_positive_definite_kernel(clouds):
    x, y = clouds

    def ot(p, q):
        return float(pf.solve(pf.PointCost(p, q, wavy), epsilon=0.05).value)

    expected = ot(x, y) - 0.5 * ot(x, x) - 0.5 * ot(y, y)
    assert float(pf.sinkhorn_divergence(x, y, cost=wavy, epsilon=0.05)) == pytest.approx(expected, abs=1e-9)


def test_the_front_door_does_not_take_a_potentials_word(clouds, monkeypatch):
    x, y = clouds
    expected = float(pf.sinkhorn_divergence(x, y, epsilon=0.2))
    monkeypatch.setattr(
        "pushforward.ot.divergence.self_potential",
        lambda problem, tol: torch.sin(torch.arange(problem.a.numel()).to(problem.a))[None],
    )
    assert float(pf.sinkhorn_divergence(x, y, epsilon=0.2)) == pytest.approx(expected, abs=1e-10)


def test_epsilon_defaults_to_that_of_the_cross_term(clouds):
    x, y = clouds
    epsilon = pf.solve(pf.PointCost(x, y)).epsilon
    expected = pf.sinkhorn_divergence(x, y, epsilon=epsilon)
    assert float(pf.sinkhorn_divergence(x, y)) == pytest.approx(float(expected), abs=1e-12)


def test_forms(clouds):
    x, y = clouds
    value = pf.sinkhorn_divergence(x.float(), y.float(), epsilon=0.2)
    assert value.dtype == torch.float32
    assert value.shape == ()
    number = pf.sinkhorn_divergence(x.numpy(), y.numpy(), epsilon=0.2)
    assert isinstance(number, np.float64)
    assert number == pytest.approx(float(value), rel=1e-5)


def test_a_small_step_against_the_gradient_helps(clouds):
    x, y = clouds
    x = x.clone().requires_grad_()
    before = pf.sinkhorn_divergence(x, y, epsilon=0.2)
    before.backward()
    after = pf.sinkhorn_divergence(x.detach() - 0.1 * x.grad, y, epsilon=0.2)
    drop = float(before.detach() - after)
    assert drop == pytest.approx(0.1 * float(x.grad.square().sum()), rel=0.05)


def test_the_module_is_the_function(clouds):
    x, y = clouds
    loss = pf.SinkhornLoss(epsilon=0.2)
    assert isinstance(loss, torch.nn.Module)
    assert float(loss(x, y)) == float(pf.sinkhorn_divergence(x, y, epsilon=0.2, tol=1e-6))
    biased = pf.SinkhornLoss(epsilon=0.2, debias=False)
    assert float(biased(x, y)) == float(pf.solve(pf.PointCost(x, y), epsilon=0.2, tol=1e-6).value)
    manhattan = pf.SinkhornLoss(cost="manhattan", epsilon=0.2, tol=1e-9)
    assert float(manhattan(x, y)) == float(pf.sinkhorn_divergence(x, y, cost="manhattan", epsilon=0.2))


def test_batches_and_reductions(rng):
    x, y = torch.from_numpy(rng.normal(size=(3, 6, 2))), torch.from_numpy(rng.normal(size=(3, 5, 2)))
    a, b = torch.from_numpy(rng.dirichlet(np.ones(6), 3)), torch.from_numpy(rng.dirichlet(np.ones(5)))
    each = [float(pf.sinkhorn_divergence(x[k], y[k], a[k], b, epsilon=0.3)) for k in range(3)]
    none = pf.SinkhornLoss(epsilon=0.3, reduction="none")(x, y, a, b)
    np.testing.assert_allclose(none.numpy(), each, atol=1e-12)
    assert float(pf.SinkhornLoss(epsilon=0.3)(x, y, a, b)) == pytest.approx(np.mean(each), abs=1e-12)
    assert float(pf.SinkhornLoss(epsilon=0.3, reduction="sum")(x, y, a, b)) == pytest.approx(sum(each), abs=1e-12)


def test_a_batch_reports_its_largest_marginal_error(rng):
    x, y = (torch.from_numpy(rng.random((3, 8, 2))) for _ in range(2))
    x[0], y[0] = x[0, :1], y[0, :1]  # all points in one place, solved without error
    loss = pf.SinkhornLoss(epsilon=0.05, tol=1e-3)
    errors = [float((loss(x[k], y[k]), loss.marginal_error)[1]) for k in range(3)]
    loss(x, y)
    assert loss.marginal_error == max(errors) > min(errors)


def test_the_default_epsilon_is_differentiated_in_every_term(rng):
    """The terms of a cloud with itself have the epsilon of the cross term, and their share of its derivative."""
    x, y = (torch.from_numpy(rng.random((n, 2))).requires_grad_() for n in (4, 5))
    assert torch.autograd.gradcheck(lambda x, y: pf.sinkhorn_divergence(x, y, tol=1e-12), (x, y), atol=1e-6)


def test_the_module_trains(rng):
    y = torch.from_numpy(rng.normal(size=(10, 2)))
    x = torch.nn.Parameter(torch.from_numpy(rng.normal(size=(10, 2)) + 3))
    optimiser, loss = torch.optim.Adam([x], lr=0.3), pf.SinkhornLoss(epsilon=0.1)
    first = float(loss(x, y).detach())
    for _ in range(20):
        optimiser.zero_grad()
        loss(x, y).backward()
        optimiser.step()
    assert float(loss(x, y).detach()) < 0.1 * first


def test_a_training_loop_outlives_an_epsilon_below_rounding(recwarn):
    torch.manual_seed(0)
    x, y = torch.randn(64, 2), torch.randn(64, 2) + 1
    nearest = pf.exact(pf.PointCost(x, y)).cost  # the terms within a cloud vanish
    for epsilon in (1e-5, 1e-7, 1e-8):
        loss = pf.SinkhornLoss(epsilon=epsilon)
        assert float(loss(x, y)) == pytest.approx(nearest, rel=1e-6)
        assert loss.marginal_error <= loss.tol
    assert not recwarn.list
    loss = pf.SinkhornLoss(epsilon=1e-11)
    for _ in range(3):
        assert float(loss(x, y)) == pytest.approx(nearest, rel=1e-3)
        assert loss.marginal_error > loss.tol
    (said,) = recwarn.list  # once, not at every step
    assert said.category is pf.errors.NotConvergedWarning
    assert "asked 1e-06" in str(said.message)


def test_what_did_not_converge_raises_where_that_is_asked(clouds):
    x, y = clouds
    loss = pf.SinkhornLoss(epsilon=1e-11, throw=True)
    for function in (loss, lambda p, q: pf.sinkhorn_divergence(p, q, epsilon=1e-11)):
        with pytest.raises(pf.errors.NotConverged, match="pass throw=False") as caught:
            function(x, y)
        assert caught.value.solution is not None
    with pytest.warns(pf.errors.NotConvergedWarning, match="sinkhorn_divergence reached a marginal error of"):
        value = pf.sinkhorn_divergence(x, y, epsilon=1e-11, throw=False)
    assert torch.isfinite(value)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("share", [0.05, 0.001])
def test_the_losss_tolerance_is_above_its_gradients_error(seed: int, share: float):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(64, 3, dtype=torch.float64, generator=generator).requires_grad_()
    y = 0.5 * torch.randn(64, 3, dtype=torch.float64, generator=generator) + 1
    epsilon = share * float(pf.PointCost(x.detach(), y).matrix().mean())
    (gradient,) = torch.autograd.grad(pf.SinkhornLoss(epsilon=epsilon)(x, y), x)
    (expected,) = torch.autograd.grad(pf.sinkhorn_divergence(x, y, epsilon=epsilon, tol=1e-11), x)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-6
