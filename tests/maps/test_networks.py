"""The networks of maps: where they start, what shape they have, what their Jacobians are."""

import pytest
import torch

from pushforward.maps.costs import ElasticL1, Geodesic, PowerCost, SquaredEuclidean
from pushforward.maps.linear import Affine
from pushforward.maps.monge.networks import Gradient, MapNetwork, Perceptron, asymmetry

D, K = 3, 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made(form, cost=None, condition=K, *, random_field=False):
    network = MapNetwork(
        form=form,
        start=Affine(matrix=torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]]), shift=torch.ones(D)),
        drift=torch.ones(D, condition),
        centre=torch.full((D,), 0.5),
        scale=1.5,
        cost=cost or SquaredEuclidean(),
        hidden=(16, 16),
        generator=generator(),
    )
    if random_field:
        with torch.no_grad():
            network.field.last.normal_(generator=generator(1))
    return network


def points(n=20):
    return torch.randn(n, D, generator=generator(2)), torch.randn(n, K, generator=generator(3))


@pytest.mark.parametrize("cost", [SquaredEuclidean(), PowerCost(p=1.5)], ids=["squared", "power"])
@pytest.mark.parametrize("form", ["residual", "structured", "potential"])
def test_a_map_starts_at_its_linear_map(form, cost):
    network = made(form, cost)
    x, c = points()
    torch.testing.assert_close(
        network(x, c), x @ network.matrix.T + network.shift + c.sum(1, keepdim=True), rtol=1e-4, atol=1e-4
    )


def test_an_elastic_map_starts_at_the_linear_maps_displacements_made_sparse():
    cost = ElasticL1(gamma=0.4)
    network = made("potential", cost, condition=0)
    x, _ = points()
    moved = x - (x @ network.matrix.T + network.shift)
    torch.testing.assert_close(network(x), x - torch.nn.functional.softshrink(moved, 0.4))


def test_images_for_the_geodesic_cost_are_on_the_sphere():
    network = made("residual", Geodesic(), random_field=True)
    torch.testing.assert_close(network(*points()).norm(dim=1), torch.ones(20))


def test_the_written_out_gradient_is_that_of_the_potential():
    field = Gradient(D, K, (16, 8, 16), generator()).double()
    with torch.no_grad():
        field.last.normal_(generator=generator(1))
    x, c = (value.double() for value in points())
    x.requires_grad_()
    u = torch.cat([x, c], 1)
    for weight, bias in zip(field.weights, field.biases, strict=True):
        u = torch.nn.functional.silu(u @ weight.T + bias)
    slope = torch.autograd.grad((u @ field.last).sum(), x, create_graph=True)[0]
    torch.testing.assert_close(field(x, c), slope)
    # and its derivative in the weights is that of differentiating twice
    probe = torch.randn(20, D, generator=generator(4), dtype=torch.float64)
    fast, plain = (torch.autograd.grad((v * probe).sum(), list(field.parameters())) for v in (field(x, c), slope))
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)


def jacobians(network, x, c):
    return torch.func.vmap(torch.func.jacrev(lambda p, q: network.force(p[None], q[None])[0]))(x, c)


@pytest.mark.parametrize("form", ["structured", "potential"])
def test_asymmetry_is_the_jacobians(form):
    network = made(form, random_field=True)
    x, c = points(4)
    jacobian = jacobians(network, x, c)
    expected = (jacobian - jacobian.mT).square().sum((1, 2)).mean()
    signs = torch.tensor([[(k >> i & 1) * 2.0 - 1 for i in range(D)] for k in range(2**D)])
    # The mean over all sign vectors is exact.
    found = torch.stack([asymmetry(network, x, c, v.expand(4, D)) for v in signs]).mean()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert (float(found.detach()) < 1e-6) == (form == "potential")


def test_asymmetry_has_a_gradient():
    network = made("structured", random_field=True)
    asymmetry(network, *points(), torch.ones(20, D)).backward()
    assert float(network.field.last.grad.abs().sum()) > 0


def test_weights_come_from_the_generator_alone():
    before = torch.get_rng_state()
    one, other = (Perceptron(D, 0, (8,), generator()) for _ in range(2))
    torch.testing.assert_close(list(one.parameters()), list(other.parameters()), rtol=0, atol=0)
    assert bool((torch.get_rng_state() == before).all())
