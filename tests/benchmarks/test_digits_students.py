"""What the tables of students say: differences seed by seed, their intervals; and MNIST's pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import digits_judges
import digits_runs
import digits_tables
import mnist_students
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn.functional import avg_pool2d


def row(divergence: str, seed: int, frechet: float, *, gan: float = 0.0, **more: Any) -> dict[str, Any]:
    figures = {"precision": 0.5, "recall": 0.5, "density": 0.5, "coverage": 0.5, "frechet_floor": 1.25}
    figures |= {"class_distance": 0.1, "modes": 9, "of": 10}
    about = {"data": "digits", "status": "ok", "steps": 800, "levels": "raised", "commit": "abc", "seconds": 9.0}
    # Draws that average to the figure.
    return {
        "divergence": divergence,
        "seed": seed,
        "gan": gan,
        "draws": [frechet - 1, frechet + 1],
        **figures,
        **about,
    } | more


def results(*rows: dict[str, Any]) -> dict[str, Any]:
    setting = {"samples": 10_000, "draws": 2}
    return {"machine": {"processor": "P"}, "date": "2030-01-02T03", "setting": setting, "rows": list(rows)}


def cells(table: str, start: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_differences_are_those_of_the_same_seed():
    rng = np.random.default_rng(0)
    base, own = rng.normal(10, 5, 5), rng.normal(9, 5, 5)
    rows = [row("reverse_kl", seed, base[seed]) for seed in range(5)]
    rows += [row("js", seed, own[seed]) for seed in (3, 1, 4, 0, 2)]
    truth = stats.ttest_rel(own, base).confidence_interval()
    found = cells(digits_tables.paired_table(results(*rows), "digits"), "| JS")[2]
    mean, half, same, of = map(float, re.fullmatch(r"(\S+) ± (\S+), (\d) of (\d)", found).groups())
    assert (mean - half, mean + half) == pytest.approx((truth.low, truth.high), abs=0.011)
    assert (same, of) == (((own - base) * (own - base).mean() > 0).sum(), 5)


def test_the_gan_term_is_compared_with_its_own_divergence():
    rows = [row("js", seed, 5.0 + seed) for seed in range(3)]
    rows += [row("js", seed, 4.0 + seed, gan=1e-3) for seed in range(3)]
    rows += [row("kl", seed, 100.0, gan=1e-3) for seed in range(3)]
    table = digits_tables.gan_table(results(*({**one, "levels": "training"} for one in rows)))
    assert cells(table, "| digits | JS")[2] == "-1.00 ± 0.00, 3 of 3"
    assert "forward KL" not in table
    assert "JS" not in digits_tables.gan_table(results(*rows)), "at the other levels"


def test_levels_are_compared_within_a_divergence_and_seed():
    rows = [row("js", seed, 5.0 + seed, gan=1e-3) for seed in range(3)]
    rows += [row("js", seed, 7.0 + seed, gan=1e-3, levels="training") for seed in range(3)]
    rows += [row("kl", seed, 1.0, gan=1e-3, levels="training") for seed in range(3)]
    table = digits_tables.levels_table(results(*rows))
    assert cells(table, "| digits | JS")[2] == "-2.00 ± 0.00, 3 of 3"
    assert "forward KL" not in table
    assert cells(digits_tables.students_table(results(*rows), "digits"), "| JS")[3].startswith("6.00 ")


def test_two_seeds_have_no_interval_and_failed_runs_no_line():
    rows = [row("js", 0, 2.0), row("js", 1, 4.0), row("kl", 0, 1.0, status="time limit")]
    table = digits_tables.students_table(results(*rows), "digits")
    assert cells(table, "| JS")[:4] == ["JS", "0", "800", "3.00"]
    assert "forward KL" not in table
    assert "is 1.25 away" in table
    assert digits_tables.students_table(results(*rows), "stacked") == "Not measured yet.\n"


def test_a_coarser_pixel_is_the_mean_of_what_it_covers():
    images = torch.rand(3, 28, 28)
    torch.testing.assert_close(mnist_students.area_averaged(images, 14), avg_pool2d(images, 2))
    # By way of the grid that both divide: every pixel as 4 x 4, of which 7 x 7 are one of the coarser ones.
    fine = images.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(mnist_students.area_averaged(images, 16), avg_pool2d(fine, 7))


def test_groups_stand_beside_one_another_in_their_order(tmp_path: Path):
    digits_runs.save_beside(tmp_path / "a.png", [torch.full((4, 1, 32, 32), grey) for grey in (-1.0, 0.0)], columns=2)
    sheet = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    # Two columns of black, one that is white, two of grey.
    width = sheet.shape[1] // 5
    columns = [sheet[:, k * width : (k + 1) * width] for k in range(5)]
    assert [int(np.median(part)) for part in columns] == [0, 0, 255, 128, 128]


def test_three_digits_are_judged_together_and_each_alone():
    images, labels = digits_judges.data_of("stacked")
    judge = digits_judges.judge_of("stacked")
    rows = torch.arange(3000)
    assert (judge.classes(images[rows]) == labels[rows]).float().mean() > 0.95
    right = digits_judges.figures("stacked", [images[rows]])
    # The same three digits in one image after another: each is real, and no two of an image go together by chance.
    wrong = digits_judges.figures("stacked", [images[rows, :1].expand(-1, 3, -1, -1)])
    assert right["precision"] > 0.9
    assert wrong["precision"] == pytest.approx(right["precision"], abs=0.02)
    assert wrong["frechet"] > 20 * right["frechet"]
    assert wrong["modes"] < 50 < 900 < right["modes"]
    assert wrong["class_distance"] > 0.9 > 0.3 > right["class_distance"]
