"""The progressive map: its first step is the entropic map's, and it arrives."""

import numpy as np
import pytest
import torch

from pushforward.errors import InvalidArgument
from pushforward.maps.costs import PowerCost
from pushforward.maps.entropic import EntropicMap
from pushforward.maps.progressive import ProgressiveMap


@pytest.fixture
def clouds(rng):
    return rng.standard_normal((200, 3)), rng.standard_normal((250, 3)) @ np.diag([0.5, 1.0, 2.0]) + 2.0


@pytest.mark.parametrize("cost", ["sqeuclidean", PowerCost(p=1.5)])
def test_one_step_is_the_entropic_map(clouds, cost):
    x, y = clouds
    one = ProgressiveMap(1, epsilon=0.05, cost=cost, random_state=0).fit(x, y)
    plain = EntropicMap(epsilon=0.05, cost=cost, random_state=0).fit(x, y)
    np.testing.assert_allclose(one.transform(x + 0.1), plain.transform(x + 0.1), rtol=1e-12)


def test_the_samples_way_is_that_of_unseen_points(clouds):
    # Step by step by hand: equal shares of the way, each plan from where the sample has got to.
    x, y = clouds
    here = x
    for k in range(3):
        step = EntropicMap(epsilon=0.05, random_state=0).fit(here, y)
        here = here + (step.transform(here) - here) / (3 - k)
    moved = ProgressiveMap(3, epsilon=0.05, random_state=0).fit(x, y).transform(x)
    np.testing.assert_allclose(moved, here, atol=0.02)


def test_more_steps_shrink_the_image_less(rng):
    x, y = rng.standard_normal((400, 3)), 2.0 * rng.standard_normal((400, 3)) + 5.0
    unseen = rng.standard_normal((300, 3))
    spread = [ProgressiveMap(k, epsilon=0.1, random_state=0).fit(x, y).transform(unseen).var() for k in (1, 2, 6)]
    assert spread[0] < spread[1] < spread[2] < 1.1 * y.var()


def test_it_nears_the_gaussian_map(rng):
    root = np.diag([0.5, 1.0, 2.0])
    x = rng.standard_normal((600, 3))
    unseen = rng.standard_normal((300, 3))
    images = ProgressiveMap(random_state=0).fit(x, rng.standard_normal((600, 3)) @ root + 2.0).transform(unseen)
    truth = unseen @ root + 2.0
    assert ((images - truth) ** 2).sum(1).mean() < 0.1 * np.trace(root**2)


def test_points_in_one_place_stay():
    one = np.ones((12, 2))
    np.testing.assert_allclose(ProgressiveMap().fit(one, one).transform(one), one)


def test_tensors_keep_their_precision(clouds):
    x, y = (torch.from_numpy(points).float() for points in clouds)
    assert ProgressiveMap(random_state=0).fit(x, y).transform(x).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"steps": 0}, "steps"), ({"steps": 1.5}, "steps"), ({"epsilon": 0}, "epsilon"), ({"epsilon": "auto"}, "epsilon")],
)
def test_settings_that_are_none_are_refused(clouds, settings, name):
    with pytest.raises(InvalidArgument, match=f"{name} must be"):
        ProgressiveMap(**settings).fit(*clouds)


def test_a_cost_without_displacements_is_refused(clouds):
    with pytest.raises(InvalidArgument, match="ProgressiveMap needs a cost"):
        ProgressiveMap(cost="euclidean").fit(*clouds)
