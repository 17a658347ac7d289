from __future__ import annotations

from pathlib import Path

from pushforward.report import training


def test_curves_say_where_they_end(tmp_path: Path):
    curves = {"one": ([0, 10], [2.0, 1.0]), "two": ([0, 10], [2.0, 0.25])}
    picture = training.curves_picture(tmp_path, "kl", curves, quantity="KL", caption="c")
    assert picture.alt == "KL against steps of training; at the end: one 1, two 0.25."
    assert (tmp_path / picture.light).is_file()
    assert (tmp_path / picture.dark).is_file()


def test_a_figure_that_a_model_lacks_stays_empty():
    table = training.figures_table({"teacher": {"f1": 0.91234567}, "student": {"f1": "0.9 ± 0.1", "kl": 0.5}})
    assert table.columns == ("model", "F1", "KL to teacher")
    assert table.rows == (("teacher", "0.9123", ""), ("student", "0.9 ± 0.1", "0.5"))
