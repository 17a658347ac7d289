"""`pushforward fit-map` on points, pictures and cells: its folder, its figures, its errors, its resuming."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pushforward.jobs.fit_map import run as map_run
from pushforward.maps.entropic import EntropicMap
from pushforward.maps.saved import load_map
from pushforward.metrics import wasserstein2
from pushforward.training.log import Log

QUICK = "--steps 8 --batch-size 32 --quiet"


@pytest.fixture
def files(here: Path) -> Path:
    """A cloud and a stretched, shifted copy of its law, 120 points of each in three dimensions."""
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal(size=(120, 3)))
    np.save("y.npy", rng.normal(size=(120, 3)) * [1.0, 2.0, 0.5] + [4.0, 0.0, 0.0])
    return here


@pytest.fixture
def photographs(here: Path) -> Path:
    from pushforward.samples import photograph

    for name in ("china", "flower"):
        Image.fromarray(np.uint8(np.rint(255 * photograph(name, height=24)))).save(f"{name}.png")
    return here


@pytest.fixture
def cells(here: Path) -> Path:
    """Counts of 7 genes in 90 cells, sparse; 50 controls, 40 of which the drug has doubled the first gene."""
    anndata = pytest.importorskip("anndata")
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    condition = np.array(["ctrl"] * 50 + ["drug"] * 40)
    rates = np.where(condition[:, None] == "drug", [8.0, *[4.0] * 6], 4.0)
    counts = rng.poisson(rates).astype(np.float32)
    made = anndata.AnnData(
        X=sparse.csr_matrix(counts),
        obs=pd.DataFrame({"condition": condition, "batch": "one"}, index=[f"cell{k}" for k in range(90)]),
        var=pd.DataFrame(index=[f"gene{k}" for k in range(7)]),
    )
    made.layers["logged"] = np.log1p(counts)
    made.obsm["X_pca"] = rng.normal(size=(90, 2)) + 5.0 * (condition == "drug")[:, None]
    made.write_h5ad("cells.h5ad")
    return here


def _result(out: str) -> dict[str, Any]:
    return json.loads(Path(out, "result.json").read_text())


@pytest.mark.drawings
def test_the_folder_of_a_run(run: Callable, files: Path):
    outcome = run("fit-map", "x.npy", "y.npy", *QUICK.split(), "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1].split() == ["page", "run/index.html"]
    result = _result("run")
    assert list(result["figures"]) == ["identity", "mean shift", "linear", "monge"]
    assert result["points"] == {"source": 120, "target": 120, "held_out": [24, 24]}
    recipe = yaml.safe_load(Path("run/recipe.yaml").read_text())
    assert (recipe["verb"], recipe["first"], recipe["steps"]) == ("fit-map", "x.npy", 8)
    checks = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert checks[0]["stage"] == "start"
    assert [check["step"] for check in checks] == list(range(len(checks)))
    page = Path("run/index.html").read_text()
    assert "Sinkhorn divergence" in page
    assert page.count("<source media") == 5  # arrows, and four curves
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_figures_are_those_of_the_saved_map_on_the_points_held_out(run: Callable, files: Path):
    outcome = run("fit-map", "x.npy", "y.npy", "--method", "entropic", "--hold-out", 0.25, "--json", "--out", "run")
    result = json.loads(outcome.out)
    assert result == _result("run")
    x, y = np.load("x.npy"), np.load("y.npy")
    parts = map_run.split(x, y, share=0.25, seed=0)
    assert {len(part) for part in (parts.x_test, parts.y_test)} == {30}
    np.testing.assert_array_equal(np.sort(np.concatenate([parts.x, parts.x_test]), axis=0), np.sort(x, axis=0))
    fitted = load_map("run/map")
    assert isinstance(fitted, EntropicMap)
    expected = wasserstein2(fitted.transform(parts.x_test), parts.y_test)
    assert result["figures"]["entropic"]["w2"] == pytest.approx(expected, rel=1e-9)
    assert result["figures"]["identity"]["w2"] == pytest.approx(wasserstein2(parts.x_test, parts.y_test), rel=1e-9)
    assert result["floor"] < result["figures"]["entropic"]["w2"] < result["figures"]["identity"]["w2"]


@pytest.mark.parametrize("method", ["linear", "entropic", "progressive", "icnn", "monge"])
def test_every_method_comes_nearer_than_the_mean_shift(run: Callable, files: Path, method: str):
    if method == "progressive":
        pytest.importorskip("pushforward.maps.progressive")
    flags = QUICK.split() if method in ("icnn", "monge") else ["--quiet"]
    outcome = run("fit-map", "x.npy", "y.npy", "--method", method, *flags, "--out", "run")
    assert (outcome.code, outcome.err) == (0, "")
    figures = _result("run")["figures"]
    assert figures[method]["divergence"] < figures["mean shift"]["divergence"] < figures["identity"]["divergence"]
    assert load_map("run/map").transform(np.zeros((2, 3))).shape == (2, 3)


def test_flags_reach_the_map(run: Callable, files: Path):
    flags = "--method entropic --cost sqeuclidean --epsilon 0.3 --seed 5"
    assert run("fit-map", "x.npy", "y.npy", *flags.split(), "--out", "run").code == 0
    parameters = load_map("run/map").get_params()
    assert (parameters["epsilon"], parameters["random_state"]) == (0.3, 5)
    assert run("fit-map", "x.npy", "y.npy", *QUICK.split(), "--cost", "euclidean", "--out", "other").code == 0
    parameters = load_map("other/map").get_params()
    assert (parameters["cost"], parameters["steps"], parameters["batch_size"]) == ("euclidean", 8, 32)
    # A shift is optimal for the Euclidean cost, too; the linear map, which is optimal for the squared one, is not.
    assert _result("other")["figures"]["mean shift"]["exact_gap"] < 1e-6
    assert _result("other")["figures"]["linear"]["exact_gap"] > 1e-4


def test_two_pictures_give_a_recoloured_one(run: Callable, photographs: Path):
    outcome = run("fit-map", "china.png", "flower.png", "--method", "entropic", "--epsilon", 0.02, "--out", "run")
    assert outcome.code == 0, outcome.err
    china, flower, painted = (
        np.asarray(Image.open(f)) / 255 for f in ("china.png", "flower.png", "run/recoloured.png")
    )
    assert painted.shape == china.shape
    mean, wanted = (picture.reshape(-1, 3).mean(axis=0) for picture in (painted, flower))
    assert np.abs(mean - wanted).max() < 0.05
    # It is the map's own image of every pixel, to the nearest of 256 values.
    images = load_map("run/map").transform(china.reshape(-1, 3)).clip(0, 1).reshape(china.shape)
    assert np.abs(images - painted).max() <= 0.5 / 255 + 1e-9
    assert Path("run/index.html").read_text().count("image/jpeg") == 6


def test_groups_of_cells(run: Callable, cells: Path):
    groups = "--obs condition --source ctrl --target drug"
    outcome = run("fit-map", "cells.h5ad", *groups.split(), "--log1p", "--method", "linear", "--out", "run")
    assert outcome.code == 0, outcome.err
    assert "ctrl into drug, 50 and 40 cells in 7 dimensions" in outcome.out
    import anndata

    held = anndata.read_h5ad("cells.h5ad")
    counts = held.X.toarray().astype(np.float64)
    logged = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    parts = map_run.split(logged[:50], logged[50:], share=0.2, seed=0)
    shifted = parts.x_test + (parts.y.mean(axis=0) - parts.x.mean(axis=0))
    found = _result("run")["figures"]["mean shift"]["w2"]
    assert found == pytest.approx(wasserstein2(shifted[:8], parts.y_test), rel=0.5)
    for rep, width in (("layers/logged", 7), ("obsm/X_pca", 2)):
        out = rep.replace("/", "-")
        assert run("fit-map", "cells.h5ad", *groups.split(), "--rep", rep, "--method", "linear", "--out", out).code == 0
        assert load_map(f"{out}/map").n_features_in_ == width


def test_two_files_of_cells_are_matched_by_the_names_of_their_genes(run: Callable, cells: Path):
    import anndata

    held = anndata.read_h5ad("cells.h5ad")
    held[:50].copy().write_h5ad("ctrl.h5ad")
    held[50:, ::-1].copy().write_h5ad("drug.h5ad")
    assert run("fit-map", "ctrl.h5ad", "drug.h5ad", "--method", "linear", "--out", "two").code == 0
    groups = "--obs condition --source ctrl --target drug"
    assert run("fit-map", "cells.h5ad", *groups.split(), "--method", "linear", "--out", "one").code == 0
    assert _result("two")["figures"] == _result("one")["figures"]


@pytest.mark.parametrize("categorical", [False, True])
def test_a_dose_may_be_written_in_any_way(run: Callable, cells: Path, categorical: bool):
    import anndata

    held = anndata.read_h5ad("cells.h5ad")
    held.obs["dose"] = np.where(held.obs["condition"] == "drug", 2.5, 0.0)
    if categorical:
        held.obs["dose"] = held.obs["dose"].astype("category")
    held.write_h5ad("cells.h5ad")
    flags = ["fit-map", "cells.h5ad", "--obs", "dose", "--method", "linear", "--out", "run"]
    _is_one_line(run(*flags, "--source", "1", "--target", "2.5"), "no cell has dose 1; its values are 0, 2.5")
    _is_one_line(run(*flags, "--source", "none", "--target", "2.5"), "no cell has dose none")
    outcome = run(*flags, "--source", "0", "--target", "2.50")
    assert outcome.code == 0, outcome.err
    assert _result("run")["points"]["source"] == 50


CELLS: list[tuple[str, str]] = [
    ("cells.h5ad", "--obs"),
    ("cells.h5ad --obs drug --source a --target b", "condition, batch"),
    ("cells.h5ad --obs condition --source control --target drug", "control; its values are ctrl, drug"),
    ("cells.h5ad --obs condition --source ctrl", "needed together"),
    ("cells.h5ad cells.h5ad --obs condition --source ctrl --target drug", "two are given"),
    ("cells.h5ad cells.h5ad --rep obsm/umap", "X, layers/logged, obsm/X_pca"),
    ("cells.h5ad cells.h5ad --rep raw", "X, layers/logged, obsm/X_pca"),
    ("cells.h5ad cells.h5ad --rep obsm/negative --log1p", "--log1p"),
    ("cells.h5ad cells.h5ad --rep obsm/nan", "cell cell3 is not finite, the first of 2"),
    ("cells.h5ad other.h5ad", "lacks 1 of the 7 genes of the map: gene6"),
    ("cells.h5ad x.npy", "one kind"),
    ("words.h5ad words.h5ad", "words.h5ad: cannot be read"),
]


@pytest.mark.parametrize(("words", "named"), CELLS, ids=[words for words, _ in CELLS])
def test_one_line_names_what_is_wrong_with_cells(words: str, named: str, run: Callable, cells: Path):
    import anndata

    held = anndata.read_h5ad("cells.h5ad")
    held[:, :6].copy().write_h5ad("other.h5ad")
    if "obsm/n" in words:
        held.obsm["negative"] = -np.ones((90, 2))
        held.obsm["nan"] = np.where(np.isin(np.arange(90), [3, 8])[:, None], np.nan, np.zeros((90, 2)))
        held.write_h5ad("cells.h5ad")
    Path("words.h5ad").write_text("no cells")
    np.save("x.npy", np.zeros((9, 2)))
    _is_one_line(run("fit-map", *words.split(), "--out", "run"), named)
    assert not Path("run").exists(), "something was written before all was checked"


def test_without_anndata_the_line_says_how_to_get_it(run: Callable, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    _is_one_line(run("fit-map", "cells.h5ad", "--out", "run"), "pip install 'pushforward[cells]'")


@pytest.mark.parametrize(
    ("rep", "flag", "said"),
    [
        ("X", "", "X looks like raw counts"),
        ("layers/logged", "--log1p", "layers/logged looks like logarithms of counts already"),
        ("layers/normalised", "--log1p", "layers/normalised looks like logarithms of counts already"),
        ("layers/shares", "--log1p", "layers/shares has fractions, so it holds no raw counts"),
        ("X", "--log1p", None),
        ("layers/logged", "", None),
        ("obsm/X_pca", "", None),
    ],
)
def test_counts_and_logarithms_are_recognised(rep: str, flag: str, said: str | None, run: Callable, cells: Path):
    import anndata

    held = anndata.read_h5ad("cells.h5ad")
    shares = held.X.toarray() / held.X.toarray().sum(axis=1, keepdims=True)
    held.layers["shares"], held.layers["normalised"] = shares * np.linspace(1, 2, 90)[:, None], np.log1p(1e4 * shares)
    held.write_h5ad("cells.h5ad")
    words = f"--obs condition --source ctrl --target drug --method linear --rep {rep} {flag} --out run"
    outcome = run("fit-map", "cells.h5ad", *words.split())
    assert outcome.code == 0, outcome.err
    page = Path("run/index.html").read_text()
    if said is None:
        assert (outcome.err, [text for text in _result("run")["warnings"] if "cells.h5ad" in text]) == ("", [])
    else:
        assert said in outcome.err.splitlines()[0]
        assert said in page
        assert said in _result("run")["warnings"][0]


@pytest.mark.parametrize("two", [True, False])
def test_genes_of_one_name_are_refused_before_the_fit(two: bool, run: Callable, cells: Path):
    import anndata

    held = anndata.read_h5ad("cells.h5ad")
    held.var_names = ["gene0", "gene0", *held.var_names[2:]]
    held.write_h5ad("cells.h5ad")
    words = "cells.h5ad" if two else "--obs condition --source ctrl --target drug"
    outcome = run("fit-map", "cells.h5ad", *words.split(), "--method", "linear", "--out", "run")
    _is_one_line(outcome, "cells.h5ad: several genes share a name")
    assert "gene0" in outcome.err
    assert not Path("run").exists()


def test_a_far_row_is_named_as_the_file_has_it_and_judges_nothing(run: Callable, files: Path):
    assert run("fit-map", "x.npy", "y.npy", "--method", "linear", "--out", "plain").code == 0
    np.save("far.npy", np.insert(np.load("x.npy"), 17, 1e4, axis=0))
    outcome = run("fit-map", "far.npy", "y.npy", "--method", "linear", "--out", "run")
    assert "far.npy has 1 of 121 rows far from all others: row 17" in outcome.err
    assert _result("run")["figures"] == _result("plain")["figures"]
    assert "row 17" in Path("run/index.html").read_text()


def test_a_map_that_loses_to_simpler_ones_says_so(run: Callable, here: Path):
    rng = np.random.default_rng(0)
    # More dimensions than points: a linear map learns the sample by heart.
    np.save("x.npy", rng.normal(size=(60, 100)))
    np.save("y.npy", rng.normal(size=(60, 100)) + 0.5)
    outcome = run("fit-map", "x.npy", "y.npy", "--method", "entropic", "--epsilon", 1.0, "--out", "run")
    warnings = "\n".join(_result("run")["warnings"])
    assert "the images are drawn together" in warnings
    assert "below its floor" in warnings
    rows = [line for line in outcome.out.splitlines() if line.startswith("warning")]
    assert len(rows) == len(_result("run")["warnings"])
    assert "drawn together" in Path("run/index.html").read_text()
    # A shuffled target of the same law: nothing is to be learned, and what is learned is worse than nothing.
    np.save("y.npy", rng.normal(size=(60, 100)))
    assert run("fit-map", "x.npy", "y.npy", "--method", "icnn", *QUICK.split(), "--out", "worse").code == 0
    assert any("worse than the identity on held-out points" in text for text in _result("worse")["warnings"])


@pytest.mark.drawings
def test_the_page_marks_the_check_that_was_kept(run: Callable, files: Path):
    assert run("fit-map", "x.npy", "y.npy", *QUICK.split(), "--out", "run").code == 0
    kept, fitted = _result("run")["kept"], load_map("run/map")
    record = fitted.validation_[fitted.kept_]
    assert (kept["stage"], kept["step"], kept["stage"]) == (record["stage"], record["step"], fitted.stage_)
    assert record["criterion"] <= min(each["criterion"] for each in fitted.validation_) + 1e-3
    assert f"{kept['stage']}, step {kept['step']}" in Path("run/index.html").read_text()
    assert run("fit-map", "x.npy", "y.npy", "--method", "icnn", *QUICK.split(), "--out", "icnn").code == 0
    history, fitted = load_map("icnn/map").history_, load_map("icnn/map")
    assert history[fitted.kept_]["dual"] == min(check["dual"] for check in history if check["residual"] <= 1e-2)


@pytest.mark.parametrize("method", ["linear", "monge"])
def test_the_file_at_fault_is_named(method: str, run: Callable, files: Path):
    np.save("point.npy", np.ones((100, 3)))
    outcome = run("fit-map", "x.npy", "point.npy", "--method", method, "--out", "run")
    _is_one_line(outcome, "point.npy: all 100 points of the target are the same")
    assert "x.npy" not in outcome.err
    few = np.ones((100, 3))
    few[0] = 2.0
    np.save("few.npy", few)
    outcome = run("fit-map", "x.npy", "few.npy", "--method", method, "--out", "run")
    _is_one_line(outcome, "few.npy: the 20 points held out of the target are all the same")
    large = np.load("y.npy") * 1e30
    np.save("large.npy", large)
    if method == "monge":
        outcome = run("fit-map", "x.npy", "large.npy", "--quiet", "--out", "run")
        _is_one_line(outcome, "large.npy: Y has coordinates up to")


def test_interrupted_and_resumed_is_as_if_never_interrupted(
    run: Callable, files: Path, monkeypatch: pytest.MonkeyPatch
):
    flags = ["x.npy", "y.npy", *QUICK.split()]
    assert run("fit-map", *flags, "--out", "whole").code == 0

    class Pressed(Log):
        def write(self, step: int, values: Any) -> None:
            super().write(step, values)
            if step == 4:
                raise KeyboardInterrupt

    monkeypatch.setattr(map_run, "Log", Pressed)
    stopped = run("fit-map", *flags, "--out", "cut")
    assert stopped.code == 130
    assert stopped.err == "pushforward: interrupted; go on with: pushforward fit-map cut/recipe.yaml --resume\n"
    assert not Path("cut/map").exists()

    steps: list[int] = []

    class Watched(Log):
        def write(self, step: int, values: Any) -> None:
            super().write(step, values)
            steps.append(step)

    monkeypatch.setattr(map_run, "Log", Watched)
    resumed = run("fit-map", *flags, "--out", "cut", "--resume")
    assert resumed.code == 0, resumed.err
    assert steps[0] == 4  # the first log of the two tells of what came after the checkpoint alone
    assert _result("cut")["figures"] == _result("whole")["figures"]
    assert Path("cut/log.jsonl").read_text() == Path("whole/log.jsonl").read_text()
    new = np.ones((3, 3))
    np.testing.assert_array_equal(load_map("cut/map").transform(new), load_map("whole/map").transform(new))


def test_a_folder_in_use_is_not_written_over(run: Callable, files: Path):
    flags = ["fit-map", "x.npy", "y.npy", "--method", "linear", "--out", "run"]
    _is_one_line(run(*flags, "--resume"), "holds no run")
    assert run(*flags).code == 0
    _is_one_line(run(*flags), "holds a run already")
    _is_one_line(run(*flags, "--seed", 1, "--resume"), "seed 0, not 1")
    assert run(*flags, "--resume").code == 0
    Path("run/recipe.yaml").write_text("- [")
    _is_one_line(run(*flags, "--resume"), "recipe.yaml")


def test_a_run_that_failed_leaves_its_folder_free(run: Callable, files: Path):
    flags = ["fit-map", "x.npy", "y.npy", "--out", "run", "--method"]
    _is_one_line(run(*flags, "entropic", "--cost", "cosine"), "cost")
    assert run(*flags, "linear").code == 0


def _is_one_line(outcome: Any, named: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert named in outcome.err
    assert "Traceback" not in outcome.err
