"""What goes into `solve`, what comes back, in which form, and when it stops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.errors import ShapeError
from pushforward.ot import SNS, Newton, Sinkhorn, Step

METHODS = pytest.mark.parametrize("method", ["auto", "newton", "sns", "sinkhorn"])


@pytest.fixture
def cost(rng) -> np.ndarray:
    return rng.random((12, 9))


def test_numpy_in_numpy_out(cost):
    sol = pf.solve(cost, epsilon=0.05)
    assert isinstance(sol.f, np.ndarray)
    assert isinstance(sol.g, np.ndarray)
    assert (sol.f.shape, sol.g.shape, sol.plan.shape) == ((12,), (9,), (12, 9))
    for number in (sol.value, sol.transport_cost):
        assert isinstance(number, np.floating)
        assert number.dtype == np.float64
    assert isinstance(sol.plan.to_dense(), np.ndarray)
    assert isinstance(sol.marginal_error, float)
    assert isinstance(sol.duality_gap, float)
    assert all(isinstance(bound, float) for bound in sol.bounds())


def test_lists_are_arrays():
    sol = pf.solve([[0, 1], [1, 0]], [1, 3], [2, 2], epsilon=0.5)
    assert isinstance(sol.f, np.ndarray)
    np.testing.assert_allclose(sol.plan.to_dense().sum(1), [1, 3], atol=1e-8)


def test_whatever_turns_into_an_array_is_taken(cost):
    class Frame:
        def __array__(self, dtype=None, copy=None):
            return cost

    np.testing.assert_array_equal(pf.solve(Frame(), epsilon=0.05).f, pf.solve(cost, epsilon=0.05).f)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, ">f8"])
def test_numpy_dtypes(rng, dtype):
    cost = (10 * rng.random((6, 5))).astype(dtype)
    sol = pf.solve(cost, epsilon=1.0)
    expected = np.dtype(dtype).newbyteorder("=") if np.dtype(dtype).kind == "f" else np.float64
    assert sol.f.dtype == sol.value.dtype == sol.plan.to_dense().dtype == expected
    assert float(sol.value) == pytest.approx(pf.solve(cost.astype(float), epsilon=1.0).value, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_torch_dtypes(rng, dtype):
    cost = torch.from_numpy(10 * rng.random((6, 5))).to(dtype)
    sol = pf.solve(cost, epsilon=1.0)
    expected = dtype if dtype.is_floating_point else torch.float64
    for tensor in (sol.f, sol.g, sol.value, sol.transport_cost, sol.plan.to_dense(), sol.plan @ torch.ones(5)):
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype == expected
    assert sol.value.shape == ()
    # The computation itself is in float64: its error says so, and so does its value, rounded.
    assert sol.marginal_error <= 1e-9
    assert torch.equal(sol.value, pf.solve(cost.double(), epsilon=1.0).value.to(expected))


def test_memory_layout_does_not_matter(cost):
    expected = pf.solve(cost, epsilon=0.05).f
    read_only = cost.copy()
    read_only.setflags(write=False)
    wide = np.zeros((24, 18))
    wide[::2, ::2] = cost
    for same in (
        np.asfortranarray(cost),
        cost[::-1][::-1],
        read_only,
        wide[::2, ::2],
        torch.from_numpy(cost.T.copy()).T,
    ):
        np.testing.assert_allclose(np.asarray(pf.solve(same, epsilon=0.05).f), expected, atol=1e-12)


def test_solution_fulfils_its_definitions(cost, rng):
    a, b = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(9))
    sol = pf.solve(cost, a, b, epsilon=0.05)
    plan = a[:, None] * b * np.exp((sol.f[:, None] + sol.g - cost) / 0.05)
    np.testing.assert_allclose(sol.plan.to_dense(), plan, rtol=1e-12)
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    assert error <= sol.marginal_error + 1e-14
    assert sol.transport_cost == pytest.approx((plan * cost).sum(), rel=1e-12)
    assert sol.f @ a == pytest.approx(sol.g @ b, abs=1e-14)
    relative = (plan * np.log(plan / (a[:, None] * b)) - plan + a[:, None] * b).sum()
    assert sol.value == pytest.approx((plan * cost).sum() + 0.05 * relative, abs=1e-9)
    assert sol.status is pf.Status.CONVERGED
    assert sol.converged
    assert sol.status.message


def test_weights_default_to_uniform(cost):
    expected = pf.solve(cost, np.full(12, 1 / 12), np.full(9, 1 / 9), epsilon=0.05)
    np.testing.assert_allclose(pf.solve(cost, epsilon=0.05).f, expected.f, atol=1e-13)


def test_epsilon_defaults_to_a_twentieth_of_the_mean_cost(cost):
    assert pf.solve(cost).epsilon == pytest.approx(0.05 * cost.mean(), rel=1e-12)
    assert pf.solve(-cost).epsilon == pytest.approx(0.05 * cost.mean(), rel=1e-12)
    cost[0, 0] = np.inf
    assert pf.solve(cost).epsilon == pytest.approx(0.05 * cost[np.isfinite(cost)].mean(), rel=1e-12)
    assert pf.solve(pf.GridCost((4,), p=1)).epsilon == pytest.approx(0.05 * 1.25, rel=1e-12)
    assert pf.solve(np.zeros((3, 2))).value == 0.0


@METHODS
def test_unnormalised_weights_of_equal_mass(cost, method: str):
    a, b = np.full(12, 3.0), np.full(9, 4.0)
    sol = pf.solve(cost, a, b, epsilon=0.1, method=method)
    np.testing.assert_allclose(sol.plan.to_dense().sum(0), b, atol=36e-9)
    np.testing.assert_allclose(sol.plan.to_dense(), 36 * pf.solve(cost, epsilon=0.1).plan.to_dense(), atol=1e-7)


def test_zero_weights_carry_nothing_and_leave_the_rest_alone(cost, rng):
    a, b = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(9))
    a[[0, 5]], b[8] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    sol, rest = pf.solve(cost, a, b, epsilon=0.05), pf.solve(cost[a > 0][:, b > 0], a[a > 0], b[b > 0], epsilon=0.05)
    plan = sol.plan.to_dense()
    assert not plan[a == 0].any()
    assert not plan[:, b == 0].any()
    np.testing.assert_allclose(plan[a > 0][:, b > 0], rest.plan.to_dense(), atol=1e-10)
    assert sol.value == pytest.approx(rest.value, abs=1e-10)
    # Where there is no weight the potential is what a vanishing weight would have there.
    g = -0.05 * np.log((a[:, None] * np.exp((sol.f[:, None] - cost) / 0.05)).sum(0))
    f = -0.05 * np.log((b * np.exp((sol.g - cost) / 0.05)).sum(1))
    np.testing.assert_allclose(sol.g, g, atol=1e-8)
    np.testing.assert_allclose(sol.f, f, atol=1e-8)


@METHODS
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_batch_is_its_problems_one_by_one(rng, method: str, library: str):
    costs = rng.random((4, 8, 6)) * np.array([1.0, 0.3, 2.0, 1.0])[:, None, None]
    a, b = rng.dirichlet(np.ones(8), 4), rng.dirichlet(np.ones(6), 4)
    convert = torch.from_numpy if library == "torch" else np.asarray
    batch = pf.solve(convert(costs), convert(a), convert(b), epsilon=0.1, tol=1e-11, method=method)
    assert batch.plan.shape == (4, 8, 6)
    assert tuple(batch.value.shape) == tuple(batch.marginal_error.shape) == tuple(batch.duality_gap.shape) == (4,)
    for k in range(4):
        one = pf.solve(costs[k], a[k], b[k], epsilon=0.1, tol=1e-11, method=method)
        assert float(batch.value[k]) == pytest.approx(one.value, abs=1e-10)
        assert float(batch.transport_cost[k]) == pytest.approx(one.transport_cost, abs=1e-9)
        np.testing.assert_allclose(np.asarray(batch.f[k]), one.f, atol=1e-8)
        np.testing.assert_allclose(np.asarray(batch.g[k]), one.g, atol=1e-8)
        np.testing.assert_allclose(np.asarray(batch.plan.to_dense()[k]), one.plan.to_dense(), atol=1e-9)
        np.testing.assert_allclose([batch.bounds()[i][k] for i in (0, 1)], one.bounds(), atol=1e-8)


def test_a_batch_of_large_problems_is_solved_one_by_one(rng):
    costs = rng.random((2, 260, 270))
    batch = pf.solve(costs, epsilon=0.05)
    for k in range(2):
        assert batch.value[k] == pytest.approx(pf.solve(costs[k], epsilon=0.05).value, abs=1e-10)
    assert batch.iterations.newton == sum(pf.solve(c, epsilon=0.05).iterations.newton for c in costs)


def test_weights_without_a_batch_axis_serve_the_whole_batch(rng):
    costs, a, b = rng.random((3, 8, 6)), rng.dirichlet(np.ones(8)), rng.dirichlet(np.ones(6), 3)
    mixed = pf.solve(costs, a, b, epsilon=0.1)
    np.testing.assert_allclose(mixed.f, pf.solve(costs, np.tile(a, (3, 1)), b, epsilon=0.1).f, atol=1e-12)


def test_a_batch_of_one_keeps_its_axis(cost):
    sol = pf.solve(cost[None], epsilon=0.05)
    assert sol.f.shape == (1, 12)
    assert sol.value.shape == (1,)
    np.testing.assert_allclose(sol.f[0], pf.solve(cost, epsilon=0.05).f, atol=1e-10)


def test_zero_weights_in_a_batch(rng):
    costs, a = rng.random((3, 7, 5)), rng.dirichlet(np.ones(7), 3)
    a[0, :2], a[1, 3] = 0.0, 0.0
    a /= a.sum(1, keepdims=True)
    batch = pf.solve(costs, a, epsilon=0.1, tol=1e-11)
    for k in range(3):
        one = pf.solve(costs[k], a[k], epsilon=0.1, tol=1e-11)
        np.testing.assert_allclose(batch.f[k], one.f, atol=1e-8)
        np.testing.assert_allclose(batch.plan.to_dense()[k], one.plan.to_dense(), atol=1e-10)


@pytest.mark.parametrize("method", ["newton", "sinkhorn"])
@pytest.mark.parametrize("form", ["solution", "potentials"])
def test_a_warm_start_saves_steps(rng, method: str, form: str):
    cost = rng.random((20, 15))
    first = pf.solve(cost, epsilon=0.02, method=method)
    near = cost + 1e-3 * rng.random((20, 15))
    cold = pf.solve(near, epsilon=0.02, method=method)
    warm = pf.solve(near, epsilon=0.02, method=method, init=first if form == "solution" else first.g)
    assert len(warm.history) < 0.8 * len(cold.history)
    assert warm.value == pytest.approx(cold.value, abs=1e-9)


def test_a_warm_start_at_the_answer_takes_no_step(rng):
    costs = rng.random((3, 8, 6))
    first = pf.solve(costs, epsilon=0.1, tol=1e-11)
    for init in (first, first.g, torch.from_numpy(first.g)):
        assert pf.solve(costs, epsilon=0.1, init=init).history == ()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Newton(), "newton"),
        (Newton(start=1.0, factor=2.0, forcing=0.01, sparse_below=1e-6), "newton"),
        (SNS(), "sns"),
        (SNS(sinkhorn_steps=5, density=0.5, cg_tol=1e-10), "sns"),
        (Sinkhorn(), "sinkhorn"),
    ],
)
def test_settings_objects(cost, settings, name: str):
    sol = pf.solve(cost, epsilon=0.05, method=settings)
    assert sol.method == name
    np.testing.assert_allclose(sol.plan.to_dense(), pf.solve(cost, epsilon=0.05).plan.to_dense(), atol=1e-9)


def test_settings_are_obeyed(cost):
    assert pf.solve(cost, epsilon=0.05, method=SNS(sinkhorn_steps=7)).iterations.sinkhorn == 7
    first = pf.solve(cost, epsilon=0.01, method=Newton(start=2.0)).history[0].epsilon
    assert first == pytest.approx(2.0 * cost.mean(), rel=1e-9)


@METHODS
@pytest.mark.parametrize("batched", [False, True])
def test_the_hook_hears_every_step(rng, method: str, batched: bool):
    heard: list[Step] = []
    cost = rng.random((2, 10, 8)) if batched else rng.random((10, 8))
    sol = pf.solve(cost, epsilon=0.1, method=method, progress=heard.append)
    assert tuple(heard) == sol.history
    kinds = [step.kind for step in heard]
    assert kinds.count("sinkhorn") == sol.iterations.sinkhorn
    assert kinds.count("newton") == sol.iterations.newton
    assert all(math.isfinite(step.error) and step.error > 0 for step in heard)
    assert heard[-1].epsilon == pytest.approx(0.1)
    if not batched:
        for before, after in zip(heard, heard[1:], strict=False):
            assert before.evaluations <= after.evaluations
            assert before.seconds <= after.seconds
        assert heard[-1].evaluations <= sol.iterations.plan_evaluations + sol.iterations.products


def test_what_the_hook_raises_comes_through(cost):
    def interrupt(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pf.solve(cost, epsilon=0.05, progress=interrupt)


@METHODS
@pytest.mark.parametrize("limit", [1, 4])
def test_max_iterations_is_honoured_and_said(rng, method: str, limit: int):
    cost = rng.random((30, 30))
    sol = pf.solve(cost, epsilon=1e-3, method=method, max_iterations=limit, throw=False)
    assert len(sol.history) == sol.iterations.sinkhorn + sol.iterations.newton == limit
    assert sol.status is pf.Status.ITERATION_LIMIT
    assert not sol.converged
    assert sol.marginal_error > 1e-3
    plan = sol.plan.to_dense()
    error = np.abs(plan.sum(1) - 1 / 30).sum() + np.abs(plan.sum(0) - 1 / 30).sum()
    assert error == pytest.approx(sol.marginal_error, rel=1e-6)


@METHODS
def test_the_status_is_the_error_at_every_step(rng, method: str):
    """Stopped anywhere on the way, a solve is converged if and only if its plan is."""
    cost, tol = rng.random((15, 12)), 1e-4
    said = []
    for limit in range(1, 60):
        sol = pf.solve(cost, epsilon=0.05, method=method, tol=tol, max_iterations=limit, throw=False)
        plan = sol.plan.to_dense()
        error = np.abs(plan.sum(1) - 1 / 15).sum() + np.abs(plan.sum(0) - 1 / 12).sum()
        assert sol.marginal_error == pytest.approx(error, rel=1e-6, abs=1e-13)
        assert sol.converged == (error <= tol)
        said.append(sol.status)
        if sol.converged:
            break
    assert said[0] is pf.Status.ITERATION_LIMIT
    assert said[-1] is pf.Status.CONVERGED


def test_not_converged_carries_the_solution(rng):
    cost = rng.random((30, 30))
    with pytest.raises(pf.errors.NotConverged, match=r"max_iterations.*marginal error 0\.\d+, asked 1e-09") as caught:
        pf.solve(cost, epsilon=1e-3, max_iterations=3)
    assert caught.value.solution.status is pf.Status.ITERATION_LIMIT
    assert caught.value.solution.plan.shape == (30, 30)
    assert isinstance(caught.value, pf.errors.PushforwardError)
    assert isinstance(caught.value, RuntimeError)


def test_a_tolerance_below_rounding_is_refused_honestly(cost):
    sol = pf.solve(cost, epsilon=0.05, tol=1e-19, throw=False)
    assert sol.status in (pf.Status.STALLED, pf.Status.ITERATION_LIMIT)
    assert 0 <= sol.marginal_error < 1e-12
    with pytest.raises(pf.errors.NotConverged):
        pf.solve(cost, epsilon=0.05, tol=1e-19)


@METHODS
def test_the_tolerance_asked_is_the_tolerance_given(rng, method: str):
    cost = rng.random((15, 11))
    loose, tight = (pf.solve(cost, epsilon=0.05, method=method, tol=tol) for tol in (1e-2, 1e-12))
    assert loose.marginal_error <= 1e-2
    assert tight.marginal_error <= 1e-12
    assert len(loose.history) < len(tight.history)


def test_point_costs_are_their_matrices(rng):
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(6, 3))
    difference = x[:, None] - y
    norms = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
    matrices = {
        "sqeuclidean": (difference**2).sum(-1),
        "euclidean": np.sqrt((difference**2).sum(-1)),
        "manhattan": np.abs(difference).sum(-1),
        "cosine": 1 - x @ y.T / norms,
    }
    for name, matrix in matrices.items():
        assert pf.solve(pf.PointCost(x, y, name), epsilon=0.1).value == pytest.approx(
            pf.solve(matrix, epsilon=0.1).value, rel=1e-10
        ), name
    sol = pf.solve(pf.PointCost(x, y, lambda p, q: torch.cdist(p, q) ** 3), epsilon=0.1)
    assert sol.value == pytest.approx(pf.solve(matrices["euclidean"] ** 3, epsilon=0.1).value, rel=1e-9)


def test_points_far_from_the_origin_keep_their_digits(rng):
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(6, 3))
    near, far = (pf.solve(pf.PointCost(x + t, y + t), epsilon=0.1).value for t in (0.0, 2.0**20))
    assert far == pytest.approx(near, rel=1e-8)


def test_point_costs_give_back_what_came(rng):
    x, y = torch.randn(5, 2), torch.randn(4, 2)
    assert pf.solve(pf.PointCost(x, y)).f.dtype == torch.float32
    assert isinstance(pf.solve(pf.PointCost(x.numpy(), y.numpy())).f, np.ndarray)
    assert pf.solve(pf.PointCost(x.numpy(), y.numpy())).f.dtype == np.float32
    assert pf.solve(pf.PointCost([[0, 1], [2, 3]], [[1, 1]])).f.dtype == np.float64


def test_a_solution_and_its_plan_print_as_one_line(rng):
    alone, batch = pf.solve(rng.random((40, 30)), epsilon=0.1), pf.solve(torch.rand(3, 4, 5), epsilon=0.1)
    assert repr(alone).startswith(f"Solution(CONVERGED, value={alone.value:.6g}, marginal_error=")
    assert "Plan(shape=(40, 30), dtype=torch.float64)" in repr(alone)
    assert "Plan(shape=(3, 4, 5), dtype=torch.float32)" in repr(batch)
    assert max(len(repr(alone)), len(repr(batch))) < 250


def test_numpy_reads_a_plan_as_a_matrix(rng):
    plan = pf.solve(torch.tensor(rng.random((4, 3)), requires_grad=True), epsilon=0.1).plan
    np.testing.assert_array_equal(np.asarray(plan), plan.to_dense().detach().numpy())
    assert np.asarray(plan.T, dtype=np.float32).shape == (3, 4)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(plan, copy=False)


@pytest.mark.parametrize("size", [6, 300])
def test_one_cost_serves_many_weights(rng, size: int):
    """A batch of weights of either side, or of both; 300 x 300 is more than what is copied for each."""
    cost = torch.from_numpy(rng.random((size, size)))
    a, b = (torch.from_numpy(rng.dirichlet(np.ones(size), 3)) for _ in range(2))
    for rows, cols in ((a, b), (a, None), (a, b[0]), (a[0], b)):
        together = pf.solve(cost, rows, cols, epsilon=0.1)
        assert together.value.shape == (3,)
        for k in range(3):
            one = rows if rows.ndim == 1 else rows[k]
            other = None if cols is None else cols if cols.ndim == 1 else cols[k]
            alone = pf.solve(cost, one, other, epsilon=0.1)
            assert float(together.value[k]) == pytest.approx(float(alone.value), abs=1e-10)
            torch.testing.assert_close(together.plan.to_dense()[k], alone.plan.to_dense(), rtol=0, atol=1e-9)
    shared = cost.clone().requires_grad_()
    pf.solve(shared, a, b, epsilon=0.1).value.sum().backward()
    torch.testing.assert_close(shared.grad, pf.solve(cost, a, b, epsilon=0.1).plan.to_dense().sum(0), atol=1e-9, rtol=0)


def test_points_serve_many_weights(rng):
    x, y, a = rng.random((7, 2)), rng.random((5, 2)), rng.dirichlet(np.ones(7), 4)
    values = pf.solve(pf.PointCost(x, y), a, epsilon=0.1).value
    assert isinstance(values, np.ndarray)
    assert values[2] == pytest.approx(pf.solve(pf.PointCost(x, y), a[2], epsilon=0.1).value, abs=1e-10)


def test_batches_of_weights_of_different_sizes_are_refused(rng):
    with pytest.raises(ShapeError, match=r"a has shape \(2, 4\) but b has \(3, 5\): their batches differ"):
        pf.solve(rng.random((4, 5)), np.full((2, 4), 0.25), np.full((3, 5), 0.2), epsilon=0.1)
