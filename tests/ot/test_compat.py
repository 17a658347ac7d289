"""POT's functions and ours, called alike: the same numbers, keys and kinds of array."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import ot
import pytest
import torch

from pushforward.errors import (
    InfeasibleError,
    InvalidArgument,
    MassError,
    NonFiniteError,
    NotConvergedWarning,
    ShapeError,
)
from pushforward.ot import compat

REG = 0.3


class Foreign:
    """An array of some library of the array API: numpy's numbers behind its two protocols, and nothing else."""

    def __init__(self, numbers):
        self.numbers = np.asarray(numbers)

    def __len__(self):
        return len(self.numbers)

    def __dlpack__(self, **options):
        return self.numbers.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.numbers.__dlpack_device__()

    def __array_namespace__(self):
        return Library


class Library:
    """The namespace of `Foreign`, as far as results need it."""

    asarray = Foreign


KINDS = {
    "numpy": (np.asarray, np.asarray, (np.ndarray, np.floating)),
    "float32": (lambda v: np.asarray(v, np.float32), np.asarray, (np.ndarray, np.float32)),
    "torch": (torch.tensor, lambda v: v.numpy(), torch.Tensor),
    "array API": (Foreign, lambda v: v.numbers, Foreign),
}


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(9, 2)) + 0.5
    a, b = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(9))
    return {"x": x, "y": y, "a": a, "b": b, "B": rng.dirichlet(np.ones(9), 3).T, "M": ot.dist(x, y)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_log", "sinkhorn_stabilized"])
def test_sinkhorn(problem, kind, method):
    into, back, array = KINDS[kind]
    given = [into(problem[name]) for name in "abM"]
    tight = 1e-4 if kind == "float32" else 1e-7
    plan = compat.sinkhorn(*given, REG, method=method)
    cost = compat.sinkhorn2(*given, REG, method=method)
    assert isinstance(plan, array)
    assert isinstance(cost, array)
    peer = [problem[name] for name in "abM"]
    np.testing.assert_allclose(back(plan), ot.sinkhorn(*peer, REG, method=method), atol=tight)
    np.testing.assert_allclose(back(cost), ot.sinkhorn2(*peer, REG, method=method), rtol=tight)
    costs = compat.sinkhorn(given[0], into(problem["B"]), given[2], REG, method=method)
    np.testing.assert_allclose(back(costs), ot.sinkhorn(peer[0], problem["B"], peer[2], REG, method), rtol=tight)
    stabilized = compat.sinkhorn_stabilized(*given, REG)
    np.testing.assert_allclose(back(stabilized), back(plan), atol=tight)


@pytest.mark.parametrize(
    "method", ["sinkhorn", "sinkhorn_log", "sinkhorn_stabilized", "sinkhorn_epsilon_scaling", "greenkhorn"]
)
def test_the_log_has_pots_keys_and_its_scalings_give_the_plan(problem, method):
    a, b, cost = (problem[name] for name in "abM")
    plan, found = compat.sinkhorn(a, b, cost, REG, method, log=True)
    assert found.keys() >= ot.sinkhorn(a, b, cost, REG, method, log=True)[1].keys()
    kernel = np.exp(-cost / REG)
    np.testing.assert_allclose(found["u"][:, None] * kernel * found["v"], plan, rtol=1e-12)
    np.testing.assert_allclose(np.exp((found["alpha"][:, None] + found["beta"] - cost) / REG), plan, rtol=1e-12)
    assert found["err"][-1] < 1e-9
    several, of_several = compat.sinkhorn(a, problem["B"], cost, REG, method, log=True)
    plans = of_several["u"][:, None] * kernel[..., None] * of_several["v"]
    np.testing.assert_allclose(several, (plans * cost[..., None]).sum((0, 1)))


@pytest.mark.parametrize("method", ["sinkhorn", "sinkhorn_stabilized"])
def test_a_warm_start_from_the_log_needs_fewer_steps(problem, method):
    a, b, cost = (problem[name] for name in "abM")
    plan, found = compat.sinkhorn(a, b, cost, REG, method, log=True)
    start = found["warmstart"] if method == "sinkhorn_stabilized" else (found["log_u"], found["log_v"])
    again, warm = compat.sinkhorn(a, b, cost, REG, method, log=True, warmstart=start)
    assert warm["niter"] < found["niter"]
    np.testing.assert_allclose(again, plan, atol=1e-9)


def test_no_weights_are_uniform_ones(problem):
    plan = compat.sinkhorn([], [], problem["M"], REG)
    np.testing.assert_allclose(plan.sum(1), 1 / 7)
    np.testing.assert_allclose(compat.emd(np.array([]), None, problem["M"]).sum(0), 1 / 9)


def test_zero_weights_have_scalings_of_zero(problem):
    a = np.append(np.zeros(1), problem["a"][1:] / problem["a"][1:].sum())
    plan, found = compat.sinkhorn(a, problem["b"], problem["M"], REG, log=True)
    assert plan[0].max() == found["u"][0] == 0
    again = compat.sinkhorn(a, problem["b"], problem["M"], REG, warmstart=(found["log_u"], found["log_v"]))
    np.testing.assert_allclose(again, plan, atol=1e-9)


def test_what_misses_its_tolerance_warns_at_the_callers_line(problem):
    a, b, cost = (problem[name] for name in "abM")
    for call in (compat.sinkhorn, compat.sinkhorn2, compat.sinkhorn_stabilized):
        with pytest.warns(NotConvergedWarning, match="marginal error .* stopThr 1e-09") as caught:
            call(a, b, cost, REG, numItermax=1)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(a, b, cost, REG, numItermax=1, warn=False)
    with pytest.warns(NotConvergedWarning) as caught:
        compat.unbalanced.sinkhorn_unbalanced(a, b, cost, 0.01, 1.0, numItermax=1)
    assert caught[0].filename == __file__
    with pytest.warns(NotConvergedWarning):
        compat.sinkhorn(a, b, cost, REG, stopThr=0, numItermax=1)


def test_verbose_writes_every_step(problem, capsys):
    compat.sinkhorn(problem["a"], problem["b"], problem["M"], REG, verbose=True)
    assert "| error" in capsys.readouterr().out


def test_derivatives_pass_through(problem):
    a, b, cost = (torch.tensor(problem[name], requires_grad=True) for name in "abM")
    compat.sinkhorn2(a, b, cost, REG).backward()
    assert all(bool(t.grad.abs().max() > 0) for t in (a, b, cost))
    x, y = (torch.tensor(problem[name], requires_grad=True) for name in "xy")
    torch.autograd.gradcheck(lambda x, y: compat.empirical_sinkhorn2(x, y, REG, stopThr=1e-13), (x, y))
    loss = lambda x: compat.empirical_sinkhorn_divergence(x, y.detach(), REG, stopThr=1e-13)  # noqa: E731
    torch.autograd.gradcheck(loss, (x,))


@pytest.mark.parametrize("kind", ["numpy", "torch", "array API"])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_between_points(problem, kind, metric):
    into, back, array = KINDS[kind]
    x, y, a, b = (into(problem[name]) for name in "xyab")
    cost = ot.dist(problem["x"], problem["y"], metric)
    plan = compat.empirical_sinkhorn(x, y, REG, a, b, metric)
    assert isinstance(plan, array)
    np.testing.assert_allclose(back(plan), ot.sinkhorn(problem["a"], problem["b"], cost, REG), atol=1e-7)
    log_u, log_v, found = compat.empirical_sinkhorn(x, y, REG, a, b, metric, isLazy=True, log=True)
    lazy = np.exp(back(log_u)[:, None] + back(log_v) - cost / REG)
    np.testing.assert_allclose(lazy, back(plan), atol=1e-9)
    np.testing.assert_allclose(np.asarray(found["lazy_plan"]), back(plan), atol=1e-9)
    linear = compat.empirical_sinkhorn2(x, y, REG, a, b, metric)
    assert float(back(linear)) == pytest.approx(float((lazy * cost).sum()), rel=1e-8)


@pytest.mark.parametrize("part", [slice(None), slice(1, 4), slice(None, None, 2), (slice(None), slice(2))])
def test_a_lazy_plan_is_read_by_parts_as_pots(problem, part):
    x, y, a, b = (problem[name] for name in "xyab")
    ours = compat.empirical_sinkhorn(x, y, REG, a, b, isLazy=True, log=True)[2]["lazy_plan"]
    pots = ot.bregman.empirical_sinkhorn(x, y, REG, a, b, isLazy=True, log=True)[2]["lazy_plan"]
    np.testing.assert_allclose(ours[part], pots[part], atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(compat.__all__) - {"bregman", "lp", "unbalanced"}))
