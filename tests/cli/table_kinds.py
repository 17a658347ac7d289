"""Kinds of ordinary table x verbs: each is read right, or refused with one line that names the file.

`python tests/cli/table_kinds.py` prints how many are read right, refused, and read wrong in silence.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import pushforward as pf
from pushforward.cli.main import main
from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.clouds import read_pair
from pushforward.maps.saved import load_map

NAMES = ("a", "b", "c")
RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(25, 3)), RNG.normal(size=(30, 3)) * [1.0, 2.0, 0.5] + [3.0, 0.0, 1.0]
WEIGHTS = RNG.integers(1, 5, 25).astype(float)
COUNTS_X, COUNTS_Y = RNG.poisson(4.0, (25, 3)).astype(float), RNG.poisson(9.0, (30, 3)).astype(float)
COST = RNG.random((6, 8))
LATTICE = np.abs(np.arange(6)[:, None] - np.arange(6)[None, :]).astype(float)
EPSILON = 0.5

Writer = Callable[[np.ndarray], str | bytes]


@dataclass(frozen=True)
class Kind:
    """A way to write a table.

    Args:
        name: In a few words.
        write: Of an array with the columns a, b, c, the file's content.
        second: Of the second file, where it is written in another way.
        end: Of the file's name.
        data: The source and the target.
        weights: Of the source.
    """

    name: str
    write: Writer
    second: Writer | None = None
    end: str = ".csv"
    data: tuple[np.ndarray, np.ndarray] = (X, Y)
    weights: np.ndarray | None = None


def _cells(array: np.ndarray, show: Callable[[float], str] = repr) -> list[list[str]]:
    return [[show(float(value)) for value in row] for row in array]


def _text(
    array: np.ndarray,
    heading: tuple[str, ...] | None = NAMES,
    *,
    sep: str = ",",
    labels: list[str] | None = None,
    show: Callable[[float], str] = repr,
    end: str = "\n",
    tail: str = "",
) -> str:
    rows = _cells(array, show)
    if labels is not None:
        rows = [[label, *row] for label, row in zip(labels, rows, strict=True)]
    lines = ([] if heading is None else [list(heading)]) + rows
    return "".join(sep.join(line) + tail + end for line in lines)


def _count(array: np.ndarray, start: int = 0) -> list[str]:
    return [str(start + k) for k in range(len(array))]


def _barcodes(array: np.ndarray) -> list[str]:
    return [f"AAC{k:03d}-1" for k in range(len(array))]


def _shuffled(array: np.ndarray) -> list[str]:
    return [str(k) for k in np.random.default_rng(0).permutation(1000)[: len(array)]]


def _comma(value: float) -> str:
    return repr(value).replace(".", ",")


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _quoted(words: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(f'"{word}"' for word in words)


def _npy(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array, allow_pickle=True)
    return held.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.savez(held, **arrays)
    return held.getvalue()


def _savetxt(array: np.ndarray, **kwargs: str) -> str:
    held = io.StringIO()
    np.savetxt(held, array, **kwargs)  # type: ignore[arg-type]
    return held.getvalue()


def _turned(array: np.ndarray) -> str:
    return _text(array[:, [1, 0, 2]], ("b", "a", "c"))


def _weighted(heading: str, at: int = 0) -> Writer:
    def write(array: np.ndarray) -> str:
        if len(array) != len(WEIGHTS):
            return _text(array)
        names = (*NAMES[:at], heading, *NAMES[at:])
        return _text(np.insert(array, at, WEIGHTS, axis=1), names)

    return write


def _extra(array: np.ndarray, name: str, cells: list[str], *, end: bool = True) -> str:
    rows = [[*row, cell] if end else [cell, *row] for row, cell in zip(_cells(array), cells, strict=True)]
    heading = [*NAMES, name] if end else [name, *NAMES]
    return "\n".join(",".join(row) for row in [heading, *rows]) + "\n"


DIGITS = ("0", "1", "2")
_round = lambda array: np.round(array * 4) / 4  # noqa: E731
_whole_data = (COUNTS_X, COUNTS_Y)
_quarter_data = (_round(X), _round(Y))

KINDS = [
    # plain
    Kind("heading", _text),
    Kind("no heading", lambda t: _text(t, None)),
    Kind("heading in one file", _text, lambda t: _text(t, None)),
    Kind("whole numbers with a heading", lambda t: _text(t, show=_whole), data=_whole_data),
    Kind("whole numbers without a heading", lambda t: _text(t, None, show=_whole), data=_whole_data),
    Kind("quarters, written as short as can be", lambda t: _text(t, None, show=lambda v: f"{v:g}"), data=_quarter_data),
    Kind("exponents", lambda t: _text(t, show=lambda v: f"{v:.17e}")),
    Kind("no newline at the end", lambda t: _text(t).rstrip("\n")),
    Kind("Windows line ends", lambda t: _text(t, end="\r\n")),
    Kind("old Macintosh line ends", lambda t: _text(t, end="\r")),
    Kind("blank lines", lambda t: "\n\n" + _text(t, end="\n\n")),
    Kind("blanks around cells", lambda t: _text(t, sep=" , ")),
    # separators
    Kind("semicolons", lambda t: _text(t, sep=";")),
    Kind("semicolons and decimal commas", lambda t: _text(t, sep=";", show=_comma)),
    Kind("tabs", lambda t: _text(t, sep="\t")),
    Kind("tabs, .tsv", lambda t: _text(t, sep="\t"), end=".tsv"),
    Kind("tabs and decimal commas", lambda t: _text(t, sep="\t", show=_comma)),
    Kind("bars", lambda t: _text(t, sep="|")),
    Kind("blanks", lambda t: _text(t, sep=" ")),
    Kind("aligned by blanks", lambda t: _text(t, None, sep="", show=lambda v: f"{v:25.16f}")),
    Kind("quoted decimal commas", lambda t: _text(t, show=lambda v: f'"{_comma(v)}"')),
    Kind("Excel's sep=;", lambda t: "sep=;\n" + _text(t, sep=";", show=_comma, end="\r\n")),
    Kind("Excel's sep=, with tabs as cells' content", lambda t: "sep=,\r\n" + _text(t, sep=",\t", end="\r\n")),
    Kind("separators in one file are others", _text, lambda t: _text(t, sep=";", show=_comma)),
    Kind("a separator behind the last cell", lambda t: _text(t, tail=",")),
    Kind("two of them", lambda t: _text(t, sep=";", tail=";;")),
    Kind("behind the cells and not the heading", lambda t: ",".join(NAMES) + "\n" + _text(t, None, tail=",")),
    Kind("rows of separators at the end", lambda t: _text(t, sep=";") + ";;\n;;\n"),
    Kind("a row of separators in the middle", lambda t: _text(t[:9]) + ",,\n" + _text(t[9:], None)),
    # numbers
    Kind("thousands in quotes", lambda t: _text(1e6 * t, show=lambda v: f'"{v:,.2f}"'), data=(X, Y)),
    Kind(
        "thousands with points and decimal commas",
        lambda t: _text(t, sep=";", show=lambda v: f"{1e4 * v:,.2f}".translate(str.maketrans(",.", ".,"))),
    ),
    Kind(
        "three decimals behind a comma",
        lambda t: _text(np.abs(t) + 1, sep=";", show=lambda v: f"{v:.3f}".replace(".", ",")),
    ),
    Kind(
        "three decimals behind a point and semicolons",
        lambda t: _text(np.abs(t) + 1, sep=";", show=lambda v: f"{v:.3f}"),
    ),
    Kind("points and commas mixed", lambda t: _text(t[:9], sep=";", show=_comma) + _text(t[9:], None, sep=";")),
    Kind("underscores in numbers", lambda t: _text(t, show=lambda v: f"{1e4 * v:_.3f}")),
    Kind("an empty cell", lambda t: _text(t) + "1.0,,2.0\n"),
    Kind("NA", lambda t: _text(t) + "1.0,NA,2.0\n"),
    Kind("nan", lambda t: _text(t) + "1.0,nan,2.0\n"),
    Kind("Excel's error in the first column", lambda t: _text(t[:9]) + "#N/A,1.0,2.0\n" + _text(t[9:], None)),
    Kind("Excel's error in the first row", lambda t: "#N/A,1.0,2.0\n" + _text(t, None)),
    Kind("a longer row", lambda t: _text(t) + "1.0,2.0,3.0,4.0\n"),
    Kind("a shorter row", lambda t: _text(t) + "1.0,2.0\n"),
    Kind("a word among numbers", lambda t: _text(t) + "1.0,high,2.0\n"),
    Kind("an identifier of 18 digits", lambda t: _text(np.round(t), show=lambda v: f"{10**17 + int(v)}")),
    # encodings
    Kind("UTF-8 with its mark", lambda t: "\ufeff" + _text(t)),
    Kind("UTF-16", lambda t: _text(t, sep="\t").encode("utf-16")),
    Kind("UTF-16 without its mark", lambda t: _text(t).encode("utf-16-le")),
    Kind(
        "latin-1 headings",
        lambda t: _text(t, ("größe", "b", "c")).encode("latin-1"),
        lambda t: _text(t, ("größe", "b", "c")),
    ),
    Kind("a spreadsheet called .csv", lambda t: _npz(points=t)),
    # comments
    Kind("savetxt", lambda t: _savetxt(t)),
    Kind("savetxt with commas and a heading", lambda t: _savetxt(t, delimiter=",", header="a,b,c")),
    Kind(
        "savetxt with a heading in another order",
        _text,
        lambda t: _savetxt(t[:, [1, 0, 2]], delimiter=",", header="b,a,c"),
    ),
    Kind("savetxt with a footer", lambda t: _savetxt(t, delimiter=",", footer="the end, no more")),
    Kind("remarks above the heading", lambda t: "# made by hand, 2024\n# twice\n" + _text(t)),
    Kind("a remark in the middle", lambda t: _text(t[:9]) + "# more\n" + _text(t[9:], None)),
    # headings
    Kind("quoted headings", lambda t: _text(t, _quoted(NAMES))),
    Kind("everything quoted", lambda t: _text(t, _quoted(NAMES), show=lambda v: f'"{v!r}"')),
    Kind("a separator within a quoted heading", lambda t: _text(t, ('"a, left"', "b", "c"))),
    Kind("a newline within a quoted heading", lambda t: _text(t, ('"a\nleft"', "b", "c"))),
    Kind("headings in another order", _text, _turned),
    Kind("in another order, quoted and tabbed", _text, lambda t: _text(t[:, ::-1], _quoted(NAMES[::-1]), sep="\t")),
    Kind("other headings", _text, lambda t: _text(t, ("a", "b", "d"))),
    Kind("headings of other case", _text, lambda t: _text(t, ("A", "B", "C"))),
    Kind("a column more in the second file", _text, lambda t: _extra(t, "d", ["1.5"] * len(t))),
    Kind("two columns of one heading", lambda t: _text(t, ("a", "a", "c"))),
    Kind("a column without a heading", lambda t: _text(t, ("a", "b", ""))),
    Kind("a heading too many", lambda t: _text(t, ("a", "b", "c", "d"))),
    Kind("two lines of heading", lambda t: "mass,mass,length\n" + _text(t)),
    Kind("units below the heading", lambda t: "a,b,c\nmm,mm,mm\n" + _text(t, None)),
    Kind("digit headings", lambda t: _text(t, DIGITS)),
    Kind("digit headings from 1", lambda t: _text(t, ("1", "2", "3"))),
    Kind(
        "quoted digit headings above whole numbers", lambda t: _text(t, _quoted(DIGITS), show=_whole), data=_whole_data
    ),
    Kind("digit headings above whole numbers", lambda t: _text(t, DIGITS, show=_whole), data=_whole_data),
    Kind("years as headings", lambda t: _text(t, ("2019", "2020", "2021"))),
    Kind("a word among digit headings", lambda t: _text(t, ("0", "1", "total"))),
    Kind("a heading and a number in the first line", lambda t: _text(t, ("a", "7.5", "c"))),
    # row labels
    Kind("index", lambda t: _text(t, ("", *NAMES), labels=_count(t))),
    Kind("index from 1", lambda t: _text(t, ("", *NAMES), labels=_count(t, 1))),
    Kind("index in one file", lambda t: _text(t, ("", *NAMES), labels=_count(t)), _text),
    Kind(
        "index and columns in another order", _text, lambda t: _text(t[:, ::-1], ("", *NAMES[::-1]), labels=_count(t))
    ),
    Kind("index under Unnamed: 0", lambda t: _text(t, ("Unnamed: 0", *NAMES), labels=_count(t))),
    Kind("index twice", lambda t: _text(t, ("", "Unnamed: 0", *NAMES), labels=[f"{k},{k}" for k in range(len(t))])),
    Kind("index and digit headings", lambda t: _text(t, ("", *DIGITS), labels=_count(t))),
    Kind(
        "index and digit headings above whole numbers",
        lambda t: _text(t, ("", *DIGITS), labels=_count(t), show=_whole),
        data=_whole_data,
    ),
    Kind("index without a heading", lambda t: _text(t, None, labels=_count(t))),
    Kind(
        "index without a heading, whole numbers",
        lambda t: _text(t, None, labels=_count(t), show=_whole),
        data=_whole_data,
    ),
    Kind("shuffled index without a heading", lambda t: _text(t, None, labels=_shuffled(t))),
    Kind("shuffled index", lambda t: _text(t, ("", *NAMES), labels=_shuffled(t))),
    Kind("index called id", lambda t: _text(t, ("id", *NAMES), labels=_count(t))),
    Kind("shuffled index called cell_id", lambda t: _text(t, ("cell_id", *NAMES), labels=_shuffled(t))),
    Kind("index called by a word that we do not know", lambda t: _text(t, ("Zelle", *NAMES), labels=_count(t, 1))),
    Kind("an id in the last column", lambda t: _extra(t, "id", _shuffled(t))),
    Kind(
        "index with semicolons and decimal commas",
        lambda t: _text(t, ("", *NAMES), labels=_count(t), sep=";", show=_comma),
    ),
    Kind("barcodes", lambda t: _text(t, ("", *NAMES), labels=_barcodes(t))),
    Kind("barcodes with a heading", lambda t: _text(t, ("barcode", *NAMES), labels=_barcodes(t))),
    Kind("barcodes with underscores", lambda t: _text(t, ("", *NAMES), labels=[f"7_{k}" for k in range(len(t))])),
    Kind("barcodes with commas", lambda t: _text(t, ("", *NAMES), labels=[f'"a,{k}"' for k in range(len(t))])),
    Kind("barcodes without a heading", lambda t: _text(t, None, labels=_barcodes(t))),
    Kind("barcodes and digit headings", lambda t: _text(t, ("cell", *DIGITS), labels=_barcodes(t))),
    Kind("days as labels", lambda t: _text(t, ("day", *NAMES), labels=[f"2024-01-{1 + k:02d}" for k in range(len(t))])),
    Kind("a column of words at the end", lambda t: _extra(t, "type", ["T cell"] * len(t))),
    Kind("a column of truths", lambda t: _extra(t, "treated", ["True"] * len(t), end=False)),
    Kind("R's write.csv", lambda t: _text(t, ('""', *_quoted(NAMES)), labels=list(_quoted(_count(t, 1))))),
    Kind(
        "R's write.csv2",
        lambda t: _text(t, ('""', *_quoted(NAMES)), labels=list(_quoted(_count(t, 1))), sep=";", show=_comma),
    ),
    Kind("R's write.table", lambda t: _text(t, _quoted(NAMES), labels=list(_quoted(_count(t, 1))), sep=" ")),
    Kind("R's write.table without quotes", lambda t: _text(t, NAMES, labels=_count(t, 1), sep=" ")),
    Kind("R's write.table with tabs", lambda t: _text(t, NAMES, labels=_barcodes(t), sep="\t")),
    # weights
    Kind("weights", _weighted("weight"), weights=WEIGHTS),
    Kind("weights under a quoted heading", _weighted('"weight"', 2), weights=WEIGHTS),
    Kind("weights under a heading of other case, with a blank", _weighted(" Weight ", 3), weights=WEIGHTS),
    Kind("weights under their plural", _weighted("weights"), weights=WEIGHTS),
    Kind(
        "weights in savetxt's heading",
        lambda t: "# " + _weighted("weight")(t) if len(t) == 25 else _text(t),
        weights=WEIGHTS,
    ),
    # arrays
    Kind("npy", _npy, end=".npy"),
    Kind("npy of other byte order", lambda t: _npy(t.astype(">f8")), end=".npy"),
    Kind("npy in Fortran's order", lambda t: _npy(np.asfortranarray(t)), end=".npy"),
    Kind("npy of whole numbers", lambda t: _npy(t.astype(np.int16)), end=".npy", data=_whole_data),
    Kind("npy of half precision", lambda t: _npy(t.astype(np.float16)), end=".npy", data=_quarter_data),
    Kind("npy of large whole numbers", lambda t: _npy(np.round(t).astype(np.int64) + 2**60 + 1), end=".npy"),
    Kind("npy of objects", lambda t: _npy(t.astype(object)), end=".npy"),
    Kind("npy of complex numbers", lambda t: _npy(t.astype(complex)), end=".npy"),
    Kind("npy of words", lambda t: _npy(t.astype(str)), end=".npy"),
    Kind(
        "npy of days",
        lambda t: _npy(
            t.astype("datetime64[D]") if t.dtype.kind == "i" else np.round(t).astype(np.int64).astype("datetime64[D]")
        ),
        end=".npy",
    ),
    Kind("npy of a structure", lambda t: _npy(np.rec.fromarrays(t.T, names=",".join(NAMES))), end=".npy"),
    Kind("npy of three dimensions", lambda t: _npy(t[None]), end=".npy"),
    Kind("npy of one dimension", lambda t: _npy(t[:, 0]), end=".npy"),
    Kind("npz with points", lambda t: _npz(points=t), end=".npz"),
    Kind("npz with one array of any name", lambda t: _npz(a=t), end=".npz"),
    Kind("npz with a cost", lambda t: _npz(cost=t), end=".npz"),
    Kind("npz with several arrays", lambda t: _npz(points=t, colour=t), end=".npz"),
    Kind(
        "npz with points and weights",
        lambda t: _npz(points=t, weights=WEIGHTS) if len(t) == 25 else _npz(points=t),
        end=".npz",
        weights=WEIGHTS,
    ),
]

# One file: the cost of every pair, or points of which the second file was forgotten. The flag says that it is a cost.
ONE_FILE = [
    Kind("cost", lambda t: _text(t, None), data=(COST, COST)),
    Kind("cost with semicolons and decimal commas", lambda t: _text(t, None, sep=";", show=_comma), data=(COST, COST)),
    Kind("cost of whole numbers that count", lambda t: _text(t, None, show=_whole), data=(LATTICE, LATTICE)),
    Kind(
        "cost with labels on both sides", lambda t: _text(t, ("", *"hijklmno"), labels=[*"tuvxyz"]), data=(COST, COST)
    ),
    Kind(
        "cost with index and digit headings", lambda t: _text(t, ("", *"01234567"), labels=_count(t)), data=(COST, COST)
    ),
    Kind("distances with labels", lambda t: _text(t, ("", *"tuvxyz"), labels=[*"tuvxyz"]), data=(LATTICE, LATTICE)),
    Kind(
        "cost with inf",
        lambda t: _text(t, None).replace(repr(float(t[0, 1])), "inf"),
        data=(np.where(COST == COST[0, 1], np.inf, COST),) * 2,
    ),
    Kind(
        "cost in R's words",
        lambda t: _text(t, None).replace(repr(float(t[0, 1])), "Inf"),
        data=(np.where(COST == COST[0, 1], np.inf, COST),) * 2,
    ),
    Kind("cost, npy", _npy, end=".npy", data=(COST, COST)),
    Kind("cost, npz", lambda t: _npz(cost=t), end=".npz", data=(COST, COST)),
    Kind("cost with an index and no heading", lambda t: _text(t, None, labels=_count(t)), data=(COST, COST)),
    Kind("negative cost", lambda t: _text(t, None), data=(COST - 1, COST)),
]
FORGOTTEN = [
    Kind("points with a heading", _text),
    Kind("points without a heading", lambda t: _text(t, None)),
    Kind("positive points with a heading", lambda t: _text(np.abs(t))),
    Kind("positive points without a heading", lambda t: _text(np.abs(t), None)),
    Kind("points with an index", lambda t: _text(t, ("", *NAMES), labels=_count(t))),
    Kind(
        "counts of genes with barcodes",
        lambda t: _text(t, ("", *NAMES), labels=_barcodes(t), show=_whole),
        data=_whole_data,
    ),
    Kind("points, npy", _npy, end=".npy"),
    Kind("points, npz", lambda t: _npz(points=np.abs(t)), end=".npz"),
    Kind("points, npz without a name", lambda t: _npz(arr_0=np.abs(t)), end=".npz"),
]
VERBS = ("solve", "fit-map", "apply-map")
# What `solve` does not take for numbers, or may read in two ways. All other kinds are read.
REFUSED = {
    "a row of separators in the middle",
    "thousands in quotes",
    "thousands with points and decimal commas",
    "three decimals behind a comma",
    "three decimals behind a point and semicolons",
    "points and commas mixed",
    "underscores in numbers",
    "an empty cell",
    "NA",
    "nan",
    "Excel's error in the first column",
    "Excel's error in the first row",
    "a longer row",
    "a shorter row",
    "a word among numbers",
    "an identifier of 18 digits",
    "UTF-16 without its mark",
    "a spreadsheet called .csv",
    "a remark in the middle",
    "other headings",
    "headings of other case",
    "a column more in the second file",
    "two columns of one heading",
    "a column without a heading",
    "a heading too many",
    "two lines of heading",
    "units below the heading",
    "digit headings above whole numbers",
    "years as headings",
    "a heading and a number in the first line",
    "index without a heading",
    "index without a heading, whole numbers",
    "shuffled index without a heading",
    "index called id",
    "shuffled index called cell_id",
    "index called by a word that we do not know",
    "an id in the last column",
    "barcodes without a heading",
    "a column of words at the end",
    "a column of truths",
    "npy of large whole numbers",
    "npy of objects",
    "npy of complex numbers",
    "npy of words",
    "npy of days",
    "npy of a structure",
    "npy of three dimensions",
    "npy of one dimension",
    "npz with a cost",
    "npz with several arrays",
}


def _run(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


@cache
def _fitted() -> tempfile.TemporaryDirectory[str]:
    """A run of fit-map on tables with the headings a, b, c."""
    folder = tempfile.TemporaryDirectory()
    for name, points in (("x.csv", X), ("y.csv", Y)):
        Path(folder.name, name).write_text(_text(points))
    words = [Path(folder.name, name) for name in ("x.csv", "y.csv")]
    assert _run("fit-map", *words, "--method", "linear", "--out", folder.name, "--quiet")[0] == 0
    return folder


def _put(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def _refused(kind: Kind, found: tuple[int, str, str]) -> str | None:
    code, out, err = found
    if code == 0:
        return None
    named = f"first{kind.end}" in err or f"second{kind.end}" in err
    return "refused" if code == 2 and not out and err.count("\n") == 1 and named else f"WRONG: {code} {err or out}"


def _same(found: np.ndarray, expected: np.ndarray) -> str:
    same = np.shape(found) == np.shape(expected) and np.allclose(found, expected, rtol=1e-6, atol=1e-8)
    return "read" if same else f"WRONG: {found} for {expected}"


def judge(kind: Kind, verb: str) -> str:
    """`read`, `refused`, or what is wrong; in an empty folder that the process stands in."""
    x, y = kind.data
    if verb in ("solve cost", "solve cost --cost matrix", "solve forgotten"):
        flags = ["--cost", "matrix"] if "--cost" in verb else []
        found = _run("solve", _put(f"first{kind.end}", kind.write(x)), "--epsilon", EPSILON, "--json", *flags)
        refused = _refused(kind, found)
        if refused or verb == "solve forgotten":
            return refused or "WRONG: points are taken as costs"
        return _same(json.loads(found[1])["value"], float(pf.solve(x, epsilon=EPSILON).value))
    first = _put(f"first{kind.end}", kind.write(x))
    if verb == "apply-map":
        new = _put(f"first{kind.end}", (kind.second or kind.write)(x))
        found = _run("apply-map", _fitted().name, new, "--out", "out.csv")
        return _refused(kind, found) or _mapped(Path("out.csv"), load_map(Path(_fitted().name, "map")).transform(x))
    second = _put(f"second{kind.end}", (kind.second or kind.write)(y))
    if verb == "solve":
        found = _run("solve", first, second, "--epsilon", EPSILON, "--json")
        a = None if kind.weights is None else kind.weights / kind.weights.sum()
        truth = pf.solve(pf.PointCost(x, y), a, epsilon=EPSILON)
        return _refused(kind, found) or _same(json.loads(found[1])["value"], float(truth.value))
    try:  # what fit-map learns from; the learning itself takes half a second
        _, source, target = read_pair(Path(first), Path(second), rep="X", log1p=False, groups=None)
    except InputError as error:
        return _refused(kind, (2, "", f"{error}\n")) or ""
    said = [_same(source.points, x), _same(target.points, y)]
    return next((word for word in said if word != "read"), "read")


def _mapped(out: Path, expected: np.ndarray) -> str:
    """Whether a written table has the images under the headings they belong to."""
    heading, *rows = [line.split(",") for line in out.read_text().replace('"', "").splitlines()]
    if set(NAMES) <= set(heading):
        found = np.array([[float(row[heading.index(name) - len(heading)]) for name in NAMES] for row in rows])
    else:
        found = np.array([[float(cell) for cell in row[-3:]] for row in rows])
    return _same(found, expected)


def cases() -> list[tuple[Kind, str]]:
    """Every kind with every verb."""
    return (
        [(kind, verb) for kind in KINDS for verb in VERBS]
        + [(kind, verb) for kind in ONE_FILE for verb in ("solve cost", "solve cost --cost matrix")]
        + [(kind, "solve forgotten") for kind in FORGOTTEN]
    )


def judged() -> dict[tuple[str, str], str]:
    """What became of every case, by its kind and verb."""
    found: dict[tuple[str, str], str] = {}
    start = Path.cwd()
    for kind, verb in cases():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                found[kind.name, verb] = judge(kind, verb)
            finally:
                os.chdir(start)
    return found


if __name__ == "__main__":
    found = judged()
    wrong = {case: said for case, said in found.items() if said not in ("read", "refused")}
    for case, said in wrong.items():
        sys.stdout.write(f"{case}: {said}\n")
    counts = [sum(said == word for said in found.values()) for word in ("read", "refused")]
    sys.stdout.write(
        f"{len(found)} kinds x verbs: {counts[0]} read right, {counts[1]} refused, {len(wrong)} read wrong in silence\n"
    )
    sys.exit(bool(wrong))
