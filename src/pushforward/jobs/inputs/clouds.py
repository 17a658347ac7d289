"""Files as the points that a map is fitted on or applied to.

kind        files                                               a point is
points      .npy (n, d); .npz with `points`; .csv .tsv          a row
pictures    .png .jpg .jpeg .bmp .gif .tif .tiff .webp          the colour of a pixel, in [0, 1]^3
cells       .h5ad, which needs anndata                          a cell, see `cells.py`

What a map was learned from is kept beside it as `origin.json`, so that new points are read in the same way.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.arrays import Array, is_picture
from pushforward.jobs.inputs.cells import (
    Looks,
    cell_numbers,
    cell_points,
    choose_cells,
    choose_genes,
    looks_like,
    must_tell_genes,
    read_cells,
    scale_doubt,
)
from pushforward.jobs.inputs.pictures import read_colours
from pushforward.jobs.inputs.points import WEIGHT_NAMES, Rows, in_the_order_of, read_cloud

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["Cloud", "Kind", "Origin", "kind_of", "load_origin", "read_new", "read_pair", "save_origin"]

Kind = Literal["points", "pictures", "cells"]
_FILE = "origin.json"
# Fewer points than this on a side cannot be split into some to learn from and some to judge by.
_FEWEST = 8


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The content of one file.

    Args:
        file: The file.
        points: One a row, shape (n, d).
        shape: (height, width) of a picture, whose pixels the points are in row-major order; None of anything else.
        cells: The chosen cells, of which the points are the numbers; None of anything else.
        rows: For points, what their file has beside the numbers; else None.
        doubts: What a reader should know of the numbers, in sentences.
    """

    file: Path
    points: Array
    shape: tuple[int, int] | None = None
    cells: AnnData | None = None
    rows: Rows | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The properties of the points that a map was fitted on, which new points must share.

    Args:
        kind: The kind of the files.
        dimension: d.
        rep: For cells, the name of their numbers.
        log1p: Of cells, whether these were counts that were normalised.
        genes: For cells, the names of the d genes; None where `rep` names no genes.
        looks: For cells, what the source's numbers look like.
        columns: For points, the d headings; None where neither file had any.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: Kind
    dimension: int
    rep: str = "X"
    log1p: bool = False
    genes: tuple[str, ...] | None = None
    looks: Looks = "other"
    columns: tuple[str, ...] | None = None


def kind_of(file: Path) -> Kind:
    """The kind of content that a file's name implies.

    Raises:
        InputError: The name's end is none that is known.
    """
    if file.suffix.lower() == ".h5ad":
        return "cells"
    try:
        return "pictures" if is_picture(file) else "points"
    except InputError as error:
        raise InputError(f"{error}, cells .h5ad") from None


def read_pair(
    first: Path, second: Path | None, *, rep: str, log1p: bool, groups: tuple[str, str, str] | None
) -> tuple[Origin, Cloud, Cloud]:
    """Read source and target.

    Args:
        first: The source's file.
        second: The target's, of the same kind; None for two groups of cells of the first.
        rep, log1p: Of cells, what is taken of them.
        groups: For cells in one file, a column of `obs` and its values for source and target.

    Returns:
        What they are, and the points of both.

    Raises:
        InputError: A file cannot be read, or the two do not fit together.
    """
    kind = kind_of(first)
    if second is not None and kind_of(second) != kind:
        raise InputError(f"{second}: holds {kind_of(second)} but {first} holds {kind}; both must be of one kind")
    if kind == "cells":
        origin, source, target = _read_cell_pair(first, second, rep=rep, log1p=log1p, groups=groups)
    else:
        if second is None:
            raise InputError(f"{first}: is the source only; a target is needed beside it")
        source, target = (_read(kind, file) for file in (first, second))
        columns = None
        if source.rows is not None and target.rows is not None:
            rows = in_the_order_of(source.rows, target.rows, first=first, second=second)
            target, columns = replace(target, points=rows.points), source.rows.names or rows.names
        origin = Origin(kind=kind, dimension=source.points.shape[1], columns=columns)
    width = target.points.shape[1]
    if width != origin.dimension:
        raise InputError(f"{target.file}: its points have {width} coordinates, those of {first} {origin.dimension}")
    for cloud in (source, target):
        if len(cloud.points) < _FEWEST:
            raise InputError(
                f"{cloud.file}: gives {len(cloud.points)} points; a map needs at least {_FEWEST} on either side"
            )
    if (target.points == target.points[0]).all():
        raise InputError(f"{target.file}: all {len(target.points)} points of the target are the same: it is no cloud")
    return origin, source, target


