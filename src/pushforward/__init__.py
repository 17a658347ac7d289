"""pushforward: make one distribution match another.

The names below load on first use, so that `import pushforward` costs nothing that it does not need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pushforward import diffusion, divergences, errors, lm, maps, metrics, ot, training
    from pushforward.ot.costs import GridCost, PointCost
    from pushforward.ot.divergence import SinkhornLoss, sinkhorn_divergence
    from pushforward.ot.exact import ExactSolution, exact
    from pushforward.ot.solution import Solution, Status
    from pushforward.ot.solve import solve

__version__ = "0.1.0"

_HOMES = {
    "ExactSolution": "pushforward.ot.exact",
    "GridCost": "pushforward.ot.costs",
    "PointCost": "pushforward.ot.costs",
    "SinkhornLoss": "pushforward.ot.divergence",
    "Solution": "pushforward.ot.solution",
    "Status": "pushforward.ot.solution",
    "exact": "pushforward.ot.exact",
    "sinkhorn_divergence": "pushforward.ot.divergence",
    "solve": "pushforward.ot.solve",
}
_ROOMS = ("diffusion", "divergences", "errors", "lm", "maps", "metrics", "ot", "training")

__all__ = [
    "ExactSolution",
    "GridCost",
    "PointCost",
    "SinkhornLoss",
    "Solution",
    "Status",
    "__version__",
    "diffusion",
    "divergences",
    "errors",
    "exact",
    "lm",
    "maps",
    "metrics",
    "ot",
    "sinkhorn_divergence",
    "solve",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        # `pushforward.ot.solve` is a module whose name is a public function's, too: take the function.
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"pushforward.{name}")
    else:
        raise AttributeError(f"module 'pushforward' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
