from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.drawings
def test_the_tour_ends_with_its_page(run: Callable, here: Path, monkeypatch: pytest.MonkeyPatch):
    # A few steps on a model this narrow show that the act runs, not what it finds.
    act = importlib.import_module("pushforward.jobs.tour.language")
    for name, value in {"_WIDTH": 16, "_BATCH": 4, "_TEACHER_STEPS": 8, "_STUDENT_STEPS": 20, "_LOOKED_AT": 8}.items():
        monkeypatch.setattr(act, name, value)
    act = importlib.import_module("pushforward.jobs.tour.maps")
    sizes = {"_HEIGHT": 30, "_PIXELS": 300, "_POINTS": 400, "_COLOUR_STEPS": 10, "_PLANE_STEPS": 10, "_BATCH": 64}
    for name, value in sizes.items():
        monkeypatch.setattr(act, name, value)
    act = importlib.import_module("pushforward.jobs.tour.generators")
    sizes = {"_TEACHER_STEPS": 100, "_STUDENT_STEPS": 24, "_BATCH": 64, "_JUDGED": 500, "_LOOKED_AT": 100}
    for name, value in sizes.items():
        monkeypatch.setattr(act, name, value)
    outcome = run("tour", "--out", "runs/tour")
    assert outcome.code == 0, outcome.err
    page = Path(outcome.out.splitlines()[-1])
    assert page == Path("runs/tour/index.html")

    text = page.read_text()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "Moving ink" in text
    assert "Teaching a smaller model" in text
    assert "Maps for points not seen" in text
    assert "Images in one step" in text

    report = json.loads((here / "runs/tour/report.json").read_text())
    (table,) = (block for block in report["sections"][0]["blocks"] if block["kind"] == "table")
    columns = {name: [row[at] for row in table["rows"]] for at, name in enumerate(table["columns"])}
    assert len(columns["method"]) == 6
    assert set(columns["status"]) == {"CONVERGED"}
    # Five solutions of one problem by different methods, one of them on another form of the cost.
    values = [float(value) for value in columns["value"] if value]
    assert max(values) - min(values) <= 1e-7
    assert all(float(error) <= 1e-9 for error in columns["marginal error"] if error)
    assert float(columns["cost"][-1]) <= float(columns["cost"][0])

    (table,) = (block for block in report["sections"][1]["blocks"] if block["kind"] == "table")
    figures = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    assert list(figures) == ["teacher", "its 2 layers, untaught", "KL", "KL + Sinkhorn"]
    for student in ("KL", "KL + Sinkhorn"):
        assert float(figures[student]["KL to teacher"]) < float(figures["its 2 layers, untaught"]["KL to teacher"])
        assert float(figures[student]["s a step"]) > 0

    blocks = report["sections"][2]["blocks"]
    colours, plane = (
        {row[0]: dict(zip(block["columns"], row, strict=True)) for row in block["rows"]}
        for block in blocks
        if block["kind"] == "table"
    )
    names = ["identity", "mean shift", "linear", "entropic", "Monge"]
    assert list(colours) == list(plane) == names
    for table in (colours, plane):
        assert float(table["entropic"]["W2²"]) < float(table["linear"]["W2²"]) < float(table["identity"]["W2²"])
        # What is kept was at least as good as the linear map on points put aside.
        assert float(table["Monge"]["W2²"]) < 1.2 * float(table["linear"]["W2²"])
    assert float(plane["entropic"]["L2-UVP (%)"]) < float(plane["linear"]["L2-UVP (%)"])
    assert sum(block["kind"] == "picture" for block in blocks) == 9
    assert outcome.err == ""

    (table,) = (block for block in report["sections"][3]["blocks"] if block["kind"] == "table")
    figures = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    assert list(figures) == ["teacher, 18 steps", "one step, reverse KL", "one step, JS"]
    assert [row["evaluations"] for row in figures.values()] == ["35", "1", "1"]
    assert all(float(row["frechet"]) > 0 for row in figures.values())
