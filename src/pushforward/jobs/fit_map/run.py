"""What `pushforward fit-map` does with its settings, and what it leaves behind.

recipe.yaml              the settings, with which a run is repeated or resumed
checkpoints/             the last states of a training, from which --resume goes on
map/, origin.json        the map, and what kind of points it takes: what `apply-map` reads
recoloured.png           of two pictures: the source in the target's colours
log.jsonl                one line a check on points kept aside within the training
result.json              the figures on the points held out, beside those of simpler maps
report.json, index.html  the page
"""

from __future__ import annotations

import inspect
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from tqdm.auto import tqdm

from pushforward import maps, metrics
from pushforward.errors import PushforwardError
from pushforward.jobs.colours import recolour, save_colours
from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.fit_map.page import write
from pushforward.jobs.fit_map.scores import COMPARED, Split, scores, simple_maps, split
from pushforward.jobs.fit_map.settings import CELLS, Method
from pushforward.jobs.folder import LOG, begin, check_resumed, interruptible, write_result
from pushforward.jobs.inputs.clouds import kind_of, read_pair, save_origin
from pushforward.jobs.settings import arguments_for
from pushforward.maps import LinearMap, costs
from pushforward.maps.outliers import find_outliers
from pushforward.training.log import Log

if TYPE_CHECKING:
    from pushforward.jobs.fit_map.settings import FitMap
    from pushforward.jobs.inputs.arrays import Array
    from pushforward.jobs.inputs.clouds import Cloud, Origin
    from pushforward.maps.base import TransportMap

__all__ = ["run"]

# A photograph has millions of pixels; so many tell its colours, and plans between them are solved in seconds.
_MOST_PIXELS = 5_000


# What a class of maps calls the seed; what it is given by the run itself.
_NAMES = {"random_state": "seed"}


def run(settings: FitMap, out: Path) -> int:
    """Learn, judge, write everything, and print the result; returns the exit code.

    Raises:
        InputError: A flag or file does not fit, the folder holds another run, or no map can be learned.
        KeyboardInterrupt: With the command to go on with.
    """
    _check_flags_of_method(settings)
    problem = _read(settings)
    check_resumed(out, settings, resume=settings.resume)
    parts, doubts = _prepared(settings, *problem[1:])
    begin(out, "fit-map", settings, resume=settings.resume)
    try:
        with interruptible(out, "fit-map"):
            result = _fit(settings, out, problem, parts, doubts)
    except PushforwardError as error:
        # "X" and "Y" are what the library calls the two; a message of neither is of both.
        sides = {"X": str(settings.first), "Y": str(settings.second or settings.first)}
        both = str(settings.first) if settings.second is None else f"{settings.first} and {settings.second}"
        raise InputError(f"{sides.get(str(error).split()[0], both)}: {error}") from None
    print(json.dumps(result, indent=2, allow_nan=False) if settings.json else _block(result, out))
    return OK


def _fit(
    settings: FitMap, out: Path, problem: tuple[Origin, Cloud, Cloud], parts: Split, doubts: list[str]
) -> dict[str, Any]:
    """Learn, judge, and write everything; what `result.json` holds."""
    origin, source, target = problem
    fitted, seconds, messages = _learn(settings, out, parts)
    fitted.save(out / "map")
    save_origin(out, origin)

    colours = None if source.shape is None else recolour(fitted.transform, source.points).reshape(*source.shape, 3)
    if colours is not None:
        save_colours(out / "recoloured.png", colours)
    cost = costs.resolve(settings.cost or "sqeuclidean")
    images = {
        name: transform(parts.x_test)
        for name, transform in {**simple_maps(parts.x, parts.y), settings.method: fitted.transform}.items()
    }
    rows = {name: scores(parts, mapped, cost=cost) for name, mapped in images.items()}
    floor = [row.pop("w2_floor") for row in rows.values()][-1]
    simple = {name: rows[name] for name in ("identity", "mean shift")}
    remarks = metrics.doubts(rows[settings.method], floor, simple, count=min(len(parts.x_test), COMPARED))
    result = {
        "problem": _problem(settings, origin, source, target),
        "method": settings.method,
        "stage": getattr(fitted, "stage_", None),
        "settings": {k: v for k, v in _arguments(settings).items() if k not in _NAMES}
        | {"seed": settings.seed, "hold_out": settings.hold_out},
        "points": {
            "source": len(source.points),
            "target": len(target.points),
            "held_out": [len(parts.x_test), len(parts.y_test)],
        },
        "kept": _kept(fitted),
        "figures": rows,
        "floor": floor,
        "warnings": [*doubts, *messages, *remarks],
        "seconds": seconds,
        "picture": None if colours is None else "recoloured.png",
    }
    write_result(out, result)
    photographs = None if colours is None else (_picture(source), _picture(target), colours)
    write(out, result, moves=(parts.x_test, images[settings.method], parts.y_test), photographs=photographs)
    return result


def _prepared(settings: FitMap, source: Cloud, target: Cloud) -> tuple[Split, list[str]]:
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
    parts = split(sides[0], sides[1], share=settings.hold_out, seed=settings.seed, most=most)
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