def test_arguments_have_pots_names_and_places(name):
    module = ot.unbalanced if "unbalanced" in name else ot.lp if "emd" in name else ot.bregman
    pots, ours = (inspect.signature(getattr(where, name)).parameters for where in (module, compat))
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    expected, placed = ([p.name for p in of.values() if p.kind not in kinds] for of in (pots, ours))
    assert placed == expected
    # POT's sinkhorn2 is silent unless asked; ours warns.
    assert {
        k: p.default for k, p in pots.items() if p.kind not in kinds and (name, k) != ("sinkhorn2", "warn")
    }.items() <= {k: p.default for k, p in ours.items()}.items()


def test_flags_may_be_0_and_1(problem, capsys):
    a, b, cost = (problem[name] for name in "abM")
    plan, found = compat.sinkhorn(a, b, cost, REG, verbose=1, log=1, warn=0)
    assert "error" in capsys.readouterr().out
    assert found["err"]
    np.testing.assert_array_equal(compat.sinkhorn(a, b, cost, REG, log=np.int64(0), verbose=0), plan)
    assert len(compat.emd(a, b, cost, log=1)) == len(compat.sinkhorn_unbalanced(a, b, cost, REG, 1.0, log=1)) == 2


@pytest.mark.parametrize("flag", [2, -1, 0.0, 1.0, "yes", None, [1]])
def test_other_flags_are_refused(problem, flag):
    a, b, cost = (problem[name] for name in "abM")
    with pytest.raises(InvalidArgument, match="log must be True or False"):
        compat.sinkhorn(a, b, cost, REG, log=flag)