def read_new(file: Path, origin: Origin, *, group: tuple[str, str] | None) -> Cloud:
    """Read points for a fitted map.

    Args:
        file: A file of the kind that the map was fitted on.
        origin: What it was learned from.
        group: For cells, a column of `obs` and its value; None for all cells.

    Raises:
        InputError: The file cannot be read, or the map is none for its points.
    """
    if kind_of(file) != origin.kind:
        raise InputError(f"{file}: holds {kind_of(file)}, but the map was learned from {origin.kind}")
    if origin.kind == "cells":
        cells = read_cells(file)
        if group is not None:
            cells = choose_cells(file, cells, *group)
        if origin.genes is not None:
            cells = choose_genes(file, cells, origin.genes)
        points = cell_points(file, cells, origin.rep, log1p=origin.log1p)
        cloud = Cloud(file=file, points=points, cells=cells, doubts=_scale_doubts(file, cells, origin))
    else:
        cloud = _read(origin.kind, file, columns=origin.columns)
    if cloud.points.shape[1] != origin.dimension:
        raise InputError(
            f"{file}: its points have {cloud.points.shape[1]} coordinates; the map takes {origin.dimension}"
        )
    return cloud


def save_origin(folder: Path, origin: Origin) -> None:
    """Write `origin.json` into a run's folder."""
    (folder / _FILE).write_text(json.dumps(asdict(origin)) + "\n", encoding="utf-8")


def load_origin(folder: Path) -> Origin:
    """Read a run's `origin.json`.

    Raises:
        InputError: The folder is no run of `fit-map`, or the file was altered.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Origin).validate_json((folder / _FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: is no folder of a finished fit-map run: it has no {_FILE}") from None
    except OSError as error:
        raise InputError(f"{folder / _FILE}: cannot be read: {error.strerror}") from None
    except ValidationError:
        raise InputError(f"{folder / _FILE}: was altered or cut short") from None


def _read(kind: Kind, file: Path, *, columns: tuple[str, ...] | None = None) -> Cloud:
    if kind == "pictures":
        colours = read_colours(file)
        height, width, _ = colours.shape
        return Cloud(file=file, points=colours.reshape(-1, 3), shape=(height, width))
    rows = read_cloud(file, columns=columns)
    if rows.weights is not None or {name.lower() for name in rows.left_out} & WEIGHT_NAMES:
        raise InputError(f"{file}: has weights, but a map takes points that count alike; leave them out")
    return Cloud(file=file, points=rows.points, rows=rows)


def _read_cell_pair(
    first: Path, second: Path | None, *, rep: str, log1p: bool, groups: tuple[str, str, str] | None
) -> tuple[Origin, Cloud, Cloud]:
    cells = read_cells(first)
    if groups is not None:
        obs, source_value, target_value = groups
        source, target = (choose_cells(first, cells, obs, value) for value in (source_value, target_value))
    elif second is not None:
        source, target = cells, read_cells(second)
    else:
        raise InputError(f"{first}: is one file; give a target file, or --obs, --source and --target")
    genes = None if rep.startswith("obsm/") else tuple(map(str, source.var_names))
    if genes is not None:
        must_tell_genes(first, source)
    if genes is not None and second is not None:
        target = choose_genes(second, target, genes)
    clouds = [
        Cloud(
            file=file,
            points=cell_points(file, chosen, rep, log1p=log1p),
            cells=chosen,
            doubts=tuple(filter(None, [scale_doubt(file, chosen, rep, log1p=log1p)])),
        )
        for file, chosen in ((first, source), (second or first, target))
    ]
    dimension = int(np.shape(clouds[0].points)[1])
    looks = looks_like(source, rep, cell_numbers(first, source, rep))
    origin = Origin(kind="cells", dimension=dimension, rep=rep, log1p=log1p, genes=genes, looks=looks)
    return origin, clouds[0], clouds[1]


def _scale_doubts(file: Path, cells: AnnData, origin: Origin) -> tuple[str, ...]:
    """A warning where new cells do not look like those that the map was fitted on; else nothing."""
    looks = looks_like(cells, origin.rep, cell_numbers(file, cells, origin.rep))
    if "other" in (looks, origin.looks) or looks == origin.looks:
        return ()
    return (f"{file}: {origin.rep} looks like {looks}, but the map was learned from what looks like {origin.looks}",)
