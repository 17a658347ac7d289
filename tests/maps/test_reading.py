"""Conditions that a map was not fitted on: read by what would have served the known ones."""

import pytest
import torch

from pushforward.maps.monge.reading import FOLDS, ConditionReading, chosen_reading

FLOAT64 = {"dtype": torch.float64}


def standardised(n, k, random, more=0):
    """Conditions standardised over the first n."""
    c = torch.randn(n + more, k, generator=random, **FLOAT64)
    return (c - c[:n].mean(0)) / c[:n].std(0, correction=0)


@pytest.mark.parametrize("n", [8, 3 * FOLDS + 1])
def test_a_linear_answer_is_read_as_it_is(n):
    random = torch.Generator().manual_seed(0)
    c, slopes = standardised(n, 3, random), torch.randn(3, 5, generator=random, **FLOAT64)
    reading = chosen_reading(c, c @ slopes)
    assert reading.kind == "linear"
    beyond = 4.0 * torch.randn(10, 3, generator=random, **FLOAT64)
    torch.testing.assert_close(reading(beyond), beyond, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:condition has values")
@pytest.mark.parametrize("k", [1, 4, 30])
def test_of_a_description_that_says_nothing_nothing_is_read(k):
    # By chance another reading may seem better, seldom and then not to much harm.
    random = torch.Generator().manual_seed(0)
    kinds, errors = [], torch.zeros(3, **FLOAT64)
    for _ in range(100):
        (c, new), (shifts, true) = (
            values.split([4, 1])
            for values in (standardised(4, k, random, 1), torch.randn(5, 20, generator=random, **FLOAT64))
        )
        reading = chosen_reading(c, shifts)
        kinds.append(reading.kind)
        slopes, mean = torch.linalg.pinv(c) @ shifts, shifts.mean(0)
        predictions = torch.stack([mean + read @ slopes for read in (reading(new), new, 0.0 * new)])
        errors += (predictions - true).square().sum((1, 2))
    judged, as_it_is, mean = errors.tolist()
    assert kinds.count("none") >= 65
    assert judged < 1.05 * mean
    assert as_it_is > 1.2 * mean


def test_an_answer_that_bends_is_interpolated_and_forgotten_far_away():
    c = torch.linspace(-1.6, 1.6, 10, **FLOAT64)[:, None]
    reading = chosen_reading(c, torch.cat([c.square(), c.cos()], 1))
    assert reading.kind == "near"
    between = c[:-1] + 0.1
    torch.testing.assert_close(reading(between), between, rtol=0, atol=0.1)
    assert float(reading(torch.full((1, 1), 30.0, **FLOAT64)).abs()) < 1e-6


def test_ridge_is_that_of_principal_directions():
    random = torch.Generator().manual_seed(0)
    c = torch.randn(6, 4, generator=random, **FLOAT64)
    new = torch.randn(3, 4, generator=random, **FLOAT64)
    _, s, axes = torch.linalg.svd(c, full_matrices=False)
    penalty = 0.1 * s.square().sum() / 6
    expected = (new @ axes.T * s.square() / (s.square() + penalty)) @ axes
    torch.testing.assert_close(ConditionReading(kind="linear", ridge=0.1, known=c)(new), expected)


def test_a_new_condition_of_which_nothing_is_read_is_told():
    reading = ConditionReading(kind="none", ridge=0.0, known=torch.tensor([[-1.0], [0.0], [1.0]]))
    with pytest.warns(UserWarning, match="all new ones have the same images"):
        assert reading(torch.tensor([[1.0], [0.5]])).tolist() == [[1.0], [0.0]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["none", "linear", "near"])
def test_known_conditions_are_read_as_they_are(kind):
    c = standardised(5, 3, torch.Generator().manual_seed(0)).float()
    assert bool((ConditionReading(kind=kind, ridge=1.0, known=c)(c) == c).all())


def test_between_two_conditions_one_interpolates():
    c = torch.tensor([[-1.0], [1.0]])
    reading = chosen_reading(c, torch.tensor([[0.0], [3.0]]))
    read = reading(torch.tensor([[-0.5], [0.0], [0.5], [20.0]])).flatten()
    torch.testing.assert_close(read[:3], torch.tensor([-0.5, 0.0, 0.5]), rtol=0, atol=0.1)
    assert float(read[3].abs()) < 1e-6


def test_one_condition_says_nothing_of_others():
    assert chosen_reading(torch.zeros(1, 2), torch.ones(1, 3)).kind == "none"


def test_coordinates_that_do_not_vary_among_the_others_harm_nothing():
    # Left out, the last condition is alone in its second coordinate, which then has no spread to be measured by.
    c = torch.tensor([[-1.0, 0.5], [0.0, 0.5], [0.5, 0.5], [0.5, -1.5]], **FLOAT64)
    reading = chosen_reading(c, c[:, :1] * torch.tensor([1.0, 2.0], **FLOAT64))
    assert bool(torch.isfinite(reading(torch.ones(1, 2, **FLOAT64))).all())