def test_a_method_between_points_is_checked_and_changes_nothing(problem):
    x, y = problem["x"], problem["y"]
    for function in (compat.empirical_sinkhorn, compat.empirical_sinkhorn2, compat.empirical_sinkhorn_divergence):
        np.testing.assert_array_equal(function(x, y, REG, method="sinkhorn_log"), function(x, y, REG))
        with pytest.raises(InvalidArgument, match="method must be one of"):
            function(x, y, REG, method="simplex")


def test_pots_divergence(problem):
    given = (problem["x"], problem["y"], REG, problem["a"], problem["b"])
    value, found = compat.empirical_sinkhorn_divergence(*given, log=True)
    expected, keys = ot.bregman.empirical_sinkhorn_divergence(*given, numIterMax=100_000, log=True)
    assert value == pytest.approx(expected, rel=1e-6)
    assert found.keys() == keys.keys()
    assert found["sinkhorn_loss_a"] == pytest.approx(keys["sinkhorn_loss_a"], rel=1e-6)


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
@pytest.mark.parametrize("reg_m", [1.0, (0.5, 2.0), (np.inf, 1.0), np.array([3.0])])
def test_relaxed_marginals(problem, reg_type, reg_m):
    a, b, cost = problem["a"], 1.5 * problem["b"], problem["M"]
    settings = {"reg_type": reg_type, "stopThr": 1e-12}
    plan, found = compat.sinkhorn_unbalanced(a, b, cost, REG, reg_m, **settings, log=True)
    expected, keys = ot.unbalanced.sinkhorn_unbalanced(a, b, cost, REG, reg_m, numItermax=10_000, **settings, log=True)
    np.testing.assert_allclose(plan, expected, atol=1e-8)
    assert found.keys() == keys.keys()
    np.testing.assert_allclose(found["logu"], keys["logu"], atol=1e-6)
    linear = compat.sinkhorn_unbalanced2(a, b, cost, REG, reg_m, **settings)
    assert linear == pytest.approx((expected * cost).sum(), rel=1e-6)


