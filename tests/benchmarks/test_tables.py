"""The table maker: what it writes between the marks, and that nothing else of the file changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scoreboard
import tables
from lib import RESULTS, ROOT, filled

MARKS = "before\n<!-- table:ot-solvers -->\nold\n<!-- /table:ot-solvers -->\nafter\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    def row(solver: str, seconds: float, status: str = "ok", **more: object) -> dict[str, object]:
        return {"problem": "random-500", "solver": solver, "status": status, "seconds": seconds, "error": 5e-6} | more

    rows = [
        row("pushforward auto", 0.1, distance=3.21),
        row("regot ssns", 0.25),
        row("mdot-tnt", 0.01, status="not at the tolerance"),
        row("pot emd", 0.05),
        {"problem": "random-500", "solver": "pot log", "status": "time limit", "limit": 120.0},
    ]
    run = {"machine": {"processor": "A processor"}, "date": "2026-01-02T03:04:05", "commit": "abc", "tolerance": 1e-9}
    (tmp_path / "ot_solvers.json").write_text(json.dumps(run | {"rows": rows}))
    return tmp_path


def test_the_best_peer_is_the_fastest_entropic_one_at_the_tolerance(results: Path) -> None:
    text = filled(MARKS, tables.TABLES, results)
    (line,) = [line for line in text.splitlines() if "500 x 500" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "random costs, 500 x 500", "0.100", "regot ssns 0.250", "2.5x", "0.0500", "3.2",
    ]  # fmt: skip


def test_a_solver_that_failed_says_how(results: Path) -> None:
    text = filled(MARKS.replace("ot-solvers", "ot-solvers-all"), tables.TABLES, results)
    assert "| pot log | over 120 |" in text
    assert "| mdot-tnt | error 5e-06 in 0.0100 |" in text


def test_only_the_marked_part_changes_and_a_second_filling_changes_nothing(results: Path) -> None:
    text = filled(MARKS, tables.TABLES, results)
    assert text.startswith("before\n<!-- table:ot-solvers -->\n|")
    assert text.endswith("<!-- /table:ot-solvers -->\nafter\n")
    assert "old" not in text
    assert filled(text, tables.TABLES, results) == text


def test_an_unknown_table_is_an_error(results: Path) -> None:
    with pytest.raises(KeyError, match="no-such"):
        filled(MARKS.replace("ot-solvers", "no-such"), tables.TABLES, results)


def test_the_committed_tables_are_those_of_the_committed_results() -> None:
    marked = [page for page in tables.pages() if "<!-- table:" in page.read_text()]
    assert len(marked) >= 8
    for page in marked:
        text = page.read_text()
        assert filled(text, tables.TABLES, RESULTS) == text, f"{page.name}: run python benchmarks/tables.py"


def test_the_scoreboard_is_that_of_the_committed_result() -> None:
    results = json.loads((RESULTS / "scoreboard.json").read_text())
    assert scoreboard.page(results) == (ROOT / "SCOREBOARD.md").read_text()
