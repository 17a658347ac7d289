"""The packages that the solver is compared with, and what settings of each may be searched.

The functions are those of `peer_calls.py`. `axes` are the settings that `tune_peers.py` searches; the first value of
each is where the search starts. A package's own threshold is tightened only until the recomputed L1 error of both
marginals is at most 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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


MOMENTA = (1.5, 1.7, 1.8, 1.9, 1.3, 1.95, "adaptive")
LEVELS = (0, 2, 4)
CHECKS = (20, 5, 100)
ANDERSON = ([5, 1], [3, 1], [8, 1], [5, 5], [8, 5])


def _searched(prepare: Callable[..., Prepared], axes: dict[str, tuple[Any, ...]], **fixed: Any) -> Solver:
    """A solver whose settings are the first value of each axis, and those that stay as they are."""
    first = {name: values[0] for name, values in axes.items()}
    return Solver(prepare=prepare, settings=fixed | first, axes=axes, tolerance=1e-9)


def _regot(function: str, **axes: tuple[Any, ...]) -> Solver:
    return _searched(regot, axes, function=f"sinkhorn_{function}")


def _ott(*, grids_only: bool = False, **axes: tuple[Any, ...]) -> Solver:
    fixed = {"separable": True} if grids_only else {}
    return replace(_searched(ott, axes | {"check_every": CHECKS}, **fixed), grids_only=grids_only)


EITHER = (True, False)
DECAYS = (1.0, 0.9)
# The likely fastest first: the search gives up on a peer that is far behind the best.
PEERS: dict[str, Solver] = {
    "pot emd": Solver(prepare=pot_emd),
    "mdot-tnt": Solver(prepare=mdot_tnt, settings={"p": 1.5, "q": 2.0, "gamma_i": 16.0, "tolerance": None}),
    "ott momentum": _ott(momentum=MOMENTA, lse=EITHER, decay=DECAYS),
    "ott grid": _ott(momentum=(*MOMENTA, 1.0), lse=EITHER, decay=DECAYS, grids_only=True),
    "mdot-tnt pushed": _searched(mdot_tnt, {"p": (1.5, 1.2, 2.0), "q": (2.0, 4.0), "gamma_i": (16.0, 64.0)}),
    "regot ssns": _regot("ssns", levels=LEVELS, method=(1, 0), mu0=(1.0, 0.01)),
    "pot stabilized": _searched(
        pot_stabilized,
        {"tau": (1e30, 1e3, 1e6), "levels": LEVELS, "backend": ("numpy", "torch"), "check_every": CHECKS},
    ),
    "regot splr": _regot("splr", levels=LEVELS, density=(0.01, 0.05), shift=(1e-6, 1e-3), method=(1, 0)),
    "regot sparse-newton": _regot("sparse_newton", levels=LEVELS, density=(0.01, 0.05), method=(1, 0)),
    "regot newton": _regot("newton", levels=LEVELS, method=(1, 0)),
    "regot lbfgs": _regot("lbfgs_dual", levels=LEVELS),
    "regot bcd": _regot("bcd", levels=LEVELS),
    "ott anderson": _ott(anderson=ANDERSON, lse=EITHER),
    "ott plain": _ott(lse=(False, True), decay=DECAYS),
    "pot sinkhorn": _searched(pot_sinkhorn, {"backend": ("numpy", "torch")}),
    "pot log": _searched(pot_log, {"backend": ("torch", "numpy"), "levels": LEVELS}),
    "geomloss": Solver(prepare=geomloss, settings={"iterations": 100}, axes={"iterations": (100, 1000)}),
}