def kl(p, q):
    return float((p * np.log(np.where(p > 0, p, 1) / q) - p + q).sum())


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
def test_the_total_cost_is_the_documented_objective(problem, reg_type):
    a, b, cost = problem["a"], 1.5 * problem["b"], problem["M"]
    plan = compat.sinkhorn_unbalanced(a, b, cost, REG, (1.0, 2.0), reg_type=reg_type, stopThr=1e-12)
    reference = np.outer(a, b) if reg_type == "kl" else np.ones_like(cost)
    objective = (plan * cost).sum() + REG * kl(plan, reference) + kl(plan.sum(1), a) + 2 * kl(plan.sum(0), b)
    total = compat.sinkhorn_unbalanced2(a, b, cost, REG, (1.0, 2.0), reg_type=reg_type, returnCost="total")
    assert total == pytest.approx(objective, rel=1e-8)


def test_a_reference_measure(problem):
    a, b, cost = (problem[name] for name in "abM")
    reference = np.random.default_rng(1).random(cost.shape)
    plan = compat.sinkhorn_unbalanced(a, b, cost, REG, 1.0, c=reference, stopThr=1e-12)
    expected = ot.unbalanced.sinkhorn_unbalanced(a, b, cost, REG, 1.0, c=reference, stopThr=1e-12, numItermax=10_000)
    np.testing.assert_allclose(plan, expected, atol=1e-8)
    reference[0, 0] = 0
    assert compat.sinkhorn_unbalanced(a, b, cost, REG, 1.0, c=reference)[0, 0] == 0
    with pytest.raises(InvalidArgument, match="c is 1"):
        compat.sinkhorn_unbalanced(a, b, cost, REG, 1.0, reg_type="entropy", c=reference)


