"""What POT's exact transport promises, asked of ours: `compat.emd` and `emd2` beside `ot.emd` and `ot.emd2`."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from pushforward.ot.compat import emd, emd2

ot = pytest.importorskip("ot")


def gaussian(n: int, middle: float, width: float) -> np.ndarray:
    weights = np.exp(-((np.arange(n) - middle) ** 2) / (2 * width**2))
    return weights / weights.sum()


def clouds(rng, n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    return ((x[:, None] - y) ** 2).sum(-1), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


@pytest.mark.parametrize("shape", [(30, 30), (17, 40), (1, 6), (6, 1)])
def test_plan_and_cost(rng, shape):
    cost, a, b = clouds(rng, *shape)
    np.testing.assert_allclose(emd(a, b, cost), ot.emd(a, b, cost), atol=1e-13)
    assert emd2(a, b, cost) == pytest.approx(ot.emd2(a, b, cost), rel=1e-12)


@pytest.mark.parametrize(("middle", "width"), [(30, 5), (50, 10), (80, 1)])
def test_prices_prove_the_cost_from_either_side(middle: float, width: float):
    a, b = gaussian(100, 20, 5), gaussian(100, middle, width)
    cost = np.abs(np.subtract.outer(np.arange(100.0), np.arange(100.0)))
    for first, second in ((a, b), (b, a)):
        plan, log = emd(first, second, cost, log=True)
        assert log["u"] @ first + log["v"] @ second == pytest.approx(log["cost"], rel=1e-12)
        assert (cost - log["u"][:, None] - log["v"])[plan > 0].max() <= 1e-12 * cost.max()
        assert log["cost"] == pytest.approx(abs(middle - 20), rel=1e-2)


def test_weights_that_are_zero(rng):
    cost, a, b = clouds(rng, 20, 20)
    a[:10], b[10:] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    plan = emd(a, b, cost)
    np.testing.assert_allclose(plan, ot.emd(a, b, cost), atol=1e-13)
    assert plan[:10].sum() == plan[:, 10:].sum() == 0


@pytest.mark.parametrize("sparse", [False, True])
def test_derivatives_keep_the_mass(rng, sparse: bool):
    cost, a, b = (torch.from_numpy(x) for x in clouds(rng, 12, 15))
    a.requires_grad_()
    b.requires_grad_()
    given = cost.to_sparse() if sparse else cost.requires_grad_()
    value, log = emd2(a, b, given, log=True)
    value.backward()
    torch.testing.assert_close(a.grad, log["u"] - log["u"].mean())
    torch.testing.assert_close(b.grad, log["v"] - log["v"].mean())
    if not sparse:
        torch.testing.assert_close(cost.grad, emd(a.detach(), b.detach(), cost.detach()))


def test_a_sparse_cost_comes_back_as_a_sparse_plan(rng):
    cost, a, b = clouds(rng, 9, 9)
    near = cost <= np.sort(cost, 1)[:, [5]]
    near |= np.eye(9, dtype=bool)
    row, col = np.nonzero(near)
    listed = scipy.sparse.coo_array((cost[row, col], (row, col)), shape=cost.shape)
    plan = emd(a, a, listed)
    assert scipy.sparse.issparse(plan)
    np.testing.assert_allclose(plan.toarray(), ot.emd(a, a, np.where(near, cost, 1e6)), atol=1e-12)
