"""The schedulers of few-step students: what they ask, and when there is none."""

from __future__ import annotations

import pytest
import torch

from pushforward.diffusion import RectifiedFlow, VarianceExploding, VariancePreserving
from pushforward.diffusion.schedulers import few_steps

diffusers = pytest.importorskip("diffusers")


def made(found):
    assert found is not None
    return getattr(diffusers, found.scheduler)(**found.arguments)


@pytest.mark.parametrize("start", [1.0, 250.0, 999.0])
def test_alphas_are_the_processes_up_to_the_start(start: float):
    process = VariancePreserving(alphas_cumprod=torch.linspace(0.9999, 0, 1000, dtype=torch.float64))
    scheduler = made(few_steps(process, "v", (start,), slope=1.0))
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [start]
    expected = process.alphas_cumprod[: int(start) + 1].float()
    torch.testing.assert_close(scheduler.alphas_cumprod, expected, rtol=2e-5, atol=1e-7)


def test_a_flow_in_even_steps():
    scheduler = made(few_steps(RectifiedFlow(shift=3.0), "flow", (1.0, 0.7, 0.4), slope=1000.0))
    scheduler.set_timesteps(3)
    torch.testing.assert_close(scheduler.timesteps, torch.tensor([1000.0, 700.0, 400.0]))
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([1.0, 0.7, 0.4, 0.0]))


def test_there_is_none_for_the_rest():
    vp, flow = VariancePreserving.linear(), RectifiedFlow()
    assert few_steps(vp, "v", (655.5,), slope=1.0) is None
    assert few_steps(vp, "v", (1000.0,), slope=1.0) is None
    assert few_steps(vp, "flow", (655.0,), slope=1.0) is None
    assert few_steps(vp, "v", (655.0,), slope=0.001) is None
    assert few_steps(flow, "flow", (0.9,), slope=1000.0) is None
    assert few_steps(flow, "flow", (1.0, 0.7, 0.5), slope=1000.0) is None
    assert few_steps(flow, "flow", (1.0,), slope=1.0) is None
    assert few_steps(VarianceExploding(), "x0", (2.5,), slope=1.0) is None
