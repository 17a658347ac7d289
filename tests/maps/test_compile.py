"""What torch.compile makes of the library's functions: the same value and gradient, with a break of its graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.maps import monge_gap

FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "debiased gap": lambda x, y: monge_gap(x, y, epsilon=0.5),
    "exact gap": lambda x, y: monge_gap(x, y, estimator="exact"),
    "loss": lambda x, y: pf.SinkhornLoss()(x, y),
    "solve": lambda x, y: pf.solve(pf.PointCost(x, y), epsilon=0.5).value,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_compiled_is_the_same_in_value_and_gradient(function):
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(31, 7, generator=random), torch.randn(31, 7, generator=random)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return 2.0 * function(x * 1.5, torch.tanh(y))  # with something before and after that can be compiled

    def found(call: Callable[..., Tensor]) -> tuple[float, Tensor]:
        leaf = y.clone().requires_grad_()
        value = call(x, leaf)
        value.backward()
        return float(value.detach()), leaf.grad

    expected, slope = found(loss)
    value, gradient = found(torch.compile(loss, backend="eager"))
    assert value == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(gradient, slope)


def test_the_function_itself_compiles(recwarn):
    x, y = torch.randn(31, 17), torch.randn(31, 17)
    torch.testing.assert_close(torch.compile(monge_gap, backend="eager")(x, y), monge_gap(x, y))
    assert not list(recwarn)
