"""`pushforward apply-map`: a map of `fit-map` on new points."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import drafted

if TYPE_CHECKING:
    from anndata import AnnData

    from pushforward.jobs.inputs.arrays import Array
    from pushforward.jobs.inputs.clouds import Cloud
    from pushforward.jobs.inputs.points import Rows

__all__ = ["ApplyMap"]

_NONE = tyro.conf.arg(help_behavior_hint="(default: none)")
# Under this name cells carry what the map makes of them: a layer for genes, else coordinates in `obsm`.
_NAME = "pushforward"


@dataclass(frozen=True, kw_only=True)
class ApplyMap:
    """Apply a map that `pushforward fit-map` has learned to new points, a new picture or new cells.

    Points are written as .npy, .npz or .csv, a picture recoloured. Cells are written as .h5ad with a layer (genes) or
    an entry of obsm (coordinates) called `pushforward`, or as .npy.

    Exit code 0: done. 2: a wrong flag or file.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `fit-map`."""
    new: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="NEW")]
    """Points, a picture or cells, like those that the map was learned from."""
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: NEW-mapped in RUN, a picture as .png)")
    ] = None
    """File for what comes out; its end says in which form."""
    obs: Annotated[str | None, tyro.conf.arg(metavar="COLUMN"), _NONE] = None
    """Cells: only those with a value in this column of `obs`."""
    source: Annotated[str | None, tyro.conf.arg(metavar="VALUE"), _NONE] = None
    """Cells: that value."""

    def run(self) -> int:
        """Read the points, map them, and write the mapped points; returns the exit code."""
        from pushforward.jobs.inputs.clouds import kind_of, load_origin, read_new

        origin = load_origin(self.run_folder)
        if (self.obs is None) != (self.source is None):
            raise InputError(f"--{'obs' if self.source is None else 'source'}: --obs and --source are needed together")
        if self.obs is not None and kind_of(self.new) != "cells":
            raise InputError(f"--obs: is for cells (.h5ad) only; {self.new} holds {kind_of(self.new)}")
        group = None if self.obs is None or self.source is None else (self.obs, self.source)
        cloud = read_new(self.new, origin, group=group)
        out = self._out(cloud)
        for doubt in cloud.doubts:
            print(f"pushforward: warning: {doubt}", file=sys.stderr)

        from pushforward.errors import PushforwardError
        from pushforward.jobs.colours import recolour
        from pushforward.maps.saved import load_map

        try:
            fitted = load_map(self.run_folder / "map")
            mapped = fitted.transform(cloud.points) if cloud.shape is None else recolour(fitted.transform, cloud.points)
        except PushforwardError as error:
            raise InputError(f"{self.run_folder}: {error}") from None
        names = origin.columns
        if cloud.rows is not None:
            names = cloud.rows.names or names
            if cloud.rows.left_out:
                left = ", ".join(f'"{name}"' for name in cloud.rows.left_out)
                print(f"pushforward: {self.new}: left out {left}, which the map does not take", file=sys.stderr)
            if cloud.rows.places is not None:  # the columns stand as in the file, whatever their order in the map
                order = sorted(range(mapped.shape[1]), key=cloud.rows.places.__getitem__)
                mapped, names = mapped[:, order], names and tuple(names[k] for k in order)
        _write(out, cloud, mapped, names, layer=origin.genes is not None)
        print(out)
        return OK

    def _out(self, cloud: Cloud) -> Path:
        """The file to write; one that cannot be written is an error before the work."""
        from pushforward.jobs.inputs.arrays import ARRAYS, PICTURES

        end = ".png" if cloud.shape is not None else self.new.suffix.lower()
        out = self.out or self.run_folder / f"{self.new.stem}-mapped{end}"
        ends = PICTURES if cloud.shape is not None else {".h5ad", ".npy"} if cloud.cells is not None else ARRAYS
        if out.suffix.lower() not in ends:
            raise InputError(f'--out {out}: "{out.suffix}" does not fit; {", ".join(sorted(ends))} do')
        if out.resolve() == self.new.resolve():
            raise InputError(f"--out {out}: would write over the file that is read")
        if not out.parent.is_dir():
            raise InputError(f"--out {out}: {out.parent} is no folder")
        return out


def _write(out: Path, cloud: Cloud, mapped: Array, names: tuple[str, ...] | None, *, layer: bool) -> None:
    import numpy as np

    from pushforward.jobs.colours import save_colours

    end = out.suffix.lower()
    try:
        with drafted(out) as draft:
            if cloud.shape is not None:
                save_colours(draft, mapped.reshape(*cloud.shape, 3))
            elif cloud.cells is not None and end == ".h5ad":
                _write_cells(draft, cloud.cells, mapped, layer=layer)
            elif end == ".npy":
                np.save(draft, mapped)
            elif end == ".npz":
                np.savez(draft, points=mapped)
            else:
                _write_table(draft, cloud.rows, mapped, names)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from None


def _write_cells(file: Path, cells: AnnData, mapped: Array, *, layer: bool) -> None:
    import warnings

    full = cells.copy()
    (full.layers if layer else full.obsm)[_NAME] = mapped.astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata about its own future
        full.write_h5ad(file)


def _write_table(file: Path, rows: Rows | None, mapped: Array, names: tuple[str, ...] | None) -> None:
    """Write a heading, if the file or the map names the coordinates, the rows' labels, if any, and the numbers."""
    import csv

    labels, corner = (None, "") if rows is None else (rows.labels, rows.label_name)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ",", lineterminator="\n")
        if names is not None:
            writer.writerow(names if labels is None else [corner, *names])
        for k, numbers in enumerate(mapped.tolist()):
            writer.writerow(numbers if labels is None else [labels[k], *numbers])
