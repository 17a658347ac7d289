"""The linear map against the Gaussian truth and the laws that it must obey."""

import numpy as np
import pytest
import torch

from pushforward.errors import InvalidArgument
from pushforward.maps.linear import LinearMap, bures_map


def gaussian(rng, n, covariance, mean=0.0):
    return torch.from_numpy(rng.multivariate_normal(np.full(len(covariance), mean), covariance, n))


def spd(rng, d):
    root = rng.standard_normal((d, d + 2))
    return root @ root.T / d


def test_the_linear_map_of_a_gaussian_pair_is_found(rng):
    # y = A x with A symmetric and positive is the optimal map of x, whatever the sample.
    matrix = spd(rng, 5)
    x = gaussian(rng, 200, spd(rng, 5))
    found = bures_map(x, x @ torch.from_numpy(matrix) + 3.0, shrinkage=0.0)
    torch.testing.assert_close(found.matrix, torch.from_numpy(matrix), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.shift, torch.full((5,), 3.0, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_the_covariance_of_the_images_is_the_targets(rng):
    x, y = gaussian(rng, 300, spd(rng, 4), 1.0), gaussian(rng, 500, spd(rng, 4), -2.0)
    images = bures_map(x, y, shrinkage=0.0)(x)
    torch.testing.assert_close(images.T.cov(correction=0), y.T.cov(correction=0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(images.mean(0), y.mean(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(50, 3), (8, 20)])
def test_equal_samples_give_the_identity(rng, n, d):
    x = torch.from_numpy(rng.standard_normal((n, d)) + 5.0)
    unseen = torch.from_numpy(rng.standard_normal((6, d)))
    torch.testing.assert_close(bures_map(x, x)(unseen), unseen, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("shrinkage", ["auto", 0.0, 0.3])
def test_the_map_moves_with_the_points(rng, shrinkage):
    # Translations, rotations and a common unit of length change T as they change the points.
    x, y = torch.from_numpy(rng.standard_normal((30, 6))), torch.from_numpy(rng.standard_normal((40, 6)) * 2.0)
    unseen = torch.from_numpy(rng.standard_normal((7, 6)))
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((6, 6))))[0]
    before = bures_map(x, y, shrinkage=shrinkage)(unseen)
    after = bures_map(3.0 * x @ turn + 1.0, 3.0 * y @ turn - 2.0, shrinkage=shrinkage)(3.0 * unseen @ turn + 1.0)
    torch.testing.assert_close(after, 3.0 * before @ turn - 2.0, rtol=1e-8, atol=1e-8)


def test_fewer_points_than_dimensions(rng):
    x, y = torch.from_numpy(rng.standard_normal((10, 30))), torch.from_numpy(rng.standard_normal((12, 30)) * 0.5)
    matrix = bures_map(x, y).matrix
    values = torch.linalg.eigvalsh(matrix)
    assert values.min() > 0
    assert values.max() < 10


def test_a_singular_source_is_mapped_where_it_lives(rng):
    plane = torch.from_numpy(rng.standard_normal((200, 2)) @ rng.standard_normal((2, 5)))
    y = torch.from_numpy(rng.standard_normal((300, 5)))
    images = bures_map(plane, y, shrinkage=0.0)(plane)
    assert torch.isfinite(images).all()
    torch.testing.assert_close(images.mean(0), y.mean(0), rtol=1e-8, atol=1e-8)


def test_constant_coordinates_stay(rng):
    x, y = rng.standard_normal((60, 3)), rng.standard_normal((60, 3)) + 2.0
    x[:, 1], y[:, 1] = 4.0, 7.0
    images = LinearMap().fit(x, y).transform(x)
    np.testing.assert_allclose(images[:, 1], 7.0, atol=1e-8)


def test_a_single_repeated_point_goes_to_the_mean(rng):
    y = rng.standard_normal((20, 2))
    images = LinearMap().fit(np.ones((5, 2)), y).transform(np.ones((1, 2)))
    np.testing.assert_allclose(images[0], y.mean(0), atol=1e-12)


@pytest.mark.parametrize("shrinkage", [-0.1, 1.5, "much", True, None])
def test_shrinkage_that_is_none_is_refused(rng, shrinkage):
    with pytest.raises(InvalidArgument, match="shrinkage"):
        LinearMap(shrinkage=shrinkage).fit(rng.standard_normal((9, 2)), rng.standard_normal((9, 2)))


def test_shrinkage_is_ledoit_and_wolfs(rng):
    from sklearn.covariance import ledoit_wolf

    # The map from a white source whose covariance needs no shrinkage has the root of the target's covariance in it.
    x = rng.standard_normal((12, 5)) * np.arange(1, 6)
    y = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    white = np.concatenate([y, -y])  # its covariance is a multiple of the identity: nothing to shrink
    matrix = bures_map(torch.from_numpy(white), torch.from_numpy(x)).matrix.numpy()
    covariance = ledoit_wolf(x)[0]
    np.testing.assert_allclose(matrix @ matrix * (2 / 10), covariance, rtol=1e-9, atol=1e-9)
