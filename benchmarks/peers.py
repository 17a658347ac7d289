"""The packages that the solver is compared with, and what settings of each may be searched.

The functions are those of `peer_calls.py`. `axes` are the settings that `tune_peers.py` searches; the first value of
each is where the search starts. A package's own threshold is tightened only until the recomputed L1 error of both
marginals is at most 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from peer_calls import Prepared, geomloss, mdot_tnt, ott, pot_emd, pot_log, pot_sinkhorn, pot_stabilized, regot


@dataclass(frozen=True, kw_only=True, slots=True)
class Solver:
    """How to run one solver, what its settings are before any search, and what the search may try."""

    prepare: Callable[..., Prepared]
    settings: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    tolerance: float | None = None  # where the search for the loosest sufficient threshold starts; None: has none
    grids_only: bool = False


def _regot(function: str, axes: dict[str, tuple[Any, ...]] | None = None) -> Solver:
    axes = axes or {}
    return Solver(
        prepare=regot, settings={"function": f"sinkhorn_{function}"} | {key: values[0] for key, values in axes.items()},
        axes=axes, tolerance=1e-9,
    )  # fmt: skip


MOMENTA = (1.5, 1.7, 1.8, 1.9, 1.3, 1.95, "adaptive")
LEVELS = (0, 2, 4)

# The likely fastest first: the search gives up on a peer that is far behind the best.
PEERS: dict[str, Solver] = {
    "pot emd": Solver(prepare=pot_emd),
    "mdot-tnt": Solver(prepare=mdot_tnt, settings={"p": 1.5, "q": 2.0, "gamma_i": 16.0, "tolerance": None}),
    "ott momentum": Solver(
        prepare=ott,
        settings={"lse": True, "momentum": 1.5, "check_every": 20},
        axes={"momentum": MOMENTA, "lse": (True, False), "decay": (1.0, 0.9), "check_every": (20, 5, 100)},
        tolerance=1e-9,
    ),
    "ott grid": Solver(
        prepare=ott,
        settings={"lse": True, "momentum": 1.5, "check_every": 20, "separable": True},
        axes={"momentum": (*MOMENTA, 1.0), "lse": (True, False), "decay": (1.0, 0.9), "check_every": (20, 5, 100)},
        tolerance=1e-9,
        grids_only=True,
    ),
    "mdot-tnt pushed": Solver(
        prepare=mdot_tnt,
        settings={"p": 1.5, "q": 2.0, "gamma_i": 16.0},
        axes={"p": (1.5, 1.2, 2.0), "q": (2.0, 4.0), "gamma_i": (16.0, 64.0)},
        tolerance=1e-9,
    ),
    "regot ssns": _regot("ssns", {"levels": LEVELS, "method": (1, 0), "mu0": (1.0, 0.01)}),
    "pot stabilized": Solver(
        prepare=pot_stabilized,
        settings={"backend": "numpy", "tau": 1e30, "check_every": 20, "levels": 0},
        axes={"tau": (1e30, 1e3, 1e6), "levels": LEVELS, "backend": ("numpy", "torch"), "check_every": (20, 5, 100)},
        tolerance=1e-9,
    ),
    "regot splr": _regot("splr", {"levels": LEVELS, "density": (0.01, 0.05), "shift": (1e-6, 1e-3), "method": (1, 0)}),
    "regot sparse-newton": _regot("sparse_newton", {"levels": LEVELS, "density": (0.01, 0.05), "method": (1, 0)}),
    "regot newton": _regot("newton", {"levels": LEVELS, "method": (1, 0)}),
    "regot lbfgs": _regot("lbfgs_dual", {"levels": LEVELS}),
    "regot bcd": _regot("bcd", {"levels": LEVELS}),
    "ott anderson": Solver(
        prepare=ott,
        settings={"lse": True, "anderson": [5, 1], "check_every": 20},
        axes={
            "anderson": ([5, 1], [3, 1], [8, 1], [5, 5], [8, 5]),
            "lse": (True, False),
            "check_every": (20, 5, 100),
        },
        tolerance=1e-9,
    ),
    "ott plain": Solver(
        prepare=ott,
        settings={"lse": False, "check_every": 20},
        axes={"lse": (False, True), "decay": (1.0, 0.9), "check_every": (20, 5, 100)},
        tolerance=1e-9,
    ),
    "pot sinkhorn": Solver(
        prepare=pot_sinkhorn, settings={"backend": "numpy"}, axes={"backend": ("numpy", "torch")}, tolerance=1e-9
    ),
    "pot log": Solver(
        prepare=pot_log,
        settings={"backend": "torch", "levels": 0},
        axes={"backend": ("torch", "numpy"), "levels": LEVELS},
        tolerance=1e-9,
    ),
    "geomloss": Solver(prepare=geomloss, settings={"iterations": 100}, axes={"iterations": (100, 1000)}),
}
