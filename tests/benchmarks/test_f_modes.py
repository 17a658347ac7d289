"""What the benchmark of mode seeking stands on: its students, its reference by quadrature, and what it counts."""

from __future__ import annotations

import f_modes
import f_tables
import pytest
import torch


def test_the_weights_are_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(map(f_modes.weight_gap, f_modes.SMOOTH)) < 1e-14
    monkeypatch.setitem(f_modes.PAPER, "squared_hellinger", lambda r: r.rsqrt() / 4)
    assert f_modes.weight_gap("squared_hellinger") > 0.1


def test_forward_kl_is_least_at_the_pairs_own_moments() -> None:
    (least, *_) = f_modes.minimisers(f_modes.SMOOTH["kl"], 1.5)
    # Mean -0.2 a, variance 1/4 + a^2 (1 - 0.2^2).
    assert least["mean"] == pytest.approx([-0.3, 0.0], abs=1e-5)
    assert least["width"] == pytest.approx([(0.25 + 0.96 * 1.5**2) ** 0.5, 0.5], rel=1e-5)


def test_reverse_kl_is_least_on_the_heavier_mode() -> None:
    (least, *_) = f_modes.minimisers(f_modes.SMOOTH["reverse_kl"], 3.0)
    assert least["mean"] == pytest.approx([-3.0, 0.0], abs=0.02)
    assert least["width"] == pytest.approx([0.5, 0.5], abs=0.01)
    assert least["value"] == pytest.approx(-torch.tensor(0.6).log().item(), abs=0.01)


def test_the_law_is_that_of_the_samples() -> None:
    student = f_modes.Student(
        torch.tensor([[1.0, 0.0], [-2.0, 1.0]]).double(),
        torch.tensor([[[0.9, 0.0], [0.3, 0.5]], [[0.4, 0.0], [-0.2, 0.8]]]).double(),
    )
    points = student(torch.randn(2**16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).detach()
    law = student.law()
    for k in range(2):
        torch.testing.assert_close(points[k::2].T.cov(), torch.as_tensor(law.covariances[k]), rtol=0.1, atol=0.02)
        torch.testing.assert_close(points[k::2].mean(0), student.means.detach()[k], rtol=0, atol=0.03)


def test_training_comes_to_the_minimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f_modes, "STEPS", 120)
    known = f_modes.minimisers(f_modes.SMOOTH["js"], 1.0)
    row = f_modes.pair_run("js", 1.0, 0, known)
    assert row["gap"] < 0.08
    assert row["global"]


def test_a_mode_is_held_by_what_lies_on_it() -> None:
    corners = torch.tensor(f_modes.CORNERS, dtype=torch.float64)
    points = torch.cat([corners[:1].expand(3, 2), corners[2:3] + 1.4, torch.zeros(1, 2)])
    assert f_modes.shares_of(points) == pytest.approx([0.6, 0.0, 0.0, 0.0])
    assert f_modes.shares_of(points - 0.5 * (points == corners[2] + 1.4)) == pytest.approx([0.6, 0.0, 0.2, 0.0])


def test_the_least_minimiser_says_how_far_a_divergence_covers() -> None:
    def least(*widths: float) -> dict[str, list[dict[str, list[float]]]]:
        return {a: [{"width": [width, 0.5]}] for a, width in zip(("1.0", "2.0", "3.0"), widths, strict=True)}

    assert f_tables.covers_to(least(1.1, 2.0, 0.5)) == "2"
    assert f_tables.covers_to(least(1.1, 2.0, 3.0)) == "3 or more"
