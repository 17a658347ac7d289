"""A caller's function of two sets of points as a cost; by blocks where a graph would hold many differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from pushforward._checks import check_pair, check_returned
from pushforward.errors import InvalidArgument

__all__ = ["check_pair_by_pair", "from_function"]

# Numbers (n, m, d) up to which a caller's function with a graph is called once: 128 MB.
HELD_DIFFERENCES = 1 << 24


def from_function(cost: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """A caller's function between all pairs; where a graph would hold many (n, m, d) numbers, by blocks of rows."""
    check_pair(x, y)
    wants_graph = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    many = len(x) * len(y) * x.shape[1] > HELD_DIFFERENCES
    # A function with parameters of its own needs autograd's graph: nothing else knows them.
    if not (wants_graph and many) or cost(x[:1].detach(), y[:1].detach()).requires_grad:
        return check_returned("cost(x, y)", cost(x, y), (len(x), len(y)))
    check_pair_by_pair(cost, x.detach(), y.detach())
    return cast(Tensor, _Blocks.apply(cost, x, y))


class _Blocks(torch.autograd.Function):
    """A caller's function, computed again block by block for its derivatives; second ones hold what autograd holds."""

    @staticmethod
    def forward(ctx: Any, cost: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        ctx.cost = cost
        ctx.save_for_backward(x, y)
        costs = x.new_empty(len(x), len(y))
        for i in _rows(x, y):
            costs[i] = check_returned("cost(x, y)", cost(x[i], y), (len(x[i]), len(y)))
        return costs

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> Any:
        x, y = ctx.saved_tensors
        if torch.is_grad_enabled():  # second derivatives are asked for, which autograd finds on its own
            two = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in (x, y)]  # x may be y
            costs = ctx.cost(*two)
            return None, *torch.autograd.grad(costs, two, bars[0], create_graph=True, materialize_grads=True)
        # Written in place: results of their own would break up the memory that the blocks leave behind.
        by_x, by_y = torch.empty_like(x), torch.zeros_like(y)
        for i in _rows(x, y):
            some, every = (t.detach().requires_grad_() for t in (x[i], y))
            with torch.enable_grad():
                costs = ctx.cost(some, every)
            found = torch.autograd.grad(costs, (some, every), bars[0][i], materialize_grads=True)
            by_x[i] = found[0]
            by_y += found[1]
        return None, by_x, by_y


def _rows(x: Tensor, y: Tensor) -> list[slice]:
    """Blocks of rows with a sixteenth of `HELD_DIFFERENCES` each."""
    step = max(1, HELD_DIFFERENCES // (16 * y.numel()))
    return [slice(i, i + step) for i in range(0, len(x), step)]


def check_pair_by_pair(cost: str | Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> None:
    """Raise where a cost function cannot be computed by blocks, as a cost depends on more than its two points.

    Raises:
        InvalidArgument: A pair of points has one cost among few points and another among more.
    """
    if not callable(cost):
        return
    with torch.no_grad():
        some, ends = x[:: max(1, len(x) // 8)], torch.tensor([0, len(y) - 1], device=y.device)
        many = check_returned("cost(x, y)", cost(some, y), (len(some), len(y)))[:, ends]
        few = torch.cat([check_returned("cost(x, y)", cost(one, y[ends]), (1, 2)) for one in some.split(1)])
    off = (many - few).abs().nan_to_num(nan=0.0)
    if bool((off > 1e-6 * many.abs().amax()).any()):
        i, j = divmod(int(off.argmax()), 2)
        raise InvalidArgument(
            f"cost gives {float(many[i, j]):.6g} for a pair of points among many and {float(few[i, j]):.6g} for the "
            "same pair alone; so many points go block by block, where a cost must depend on its two points alone: "
            "pass a matrix, or a function without means or maxima over all points"
        )
