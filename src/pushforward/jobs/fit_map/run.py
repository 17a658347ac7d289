"""What `pushforward fit-map` does once its flags are read, and what it leaves behind.

recipe.yaml              the flags
checkpoints/             the last states of a training, from which --resume goes on
map/, origin.json        the map, and what kind of points it takes: what `apply-map` reads
recoloured.png           of two pictures: the source in the target's colours
metrics.jsonl            one line a check on points kept aside within the training
result.json              the figures on the points held out, beside those of simpler maps
report.json, index.html  the page

symbol          meaning                                         shape
x, y            points that the map learns from                 (n, d), (m, d)
x_test, y_test  points held out, which judge it                 (k, d), (l, d)
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from tqdm.auto import tqdm

import pushforward as pf
from pushforward import metrics
from pushforward.errors import NotConverged
from pushforward.jobs.colours import recolour, save_colours
from pushforward.jobs.errors import InputError
from pushforward.jobs.fit_map.page import write_page
from pushforward.jobs.inputs.clouds import save_origin
from pushforward.maps import costs
from pushforward.maps.linear import LinearMap
from pushforward.maps.outliers import find_outliers
from pushforward.training.log import Log

if TYPE_CHECKING:
    from pushforward.jobs.fit_map.settings import FitMap
    from pushforward.jobs.inputs.arrays import Array
    from pushforward.jobs.inputs.clouds import Cloud, Origin
    from pushforward.maps.base import TransportMap

__all__ = ["Split", "figures", "run", "simple_maps", "split"]

# A photograph has millions of pixels; so many tell its colours, and plans between them are solved in seconds.
_MOST_PIXELS = 5_000
# Exact transport and the divergence compare so many held-out points.
_JUDGED = 1024
# Marginal error to which a divergence is solved: more digits than sampling leaves it.
_TOL = 1e-5


@dataclass(frozen=True, kw_only=True)
class Split:
    """Points of both sides, in random order, parted into those that are learned from and those that judge."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array


def split(x: Array, y: Array, *, share: float, seed: int, most: int | None = None) -> Split:
    """Part the points at random.

    Args:
        x, y: Points, (n, d) and (m, d).
        share: The share of either side that is held out; at least two points.
        seed: The same one parts in the same way.
        most: Take no more points of a side than this; None takes all.
    """
    rng = np.random.default_rng(seed)
    parts: list[Array] = []
    for points in (x, y):
        drawn = points[rng.permutation(len(points))[:most]]
        held_out = max(2, round(share * len(drawn)))
        parts += [drawn[held_out:], drawn[:held_out]]
    return Split(x=parts[0], x_test=parts[1], y=parts[2], y_test=parts[3])


def figures(parts: Split, mapped: Array, *, cost: Any = "sqeuclidean", true: Array | None = None) -> dict[str, float]:
    """What `metrics.judge_map` says of the images of `parts.x_test`, and their Sinkhorn divergence from the target.

    Its regularisation is 0.05 of the mean cost; where it cannot be solved, it is left out.

    Args:
        parts: The points.
        mapped: Images of `parts.x_test`, shape (k, d).
        cost: For which the map should be optimal.
        true: The images under the optimal map, where it is known.
    """
    found = metrics.judge_map(
        parts.x_test, mapped, parts.y_test, cost=cost, true=true, other=parts.y, points=_JUDGED
    ).figures()
    try:
        near, far = mapped[:_JUDGED], parts.y_test[:_JUDGED]
        found["divergence"] = float(pf.sinkhorn_divergence(near, far, cost=cost, tol=_TOL))
    except NotConverged:
        pass
    return found


def simple_maps(x: Array, y: Array) -> dict[str, Callable[[Array], Array]]:
    """The maps that a better one must be compared with, learned from the same points."""
    shift = y.mean(axis=0) - x.mean(axis=0)
    linear = LinearMap().fit(x, y)
    return {"identity": lambda points: points, "mean shift": lambda points: points + shift, "linear": linear.transform}


def run(flags: FitMap, out: Path, origin: Origin, source: Cloud, target: Cloud) -> dict[str, Any]:
    """Learn, judge, and write everything.

    Args:
        flags: As they were given.
        out: The run's folder.
        origin: What kind of points these are.
        source, target: The points.

    Returns:
        What `result.json` holds.
    """
    parts, doubts = _prepared(flags, source, target)
    recipe = {"verb": "fit-map", "version": pf.__version__, **flags.recipe()}
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    fitted, seconds, warned = _learn(flags, out, parts)
    fitted.save(out / "map")
    save_origin(out, origin)

    colours = None if source.shape is None else recolour(fitted.transform, source.points).reshape(*source.shape, 3)
    if colours is not None:
        save_colours(out / "recoloured.png", colours)
    cost = costs.resolve(flags.cost or "sqeuclidean")
    images = {
        name: transform(parts.x_test)
        for name, transform in {**simple_maps(parts.x, parts.y), flags.method: fitted.transform}.items()
    }
    rows = {name: figures(parts, mapped, cost=cost) for name, mapped in images.items()}
    floor = [row.pop("w2_floor") for row in rows.values()][-1]
    simple = {name: rows[name] for name in ("identity", "mean shift")}
    judged = metrics.doubts(rows[flags.method], floor, simple, count=min(len(parts.x_test), _JUDGED))
    result = {
        "problem": _problem(flags, origin, source, target),
        "method": flags.method,
        "stage": getattr(fitted, "stage_", None),
        "settings": flags.settings() | {"seed": flags.seed, "hold_out": flags.hold_out},
        "points": {
            "source": len(source.points),
            "target": len(target.points),
            "held_out": [len(parts.x_test), len(parts.y_test)],
        },
        "kept": _kept(fitted),
        "figures": rows,
        "floor": floor,
        "warnings": [*doubts, *warned, *judged],
        "seconds": seconds,
        "picture": None if colours is None else "recoloured.png",
    }
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    photographs = None if colours is None else (_picture(source), _picture(target), colours)
    write_page(out, result, moves=(parts.x_test, images[flags.method], parts.y_test), photographs=photographs)
    return result


