from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_the_tour_ends_with_its_page(run: Callable, here: Path):
    outcome = run("tour", "--out", "runs/tour")
    assert outcome.code == 0, outcome.err
    page = Path(outcome.out.splitlines()[-1])
    assert page == Path("runs/tour/index.html")

    text = page.read_text()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "Moving ink" in text

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
