"""What a solve of ours moves through memory and how many exponentials it pays, counted call by call.

    bytes    read and written by passes over plans and costs, as the kernels' comments count them
    exps     exponentials of pairs

Counted by standing between the solver and its kernels, on a solve of its own that is not timed. The roofline of that
work on a core whose streams run at `bandwidth` bytes a second and whose exponentials at `rate` a second, both measured
beside it, is max(bytes / bandwidth, exps / rate): what it would take if nothing else did.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from pushforward.ot.geometry.dense import DenseGeometry
from pushforward.ot.geometry.sparse import SparseKernel, SparsePattern
from pushforward.ot.solvers import native

# A dense kernel of this many pairs is rounded to floats before the sixth CG iteration of a descent (kernels.cpp).
LARGE, HALVED_AT = 1 << 18, 5


def traffic(solve: Callable[[], Any]) -> dict[str, float]:
    """Bytes and exponentials of one solve."""
    total = {"bytes": 0.0, "exps": 0.0}
    compiled, build, find, fill = native._compiled, DenseGeometry._pass, SparsePattern.__init__, SparsePattern.kernel  # noqa: SLF001

    class Counted:
        def __init__(self, plans: Any, kernel: Any) -> None:
            self._plans, self._kernel = plans, kernel

        def descend(self, *given: Any) -> None:
            self._plans.descend(*given)
            cg, products = (int(x) for x in given[11][:, 3:].sum(0))
            dense = not isinstance(self._kernel, SparseKernel)
            halved = max(0, cg - HALVED_AT) if dense and self._kernel.entries >= LARGE else 0
            whole = products / 2 - halved
            each = 8 if dense else 12
            total["bytes"] += self._kernel.entries * (each * whole + 4 * halved + (12 if halved else 0))

    def counted(kernel: Any) -> Any:
        plans = compiled(kernel)
        return None if plans is None else Counted(plans, kernel)

    def passes(geometry: Any, *given: Any, **options: Any) -> Any:
        pairs = geometry.cost.numel()
        total["exps"] += pairs
        total["bytes"] += pairs * (8 if options["with_cost"] else 16)
        return build(geometry, *given, **options)

    def finding(pattern: Any, geometry: Any, *given: Any) -> None:
        find(pattern, geometry, *given)
        total["bytes"] += 8 * geometry.cost.numel() + 12 * len(pattern.col)

    def filling(pattern: Any, *given: Any) -> Any:
        total["exps"] += len(pattern.col)
        total["bytes"] += 20 * len(pattern.col)
        return fill(pattern, *given)

    with ExitStack() as stack:
        stack.enter_context(patch.object(native, "_compiled", counted))
        stack.enter_context(patch.object(DenseGeometry, "_pass", passes))
        stack.enter_context(patch.object(SparsePattern, "__init__", finding))
        stack.enter_context(patch.object(SparsePattern, "kernel", filling))
        solve()
    return total