@pytest.mark.parametrize("reg_type", ["kl", "entropy"])
@pytest.mark.parametrize("returned", ["linear", "total"])
def test_several_relaxed_histograms_are_those_of_a_loop(problem, reg_type, returned):
    a, several, cost = problem["a"], problem["B"] * [1, 2, 3], problem["M"]
    settings = {"reg_type": reg_type, "returnCost": returned, "stopThr": 1e-11}
    if reg_type == "kl":  # which POT takes for "entropy" here, and says so
        with pytest.warns(UserWarning, match='b has 3 columns, for which POT takes reg_type="entropy"') as caught:
            together = compat.sinkhorn_unbalanced2(a, several, cost, REG, 1.0, **settings)
        assert caught[0].filename == __file__
        settings["reg_type"] = reg_type = "entropy"
    else:
        together = compat.sinkhorn_unbalanced2(a, several, cost, REG, 1.0, **settings)
    alone = [compat.sinkhorn_unbalanced2(a, several[:, k], cost, REG, 1.0, **settings) for k in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    costs, found = compat.sinkhorn_unbalanced(a, several, cost, REG, 1.0, reg_type=reg_type, log=True, stopThr=1e-11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pots = ot.unbalanced.sinkhorn_unbalanced(a, several, cost, REG, 1.0, numItermax=5000, stopThr=1e-12)
    np.testing.assert_allclose(costs, pots, rtol=1e-7)
    assert found["logu"].shape == (7, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_emd(problem, kind):
    into, back, array = KINDS[kind]
    a, b, cost = (into(problem[name]) for name in "abM")
    plan, found = compat.emd(a, b, cost, log=True)
    assert isinstance(plan, array)
    expected, keys = ot.emd(*(problem[name] for name in "abM"), log=True)
    tight = 1e-5 if kind == "float32" else 1e-12
    np.testing.assert_allclose(back(plan), expected, atol=tight)
    assert found.keys() == keys.keys()
    assert float(back(found["cost"])) == pytest.approx(keys["cost"], rel=tight)
    u, v = back(found["u"]), back(found["v"])
    assert (u @ problem["a"], v @ problem["b"]) == pytest.approx((keys["cost"] / 2,) * 2, rel=10 * tight)
    assert (problem["M"] - u[:, None] - v).min() > -10 * tight
    costs = compat.emd2(a, into(problem["B"]), cost)
    np.testing.assert_allclose(
        [float(back(c)) for c in costs], ot.emd2(problem["a"], problem["B"], problem["M"]), rtol=10 * tight
    )
    assert compat.emd2(a, b, cost, return_matrix=True)[1]["G"].__class__ is plan.__class__


def test_emd2_has_the_plan_and_centred_prices_for_derivatives(problem):
    a, b, cost = (torch.tensor(problem[name], requires_grad=True) for name in "abM")
    value, found = compat.emd2(a, b, cost, log=True)
    (2 * value).backward()
    torch.testing.assert_close(cost.grad, 2 * compat.emd(a, b, cost.detach()).detach())
    torch.testing.assert_close(a.grad, 2 * (found["u"] - found["u"].mean()).detach())
    torch.testing.assert_close(b.grad, 2 * (found["v"] - found["v"].mean()).detach())


def test_emd_scales_b_where_marginals_are_not_to_be_checked(problem):
    a, b, cost = (problem[name] for name in "abM")
    with pytest.raises(MassError, match="plan keeps mass"):
        compat.emd(a, 2 * b, cost)
    plan = compat.emd(a, 2 * b, cost, check_marginals=False)
    np.testing.assert_allclose(plan, compat.emd(a, b, cost), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"], 0), InvalidArgument, "reg must be a positive"),
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"], 1, "foo"), InvalidArgument, "method"),
        (lambda p: compat.sinkhorn2(p["a"], p["b"], p["M"], 1, "greenkhorn"), InvalidArgument, "method"),
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"][None], 1), ShapeError, "M has shape"),
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"], 1, stopThr=-1), InvalidArgument, "stopThr"),
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"], 1, warmstart=3), InvalidArgument, "warmstart"),
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"] + np.inf, 1, warn=False), InfeasibleError, "no plan"),
        (lambda p: compat.sinkhorn_unbalanced(p["a"], p["b"], p["M"], 1, [1, 2, 3]), InvalidArgument, "reg_m"),
        (lambda p: compat.sinkhorn_unbalanced(p["a"], p["b"], p["M"], 1, 1, reg_type="l2"), InvalidArgument, "reg_ty"),
        (lambda p: compat.sinkhorn_unbalanced(p["a"], p["b"], p["M"], 1, 1, c=p["a"]), ShapeError, "c has shape"),
        (lambda p: compat.sinkhorn_unbalanced2(p["a"], p["b"], p["M"], 1, 1, returnCost="x"), InvalidArgument, "Cost"),
        (lambda p: compat.empirical_sinkhorn(p["x"], p["y"], 1, metric="hamming"), InvalidArgument, "metric must"),
        (lambda p: compat.empirical_sinkhorn(p["x"], p["y"][:, :1], 1), ShapeError, "X_s has points .* X_t of"),
        (lambda p: compat.empirical_sinkhorn(p["x"] * np.nan, p["y"], 1), NonFiniteError, r"^X_s\[0, 0\] is nan"),
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"], 1, numItermax=0), InvalidArgument, "^numItermax must"),
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"], 1, tau="x"), InvalidArgument, "^tau must"),
        (lambda p: compat.sinkhorn(p["a"], p["b"], p["M"] * np.nan, 1), NonFiniteError, r"^M\[0, 0\] is nan"),
        (lambda p: compat.emd(p["a"][:2], p["b"], p["M"]), ShapeError, r"^a has shape \(2,\) but M has"),
        (lambda p: compat.emd(p["a"], p["b"], p["M"], numThreads="all"), InvalidArgument, "^numThreads must"),
    ],
)
def test_wrong_arguments_are_named(problem, call, error, says):
    with pytest.raises(error, match=says):
        call(problem)
