"""Every wrong argument is an error of the right kind, whose message names the argument and what was wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.errors import InvalidArgument, MassError, NonFiniteError, PushforwardError, ShapeError
from pushforward.ot import SNS, Newton, compat

COST = np.random.default_rng(0).random((3, 2))
A, B = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.6])
X, Y = np.random.default_rng(1).random((3, 2)), np.random.default_rng(2).random((2, 2))
RAGGED = [[1.0, 2.0], [3.0]]
OBJECTS = np.array([[object(), object()]] * 3)
NAN, INF = float("nan"), float("inf")


def with_entry(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    changed = array.astype(float)
    changed[index] = value
    return changed


def meta(*shape: int) -> torch.Tensor:
    return torch.ones(shape, device="meta", dtype=torch.float64)


@dataclass(frozen=True)
class Bad:
    """A call, the error that it must end in, and what the message must say (regular expressions, all of them)."""

    call: Callable[[], object]
    error: type[PushforwardError]
    says: tuple[str, ...]


def solve(cost=COST, a=A, b=B, **options):
    return Bad(lambda: pf.solve(cost, a, b, **{"epsilon": 0.1, **options}), InvalidArgument, ())


def of(bad: Bad, error: type[PushforwardError], *says: str) -> Bad:
    return Bad(bad.call, error, says)


def plan() -> pf.ot.Plan:
    return pf.solve(COST, A, B, epsilon=0.1).plan


def batch_plan() -> pf.ot.Plan:
    return pf.solve(np.stack([COST] * 4), A, B, epsilon=0.1).plan


def loss(x, y, a=None, b=None, **settings) -> Callable[[], object]:
    return lambda: pf.SinkhornLoss(**{"epsilon": 0.1, **settings})(x, y, a, b)


CASES: dict[str, Bad] = {
    # cost
    "cost: NaN": of(solve(with_entry(COST, (2, 1), NAN)), NonFiniteError, r"cost\[2, 1\] is nan", "forbidden"),
    "cost: -inf": of(solve(with_entry(COST, (0, 1), -INF)), NonFiniteError, r"cost\[0, 1\] is -inf"),
    "cost: NaN beside inf": of(
        solve(with_entry(with_entry(COST, (0, 0), INF), (1, 0), NAN)), NonFiniteError, r"cost\[1, 0\] is nan"
    ),
    "cost: NaN in a batch": of(
        solve(with_entry(np.stack([COST] * 2), (1, 2, 0), NAN)), NonFiniteError, r"cost\[1, 2, 0\] is nan"
    ),
    "cost: 1-D": of(solve(COST[:, 0]), ShapeError, r"cost has shape \(3,\)", r"\(n, m\)"),
    "cost: 4-D": of(solve(COST[None, None]), ShapeError, r"cost has shape \(1, 1, 3, 2\)"),
    "cost: a number": of(solve(3.0), ShapeError, r"cost has shape \(\)"),
    "cost: no rows": of(solve(np.zeros((0, 2))), ShapeError, r"cost has shape \(0, 2\)", "empty"),
    "cost: no columns": of(solve(np.zeros((3, 0))), ShapeError, r"cost has shape \(3, 0\)", "empty"),
    "cost: no problems": of(solve(np.zeros((0, 3, 2))), ShapeError, r"cost has shape \(0, 3, 2\)", "empty"),
    "cost: complex": of(solve(COST + 0j), InvalidArgument, "cost", "complex"),
    "cost: objects": of(solve(OBJECTS), InvalidArgument, "cost", "object"),
    "cost: text": of(solve("matrix"), InvalidArgument, "cost is not an array of real numbers"),
    "cost: ragged": of(solve(RAGGED), InvalidArgument, "cost is not an array of real numbers", "inhomogeneous"),
    "cost: None": of(solve(None), InvalidArgument, "cost is not an array of real numbers"),
    "cost: dates": of(solve(np.zeros((3, 2), "datetime64[D]")), InvalidArgument, "cost", "datetime64"),
    # weights
    "a: too short": of(solve(a=A[:2]), ShapeError, r"a has shape \(2,\)", "3 rows", r"\(3,\)"),
    "b: too long": of(solve(b=np.ones(5) / 5), ShapeError, r"b has shape \(5,\)", "2 columns"),
    "a and b: swapped": of(solve(a=B, b=A), ShapeError, r"a has shape \(2,\)", "3 rows"),
    "a: a column": of(solve(a=A[:, None]), ShapeError, r"a has shape \(3, 1\)"),
    "a: a number": of(solve(a=1.0), ShapeError, r"a has shape \(\)"),
    "a: a batch of another length": of(
        solve(a=np.ones((2, 4)) / 4), ShapeError, r"a has shape \(2, 4\)", r"\(2, 3\) is needed"
    ),
    "a: another batch": of(
        solve(np.stack([COST] * 4), np.stack([A] * 3)), ShapeError, r"a has shape \(3, 3\)", "batch of 4", r"\(4, 3\)"
    ),
    "a: negative": of(solve(a=[0.6, -0.1, 0.5]), MassError, r"a\[1\] is -0.1", "at least 0"),
    "b: negative in a batch": of(
        solve(np.stack([COST] * 2), b=[[0.4, 0.6], [1.5, -0.5]]), MassError, r"b\[1, 1\] is -0.5"
    ),
    "a: all zero": of(solve(a=np.zeros(3)), MassError, "a sums to 0"),
    "b: one problem of a batch without mass": of(
        solve(np.stack([COST] * 2), b=[[0.4, 0.6], [0.0, 0.0]]), MassError, "b sums to 0"
    ),
    "a: NaN": of(solve(a=[0.2, NAN, 0.5]), NonFiniteError, r"a\[1\] is nan"),
    "b: infinite": of(solve(b=[INF, 0.5]), NonFiniteError, r"b\[0\] is inf"),
    "a and b: other masses": of(solve(b=2 * B), MassError, "a sums to 1", "b sums to 2", "unbalanced"),
    "a and b: masses off by 1e-5": of(solve(b=B * (1 + 1e-5)), MassError, "b sums to 1.00001"),
    "a and b: other masses in a batch": of(
        solve(np.stack([COST] * 2), b=[[0.4, 0.6], [0.4, 0.7]]), MassError, "b sums to 1.1", "problem 1 of the batch"
    ),
    "a: complex": of(solve(a=A + 0j), InvalidArgument, "^a has dtype", "complex"),
    "a: text": of(solve(a=["x", "y", "z"]), InvalidArgument, "^a is not an array of real numbers"),
    "b: objects": of(solve(b=np.array([None, 1])), InvalidArgument, "^b is not an array of real numbers"),
    "b: ragged": of(solve(b=RAGGED), InvalidArgument, "^b is not an array of real numbers"),
    "a: on another device": of(solve(torch.from_numpy(COST), meta(3), None), InvalidArgument, "a is on meta"),
    # epsilon
    **{
        f"epsilon: {value!r}": of(solve(epsilon=value), InvalidArgument, "epsilon must be", "positive", "got")
        for value in (0, 0.0, -0.1, NAN, INF, -INF, "0.1", "small", True, 1j, [0.1], (0.1, 0.2), np.array([0.1, 0.2]))
    },
    # tol, max_iterations, method, init, unbalanced, progress
    **{
        f"tol: {value!r}": of(solve(tol=value), InvalidArgument, "tol must be", "got")
        for value in (0, -1e-9, NAN, INF, "1e-9", None, True)
    },
    **{
        f"max_iterations: {value!r}": of(
            solve(max_iterations=value), InvalidArgument, "max_iterations must be an integer of at least 1", "got"
        )
        for value in (0, -5, 1.5, "10", True, NAN)
    },
    **{
        f"method: {value!r}": of(
            solve(method=value), InvalidArgument, "method must be one of 'auto', 'newton', 'sns', 'sinkhorn'", "got"
        )
        for value in ("simplex", "Newton", None, 3, ["newton"])
    },
    "method: a class": of(solve(method=Newton), InvalidArgument, "method must be one of", "Newton"),
    "method: sns of a relaxed problem": of(solve(method="sns", unbalanced=1.0), InvalidArgument, "sns", "unbalanced"),
    "init: too long": of(solve(init=np.zeros(3)), ShapeError, "init", r"\(1, 3\)|\(3,\)", r"\(1, 2\)|\(2,\)"),
    "init: another batch": of(solve(np.stack([COST] * 4), init=np.zeros((3, 2))), ShapeError, "init", r"\(3, 2\)"),
    "init: 3-D": of(solve(init=np.zeros((1, 1, 2))), ShapeError, "init", r"\(1, 1, 2\)"),
    "init: a number": of(solve(init=1.0), ShapeError, "init"),
    "init: NaN": of(solve(init=[0.0, NAN]), NonFiniteError, "init", "nan"),
    "init: text": of(solve(init="warm"), InvalidArgument, "init is not an array of real numbers"),
    "unbalanced: negative": of(solve(unbalanced=-1.0), InvalidArgument, "unbalanced must be", "-1.0"),
    "unbalanced: zero": of(solve(unbalanced=0), InvalidArgument, "unbalanced must be", "got 0"),
    "unbalanced: NaN": of(solve(unbalanced=(1.0, NAN)), InvalidArgument, "unbalanced must be", "nan"),
    "unbalanced: three numbers": of(solve(unbalanced=(1, 2, 3)), InvalidArgument, "unbalanced must be", "pair"),
    "unbalanced: text": of(solve(unbalanced="10"), InvalidArgument, "unbalanced must be", "'10'"),
    "unbalanced: True": of(solve(unbalanced=True), InvalidArgument, "unbalanced must be", "True"),
    "progress: not callable": of(solve(progress="bar"), InvalidArgument, "progress", "bar"),
    # settings objects
    "Newton: factor 1": Bad(lambda: Newton(factor=1.0), InvalidArgument, ("factor", "1.0")),
    "Newton: negative start": Bad(lambda: Newton(start=-1.0), InvalidArgument, ("start", "-1.0")),
    "SNS: negative density": Bad(lambda: SNS(density=-0.1), InvalidArgument, ("density", "-0.1")),
    "SNS: negative steps": Bad(lambda: SNS(sinkhorn_steps=-1), InvalidArgument, ("sinkhorn_steps", "-1")),
    # points
    "x: NaN": of(solve(pf.PointCost(with_entry(X, (1, 0), NAN), Y)), NonFiniteError, r"x\[1, 0\] is nan"),
    "y: infinite": of(solve(pf.PointCost(X, with_entry(Y, (0, 1), INF))), NonFiniteError, r"y\[0, 1\] is inf"),
    "x: 1-D": of(solve(pf.PointCost(X[:, 0], Y)), ShapeError, r"x has shape \(3,\)"),
    "x: 3-D": of(solve(pf.PointCost(X[None], Y)), ShapeError, r"x has shape \(1, 3, 2\)"),
    "y: empty": of(solve(pf.PointCost(X, Y[:0])), ShapeError, r"y has shape \(0, 2\)"),
    "x and y: other dimensions": of(solve(pf.PointCost(X, Y[:, :1])), ShapeError, "dimension 2", "dimension 1"),
    "x: complex": of(solve(pf.PointCost(X + 0j, Y)), InvalidArgument, "^x has dtype"),
    "y: text": of(solve(pf.PointCost(X, "points")), InvalidArgument, "^y is not an array of real numbers"),
    "x: ragged": of(solve(pf.PointCost(RAGGED, Y)), InvalidArgument, "^x is not an array of real numbers"),
    "y: on another device": of(solve(pf.PointCost(torch.from_numpy(X), meta(2, 2))), InvalidArgument, "y is on meta"),
    "cost: unknown name": of(solve(pf.PointCost(X, Y, "chebyshev")), InvalidArgument, "sqeuclidean", "'chebyshev'"),
    "cost: not a name": of(solve(pf.PointCost(X, Y, 2)), InvalidArgument, "cost must be one of", "got 2"),
    "cost: a function of the wrong shape": of(
        solve(pf.PointCost(X, Y, lambda x, y: y @ x.T)), ShapeError, r"\(2, 3\)", r"\(3, 2\) is needed"
    ),
    "cost: a function that gives a number": of(solve(pf.PointCost(X, Y, lambda x, y: 3.0)), InvalidArgument, "cost"),
    "cost: a function that gives NaN": of(
        solve(pf.PointCost(X, Y, lambda x, y: torch.full((3, 2), NAN))), NonFiniteError, r"cost\[0, 0\] is nan"
    ),
    # grids
    "shape: empty": Bad(lambda: pf.GridCost(()), InvalidArgument, ("shape", r"\(\)")),
    "shape: a number": Bad(lambda: pf.GridCost(28), InvalidArgument, ("shape", "28")),
    "shape: text": Bad(lambda: pf.GridCost("28"), InvalidArgument, ("shape", "'28'")),
    "shape: zero": Bad(lambda: pf.GridCost((3, 0)), InvalidArgument, ("shape", "got 0")),
    "shape: a fraction": Bad(lambda: pf.GridCost((2.5, 3)), InvalidArgument, ("shape", "2.5")),
    "p: 3": Bad(lambda: pf.GridCost((3,), p=3), InvalidArgument, ("p must be 1", "got 3")),
    "p: text": Bad(lambda: pf.GridCost((3,), p="l1"), InvalidArgument, ("p must be 1", "'l1'")),
    "scale: zero": Bad(lambda: pf.GridCost((3,), scale=0.0), InvalidArgument, ("scale must be", "0.0")),
    "scale: NaN": Bad(lambda: pf.GridCost((3,), scale=NAN), InvalidArgument, ("scale must be", "nan")),
    "scale: text": Bad(lambda: pf.GridCost((3,), scale="1"), InvalidArgument, ("scale must be", "'1'")),
    "a: not the grid's pixels": of(solve(pf.GridCost((2, 2)), A), ShapeError, r"a has shape \(3,\)", "4 pixels"),
    "a: an image, not its pixels in a row": of(
        solve(pf.GridCost((2, 2)), np.full((2, 2), 0.25), None), ShapeError, r"a has shape \(2, 2\)", "4 pixels"
    ),
    "a and b: other batches of images": of(
        solve(pf.GridCost((3,)), np.ones((2, 3)), np.ones((4, 3))), ShapeError, r"\(2, 3\)", r"\(4, 3\)"
    ),
    "b: image on another device": of(
        solve(pf.GridCost((3,)), torch.from_numpy(A), meta(3)), InvalidArgument, "b is on meta"
    ),
    "b: negative pixel": of(solve(pf.GridCost((3,)), A, [0.5, 0.7, -0.2]), MassError, r"b\[2\] is -0.2"),
    # exact
    "exact, cost: NaN": Bad(lambda: pf.exact(with_entry(COST, (0, 0), NAN)), NonFiniteError, (r"cost\[0, 0\] is nan",)),
    "exact, cost: a batch": Bad(lambda: pf.exact(COST[None]), InvalidArgument, (r"\(1, 3, 2\)", "one problem")),
    "exact, a: too short": Bad(lambda: pf.exact(COST, A[:2], B), ShapeError, (r"a has shape \(2,\)", "3 rows")),
    "exact, b: negative": Bad(lambda: pf.exact(COST, A, [1.5, -0.5]), MassError, (r"b\[1\] is -0.5",)),
    "exact, b: other mass": Bad(lambda: pf.exact(COST, A, 2 * B), MassError, ("a sums to 1", "b sums to 2")),
    "exact, tol: negative": Bad(lambda: pf.exact(COST, A, B, tol=-1.0), InvalidArgument, ("tol", "-1.0")),
    "exact, tol: text": Bad(lambda: pf.exact(COST, A, B, tol="tight"), InvalidArgument, ("tol", "tight")),
    # sinkhorn_divergence
    "divergence, x: NaN": Bad(
        lambda: pf.sinkhorn_divergence(with_entry(X, (2, 1), NAN), Y), NonFiniteError, (r"x\[2, 1\] is nan",)
    ),
    "divergence, x: 1-D": Bad(lambda: pf.sinkhorn_divergence(X[0], Y), ShapeError, (r"x has shape \(2,\)",)),
    "divergence, y: another dimension": Bad(
        lambda: pf.sinkhorn_divergence(X, Y[:, :1]), ShapeError, ("dimension 2", "dimension 1")
    ),
    "divergence, a: too long": Bad(
        lambda: pf.sinkhorn_divergence(X, Y, np.ones(4) / 4), ShapeError, (r"a has shape \(4,\)", "3 points")
    ),
    "divergence, b: negative": Bad(
        lambda: pf.sinkhorn_divergence(X, Y, A, [1.5, -0.5]), MassError, (r"b\[1\] is -0.5",)
    ),
    "divergence, b: other mass": Bad(lambda: pf.sinkhorn_divergence(X, Y, A, 2 * B), MassError, ("b sums to 2",)),
    "divergence, cost: unknown": Bad(
        lambda: pf.sinkhorn_divergence(X, Y, cost="l2"), InvalidArgument, ("cost must be one of", "'l2'")
    ),
    "divergence, epsilon: zero": Bad(
        lambda: pf.sinkhorn_divergence(X, Y, epsilon=0.0), InvalidArgument, ("epsilon must be", "0.0")
    ),
    "divergence, tol: text": Bad(
        lambda: pf.sinkhorn_divergence(X, Y, tol="x"), InvalidArgument, ("tol must be", "'x'")
    ),
    # SinkhornLoss
    "loss, epsilon: negative": Bad(lambda: pf.SinkhornLoss(epsilon=-1.0), InvalidArgument, ("epsilon must be", "-1.0")),
    "loss, reduction: unknown": Bad(
        lambda: pf.SinkhornLoss(reduction="average"), InvalidArgument, ("reduction must be one of", "'average'")
    ),
    "loss, cost: unknown": Bad(
        loss(torch.from_numpy(X), torch.from_numpy(Y), cost="l2"), InvalidArgument, ("cost must be one of", "'l2'")
    ),
    "loss, x: a list of clouds": Bad(
        loss([torch.ones(3, 2), torch.ones(2, 2)], torch.ones(3, 2)),
        InvalidArgument,
        ("x must be a Tensor, got a list",),
    ),
    "loss, x: text": Bad(loss("points", torch.ones(3, 2)), InvalidArgument, ("x must be a Tensor",)),
    "loss, x: None": Bad(loss(None, torch.ones(3, 2)), InvalidArgument, ("x must be a Tensor",)),
    "loss, tol: zero": Bad(lambda: pf.SinkhornLoss(tol=0.0), InvalidArgument, ("tol must be", "0.0")),
    "loss, throw: text": Bad(
        lambda: pf.SinkhornLoss(throw="no"), InvalidArgument, ("throw must be True or False", "'no'")
    ),
    "loss, epsilon: two": Bad(
        loss(torch.ones(3, 2), torch.ones(2, 2), epsilon=torch.ones(2)), InvalidArgument, ("epsilon must be",)
    ),
    "loss, epsilon: a tensor of NaN": Bad(
        lambda: pf.SinkhornLoss(epsilon=torch.tensor(NAN)), InvalidArgument, ("epsilon must be", "nan")
    ),
    "loss, cost: no name": Bad(
        lambda: pf.SinkhornLoss(cost="cityblock"), InvalidArgument, ("cost must be one of", "'cityblock'")
    ),
    "throw: a number": of(solve(throw=0), InvalidArgument, "throw must be True or False, got 0"),
    "x: huge": of(solve(pf.PointCost(1e300 * X, Y)), NonFiniteError, r"x\[0, 0\] is .*e\+299", "within 5e\\+138"),
    "exact, b: a row": Bad(
        lambda: pf.exact(COST, A, B[None]), ShapeError, (r"b has shape \(1, 2\)", r"of weights \(2,\)")
    ),
    "pairs, x: five axes": Bad(
        lambda: pf.ot.pairwise_cost(torch.ones(1, 1, 1, 3, 2), torch.ones(2, 2)), ShapeError, (r"x has shape \(1, 1",)
    ),
    "map, checkpoint: under a file": Bad(
        lambda: pf.maps.MongeMap(checkpoint=f"{__file__}/below").fit(X, Y),
        InvalidArgument,
        ("checkpoint is .*below", "test_bad_input.py is a file"),
    ),
    "map, Y: one point": Bad(
        lambda: pf.maps.MongeMap().fit(X, np.ones((4, 2))), InvalidArgument, ("Y has one and the same point",)
    ),
    "divergence, x: clouds": Bad(
        lambda: pf.sinkhorn_divergence([X, X], [Y, Y]), ShapeError, (r"x has shape \(2, 3, 2\)",)
    ),
    "divergence, a: a batch": Bad(
        lambda: pf.sinkhorn_divergence(X, Y, np.stack([A, A])), ShapeError, (r"a has shape \(2, 3\)", "3 points")
    ),
    "loss, x: 1-D": Bad(loss(torch.ones(3), torch.ones(3)), ShapeError, (r"x has shape \(3,\)",)),
    "loss, x: 4-D": Bad(loss(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2)), ShapeError, (r"\(1, 1, 3, 2\)",)),
    "loss, x and y: other batches": Bad(
        loss(torch.ones(2, 3, 2), torch.ones(4, 3, 2)), ShapeError, (r"\(2, 3, 2\)", r"\(4, 3, 2\)")
    ),
    "loss, y: no batch": Bad(loss(torch.ones(2, 3, 2), torch.ones(3, 2)), ShapeError, (r"\(3, 2\)",)),
    "loss, a: another batch": Bad(
        loss(torch.ones(2, 3, 2), torch.ones(2, 3, 2), torch.ones(4, 3)), ShapeError, (r"\ba\b", r"\(4, 3\)")
    ),
    "loss: no clouds": Bad(loss(torch.ones(0, 3, 2), torch.ones(0, 3, 2)), ShapeError, (r"\(0, 3, 2\)",)),
    # compat
    "compat, M: 1-D": Bad(lambda: compat.sinkhorn(A, B, COST[0], 0.1), ShapeError, (r"has shape \(2,\)",)),
    "compat, M: NaN": Bad(
        lambda: compat.sinkhorn(A, B, with_entry(COST, (0, 1), NAN), 0.1), NonFiniteError, (r"\[0, 1\] is nan",)
    ),
    "compat, a: too short": Bad(lambda: compat.sinkhorn(A[:2], B, COST, 0.1), ShapeError, (r"a has shape \(2,\)",)),
    "compat, b: negative": Bad(lambda: compat.sinkhorn(A, [1.5, -0.5], COST, 0.1), MassError, (r"b\[1\] is -0.5",)),
    "compat, reg: zero": Bad(lambda: compat.sinkhorn(A, B, COST, 0.0), InvalidArgument, ("must be a positive", "0.0")),
    "compat, reg: text": Bad(lambda: compat.sinkhorn2(A, B, COST, "x"), InvalidArgument, ("reg must be", "'x'")),
    # products
    "plan @ v: too long": Bad(lambda: plan() @ np.ones(3), ShapeError, (r"v has shape \(3,\)", r"\(3, 2\)")),
    "plan.T @ u: too short": Bad(lambda: plan().T @ np.ones(2), ShapeError, (r"has shape \(2,\)", r"\(2, 3\)")),
    "plan @ v: a number": Bad(lambda: plan() @ 3.0, ShapeError, (r"v has shape \(\)",)),
    "plan @ v: 3-D": Bad(lambda: plan() @ np.ones((1, 2, 1)), ShapeError, (r"v has shape \(1, 2, 1\)",)),
    "plan @ v: complex": Bad(lambda: plan() @ np.ones(2, complex), InvalidArgument, ("v has dtype", "complex")),
    "plan @ v: text": Bad(lambda: plan() @ "vector", InvalidArgument, ("v is not an array of real numbers",)),
    "batch @ v: no batch": Bad(lambda: batch_plan() @ np.ones(2), ShapeError, (r"v has shape \(2,\)", r"\(4, 3, 2\)")),
    "batch @ v: another batch": Bad(lambda: batch_plan() @ np.ones((3, 2)), ShapeError, (r"v has shape \(3, 2\)",)),
    "barycentric: too few": Bad(lambda: plan().barycentric(X), ShapeError, (r"y has shape \(3, 2\)", "column")),
    "barycentric: 1-D": Bad(lambda: plan().barycentric(np.ones(2)), ShapeError, (r"y has shape \(2,\)",)),
    "barycentric: ragged": Bad(lambda: plan().barycentric(RAGGED), InvalidArgument, ("y is not an array",)),
    "to_sparse: text": Bad(lambda: plan().to_sparse("small"), InvalidArgument, ("threshold", "small")),
    "to_sparse: NaN": Bad(lambda: plan().to_sparse(NAN), InvalidArgument, ("threshold", "nan")),
    "bounds of a relaxed problem": Bad(
        lambda: pf.solve(COST, A, B, epsilon=0.1, unbalanced=1.0).bounds(), InvalidArgument, ("unbalanced",)
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_argument_is_named(case: str):
    bad = CASES[case]
    with pytest.raises(bad.error) as caught:
        bad.call()
    assert isinstance(caught.value, ValueError)
    for pattern in bad.says:
        assert caught.match(pattern)


@pytest.mark.parametrize("method", ["auto", "newton", "sns", "sinkhorn"])
def test_torch_says_the_same_as_numpy(method: str):
    cost = torch.from_numpy(COST)
    for call, error, says in (
        (lambda: pf.solve(torch.full_like(cost, NAN), epsilon=0.1, method=method), NonFiniteError, r"cost\[0, 0\]"),
        (lambda: pf.solve(cost, torch.ones(2), epsilon=0.1, method=method), ShapeError, r"a has shape \(2,\)"),
        (lambda: pf.solve(cost, -torch.from_numpy(A), epsilon=0.1, method=method), MassError, r"a\[0\] is -0.2"),
        (lambda: pf.solve(cost.to(torch.complex64), epsilon=0.1, method=method), InvalidArgument, "complex64"),
    ):
        with pytest.raises(error, match=says):
            call()


def test_nothing_wrong_is_said_of_what_is_right():
    """The smallest and strangest input that is still good."""
    assert pf.solve([[1]]).converged
    assert pf.solve(COST > 0.5, epsilon=0.1).converged
    assert pf.solve(COST, A, B * (1 + 1e-7), epsilon=0.1).converged
    assert pf.solve(COST, A.astype(np.float32), B, epsilon=np.float32(0.1), tol=np.float64(1e-9)).converged
    assert pf.solve(COST, epsilon=torch.tensor(0.1), max_iterations=np.int64(500)).converged
    assert pf.solve(COST, epsilon=0.1, unbalanced=(1, INF)).converged
    assert pf.solve(torch.from_numpy(COST), A, B.tolist(), epsilon=0.1).converged
    assert pf.solve(with_entry(COST, (0, 0), INF), epsilon=0.1).converged
    assert pf.solve(COST, [1, 0, 0], [0, 1], epsilon=0.1).converged
    assert pf.solve(1e280 * COST, epsilon=1e279).converged
    assert pf.solve(1e-280 * COST, epsilon=1e-281).converged


def test_every_error_is_the_librarys_own():
    kinds = (ShapeError, NonFiniteError, MassError)
    assert all(issubclass(kind, InvalidArgument) for kind in kinds)
    assert issubclass(InvalidArgument, PushforwardError)
    assert issubclass(InvalidArgument, ValueError)
    assert issubclass(pf.errors.InfeasibleError, pf.errors.NotConverged)
    assert not issubclass(pf.errors.NotConverged, ValueError)
