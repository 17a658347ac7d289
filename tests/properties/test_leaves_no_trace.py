"""A call changes nothing: not its arguments, not the state of the process."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward.ot import compat


def arguments(rng: np.random.Generator) -> dict[str, np.ndarray]:
    cost = rng.random((8, 7))
    a, b = rng.random(8), rng.random(7)
    a[0] = 0.0
    square = rng.random(6)
    return {
        "cost": cost,
        "a": a / a.sum(),
        "b": b / b.sum(),
        "x": rng.normal(size=(8, 2)),
        "y": rng.normal(size=(7, 2)),
        "w": square / square.sum(),
        "init": rng.normal(size=7),
        "v": rng.normal(size=7),
    }


CALLS: dict[str, Callable] = {
    "solve": lambda p: pf.solve(p["cost"], p["a"], p["b"], epsilon=0.1).bounds(),
    "newton": lambda p: pf.solve(p["cost"], p["a"], p["b"], epsilon=0.01, method="newton", init=p["init"]).f,
    "sns": lambda p: pf.solve(p["cost"], p["a"], p["b"], epsilon=0.1, method="sns").f,
    "sinkhorn": lambda p: pf.solve(p["cost"], p["a"], p["b"], epsilon=0.1, method="sinkhorn").f,
    "batch": lambda p: pf.solve(p["cost"][None], p["a"][None], p["b"], epsilon=0.1).plan.to_dense(),
    "relaxed": lambda p: pf.solve(p["cost"], p["a"], p["b"], epsilon=0.1, unbalanced=1.0).value,
    "points": lambda p: pf.solve(pf.PointCost(p["x"], p["y"]), p["a"], p["b"], epsilon=0.5).transport_cost,
    "grid": lambda p: pf.solve(pf.GridCost((3, 2)), p["w"], p["w"], epsilon=0.5).plan @ p["w"],
    "plan": lambda p: (
        (plan := pf.solve(p["cost"], p["a"], p["b"], epsilon=0.1).plan) @ p["v"]
        + plan.barycentric(p["y"])[:, 0]
        + plan.to_sparse().sum()
    ),
    "exact": lambda p: pf.exact(p["cost"], p["a"], p["b"]).f,
    "divergence": lambda p: pf.sinkhorn_divergence(p["x"], p["y"], p["a"], p["b"], epsilon=0.5),
    "compat": lambda p: compat.sinkhorn(p["a"], p["b"], p["cost"], 0.1),
}
CALL = pytest.mark.parametrize("call", CALLS)


@CALL
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_arguments_are_never_written_to(rng, call: str, library: str):
    given_arrays = arguments(rng)
    copies = {name: array.copy() for name, array in given_arrays.items()}
    shared = {name: torch.from_numpy(array) for name, array in given_arrays.items()}
    CALLS[call](shared if library == "torch" else given_arrays)
    for name, array in given_arrays.items():
        np.testing.assert_array_equal(array, copies[name], err_msg=name)


def unusual_seeds() -> None:
    """Generators far from where any code would put them by seeding."""
    torch.manual_seed(987654321)
    torch.rand(7)
    np.random.seed(987654321)  # noqa: NPY002 - the global state is the point
    np.random.random(7)  # noqa: NPY002
    random.seed(987654321)
    random.random()


def state() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "torch's random numbers": torch.get_rng_state().tolist(),
        "numpy's random numbers": np.random.get_state()[1].tolist(),  # noqa: NPY002 - the global state is the point
        "random's random numbers": random.getstate(),
        "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "TF32 in matmul": torch.backends.cuda.matmul.allow_tf32,
        "TF32 in cuDNN": torch.backends.cudnn.allow_tf32,
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "numpy's error handling": np.geterr(),
        "flush denormals": float(torch.tensor(1e-310, dtype=torch.float64) * 1.0) > 0,
    }


@CALL
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_process_is_left_as_it_was(rng, call: str, library: str):
    p = arguments(rng)
    p = {name: torch.from_numpy(array) for name, array in p.items()} if library == "torch" else p
    unusual_seeds()
    before = state()
    CALLS[call](p)
    assert state() == before


def test_failures_leave_the_process_as_it_was(rng):
    before = state()
    with pytest.raises(pf.errors.NotConverged):
        pf.solve(rng.random((9, 9)), epsilon=1e-3, max_iterations=1)
    with pytest.raises(pf.errors.ShapeError):
        pf.solve(rng.random(9))
    assert state() == before


@CALL
def test_random_numbers_play_no_part(rng, call: str):
    """The same question has the same answer, bit for bit, whatever the seeds."""
    p = arguments(rng)
    answers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        answers.append(np.asarray(CALLS[call](p)))
    np.testing.assert_array_equal(*answers)


@CALL
def test_the_callers_modes_do_not_change_the_answer(rng, call: str):
    p = {name: torch.from_numpy(array) for name, array in arguments(rng).items()}

    def answer() -> np.ndarray:
        result = CALLS[call](p)
        return np.asarray([float(r) for r in result]) if isinstance(result, tuple) else result.detach().numpy()

    usual = answer()
    for dtype in (torch.float64, torch.float16):
        torch.set_default_dtype(dtype)
        try:
            np.testing.assert_array_equal(answer(), usual)
        finally:
            torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(answer(), usual)
    with torch.inference_mode():
        np.testing.assert_array_equal(answer(), usual)
    torch.use_deterministic_algorithms(True)
    try:
        np.testing.assert_array_equal(answer(), usual)
    finally:
        torch.use_deterministic_algorithms(False)


@CALL
def test_nothing_warns(rng, call: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CALLS[call](arguments(rng))


def test_sparse_paths_do_not_warn(rng):
    with warnings.catch_warnings(), np.errstate(over="raise", divide="raise", invalid="raise"):
        warnings.simplefilter("error")
        pf.solve(rng.random((80, 70)), epsilon=1e-4, method=pf.ot.Newton(sparse_below=1.0))


def test_two_solutions_share_nothing(rng):
    """A solution keeps its answer when the caller reuses the arrays' memory for the next problem."""
    cost = rng.random((6, 5))
    first = pf.solve(cost, epsilon=0.1)
    f, value = first.f.copy(), first.value
    pf.solve(rng.random((6, 5)), epsilon=0.1)
    np.testing.assert_array_equal(first.f, f)
    assert first.value == value
    first.f[:] = 0.0  # what came back is the caller's own
    np.testing.assert_array_equal(pf.solve(cost, epsilon=0.1).f, f)
