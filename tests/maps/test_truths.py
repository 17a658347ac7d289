"""Each known map against an assignment that shares no code with the solvers, on costs written out once more."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from scipy.optimize import linear_sum_assignment

from pushforward.errors import InvalidArgument
from pushforward.maps.costs import ElasticKOverlap, ElasticL1, ElasticSubspace, PowerCost, resolve
from pushforward.maps.truths import (
    FiveToFour,
    GaussianPair,
    LogSumExp,
    Meridians,
    NearestOffer,
    Radial,
    w2_benchmark,
)
from pushforward.metrics import l2_uvp


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def on_sphere(n: int, rng: torch.Generator | None) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3, dtype=torch.float64, generator=rng), dim=1)


def differences(x, y):
    return x[:, None] - y[None]


def sqeuclidean(x, y):
    return (differences(x, y) ** 2).sum(-1)


def angle(x, y):
    x, y = x / np.linalg.norm(x, axis=1)[:, None], y / np.linalg.norm(y, axis=1)[:, None]
    chord, cochord = np.linalg.norm(differences(x, y), axis=2), np.linalg.norm(differences(x, -y), axis=2)
    return 2.0 * np.arctan2(chord, cochord)


def uneven(x, y):
    """A cost that is no metric and not symmetric."""
    return (x**2).sum(1)[:, None] * (y**2).sum(1) ** 0.25 + abs(differences(x, y)).sum(-1) ** 0.5


def uneven_tensors(x, y):
    return torch.from_numpy(uneven(x.numpy(), y.numpy()))


def subspace(x, y):
    z = differences(x, y)
    return 0.5 * (z**2).sum(-1) + 1.5 * (z[..., 1:] ** 2).sum(-1)


def gap(x: np.ndarray, tx: np.ndarray, cost) -> float:
    costs = cost(x, tx)
    rows, cols = linear_sum_assignment(costs)
    return float(costs.diagonal().mean() - costs[rows, cols].mean())


def offers(cost, *, dim: int = 3, sphere: bool = False) -> NearestOffer:
    points = on_sphere(20, generator(3)) if sphere else normal(20, dim, seed=3)
    prices = 0.3 * normal(20, seed=4)
    return NearestOffer(cost=cost, offers=points, prices=prices, source=on_sphere if sphere else None)


EUCLIDEAN = "euclidean", lambda x, y: np.linalg.norm(differences(x, y), axis=2)
FIRST_AXIS = torch.eye(6, dtype=torch.float64)[:, :1]
TRUTHS = {
    "Gaussians": (GaussianPair(dim=5, condition=30.0), sqeuclidean),
    "many dimensions": (GaussianPair(dim=32), sqeuclidean),
    "one dimension": (GaussianPair(dim=1), sqeuclidean),
    "log-sum-exp": (LogSumExp(dim=6), sqeuclidean),
    "sparse": (
        LogSumExp(dim=6, cost=ElasticL1(gamma=1.0)),
        lambda x, y: (0.5 * differences(x, y) ** 2 + abs(differences(x, y))).sum(-1),
    ),
    "one at a time": (
        LogSumExp(dim=6, cost=ElasticKOverlap(gamma=2.0, k=1)),  # there the norm is L1's
        lambda x, y: 0.5 * sqeuclidean(x, y) + abs(differences(x, y)).sum(-1) ** 2,
    ),
    "near an axis": (LogSumExp(dim=6, cost=ElasticSubspace(gamma=3.0, basis=FIRST_AXIS)), subspace),
    "third power": (LogSumExp(dim=4, cost=PowerCost(p=3.0)), lambda x, y: (abs(differences(x, y)) ** 3).sum(-1) / 3),
    "power 3/2": (LogSumExp(dim=4, cost=PowerCost(p=1.5)), lambda x, y: (abs(differences(x, y)) ** 1.5).sum(-1) / 1.5),
    "offers, sqeuclidean": (offers("sqeuclidean"), sqeuclidean),
    "offers, euclidean": (offers("euclidean"), EUCLIDEAN[1]),
    "offers, manhattan": (offers("manhattan"), lambda x, y: abs(differences(x, y)).sum(-1)),
    "offers, uneven": (offers(uneven_tensors), uneven),
    "offers, sphere": (offers(lambda x, y: torch.from_numpy(angle(x.numpy(), y.numpy())), sphere=True), angle),
    "outwards in waves": (Radial(dim=3, profile=lambda r: r + 1.0 + torch.sin(7.0 * r)), EUCLIDEAN[1]),
    "inwards in waves": (Radial(dim=3, profile=lambda r: r * (0.6 + 0.4 * torch.sin(7.0 * r))), EUCLIDEAN[1]),
    "both ways, rising": (Radial(dim=3, profile=lambda r: r**2), EUCLIDEAN[1]),
    "rising, squared": (Radial(dim=3, profile=lambda r: r**2), sqeuclidean),
    "rising, cubed": (Radial(dim=3, profile=lambda r: r**2), lambda x, y: EUCLIDEAN[1](x, y) ** 3),
    "from the pole": (Meridians(source_kappa=20.0, target_kappa=2.0), angle),
    "to the pole": (Meridians(source_kappa=2.0, target_kappa=50.0), angle),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_no_other_pairing_is_cheaper(name: str):
    truth, cost = TRUTHS[name]
    x = truth.sample(200, generator())
    tx = truth.map(x)
    assert x.dtype == tx.dtype == torch.float64
    assert x.shape == tx.shape
    assert abs(gap(x.numpy(), tx.numpy(), cost)) < 1e-9
    assert gap(x.numpy(), tx.numpy()[np.random.default_rng(0).permutation(200)], cost) > 1e-2


@pytest.mark.parametrize("name", sorted(TRUTHS.keys() - {"rising, squared", "rising, cubed"}))  # they name one of many
def test_the_cost_it_names_is_the_one_it_is_optimal_for(name: str):
    truth, cost = TRUTHS[name]
    x = truth.sample(30, generator())
    named = resolve(truth.cost)(x, truth.map(x)).numpy()
    np.testing.assert_allclose(named, cost(x.numpy(), truth.map(x).numpy()), rtol=1e-9, atol=1e-9)


def test_a_falling_profile_that_crosses_is_not_optimal():
    wrong = Radial(dim=2, profile=lambda r: (3.0 - r).clamp_min(0.0))
    x = wrong.sample(200, generator())
    assert gap(x.numpy(), wrong.map(x).numpy(), EUCLIDEAN[1]) > 0.01


@pytest.mark.parametrize("name", TRUTHS)
def test_a_seed_draws_the_same_points_again(name: str):
    truth, _ = TRUTHS[name]
    torch.testing.assert_close(truth.sample(5, generator(1)), truth.sample(5, generator(1)), rtol=0, atol=0)
    rng = generator(1)
    x, y = truth.sample(50, rng), truth.target(50, rng)
    assert not torch.equal(truth.map(x), y)


def test_gaussians_have_the_moments_that_they_claim():
    pair = GaussianPair(dim=4, condition=16.0, shift=2.0, seed=5)
    x = pair.sample(200_000, generator())
    tx = pair.map(x)
    source, target = np.cov(x.numpy().T), np.cov(tx.numpy().T)
    for spectrum in (np.linalg.eigvalsh(source), np.linalg.eigvalsh(target)):
        np.testing.assert_allclose(spectrum, 16.0 ** np.linspace(-0.5, 0.5, 4), rtol=0.02)
    assert abs(source - target).max() > 0.1
    assert float(tx.mean(0).norm()) == pytest.approx(2.0, abs=0.02)
    assert np.trace(target) == pytest.approx(pair.target_variance, rel=0.02)
    assert float((x - tx).square().sum(1).mean()) == pytest.approx(pair.wasserstein2, rel=0.02)


def test_gaussians_against_the_closed_form_in_another_library():
    pair = GaussianPair(dim=6, condition=50.0, shift=3.0)
    root = pair._law.root.numpy()
    source, target = root @ root, pair._law.target.numpy()
    bures = np.trace(source + target - 2 * scipy.linalg.sqrtm(root @ target @ root).real)
    assert pair.wasserstein2 == pytest.approx(9.0 + bures, rel=1e-9)
    matrix = pair.matrix.numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-10)
    np.testing.assert_allclose(matrix @ source @ matrix, target, atol=1e-9)
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_equal_seeds_are_equal_pairs_and_others_are_not():
    assert torch.equal(GaussianPair(dim=3, seed=1).matrix, GaussianPair(dim=3, seed=1).matrix)
    assert not torch.equal(GaussianPair(dim=3, seed=1).matrix, GaussianPair(dim=3, seed=2).matrix)
    x = normal(4, 3, seed=0)
    assert not torch.equal(LogSumExp(dim=3, seed=1).map(x), LogSumExp(dim=3, seed=2).map(x))


def test_the_log_sum_exp_map_is_the_gradient_of_its_potential():
    truth = LogSumExp(dim=3, strength=2.0, temperature=0.7)
    directions, shifts = truth._pieces
    x = normal(10, 3, seed=0).requires_grad_(True)
    soft = 0.7 * torch.logsumexp((x @ directions.T + shifts) / 0.7, dim=1)
    (gradient,) = torch.autograd.grad((0.5 * x.square().sum(1) + 0.5 * soft).sum(), x)
    torch.testing.assert_close(truth.map(x), gradient)
    assert directions.norm(dim=1).tolist() == pytest.approx([2.0] * truth.pieces)


def test_sparse_costs_move_few_coordinates():
    x = normal(200, 8, seed=0)
    moved = {
        name: float((LogSumExp(dim=8, cost=cost).map(x) != x).double().mean())
        for name, cost in {"l1": ElasticL1(gamma=1.5), "one": ElasticKOverlap(gamma=20.0, k=1)}.items()
    }
    assert 0.05 < moved["l1"] < 0.6
    assert 0.1 < moved["one"] < 0.4


@pytest.mark.parametrize(("source", "target"), [(20.0, 5.0), (0.5, 60.0), (500.0, 3.0)])
def test_meridians_carry_one_law_into_the_other(source: float, target: float):
    truth = Meridians(source_kappa=source, target_kappa=target)
    x = truth.sample(4000, generator())
    tx = truth.map(x)
    for points, kappa in ((x, source), (tx, target)):
        assert float((points.norm(dim=1) - 1).abs().max()) < 1e-12
        heights = points[:, 2].numpy()
        assert heights.mean() == pytest.approx(1 / math.tanh(kappa) - 1 / kappa, abs=0.03)

        def law(w, kappa=kappa):
            return np.expm1(kappa * (w + 1)) / np.expm1(2 * kappa) if kappa < 100 else np.exp(kappa * (w - 1))

        assert scipy.stats.kstest(heights, law).pvalue > 0.001
    around = np.arctan2(tx[:, 1].numpy(), tx[:, 0].numpy())
    np.testing.assert_allclose(around, np.arctan2(x[:, 1].numpy(), x[:, 0].numpy()), atol=1e-9)
    assert scipy.stats.kstest(around, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 0.001


def test_a_meridian_map_keeps_its_poles_and_its_inverse_undoes_it():
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    there, back = Meridians(source_kappa=5.0, target_kappa=40.0), Meridians(source_kappa=40.0, target_kappa=5.0)
    torch.testing.assert_close(there.map(poles), poles)
    x = there.sample(500, generator())
    x = x[x[:, 2] > 0]  # on the far side all quantiles round to 1
    torch.testing.assert_close(back.map(there.map(x)), x, rtol=0, atol=1e-6)


def test_five_gaussians_and_four():
    problem = FiveToFour(scale=3.0, deviation=0.1)
    five, four = problem.sample(20_000, generator()), problem.target(20_000, generator(1))
    for points, centres in ((five, 5), (four, 4)):
        places, counts = (points / 3.0).round().unique(dim=0, return_counts=True)
        assert len(places) == centres
        np.testing.assert_allclose(counts.numpy() / 20_000, 1 / centres, atol=0.02)
        assert float((points - 3.0 * (points / 3.0).round()).var(0).mean()) == pytest.approx(0.01, rel=0.05)
    assert float(four.var(0).sum()) == pytest.approx(9.0 + 0.02, rel=0.02)
    assert float(five.var(0).sum()) == pytest.approx(9.0 * 8 / 5 + 0.02, rel=0.02)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianPair(dim=0), "dim must be an integer of at least 1"),
        (lambda: GaussianPair(dim=2, condition=0.5), "condition must be at least 1"),
        (lambda: LogSumExp(dim=2, temperature=0.0), "temperature must be a positive finite number"),
        (lambda: LogSumExp(dim=2, cost="sqeuclidean"), "cost must be a StructuredCost"),
        (lambda: Meridians(source_kappa=-1.0), "source_kappa must be a positive"),
        (lambda: NearestOffer(cost="euclidean", offers=torch.zeros(3, 2), prices=torch.zeros(2)), "there are 3 offers"),
    ],
)
def test_what_cannot_be_built_is_refused(build, message: str):
    with pytest.raises(InvalidArgument, match=message):
        build()


def test_the_benchmark_names_what_is_missing(tmp_path: Path):
    with pytest.raises(InvalidArgument, match=r"no mix3_to_mix10_d16.npz: .* has no such files"):
        w2_benchmark(tmp_path, 16)
    (tmp_path / "mix3_to_mix10_d2.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InvalidArgument, match=r"no mix3_to_mix10_d16.npz: .* has mix3_to_mix10_d2.npz"):
        w2_benchmark(tmp_path, 16)
    with pytest.raises(InvalidArgument, match=r"d2.npz is not a pair of the benchmark"):
        w2_benchmark(tmp_path, 2)
    np.savez(tmp_path / "mix3_to_mix10_d2.npz", source=np.zeros((1, 2)), target_variance=2.0)
    with pytest.raises(InvalidArgument, match=r"d2.npz is not a pair of the benchmark: .*source_test"):
        w2_benchmark(tmp_path, 2)


class Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_the_benchmark_runs_no_pickle(tmp_path: Path):
    hostile = np.array([Hostile(tmp_path / "made")], dtype=object)
    np.savez(tmp_path / "mix3_to_mix10_d2.npz", target_variance=hostile)
    with pytest.raises(InvalidArgument, match="not a pair of the benchmark"):
        w2_benchmark(tmp_path, 2)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("dim", "identity", "linear"), [(2, 33.0, 14.1), (16, 89.0, 42.0), (64, 135.0, 63.0)])
def test_the_benchmark_reads_as_it_is_known_to(dim: int, identity: float, linear: float, data_sets: Path):
    pair = w2_benchmark(data_sets / "w2_benchmark", dim)
    assert pair.source.shape == pair.target.shape == (16384, dim)
    x, tx = pair.source_test.astype(float), pair.map_test
    assert l2_uvp(x, tx, variance=pair.target_variance) == pytest.approx(identity, abs=0.7)
    s0, s1 = (np.cov(points.astype(float).T) for points in (pair.source, pair.target))
    root = scipy.linalg.sqrtm(s0).real
    matrix = np.linalg.solve(root, np.linalg.solve(root, scipy.linalg.sqrtm(root @ s1 @ root).real).T)
    mapped = pair.target.mean(0) + (x - pair.source.mean(0)) @ matrix
    # The known figure is that of the best linear map; moments of 16,384 points cost a little more in 64 dimensions.
    assert l2_uvp(mapped, tx, variance=pair.target_variance) == pytest.approx(linear, abs=1.0)
