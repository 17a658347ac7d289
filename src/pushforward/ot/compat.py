"""For people who come from POT: its argument order, its plan.

POT's `ot.sinkhorn(a, b, M, reg)` regularises with reg * sum P (log P - 1); with exact marginals that differs from
epsilon KL(P | a b^T) by a constant, so that the plans are the same for epsilon = reg.
"""

from __future__ import annotations

from typing import Any

from pushforward.ot.solve import solve

__all__ = ["sinkhorn", "sinkhorn2"]


def sinkhorn(a: Any, b: Any, M: Any, reg: float, *, tol: float = 1e-9) -> Any:  # noqa: N803 - POT's name
    """The plan of `ot.sinkhorn(a, b, M, reg)`, (n, m), but with exact marginals to `tol` or `NotConverged`.

    Args:
        a, b: Weights of rows and columns; empty means uniform, as in POT.
        M: (n, m) costs.
        reg: Entropic regularisation, in units of M.
        tol: L1 error of both marginals.

    Example:
        >>> sinkhorn([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], 1.0).round(4).tolist()
        [[0.3655, 0.1345], [0.1345, 0.3655]]
    """
    return solve(M, _or_none(a), _or_none(b), epsilon=reg, tol=tol).plan.to_dense()


def sinkhorn2(a: Any, b: Any, M: Any, reg: float, *, tol: float = 1e-9) -> Any:  # noqa: N803 - POT's name
    """The transport cost <P, M> of `ot.sinkhorn2(a, b, M, reg)`."""
    return solve(M, _or_none(a), _or_none(b), epsilon=reg, tol=tol).transport_cost


def _or_none(weights: Any) -> Any:
    return None if weights is None or len(weights) == 0 else weights
