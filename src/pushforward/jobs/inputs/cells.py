"""Cells in .h5ad files as points. The names X, `layers` and `obsm` are those of the file.

rep              numbers of a cell                                     columns
X                the matrix itself, dense or sparse                    genes
layers/NAME      another matrix of the same shape                      genes
obsm/NAME        coordinates, for instance principal components        the file does not name them
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.arrays import Array, must_be_readable
from pushforward.jobs.inputs.text import is_number

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["Looks", "cell_numbers", "cell_points", "choose_cells", "choose_genes", "looks_like", "must_tell_genes"]
__all__ += ["read_cells", "scale_doubt"]

Looks = Literal["counts", "logarithms", "other"]

# The sum to which the field brings a cell's counts before it takes their logarithm.
_COUNTS = 1e4
# Above so many genes a map costs hours and learns noise; the field takes principal components there.
_MOST_GENES = 5000
_MOST_NAMED = 12
# Whole numbers that go no higher are as likely labels as counts; no logarithm of a count goes higher than the second.
_LEAST_COUNT, _MOST_LOG = 3, 50.0
# Share by which numbers of float32 that are one may differ after a logarithm and back.
_ROUNDING = 1e-3


def read_cells(file: Path) -> AnnData:
    """Read an .h5ad file.

    Raises:
        InputError: anndata is not installed, or the file cannot be read.
    """
    try:
        import anndata
    except ImportError:
        raise InputError(f"{file}: .h5ad files need anndata: pip install 'pushforward[cells]'") from None
    must_be_readable(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anndata about its own future
            return anndata.read_h5ad(file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: cannot be read as .h5ad: {str(error).splitlines()[0]}") from None


def choose_cells(file: Path, cells: AnnData, obs: str, value: str) -> AnnData:
    """The cells that have a value in a column of `obs`; a number may be written in any way (0, 0.0, 1e-6).

    Raises:
        InputError: There is no such column, or no such value in it; the message names those that are there.
    """
    if obs not in cells.obs:
        raise InputError(f"--obs {obs}: {file} has no such column; its columns are {_list(cells.obs.columns)}")
    column: Any = cells.obs[obs]
    held: Any = column.cat.categories if column.dtype.name == "category" else column
    if held.dtype.kind in "iuf":
        numbers = column.astype(float)
        chosen = np.asarray(numbers == (float(value) if is_number(value) else np.nan))
        values = [f"{number:g}" for number in np.unique(numbers[numbers.notna()])]
    else:
        chosen = np.asarray(column.astype(str) == value)
        values = sorted(set(column.astype(str)))
    if not chosen.any():
        raise InputError(f"{file}: no cell has {obs} {value}; its values are {_list(values)}")
    return cells[chosen]


def choose_genes(file: Path, cells: AnnData, genes: Iterable[str]) -> AnnData:
    """The cells with these genes in this order, which may differ from the file's.

    Raises:
        InputError: Some are missing.
    """
    must_tell_genes(file, cells)
    names = list(genes)
    missing = [name for name in names if name not in cells.var_names]
    if missing:
        raise InputError(f"{file}: lacks {len(missing)} of the {len(names)} genes of the map: {_list(missing)}")
    return cells[:, names]


def must_tell_genes(file: Path, cells: AnnData) -> None:
    """Raise where genes share a name, so that neither a second file nor a fitted map can distinguish them.

    Raises:
        InputError: There are such; the message names them.
    """
    twice = cells.var_names[cells.var_names.duplicated()].unique()
    if len(twice):
        raise InputError(
            f"{file}: several genes share a name, under which no map can tell them apart: {_list(twice)}; make names "
            "unique, as adata.var_names_make_unique() does"
        )


def cell_points(file: Path, cells: AnnData, rep: str, *, log1p: bool) -> Array:
    """One row a cell, as a map takes it.

    Args:
        file: Where the cells are from, for the messages.
        cells: The cells.
        rep: Which numbers, see above.
        log1p: Whether they are counts, to be brought to 10,000 a cell and turned into log(1 + count).

    Raises:
        InputError: There are no such numbers, or they are none to work with.
    """
    values = cell_numbers(file, cells, rep)
    if not log1p:
        return values
    if values.min(initial=0.0) < 0:
        raise InputError(f"--log1p: is for counts, but {rep} in {file} has negative numbers")
    return np.log1p(_COUNTS * values / np.maximum(values.sum(axis=1, keepdims=True), 1.0))


def cell_numbers(file: Path, cells: AnnData, rep: str) -> Array:
    """The numbers of each cell as the file has them, one row a cell, finite.

    Raises:
        InputError: There are no such numbers, or they are none to work with.
    """
    place, _, name = rep.partition("/")
    held = {"layers": cells.layers, "obsm": cells.obsm}
    known = ["X"] * (cells.X is not None) + [f"{place}/{key}" for place, keys in held.items() for key in keys]
    if rep not in known:
        raise InputError(f"--rep {rep}: {file} has no such numbers; there are {_list(known)}")
    if rep in ("X", f"layers/{name}") and cells.n_vars > _MOST_GENES:
        raise InputError(
            f"{file}: {rep} has {cells.n_vars} genes, too many for a map; keep at most {_MOST_GENES} that vary, "
            "or give --rep obsm/NAME with principal components"
        )
    found: Any = cells.X if rep == "X" else held[place][name]
    # A sparse matrix has no place for a map's numbers, which are nowhere 0.
    values = np.asarray(found.toarray() if sparse.issparse(found) else found, dtype=np.float64)
    if not np.isfinite(values).all():
        bad = ~np.isfinite(values).all(axis=1)
        raise InputError(
            f"{file}: {rep} of cell {cells.obs_names[bad.argmax()]} is not finite, the first of {bad.sum()} such cells"
        )
    return values


def looks_like(cells: AnnData, rep: str, values: Array) -> Looks:
    """Whether numbers look like raw counts, or like logarithms of counts or of normalised counts.

    Counts are whole numbers. Of logarithms log(1 + c) the c are whole again, or of one sum in every cell; where genes
    were left out after that, scanpy's own note in `uns` tells.
    """
    if rep.startswith("obsm/") or values.size == 0 or values.min() < 0:
        return "other"
    if (values == np.rint(values)).all():
        return "counts" if values.max() >= _LEAST_COUNT else "other"
    if values.max() > _MOST_LOG:
        return "other"
    back = np.expm1(values)
    sums = back.sum(axis=1)
    whole = bool((np.abs(back - np.rint(back)) <= _ROUNDING * np.maximum(back, 1.0)).all())
    even = values.shape[1] > 1 and float(sums.max() - sums.min()) <= _ROUNDING * float(sums.max())
    noted = rep == "X" and "log1p" in cells.uns
    return "logarithms" if whole or even or noted else "other"


def scale_doubt(file: Path, cells: AnnData, rep: str, *, log1p: bool) -> str | None:
    """A warning where the numbers do not look like the input that --log1p, or its absence, expects; else None.

    Args:
        file: Where the cells are from, for the message.
        cells: The cells.
        rep: Which numbers.
        log1p: Whether they are taken for counts.
    """
    if rep.startswith("obsm/"):
        return None
    values = cell_numbers(file, cells, rep)
    looks = looks_like(cells, rep, values)
    if log1p and looks == "logarithms":
        return f"{file}: {rep} looks like logarithms of counts already, and --log1p takes them once more; leave it out"
    if log1p and (values != np.rint(values)).any():
        return (
            f"{file}: {rep} has fractions, so it holds no raw counts; --log1p brings every cell to 10,000 and takes "
            "logarithms all the same. If these are logarithms already, leave it out"
        )
    if not log1p and looks == "counts":
        return (
            f"{file}: {rep} looks like raw counts (whole numbers), which are taken as they are; --log1p brings every "
            "cell to 10,000 and takes logarithms, as the field does before it compares cells"
        )
    return None


def _list(names: Iterable[Any]) -> str:
    words = [str(name) for name in names]
    rest = len(words) - _MOST_NAMED
    return ", ".join(words[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "") or "none"
