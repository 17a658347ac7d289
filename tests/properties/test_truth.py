"""Whatever is asked, a solution that says CONVERGED is converged, and one that is not says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st
from scipy.optimize import linprog

import pushforward as pf

# Rounding that the test's own sums and products may add to the solution's.
ROUNDING = 5e-13
TIGHT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@dataclass(frozen=True)
class Hard:
    """A problem drawn from the whole range that is promised."""

    cost: np.ndarray
    a: np.ndarray
    b: np.ndarray
    epsilon: float


@st.composite
def hard_problems(draw: st.DrawFn, *, largest: int = 14) -> Hard:
    """Any shape, costs of 1e-12 to 1e12, weights over up to 30 orders of magnitude, epsilon 1e-6 to 1e3 mean costs."""
    n, m = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    family = draw(st.sampled_from(["random", "points", "integers", "signed", "line"]))
    if family == "points":
        x, y = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
        cost = ((x[:, None] - y) ** 2).sum(-1)
    elif family == "line":
        cost = np.abs(np.arange(n)[:, None] - np.arange(m)) + 0.5
    elif family == "integers":
        cost = rng.integers(0, 3, size=(n, m)).astype(float)
    else:
        cost = rng.random((n, m)) - (0.5 if family == "signed" else 0.0)
    cost = cost * 10.0 ** draw(st.integers(-12, 12))
    orders = draw(st.sampled_from([0, 1, 5, 15, 30]))
    a, b = (10.0 ** -(orders * rng.random(k)) for k in (n, m))
    if draw(st.booleans()):
        a[rng.random(n) < 0.3], b[rng.random(m) < 0.3] = 0.0, 0.0
        a[0], b[-1] = 1.0, 1.0
    mass = 10.0 ** draw(st.integers(-3, 3))
    mean = float(np.abs(cost).mean())
    epsilon = 10.0 ** draw(st.floats(-6, 3)) * (mean if mean > 0 else 1.0)
    return Hard(cost, mass * a / a.sum(), mass * b / b.sum(), epsilon)


def plan_of(p: Hard, f: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The plan by its definition, from the potentials returned."""
    exponent = (f[:, None] + g - p.cost) / p.epsilon
    carrying = (p.a[:, None] > 0) & (p.b > 0)
    return np.where(carrying, p.a[:, None] * p.b * np.exp(np.where(carrying, exponent, 0.0)), 0.0)


def error_of(p: Hard, plan: np.ndarray) -> float:
    return float((np.abs(plan.sum(1) - p.a).sum() + np.abs(plan.sum(0) - p.b).sum()) / p.a.sum())


def linear_program(p: Hard) -> float:
    """The unregularised cost by scipy, at mass 1 and largest cost 1, where its absolute tolerances mean something."""
    n, m = p.cost.shape
    scale, mass = float(np.abs(p.cost).max()) or 1.0, p.a.sum()
    # Weights under its tolerance can make it call the problem infeasible; they are no part of the cost to 3e-8.
    a, b = (np.where(w > 1e-9 * mass, w, 0.0) for w in (p.a, p.b))
    equations = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])[:-1]
    masses = np.concatenate([a / a.sum(), b / b.sum()])[:-1]
    found = linprog(p.cost.reshape(-1) / scale, A_eq=equations, b_eq=masses, method="highs", options=TIGHT)
    assert found.fun is not None, found.message
    return found.fun * scale * mass


@given(
    hard_problems(),
    st.sampled_from(["auto", "newton", "sinkhorn", "sns"]),
    st.sampled_from([1e-2, 1e-6, 1e-9, 1e-13]),
    st.sampled_from([1, 4, 20, 300]),
)
def test_converged_is_true(p: Hard, method: str, tol: float, limit: int):
    sol = pf.solve(p.cost, p.a, p.b, epsilon=p.epsilon, method=method, tol=tol, max_iterations=limit, throw=False)
    event(f"{method}: {sol.status.name}")
    for numbers in (sol.f, sol.g, sol.value, sol.transport_cost, sol.marginal_error, sol.duality_gap):
        assert sol.status is pf.Status.NON_FINITE or np.isfinite(numbers).all()
    if sol.status is pf.Status.CONVERGED:
        assert sol.marginal_error <= tol
        assert error_of(p, sol.plan.to_dense()) <= tol + ROUNDING
        assert error_of(p, plan_of(p, sol.f, sol.g)) <= tol + ROUNDING
    else:
        assert sol.marginal_error > tol or sol.status is pf.Status.NON_FINITE
        assert sol.status in (pf.Status.ITERATION_LIMIT, pf.Status.STALLED, pf.Status.NON_FINITE)
        assert not sol.converged


@given(hard_problems())
def test_auto_converges_wherever_rounding_allows(p: Hard):
    """At epsilons from a thousandth of the mean cost up, and a tolerance over rounding, there is no excuse."""
    epsilon = max(p.epsilon, 1e-3 * float(np.abs(p.cost).mean()))
    sol = pf.solve(p.cost, p.a, p.b, epsilon=epsilon, tol=1e-9)
    assert sol.status is pf.Status.CONVERGED


