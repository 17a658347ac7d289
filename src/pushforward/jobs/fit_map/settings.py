"""The settings of `pushforward fit-map`: its flags, its recipe, and what the classes of maps take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pushforward.jobs.errors import InputError
from pushforward.jobs.settings import (
    AT_LEAST_ONE,
    COMMAND,
    FREE,
    POSITIVE,
    SEED,
    Bound,
    Switch,
    check_bounds,
    default_or,
)

__all__ = ["CELLS", "FitMap", "Method"]

Method = Literal["monge", "linear", "entropic", "progressive", "icnn"]
CostName = Literal["sqeuclidean", "euclidean", "manhattan", "cosine", "geodesic"]

# Flags for cells alone.
CELLS = ("obs", "source", "target", "rep", "log1p")
_OWN = "the method's own"


@dataclass(frozen=True, kw_only=True)
class FitMap:
    """Learn a map that carries one distribution into another, and say how well it does on points held out.

    Points (.npy, .npz with `points`, .csv: one a row), cells (.h5ad, two files or two groups of one), or two pictures,
    whose pixels are points in colour space: then the recoloured picture is written, too. The map is kept in the run's
    folder, for `pushforward apply-map`. A recipe, a YAML file of settings, may stand beside the flags, which override
    it.

    Exit code 0: done. 2: a wrong flag or file. 130: interrupted.
    """

    first: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Where the map starts: .npy, .npz, .csv, .h5ad, or a picture."""
    second: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[TARGET]", help_behavior_hint="")] = (
        None
    )
    """Where it leads, of the same kind; with --obs it is left out."""
    out: Annotated[Path | None, default_or("(required)", "FOLDER"), FREE] = None
    """Folder for the map, the figures and a page that shows them."""
    method: Method = "monge"
    """monge: linear, then better where held-out points say so. linear: between Gaussians, closed form. entropic,
    progressive: from plans between all points. icnn: the gradient of a convex network."""
    cost: Annotated[CostName | None, default_or("sqeuclidean", "{sqeuclidean,euclidean,manhattan,cosine,geodesic}")] = (
        None
    )
    """What moving a point costs; geodesic is for points on a sphere."""
    epsilon: Annotated[float | None, default_or(_OWN, "FLOAT"), POSITIVE] = None
    """Entropic regularisation, in units of the mean cost between source and target."""
    steps: Annotated[int | None, default_or(_OWN, "INT"), AT_LEAST_ONE] = None
    """Steps of training; of progressive, in which the points move."""
    batch_size: Annotated[int | None, default_or(_OWN, "INT"), Bound(least=2)] = None
    """Points of either side a step."""
    learning_rate: Annotated[float | None, default_or(_OWN, "FLOAT"), POSITIVE] = None
    """Adam's learning rate at the start of training."""
    hidden: Annotated[tuple[int, ...] | None, default_or(_OWN, "INT [INT ...]"), AT_LEAST_ONE] = None
    """Widths of the network's layers."""
    start: Annotated[
        Literal["auto", "linear", "entropic", "identity"] | None, default_or("auto", "{auto,linear,entropic,identity}")
    ] = None
    """monge: where the training starts."""
    network: Annotated[
        Literal["auto", "potential", "structured", "residual"] | None,
        default_or("auto", "{auto,potential,structured,residual}"),
    ] = None
    """monge: the form of the network."""
    estimator: Annotated[
        Literal["auto", "debiased", "entropic", "exact"] | None, default_or("auto", "{auto,debiased,entropic,exact}")
    ] = None
    """monge: how the Monge gap is estimated."""
    gap_weight: Annotated[float | None, default_or(_OWN, "FLOAT"), Bound(least=0)] = None
    """monge: weight of the Monge gap; 0 trains on the fit alone."""
    symmetry_weight: Annotated[float | None, default_or(_OWN, "FLOAT"), Bound(least=0)] = None
    """monge: weight of the penalty on asymmetric Jacobians, of a structured network."""
    patience: Annotated[int | None, default_or(_OWN, "INT"), AT_LEAST_ONE] = None
    """monge: checks without improvement after which a stage ends."""
    validation_fraction: Annotated[float | None, default_or(_OWN, "SHARE"), Bound(least=0, below=1)] = None
    """monge: share of the training's points on which it is checked."""
    conjugate_steps: Annotated[int | None, default_or(_OWN, "INT"), AT_LEAST_ONE] = None
    """icnn: gradient steps towards each conjugate point."""
    max_points: Annotated[int | None, default_or(_OWN, "INT"), Bound(least=2)] = None
    """entropic, progressive: most points of either side in a plan."""
    debias: Switch = False
    """entropic: take the bias of the regularisation away."""
    shrinkage: Annotated[float | None, default_or("auto", "FLOAT"), Bound(least=0, most=1)] = None
    """linear: how far the covariances are drawn towards round ones."""
    seed: Annotated[int, SEED] = 0
    """Random seed."""
    hold_out: Annotated[float, tyro.conf.arg(metavar="SHARE"), Bound(above=0, most=0.5)] = 0.2
    """Share of the points of either side that is kept for judging."""
    obs: Annotated[str | None, default_or("none", "COLUMN")] = None
    """Cells: the column of `obs` that tells source from target."""
    source: Annotated[str | None, default_or("none", "VALUE")] = None
    """Cells: its value for the source."""
    target: Annotated[str | None, default_or("none", "VALUE")] = None
    """Cells: its value for the target."""
    rep: Annotated[str | None, default_or("X", "NAME")] = None
    """Cells: which numbers of them: X, layers/NAME or obsm/NAME."""
    log1p: Switch = False
    """Cells: these are counts; bring each cell to 10,000 and take log(1 + count)."""
    resume: Annotated[Switch, COMMAND] = False
    """Go on with the run in --out from its last checkpoint."""
    json: Annotated[Switch, COMMAND] = False
    """Print the result as JSON."""
    quiet: Annotated[Switch, COMMAND] = False
    """Show no progress."""

    def run(self) -> int:
        """Check everything, then learn, judge, and write the run's folder; returns the exit code."""
        if self.out is None:
            raise InputError("--out: is needed, the folder for the run")
        check_bounds(self)

        from pushforward.jobs.fit_map.run import run

        return run(self, self.out)
