"""`pushforward solve` on good files, against the library called directly and against exact transport."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ot
import pytest
import yaml
from safetensors.numpy import load_file
from scipy import sparse

import pushforward as pf
from pushforward.samples import digit_pair


def _solve(run: Callable, *args: object) -> dict:
    outcome = run("solve", *args, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_pictures_agree_with_exact_transport(run: Callable, pictures: tuple[str, str]):
    found = _solve(run, *pictures, "--epsilon", "0.0005", "--exact")
    grey = [np.uint8(255 * weights / weights.max()).ravel().astype(float) for weights in digit_pair(3, 8)]
    at = np.stack(np.divmod(np.arange(64), 8), axis=1) / 8
    truth = ot.emd2(grey[0] / grey[0].sum(), grey[1] / grey[1].sum(), ot.dist(at, at))
    lower, upper = found["bounds"]
    assert lower - 1e-12 <= truth <= upper + 1e-12
    assert found["exact"]["cost"] == pytest.approx(truth, rel=1e-9)
    assert found["status"] == "CONVERGED"
    assert found["marginal_error"] <= found["tol"]


def test_p_and_scale_reach_the_cost(run: Callable, pictures: tuple[str, str]):
    grid = pf.GridCost((8, 8), p=1, scale=1.0)
    grey = [np.uint8(255 * weights / weights.max()).ravel().astype(float) for weights in digit_pair(3, 8)]
    a, b = (weights / weights.sum() for weights in grey)
    expected = float(pf.solve(grid, a, b, epsilon=0.1).value)
    assert _solve(run, *pictures, "--p", 1, "--scale", 1, "--epsilon", 0.1)["value"] == pytest.approx(
        expected, rel=1e-9
    )


def test_points_agree_with_the_library(run: Callable, clouds: tuple[str, str]):
    x, y = (np.load(name) for name in clouds)
    expected = pf.solve(pf.PointCost(x, y, "euclidean"), epsilon=0.1)
    found = _solve(run, *clouds, "--cost", "euclidean", "--epsilon", 0.1)
    assert found["value"] == pytest.approx(float(expected.value), rel=1e-9)
    assert found["epsilon"] == 0.1


@pytest.mark.parametrize("method", ["auto", "newton", "sns", "sinkhorn"])
def test_every_method_gives_the_same_value(run: Callable, clouds: tuple[str, str], method: str):
    reference = _solve(run, *clouds, "--epsilon", 0.5, "--tol", 1e-10)["value"]
    assert _solve(run, *clouds, "--epsilon", 0.5, "--method", method)["value"] == pytest.approx(reference, rel=1e-7)


def test_cost_matrix_with_weights(run: Callable, here: Path):
    rng = np.random.default_rng(1)
    cost, a, b = rng.random((6, 5)), rng.random(6), rng.random(5)
    np.savez("c.npz", cost=cost, a=a, b=b)
    found = _solve(run, "c.npz", "--exact")
    assert found["exact"]["cost"] == pytest.approx(ot.emd2(a / a.sum(), b / b.sum(), cost), rel=1e-9)


def test_the_printed_block(run: Callable, clouds: tuple[str, str]):
    outcome = run("solve", *clouds, "--exact")
    assert outcome.code == 0
    assert outcome.err == ""
    names = [line[:18].strip() for line in outcome.out.splitlines()]
    for name in (
        "problem",
        "status",
        "value",
        "transport cost",
        "bounds",
        "exact cost",
        "marginal error",
        "iterations",
    ):
        assert name in names
    assert "PARTIAL" not in outcome.out


def test_not_converged_says_so_and_exits_with_one(run: Callable, here: Path):
    np.save("c.npy", np.random.default_rng(0).random((40, 40)))
    outcome = run("solve", "c.npy", "--method", "sinkhorn", "--epsilon", "0.001", "--max-iterations", "3")
    assert outcome.code == 1
    assert "PARTIAL" in outcome.out
    assert "ITERATION_LIMIT" in outcome.out
    as_json = run("solve", "c.npy", "--method", "sinkhorn", "--epsilon", "0.001", "--max-iterations", "3", "--json")
    assert as_json.code == 1
    found = json.loads(as_json.out)
    assert found["status"] == "ITERATION_LIMIT"
    assert found["marginal_error"] > found["tol"]


def test_infeasible_exits_with_one(run: Callable, here: Path):
    np.save("c.npy", np.array([[0.0, np.inf], [1.0, np.inf]]))
    outcome = run("solve", "c.npy", "--exact", "--out", "run")
    assert outcome.code == 1
    assert "INFEASIBLE" in outcome.out
    assert "exact cost        not found" in outcome.out
    assert outcome.err == ""
    assert "INFEASIBLE" in Path("run/index.html").read_text()


@pytest.mark.drawings
@pytest.mark.parametrize("kind", ["pictures", "clouds", "cost"])
def test_the_run_folder(run: Callable, here: Path, kind: str, request: pytest.FixtureRequest):
    np.save("c.npy", np.random.default_rng(0).random((12, 9)))
    files = ("c.npy",) if kind == "cost" else request.getfixturevalue(kind)
    outcome = run("solve", *files, "--exact", "--out", "runs/one")
    assert outcome.code == 0, outcome.err
    folder = here / "runs" / "one"
    result = json.loads((folder / "result.json").read_text())

    plan = sparse.load_npz(folder / "plan.npz")
    potentials = load_file(folder / "potentials.safetensors")
    assert plan.shape == (len(potentials["f"]), len(potentials["g"]))
    assert plan.sum() == pytest.approx(1, abs=1e-6)

    steps = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {step["method"] for step in steps} == {"auto", "sinkhorn"}
    assert [step for step in steps if step["method"] == "auto"][-1]["error"] <= 1e-6

    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert recipe["a"] == files[0]
    assert recipe["exact"] is True

    page = (folder / "index.html").read_text()
    assert f"{result['value']:.9g}" in page
    assert page.count("<source media") == {"pictures": 4, "clouds": 4, "cost": 3}[kind]


def test_many_pairs_are_not_drawn(run: Callable, clouds: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    from pushforward.jobs.solve import page

    monkeypatch.setattr(page, "_MOST_PAIRS", 100)
    assert run("solve", *clouds, "--out", "run").code == 0
    assert not Path("run/plan.npz").exists()
    assert "too many to be written" in Path("run/index.html").read_text()
