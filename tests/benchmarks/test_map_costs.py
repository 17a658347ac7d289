"""The problems of the benchmark of costs, and the figures that it makes of maps."""

from __future__ import annotations

import map_costs
import map_costs_tables
import pytest
import torch

from pushforward import metrics
from pushforward.maps.costs import resolve


@pytest.mark.parametrize("name", ["radial", "petals", "sphere", "elastic"])
def test_no_rearrangement_of_the_truths_image_is_cheaper(name: str) -> None:
    truth = map_costs.PROBLEMS[name]
    x = truth.sample(200, torch.Generator().manual_seed(0))
    assert metrics.exact_gap(x, truth.map(x), resolve(truth.cost)) == pytest.approx(0.0, abs=1e-12)


def test_the_petals_are_not_optimal_for_the_squared_cost() -> None:
    truth = map_costs.PROBLEMS["petals"]
    x = truth.sample(200, torch.Generator().manual_seed(0))
    squared = resolve("sqeuclidean")
    assert metrics.exact_gap(x, truth.map(x)) > 0.005 * float(squared.paired(x, truth.map(x)).mean())


def test_the_truth_has_no_fault() -> None:
    truth = map_costs.PROBLEMS["elastic"]
    sample = map_costs.drawn("elastic", 0)
    found = map_costs.figures(truth, sample, truth.map(sample.x_test.double()))
    assert found["excess"] == pytest.approx(0.0, abs=1e-9)
    assert found["l2_uvp"] == pytest.approx(0.0, abs=1e-9)
    assert (found["still_recall"], found["still_precision"]) == (1.0, 1.0)


def test_what_stays_is_counted_by_coordinate() -> None:
    x = torch.zeros(2, 2)
    true, images = torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found = map_costs.stillness(x, images, true)
    assert found == {"still_recall": pytest.approx(1 / 3), "still_precision": 0.5}
    assert map_costs.stillness(x, x + 1.0, true) == {"still_recall": 0.0}  # nothing stays: of nothing, no share


def test_a_table_has_a_line_for_each_map_and_an_interval_over_seeds() -> None:
    rows = [
        {"problem": "radial", "method": method, "seed": seed, "seconds": 9.0, "figures": {"excess": seed - 1.0}}
        for method in map_costs.METHODS
        for seed in range(3)
    ]
    lines = map_costs_tables.problem_table({"rows": rows}, "radial").splitlines()
    assert len(lines) == 2 + len(map_costs.METHODS)
    assert lines[0] == "| map | cost over the optimum's, % | CPU s |"
    assert lines[4] == "| **`MongeMap(cost)`** | 0.0 ± 2.5 | 9 |"
