"""Sparse costs: an absent pair is forbidden, a stored zero is an allowed pair that costs nothing."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse
import torch

import pushforward as pf

FORMATS = ["coo", "csr", "csc", "lil", "dok"]


@pytest.fixture
def problem(rng):
    """A cost with absent pairs and a stored zero, the same with inf, and weights that some plan has."""
    n, m = 9, 7
    allowed = rng.random((n, m)) < 0.5
    allowed[np.arange(n), np.arange(n) % m] = True
    plan = np.where(allowed, rng.random((n, m)), 0.0)
    plan /= plan.sum()
    dense = np.where(allowed, rng.random((n, m)), np.inf)
    row, col = np.nonzero(allowed)
    dense[row[0], col[0]] = 0.0
    return scipy.sparse.coo_array((dense[row, col], (row, col)), shape=(n, m)), dense, plan.sum(1), plan.sum(0)


@pytest.mark.parametrize("kind", [scipy.sparse.coo_array, scipy.sparse.coo_matrix])
@pytest.mark.parametrize("layout", FORMATS)
def test_scipy_formats(problem, kind, layout: str):
    listed, dense, a, b = problem
    cost = kind(listed).asformat(layout)
    found, expected = pf.exact(cost, a, b), pf.exact(dense, a, b)
    assert found.cost == pytest.approx(expected.cost, rel=1e-14)
    np.testing.assert_allclose(found.plan.toarray(), expected.plan.toarray(), rtol=1e-12)
    entropic = pf.solve(cost, a, b, epsilon=0.1)
    assert isinstance(entropic.f, np.ndarray)
    assert entropic.value == pytest.approx(pf.solve(dense, a, b, epsilon=0.1).value, rel=1e-12)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_torch_layouts(problem, layout):
    listed, dense, a, b = problem
    indices = torch.from_numpy(np.stack([listed.row, listed.col]).astype(np.int64))
    cost = torch.sparse_coo_tensor(indices, torch.from_numpy(listed.data), listed.shape)
    cost = cost if layout is torch.sparse_coo else cost.to_sparse(layout=layout)
    weights = torch.from_numpy(a), torch.from_numpy(b)
    found = pf.exact(cost, *weights)
    assert found.cost == pytest.approx(pf.exact(dense, a, b).cost, rel=1e-14)
    assert found.plan.layout is torch.sparse_coo
    entropic = pf.solve(cost, *weights, epsilon=0.1)
    assert float(entropic.value) == pytest.approx(pf.solve(dense, a, b, epsilon=0.1).value, rel=1e-12)


def test_a_zero_is_free_and_an_absence_is_not():
    cost = scipy.sparse.coo_array(([0.0, 1.0, 5.0, 1.0], ([0, 0, 1, 1], [0, 1, 0, 1])), shape=(2, 2))
    assert pf.exact(cost).cost == 0.5
    without = scipy.sparse.coo_array(([1.0, 5.0], ([0, 1], [1, 0])), shape=(2, 2))
    assert pf.exact(without).cost == 3.0


def test_entries_given_twice_are_summed():
    twice = scipy.sparse.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [0, 0, 1])), shape=(2, 2))
    assert pf.exact(twice).cost == 3.5
    assert twice.nnz == 3  # the caller's array is left as it was
    indices = torch.tensor([[0, 0, 1], [0, 0, 1]])
    assert pf.exact(torch.sparse_coo_tensor(indices, torch.tensor([1.0, 2.0, 4.0]), (2, 2))).cost == 3.5


@pytest.mark.parametrize("layout", ["dia", "bsr"])
def test_formats_that_cannot_say_what_is_absent(layout: str):
    dense = np.array([[1.0, 2.0, 0.0, 0.0], [0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    cost = scipy.sparse.bsr_array(dense, blocksize=(2, 2)) if layout == "bsr" else scipy.sparse.dia_array(dense)
    for solver in (pf.exact, pf.solve):
        with pytest.raises(pf.errors.InvalidArgument, match="blocks or diagonals"):
            solver(cost)


@pytest.mark.parametrize("solver", [pf.exact, pf.solve])
def test_a_pattern_without_a_plan_is_refused(solver):
    shared = scipy.sparse.coo_array((np.ones(4), ([0, 1, 2, 2], [0, 0, 1, 2])), shape=(3, 3))
    with pytest.raises(pf.errors.InfeasibleError, match="avoids the forbidden"):
        solver(shared)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_bad_numbers_are_named(bad: float):
    cost = scipy.sparse.coo_array(([1.0, bad], ([0, 1], [0, 1])), shape=(2, 2))
    for solver in (pf.exact, pf.solve):
        with pytest.raises(pf.errors.NonFiniteError, match="cost"):
            solver(cost)


def test_exact_holds_no_matrix():
    n = 2000  # a matrix of n x n numbers takes 32 MB
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(n), 3)
    cols = (rows + np.tile([0, 1, 2], n)) % n
    cost = scipy.sparse.coo_array((rng.random(3 * n), (rows, cols)), shape=(n, n))
    tracemalloc.start()
    sol = pf.exact(cost)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6
    assert sol.gap <= 1e-13


def test_derivatives_reach_the_stored_values(problem):
    listed, _, a, b = problem
    indices = torch.from_numpy(np.stack([listed.row, listed.col]).astype(np.int64))
    values = torch.from_numpy(listed.data + 1.0).requires_grad_()
    weights = torch.from_numpy(a), torch.from_numpy(b)

    def cost(values, layout=torch.sparse_coo):
        coo = torch.sparse_coo_tensor(indices, values, listed.shape)
        return coo if layout is torch.sparse_coo else coo.to_sparse(layout=layout)

    def optimum(values):
        return pf.exact(cost(values), *weights).cost

    def regularised(values):
        return pf.solve(cost(values, torch.sparse_csr), *weights, epsilon=0.2, tol=1e-12).value

    assert torch.autograd.gradcheck(optimum, values, eps=1e-7, atol=1e-5, fast_mode=True)
    assert torch.autograd.gradcheck(regularised, values, eps=1e-6, atol=1e-6, fast_mode=True)
