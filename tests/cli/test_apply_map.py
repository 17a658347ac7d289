"""`pushforward apply-map`: what it writes is the map's image of what it reads, in the form that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pushforward.maps.saved import load_map


@pytest.fixture
def fitted(run: Callable, here: Path) -> Any:
    """The linear map of a run in `run/`, between points in the plane."""
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal(size=(60, 2)))
    np.save("y.npy", 2 * rng.normal(size=(60, 2)) + 3)
    np.save("new.npy", rng.normal(size=(5, 2)))
    np.save("wide.npy", rng.normal(size=(5, 3)))
    assert run("fit-map", "x.npy", "y.npy", "--method", "linear", "--out", "run").code == 0
    return load_map("run/map")


@pytest.fixture
def genes(run: Callable, here: Path) -> Any:
    """Cells of two conditions in `cells.h5ad`, and a run on their genes in `run/` and on coordinates in `pca/`."""
    anndata = pytest.importorskip("anndata")
    import pandas as pd

    rng = np.random.default_rng(0)
    made = anndata.AnnData(
        X=rng.normal(size=(40, 3)),
        obs=pd.DataFrame({"condition": ["ctrl", "drug"] * 20}, index=[f"cell{k}" for k in range(40)]),
        var=pd.DataFrame(index=["a", "b", "c"]),
    )
    made.obsm["X_pca"] = rng.normal(size=(40, 2))
    made.write_h5ad("cells.h5ad")
    groups = "--obs condition --source ctrl --target drug --method linear"
    assert run("fit-map", "cells.h5ad", *groups.split(), "--out", "run").code == 0
    assert run("fit-map", "cells.h5ad", *groups.split(), "--rep", "obsm/X_pca", "--out", "pca").code == 0
    return made


def test_points_come_in_the_form_asked_for(run: Callable, fitted: Any):
    new = np.load("new.npy")
    outcome = run("apply-map", "run", "new.npy")
    assert (outcome.code, outcome.out, outcome.err) == (0, "run/new-mapped.npy\n", "")
    np.testing.assert_array_equal(np.load("run/new-mapped.npy"), fitted.transform(new))
    np.savetxt("new.csv", new, delimiter=",", header="Length,Width", comments="")
    assert run("apply-map", "run", "new.csv", "--out", "out.csv").code == 0
    assert Path("out.csv").read_text().splitlines()[0] == "Length,Width"
    np.testing.assert_allclose(np.loadtxt("out.csv", delimiter=",", skiprows=1), fitted.transform(new), rtol=1e-8)
    assert run("apply-map", "run", "new.npy", "--out", "out.npz").code == 0
    with np.load("out.npz") as out:
        np.testing.assert_array_equal(out["points"], fitted.transform(new))


def test_a_new_picture_is_recoloured(run: Callable, here: Path):
    rng = np.random.default_rng(0)
    for name, low in (("dark.png", 0), ("bright.png", 120), ("new.png", 30)):
        Image.fromarray(rng.integers(low, low + 100, (12, 9, 3), dtype=np.uint8)).save(name)
    assert run("fit-map", "dark.png", "bright.png", "--method", "linear", "--out", "run").code == 0
    outcome = run("apply-map", "run", "new.png")
    assert outcome.out == "run/new-mapped.png\n"
    new, painted = (np.asarray(Image.open(file)) / 255 for file in ("new.png", "run/new-mapped.png"))
    images = load_map("run/map").transform(new.reshape(-1, 3)).clip(0, 1).reshape(12, 9, 3)
    assert np.abs(images - painted).max() <= 0.5 / 255 + 1e-9


def test_cells_get_a_layer_in_the_order_of_their_genes(run: Callable, genes: Any):
    import anndata

    genes[:, ["c", "a", "b"]].copy().write_h5ad("turned.h5ad")
    outcome = run("apply-map", "run", "turned.h5ad", "--obs", "condition", "--source", "ctrl")
    assert (outcome.code, outcome.out) == (0, "run/turned-mapped.h5ad\n")
    found = anndata.read_h5ad("run/turned-mapped.h5ad")
    assert list(found.var_names) == ["a", "b", "c"]
    assert set(found.obs["condition"]) == {"ctrl"}
    np.testing.assert_allclose(found.layers["pushforward"], load_map("run/map").transform(genes.X[::2]), rtol=1e-5)


def test_coordinates_of_cells_go_into_obsm(run: Callable, genes: Any):
    import anndata

    assert run("apply-map", "pca", "cells.h5ad").code == 0
    expected = load_map("pca/map").transform(genes.obsm["X_pca"])
    found = anndata.read_h5ad("pca/cells-mapped.h5ad")
    np.testing.assert_allclose(found.obsm["pushforward"], expected, rtol=1e-5)
    assert run("apply-map", "pca", "cells.h5ad", "--out", "plain.npy").code == 0
    np.testing.assert_array_equal(np.load("plain.npy"), expected)


def test_cells_on_another_scale_than_the_maps_are_said(run: Callable, here: Path):
    anndata = pytest.importorskip("anndata")
    import pandas as pd

    rng = np.random.default_rng(0)
    counts = rng.poisson(4.0, (40, 3)).astype("float32")
    obs = pd.DataFrame({"condition": ["ctrl", "drug"] * 20}, index=[f"cell{k}" for k in range(40)])
    for name, X in (("raw", counts), ("log", np.log1p(counts))):
        anndata.AnnData(X=X, obs=obs, var=pd.DataFrame(index=["a", "b", "c"])).write_h5ad(f"{name}.h5ad")
    groups = "--obs condition --source ctrl --target drug --method linear --out run"
    assert run("fit-map", "log.h5ad", *groups.split()).code == 0
    said = "raw.h5ad: X looks like counts, but the map was learned from what looks like logarithms"
    assert said in run("apply-map", "run", "raw.h5ad").err
    assert run("apply-map", "run", "log.h5ad").err == ""


CASES: list[tuple[str, str]] = [
    ("x.npy new.npy", "x.npy: is no folder of a finished fit-map run"),
    ("none new.npy", "none: is no folder"),
    ("run missing.npy", "missing.npy: there is no such file"),
    ("run wide.npy", "its points have 3 coordinates; the map takes 2"),
    ("run good.png", "the map was learned from points"),
    ("run new.npy --out new.npy", "would write over"),
    ("run new.npy --out out.png", ".npy"),
    ("run new.npy --out none/out.npy", "none is no folder"),
    ("run new.npy --obs condition", "needed together"),
    ("run new.npy --obs condition --source ctrl", "--obs: is for cells"),
]


@pytest.mark.parametrize(("words", "named"), CASES, ids=[words for words, _ in CASES])
def test_one_line_names_what_is_wrong(words: str, named: str, run: Callable, fitted: Any):
    Image.new("RGB", (4, 4)).save("good.png")
    _is_one_line(run("apply-map", *words.split()), named)
    assert not list(Path().rglob(".partial*"))


@pytest.mark.parametrize("damage", ["origin", "map", "gone"])
def test_a_damaged_run_is_told(damage: str, run: Callable, fitted: Any):
    if damage == "origin":
        Path("run/origin.json").write_text(json.dumps({"kind": "points", "dimension": 2, "code": "x"}))
    elif damage == "map":
        (weights,) = Path("run/map").glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-8])
    else:
        Path("run/map/map.json").unlink()
    _is_one_line(
        run("apply-map", "run", "new.npy"), {"origin": "origin.json", "map": "bytes", "gone": "map.json"}[damage]
    )


def _is_one_line(outcome: Any, named: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert named in outcome.err
    assert "Traceback" not in outcome.err