def _prepared(flags: FitMap, source: Cloud, target: Cloud) -> tuple[Split, list[str]]:
    """The points for the fit and for the evaluation, and warnings about them, which are printed at once.

    Rows far from all others are left out on both sides: they would set the scale of every map and every figure.

    Raises:
        InputError: The points held out of the target are all the same.
    """
    doubts = list(dict.fromkeys((*source.doubts, *target.doubts)))
    sides: list[Array] = []
    for cloud in (source, target):
        found = find_outliers(torch.from_numpy(cloud.points)) if cloud.shape is None else None
        left = np.zeros(len(cloud.points), dtype=bool)
        if found is not None:
            kinds = [kept for kept in (False, True) if bool((found.grouped == kept).any())]
            doubts += [found.sentence(str(cloud.file), kept=kept) for kept in kinds]
            left[found.rows[~found.grouped].numpy()] = True
        sides.append(cloud.points[~left])
    most = None if source.shape is None else _MOST_PIXELS
    parts = split(sides[0], sides[1], share=flags.hold_out, seed=flags.seed, most=most)
    if (parts.y_test == parts.y_test[0]).all():
        raise InputError(
            f"{target.file}: the {len(parts.y_test)} points held out of the target are all the same, and judge "
            "nothing; hold out more of them (--hold-out), or give a target with more different points"
        )
    for doubt in doubts:
        print(f"pushforward: warning: {doubt}", file=sys.stderr)
    return parts, doubts


def _kept(fitted: TransportMap) -> dict[str, Any] | None:
    """Which check of the training the kept map has: its number among all, stage and step; None where none is kept."""
    number = getattr(fitted, "kept_", -1)
    if number < 0:
        return None
    record = getattr(fitted, "validation_", getattr(fitted, "history_", ()))[number]
    return {"check": number, "stage": record.get("stage", ""), "step": record["step"]}


def _learn(flags: FitMap, out: Path, parts: Split) -> tuple[TransportMap, float, list[str]]:
    """The fitted map, the seconds that it took, and its warnings; every check of a training is logged when made."""
    start = time.perf_counter()
    file = out / "metrics.jsonl"
    with (
        Log(file) as log,
        tqdm(desc=flags.method, unit="check", disable=flags.quiet or flags.method != "monge") as bar,
        warnings.catch_warnings(record=True) as caught,
    ):

        def watch(check: Mapping[str, Any]) -> None:
            log.write(check["step"], check)
            bar.set_postfix(stage=check["stage"], step=check["step"], criterion=f"{check['criterion']:.3g}")
            bar.update()

        # This run judges on points of its own, and says what it finds.
        warnings.filterwarnings("ignore", message=".*points held out", category=UserWarning)
        # What the library ends with a warning and the best map until then is, for a command, an interruption.
        warnings.filterwarnings("error", message="interrupted", category=UserWarning)
        try:
            fitted = _unfitted(flags, checkpoint=out / "checkpoints", watch=watch).fit(parts.x, parts.y)
        except UserWarning:
            raise KeyboardInterrupt from None
    # A resumed run has reported its later checks only; the map has all.
    with Log(file) as log:
        for check in getattr(fitted, "validation_", getattr(fitted, "history_", ())):
            log.write(check["step"], check)
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    return fitted, time.perf_counter() - start, list(dict.fromkeys(messages))


def _unfitted(flags: FitMap, *, checkpoint: Path, watch: Callable[[Mapping[str, Any]], None]) -> TransportMap:
    settings, seed = flags.settings(), flags.seed
    match flags.method:
        case "linear":
            return LinearMap()
        case "entropic":
            from pushforward.maps.entropic import EntropicMap

            return EntropicMap(**settings, random_state=seed)
        case "progressive":
            from pushforward.maps.progressive import ProgressiveMap

            return ProgressiveMap(**settings, random_state=seed)
        case "icnn":
            from pushforward.maps.icnn import ICNNMap

            return ICNNMap(**settings, random_state=seed)
        case "monge":
            from pushforward.maps.monge import MongeMap

            return MongeMap(**settings, checkpoint=checkpoint, progress=watch, random_state=seed)


def _problem(flags: FitMap, origin: Origin, source: Cloud, target: Cloud) -> str:
    if origin.kind == "pictures":
        return f"the colours of {source.file.name} into those of {target.file.name}"
    sides = (source.file.name, target.file.name) if flags.obs is None else (flags.source, flags.target)
    what = "cells" if origin.kind == "cells" else "points"
    counts = f"{len(source.points)} and {len(target.points)} {what} in {origin.dimension} dimensions"
    return f"{sides[0]} into {sides[1]}, {counts}"


def _picture(cloud: Cloud) -> Array:
    return cloud.points.reshape(*(cloud.shape or ()), 3)