def _learn(settings: FitMap, out: Path, parts: Split) -> tuple[TransportMap, float, list[str]]:
    """The fitted map, the seconds that it took, and its warnings; every check of a training is logged when made."""
    start = time.perf_counter()
    file = out / LOG
    with (
        Log(file) as log,
        tqdm(desc=settings.method, unit="check", disable=settings.quiet or settings.method != "monge") as bar,
        warnings.catch_warnings(record=True) as caught,
    ):

        def watch(check: Mapping[str, Any]) -> None:
            log.write(check["step"], check)
            bar.set_postfix(stage=check["stage"], step=check["step"], criterion=f"{check['criterion']:.3g}")
            bar.update()

        # This run judges on points of its own, and says what it finds.
        warnings.filterwarnings("ignore", message=".*points held out", category=UserWarning)
        fitted = _unfitted(settings, checkpoint=out / "checkpoints", watch=watch).fit(parts.x, parts.y)
    # A resumed run has logged its later checks only; the map has all.
    with Log(file) as log:
        for check in getattr(fitted, "validation_", getattr(fitted, "history_", ())):
            log.write(check["step"], check)
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    return fitted, time.perf_counter() - start, list(dict.fromkeys(messages))


def _class_of(method: Method) -> type[TransportMap]:
    match method:
        case "linear":
            return LinearMap
        case "entropic":
            return maps.EntropicMap
        case "progressive":
            return maps.ProgressiveMap
        case "icnn":
            return maps.ICNNMap
        case "monge":
            return maps.MongeMap


def _arguments(settings: FitMap) -> dict[str, Any]:
    """The settings that were given, as far as the method takes them."""
    found = arguments_for(_class_of(settings.method), settings, _NAMES)
    return {name: value for name, value in found.items() if value is not False}


def _check_flags_of_method(settings: FitMap) -> None:
    """Refuse settings that a method has no use for, rather than pass over them."""
    of_any = {name for method in get_args(Method) for name in inspect.signature(_class_of(method)).parameters}
    of_this = inspect.signature(_class_of(settings.method)).parameters
    for name in sorted(of_any - set(of_this)):
        if getattr(settings, name, None) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')}: is of no use to --method {settings.method}")


def _unfitted(settings: FitMap, *, checkpoint: Path, watch: Callable[[Mapping[str, Any]], None]) -> TransportMap:
    kind, of_run = _class_of(settings.method), {"checkpoint": checkpoint, "progress": watch}
    taken = {name: value for name, value in of_run.items() if name in inspect.signature(kind).parameters}
    return kind(**_arguments(settings), **taken)


def _read(settings: FitMap) -> tuple[Origin, Cloud, Cloud]:
    first, second, kind = settings.first, settings.second, kind_of(settings.first)
    for name in CELLS if kind != "cells" else ():
        if getattr(settings, name):
            raise InputError(f"--{name}: is for cells (.h5ad) only; {first} holds {kind}")
    named = [name for name in ("obs", "source", "target") if getattr(settings, name) is not None]
    if named and second is not None:
        raise InputError(f"--{named[0]}: picks groups of one file, but two are given")
    groups = None
    if named:
        if settings.obs is None or settings.source is None or settings.target is None:
            raise InputError(f"--{named[0]}: --obs, --source and --target are needed together")
        groups = settings.obs, settings.source, settings.target
    return read_pair(first, second, rep=settings.rep or "X", log1p=settings.log1p, groups=groups)


def _problem(settings: FitMap, origin: Origin, source: Cloud, target: Cloud) -> str:
    if origin.kind == "pictures":
        return f"the colours of {source.file.name} into those of {target.file.name}"
    sides = (source.file.name, target.file.name) if settings.obs is None else (settings.source, settings.target)
    what = "cells" if origin.kind == "cells" else "points"
    counts = f"{len(source.points)} and {len(target.points)} {what} in {origin.dimension} dimensions"
    return f"{sides[0]} into {sides[1]}, {counts}"


def _picture(cloud: Cloud) -> Array:
    return cloud.points.reshape(*(cloud.shape or ()), 3)


def _block(result: dict[str, Any], out: Path) -> str:
    names = ("divergence", "w2", "exact_gap", "variance_ratio", "mean_shift")
    heads = ("divergence", "W2^2", "gap", "variance ratio", "mean shift")
    held_out = result["points"]["held_out"]
    lines = [
        f"{'problem':<18}{result['problem']}",
        f"{'method':<18}{result['method']}" + (f", stage {result['stage']}" if result["stage"] else ""),
        f"{'held out':<18}{held_out[0]} and {held_out[1]} points, on which:",
        f"{'':<18}" + "".join(f"{head:>16}" for head in heads),
    ]
    for row, figures in result["figures"].items():
        cells = (f"{figures[name]:.4g}" if figures.get(name) is not None else "" for name in names)
        lines.append(f"{row:<18}" + "".join(f"{cell:>16}" for cell in cells))
    lines.append(f"{'floor':<18}{'':>16}{result['floor']:>16.4g}")
    lines += [f"{'seconds':<18}{result['seconds']:.1f}", f"{'map':<18}{out / 'map'}"]
    if result["picture"]:
        lines.append(f"{'picture':<18}{out / result['picture']}")
    lines += [f"{'warning':<18}{text}" for text in result["warnings"]]
    return "\n".join([*lines, f"{'page':<18}{out / 'index.html'}"])