@given(hard_problems())
def test_value_lies_between_the_certificates(p: Hard):
    sol = pf.solve(p.cost, p.a, p.b, epsilon=p.epsilon, throw=False)
    lower, upper = sol.bounds()
    scale = p.a.sum() * float(np.abs(p.cost).max())
    assert lower <= upper + 1e-12 * scale
    assert sol.duality_gap >= -1e-15 * scale
    exact = linear_program(p)
    assert lower - 1e-7 * scale <= exact <= upper + 1e-7 * scale


@given(
    hard_problems(),
    st.sampled_from(["both", "rows", "columns", "apart"]),
    st.floats(-3, 6),
    st.floats(-6, 6),
    st.sampled_from(["auto", "newton"]),
)
def test_relaxed_problems_are_solved(p: Hard, relaxed: str, price: float, heavier: float, method: str):
    """Prices of 1e-3 to 1e6 epsilon, masses up to 1e6 apart; the optimality conditions P 1 = a exp(-f/rho) hold."""
    cost = p.cost - min(p.cost.min(), 0.0)  # where mass is paid for, a cheap price makes more of it than fits a float
    epsilon = max(p.epsilon, 1e-3 * float(cost.mean()))
    rho = epsilon * 10.0**price
    pair = {"both": (rho, rho), "rows": (rho, np.inf), "columns": (np.inf, rho), "apart": (rho, 30 * epsilon)}[relaxed]
    a = p.a * 10.0**heavier
    sol = pf.solve(cost, a, p.b, epsilon=epsilon, unbalanced=pair, method=method, throw=False)
    plan = sol.plan.to_dense()
    assert np.isfinite([sol.value, sol.transport_cost, sol.duality_gap]).all()
    wanted_a, wanted_b = a * np.exp(-sol.f / pair[0]), p.b * np.exp(-sol.g / pair[1])
    error = np.abs(plan.sum(1) - wanted_a).sum() + np.abs(plan.sum(0) - wanted_b).sum()
    mass = (a.sum() + p.b.sum()) / 2
    # Potentials of the size of rho are rounded by 1e-16 of it: that share of epsilon is an error of the plan.
    potentials = np.abs(sol.f) @ plan.sum(1) + np.abs(sol.g) @ plan.sum(0)
    rounding = np.finfo(float).eps * potentials / epsilon / mass
    assert sol.converged == (sol.marginal_error <= 1e-9)
    assert sol.converged or sol.marginal_error <= 4 * rounding
    assert error <= (sol.marginal_error * (1 + 1e-9) + rounding + ROUNDING) * mass + ROUNDING * plan.sum()


@given(hard_problems(), st.floats(0.05, 0.7))
def test_forbidden_pairs_are_avoided_or_proved_to_be_needed(p: Hard, share: float):
    n, m = p.cost.shape
    allowed = np.random.default_rng(n * m).random((n, m)) >= share
    cost = np.where(allowed, p.cost, np.inf)
    epsilon = max(p.epsilon, 1e-3 * float(np.abs(p.cost).mean()))
    sol = pf.solve(cost, p.a, p.b, epsilon=epsilon, throw=False)
    event(sol.status.name)
    plan = sol.plan.to_dense()
    assert not plan[~allowed].any()
    if sol.status is pf.Status.CONVERGED:
        assert error_of(p, plan) <= 1e-9 + ROUNDING
    elif sol.status is pf.Status.INFEASIBLE:
        # The least mass that must sit on forbidden pairs, by a linear program that knows nothing of potentials.
        assert linear_program(Hard((~allowed).astype(float), p.a, p.b, 1.0)) > 0


@given(
    st.sampled_from([(24,), (4, 5), (2, 3, 3)]),
    st.sampled_from([1, 2]),
    st.floats(-3, 1.5),
    st.sampled_from([0.03, 0.3, 3.0]),
    st.integers(0, 2**32 - 1),
)
def test_grids_converge(shape: tuple[int, ...], p: int, log_epsilon: float, evenness: float, seed: int):
    rng, n = np.random.default_rng(seed), int(np.prod(shape))
    a, b = (rng.dirichlet(np.full(n, evenness)) for _ in range(2))
    a[rng.random(n) < 0.2] = 0.0
    a = a / a.sum() if a.sum() > 0 else np.full(n, 1 / n)
    i = np.stack(np.unravel_index(np.arange(n), shape), axis=1)
    problem = Hard((np.abs(i[:, None] - i) ** p).sum(-1).astype(float), a, b, 10.0**log_epsilon)
    far_off = problem.epsilon * rng.uniform(0, 600) * rng.random(n) if seed % 2 else None
    sol = pf.solve(pf.GridCost(shape, p=p), a, b, epsilon=problem.epsilon, init=far_off)
    assert error_of(problem, sol.plan.to_dense()) <= 1e-9 + ROUNDING
    assert error_of(problem, plan_of(problem, sol.f, sol.g)) <= 1e-9 + ROUNDING
    lower, upper = sol.bounds()
    exact = linear_program(problem)
    assert lower - 1e-7 * problem.cost.max() <= exact <= upper + 1e-7 * problem.cost.max()
