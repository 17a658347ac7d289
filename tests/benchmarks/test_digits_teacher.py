"""What the digits' teacher is judged by is what it has not seen; the table says what the rows say."""

from __future__ import annotations

import digits_tables
import digits_teacher
import pytest
import torch

from pushforward.diffusion.judge import SampleMetrics


def test_the_other_half_is_not_what_is_measured_by(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pushforward.diffusion.judge._STEPS", 5)
    images, labels = digits_teacher.digits()
    unseen, seen = digits_teacher.halves(images)
    judge = SampleMetrics(images, labels)
    torch.testing.assert_close(judge.reference, judge.features(unseen))
    assert len(unseen) + len(seen) <= len(images)
    # Copies of what was trained on are at distance 0, and other images at the distance of other images.
    assert digits_teacher.copying(seen[:50], seen, unseen) == 0
    assert digits_teacher.copying(unseen, seen, unseen) == 1


def test_the_table():
    row = {
        **{"steps": 3000, "half": False, "seconds": 20.4, "frechet_floor": 1.41, "draws": [1.0, 2.0]},
        **{"small": [3.0], "precision": 0.5, "recall": 0.9, "density": 0.4, "coverage": 0.8},
    }
    rows = [row | {"seed": 0}, row | {"seed": 1, "draws": [6.0], "recall": 0.7}, row | {"half": True, "copying": 1.25}]
    stamp = {"machine": {"processor": "P"}, "date": "2030-01-02T03", "commit": "abc"}
    lines = digits_tables.teacher_table(stamp | {"rows": rows}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:4]]
    assert cells[0][:3] == ["all digits", "3,000 (2 seeds)", "3.00 (1.00 to 6.00)"]
    assert cells[0][5] == "0.80"
    assert cells[1][:3] == ["the half not measured by", "3,000", "1.50 (1.00 to 2.00)"]
    assert "is 1.41; samples of the half's teacher are 1.25 times as far" in lines[-1]
