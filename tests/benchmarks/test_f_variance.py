"""The figures of the benchmark of gradient variance: closed forms, two routes to one number, and its verdicts."""

from __future__ import annotations

import f_mixtures
import f_tables
import f_variance
import pytest
import torch

from pushforward.divergences import JS, FDivergence


def test_the_density_is_the_mixtures_and_the_grid_holds_all_of_it() -> None:
    weights, means = torch.tensor([0.3, 0.7]).double(), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]).double()
    covariances = torch.tensor([[[0.5, 0.2], [0.2, 0.4]], [[0.3, 0.0], [0.0, 0.9]]]).double()
    grid = f_mixtures.Grid(low=(-8.0, -7.0), high=(8.0, 9.0), cells=160)
    x = grid.points()
    found = f_mixtures.log_normal_mixture(x, weights, means, covariances)
    components = torch.distributions.MultivariateNormal(means, covariances)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), components)
    torch.testing.assert_close(found, mixture.log_prob(x))
    assert float(found.exp().sum()) * grid.cell == pytest.approx(1.0, abs=1e-12)


def test_of_modes_that_do_not_meet_the_weights_variance_is_that_of_their_shares() -> None:
    found = f_variance.by_quadrature(f_variance.Pair(share=0.1, t=0.05))
    assert found["kl"]["weight"] == pytest.approx(0.25 / 0.9 + 0.25 / 0.1 - 1, rel=1e-3)
    assert found["reverse_kl"]["weight"] == pytest.approx(0.0, abs=1e-9)


def test_draws_and_quadrature_agree() -> None:
    pair = f_variance.Pair(shift=0.4, share=0.3, width=0.9, t=0.6)
    drawn = f_variance.figures(*f_variance.at_samples(pair, 256 * 256, torch.Generator().manual_seed(0)))
    exact = f_variance.by_quadrature(pair)
    for name in f_variance.CLAIMED:
        for figure in ("weight", "gradient"):
            assert drawn[name][figure] == pytest.approx(exact[name][figure], rel=0.05), (name, figure)


def test_jeffreys_weight_varies_a_quarter_of_forward_kls() -> None:
    # E_q[r] = 1, so that h = r + 1 has twice the mean of h = r and the same variance.
    found = f_variance.by_quadrature(f_variance.Pair(width=0.7))
    assert found["jeffreys"]["weight"] == pytest.approx(found["kl"]["weight"] / 4, rel=1e-6)


def test_a_ratio_off_by_a_factor_changes_nothing_once_normalised() -> None:
    log_r, d = f_variance.at_samples(f_variance.Pair(share=0.2), 16 * 256, torch.Generator().manual_seed(0))
    right, wrong = f_variance.figures(log_r, d), f_variance.figures(log_r + 1.5, d)
    assert wrong["js"]["normalised"] == pytest.approx(right["js"]["normalised"], rel=1e-9)
    assert wrong["js"]["weight"] != pytest.approx(right["js"]["weight"], rel=0.1)
    # Of reverse KL both normalisations leave the plain gradient.
    assert right["reverse_kl"]["normalised"] == pytest.approx(1.0)


def test_a_divergence_times_3_is_9_times_as_noisy_but_for_the_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    thrice = FDivergence(name="thrice", f=JS.f, integrand=lambda log_p, log_q: 3 * JS.integrand(log_p, log_q))
    monkeypatch.setitem(f_variance.SMOOTH, "thrice", thrice)
    found = f_variance.figures(*f_variance.at_samples(f_variance.Pair(share=0.2), 16 * 256, torch.Generator()))
    assert found["thrice"]["gradient"] == pytest.approx(9 * found["js"]["gradient"], rel=1e-9)
    assert found["thrice"]["normalised"] == pytest.approx(found["js"]["normalised"], rel=1e-9)


def test_neighbours_are_compared_draw_by_draw() -> None:
    def draw(js: float, hellinger: float) -> dict[str, dict[str, float]]:
        values = dict.fromkeys(f_variance.CLAIMED, 1.0) | {"js": js, "squared_hellinger": hellinger}
        return {name: dict.fromkeys(f_variance.FIGURES, value) for name, value in values.items()}

    # The draws differ among themselves by more than js and hellinger do within each.
    said = f_variance.compared([draw(2.0 * scale, 2.2 * scale) for scale in (1.0, 3.0, 9.0, 27.0, 81.0)])
    assert said["weight"][:2] == ["yes", "yes"]
    assert said["weight"][2:] == ["no", "open"]


def test_the_order_is_counted_by_scenario_and_by_side_of_the_width() -> None:
    claimed = ["softened_reverse_kl", "js", "kl"]
    rows = [
        {"scenario": "width", "value": value, "in_order": dict.fromkeys(f_tables.FIGURES, said)}
        for value, said in ((0.5, ["yes", "no"]), (0.8, ["yes", "open"]), (1.5, ["no", "no"]))
    ]
    lines = f_tables.order_table({"setting": {"claimed": claimed}, "rows": rows}).splitlines()
    assert lines[2] == "| narrower | h | 2 of 2 | 1 open, 1 no |"
    assert lines[5] == "| wider | h | 1 no | 1 no |"
