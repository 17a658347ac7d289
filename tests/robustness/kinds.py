"""Kinds of bad input: for each sort of parameter, values that are wrong, and values that are unusual but right.

A wrong value must end in an error of the library's. An unusual one may; if it does not, the outcome must be finite and,
where the numbers are the same as the usual value's, the usual outcome.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

__all__ = ["Kind", "kinds_of"]

NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Kind:
    """One value to put in a parameter's place.

    Args:
        name: What is strange about it.
        make: The value, from the usual one.
        wrong: Whether it must be refused.
        same: Whether it holds the usual value's numbers, so that the outcome must be the usual one.
    """

    name: str
    make: Callable[[Any], Any]
    wrong: bool = True
    same: bool = False


def kinds_of(sort: str) -> Iterator[Kind]:
    """Values for a parameter of this sort."""
    table: dict[str, Callable[[], Iterator[Kind]]] = {
        "array": _arrays,
        "tensor": _tensors,
        "real": _reals,
        "count": _counts,
        "choice": _choices,
        "ground": _grounds,
        "flag": _flags,
        "path": _paths,
        "function": _functions,
        "sequence": _sequences,
        "instance": _instances,
    }
    return table[sort]()


def numpy_of(usual: Any) -> np.ndarray:
    """The usual value as a numpy array of doubles, or of integers where it is one."""
    array = np.array(usual.detach() if isinstance(usual, torch.Tensor) else usual)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def spoilt(value: float) -> Callable[[Any], Any]:
    """The usual value with one entry changed, as the usual one's kind of array."""

    def make(usual: Any) -> Any:
        array = numpy_of(usual).astype(np.float64)
        array[(-1,) * array.ndim] = value
        return torch.from_numpy(array).to(_floating(usual)) if isinstance(usual, torch.Tensor) else array

    return make


def _floating(usual: torch.Tensor) -> torch.dtype:
    return usual.dtype if usual.is_floating_point() else torch.float64


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda usual: value


def _strangers(*, text: bool = True) -> Iterator[Kind]:
    yield Kind("an object", lambda usual: object())
    yield Kind("a dict", _always({"a": 1}))
    yield Kind("a class", _always(int))
    yield Kind("a function", lambda usual: lambda: None)
    yield Kind("a date", _always(datetime.date(2026, 1, 1)))
    if text:
        yield Kind("text", _always("points"))
        yield Kind("bytes", _always(b"points"))


def _arrays() -> Iterator[Kind]:
    yield from _strangers()
    yield Kind("None", _always(None))
    yield Kind("a set", _always({1.0, 2.0}))
    yield Kind("a generator", lambda usual: (x for x in (1.0, 2.0)))
    yield Kind("an iterator of rows", lambda usual: iter(numpy_of(usual)))
    yield Kind("a list of text", _always(["x", "y"]))
    yield Kind("a list of None", _always([None, None]))
    yield Kind("an empty list", _always([]))
    yield Kind("ragged rows", _always([[1.0, 2.0], [3.0]]))
    yield Kind("a list of clouds", lambda usual: [numpy_of(usual), numpy_of(usual)[:1]])
    yield Kind("a list of huge integers", _always([[10**400]]))
    yield Kind("complex numbers", lambda usual: numpy_of(usual) + 1j)
    yield Kind("dates", lambda usual: np.zeros(np.shape(usual), "datetime64[s]"))
    yield Kind("durations", lambda usual: np.zeros(np.shape(usual), "timedelta64[s]"))
    yield Kind("text in an array", lambda usual: numpy_of(usual).astype(str))
    yield Kind("objects in an array", lambda usual: np.full(np.shape(usual), object(), dtype=object))
    yield Kind("a structured array", lambda usual: np.zeros(np.shape(usual), [("k", "u1"), ("w", "f8")]))
    yield Kind("void bytes", lambda usual: np.zeros(np.shape(usual), "V8"))
    yield Kind("a masked array", lambda usual: np.ma.masked_array(numpy_of(usual), mask=True))
    yield Kind("an array on the meta device", lambda usual: torch.zeros(np.shape(usual), device="meta"))
    yield Kind("a number", _always(3.0))
    yield Kind("one more axis", lambda usual: numpy_of(usual)[None, None])
    yield Kind("five axes", lambda usual: numpy_of(usual).reshape(1, 1, 1, 1, -1))
    yield Kind("no entries", lambda usual: numpy_of(usual)[:0])
    yield Kind("NaN", spoilt(NAN))
    yield Kind("inf", spoilt(INF), wrong=False)
    yield Kind("-inf", spoilt(-INF))
    yield Kind("quantised", lambda usual: torch.quantize_per_tensor(torch.zeros(np.shape(usual)), 1.0, 0, torch.quint8))
    yield Kind("complex tensor", lambda usual: torch.zeros(np.shape(usual), dtype=torch.complex64))
    yield Kind("a data frame of text", _frame_of_text)
    yield Kind("a nested tensor", lambda usual: torch.nested.nested_tensor([torch.ones(2), torch.ones(1)]))
    yield from _unusual_arrays()


def _unusual_arrays() -> Iterator[Kind]:
    def same(name: str, make: Callable[[Any], Any]) -> Kind:
        return Kind(name, make, wrong=False, same=True)

    yield same("unaligned", _unaligned)
    yield same("read-only", _read_only)
    yield same("the other byte order", lambda usual: (x := numpy_of(usual)).astype(x.dtype.newbyteorder()))
    yield same("negative strides", lambda usual: np.flip(np.ascontiguousarray(np.flip(numpy_of(usual)))))
    yield same("columns in a row", lambda usual: np.asfortranarray(numpy_of(usual)))
    yield same("long doubles", lambda usual: numpy_of(usual).astype(np.longdouble))
    yield same("lists", lambda usual: numpy_of(usual).tolist())
    yield same("a list of tensors", lambda usual: list(torch.from_numpy(numpy_of(usual))))
    yield same("objects that are numbers", lambda usual: numpy_of(usual).astype(object))
    yield same("nothing masked", lambda usual: np.ma.masked_array(numpy_of(usual)))
    yield same("a data frame", _frame)
    yield same("a tensor", lambda usual: torch.from_numpy(numpy_of(usual)))
    yield same("scipy's sparse", lambda usual: scipy.sparse.csr_array(numpy_of(usual)))
    yield same("torch's sparse", lambda usual: torch.from_numpy(numpy_of(usual)).to_sparse())
    for name in ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "int8", "int64", "uint16", "uint64", "bool"):
        yield Kind(name, lambda usual, name=name: _as(usual, getattr(torch, name)), wrong=False)
    yield Kind("numpy's halves", lambda usual: numpy_of(usual).astype(np.float16), wrong=False)
    yield Kind("a numpy matrix", _matrix, wrong=False)
    yield Kind("one row", lambda usual: numpy_of(usual)[:1], wrong=False)
    yield Kind("one row less", lambda usual: numpy_of(usual)[1:], wrong=False)
    yield Kind("transposed", lambda usual: numpy_of(usual).T, wrong=False)
    yield Kind("zeros", lambda usual: 0 * numpy_of(usual), wrong=False)
    yield Kind("huge", lambda usual: 1e300 * numpy_of(usual), wrong=False)
    yield Kind("tiny", lambda usual: 1e-310 * numpy_of(usual), wrong=False)
    yield Kind("negative", lambda usual: -numpy_of(usual), wrong=False)


def _tensors() -> Iterator[Kind]:
    """What takes tensors alone, and is called often: numbers are not looked at, so that NaN may go through."""
    yield from _strangers()
    yield Kind("None", _always(None))
    yield Kind("a list", lambda usual: [[1.0, 2.0]])
    yield Kind("a numpy array", numpy_of)
    yield Kind("complex", lambda usual: torch.zeros(np.shape(usual), dtype=torch.complex64))
    yield Kind("on the meta device", lambda usual: torch.zeros(np.shape(usual), device="meta", dtype=usual.dtype))
    yield Kind("five axes", lambda usual: usual.reshape(1, 1, 1, 1, -1), wrong=False)
    yield Kind("a row less", lambda usual: usual[1:], wrong=False)
    yield Kind("no entries", lambda usual: usual[:0], wrong=False)
    yield Kind("text in a list", _always(["x"]))
    yield Kind("a number", _always(3.0), wrong=False)


def _reals() -> Iterator[Kind]:
    yield from _strangers()
    yield Kind("None", _always(None))
    yield Kind("a number as text", _always("0.5"))
    yield Kind("NaN", _always(NAN))
    yield Kind("numpy's NaN", _always(np.float64(NAN)))
    yield Kind("a tensor of NaN", lambda usual: torch.tensor(NAN))
    yield Kind("-inf", _always(-INF))
    yield Kind("True", _always(True))
    yield Kind("complex", _always(1j))
    yield Kind("a list", _always([0.5]))
    yield Kind("an empty list", _always([]))
    yield Kind("three numbers", _always((0.5, 0.5, 0.5)))
    yield Kind("two numbers in an array", lambda usual: np.array([0.5, 0.6]))
    yield Kind("two numbers in a tensor", lambda usual: torch.tensor([0.5, 0.6]))
    yield Kind("no numbers in an array", lambda usual: np.array([]))
    yield Kind("on the meta device", lambda usual: torch.tensor(0.5, device="meta"))
    yield Kind("a duration", _always(np.timedelta64(1, "s")))
    yield Kind("a huge integer", _always(10**400))
    yield Kind("inf", _always(INF), wrong=False)
    yield Kind("negative", _always(-1.5), wrong=False)
    yield Kind("zero", _always(0.0), wrong=False)
    yield Kind("minus zero", _always(-0.0), wrong=False)
    yield Kind("subnormal", _always(5e-324), wrong=False)
    yield Kind("the largest", _always(1.7e308), wrong=False)
    yield Kind("a fraction", _always(fractions.Fraction(1, 2)), wrong=False)
    yield Kind("a decimal", _always(decimal.Decimal("0.5")), wrong=False)
    yield Kind("half a float", _always(np.float16(0.5)), wrong=False)
    yield Kind("numpy's float", lambda usual: np.float64(usual), wrong=False, same=True)
    yield Kind("a number in a tensor", lambda usual: torch.tensor(usual, dtype=torch.float64), wrong=False)


def _counts() -> Iterator[Kind]:
    yield from _strangers()
    yield Kind("None", _always(None))
    yield Kind("a number as text", _always("3"))
    yield Kind("a fraction", _always(2.5))
    yield Kind("NaN", _always(NAN))
    yield Kind("inf", _always(INF))
    yield Kind("True", _always(True))
    yield Kind("complex", _always(1j))
    yield Kind("a list", _always([]))
    yield Kind("two numbers in an array", lambda usual: np.array([2, 3]))
    yield Kind("two numbers in a tensor", lambda usual: torch.tensor([2, 3]))
    yield Kind("no numbers in an array", lambda usual: np.array([], dtype=int))
    yield Kind("on the meta device", lambda usual: torch.tensor(2, device="meta"))
    yield Kind("negative", _always(-5))
    yield Kind("a very negative one", _always(-(10**30)))
    yield Kind("zero", _always(0), wrong=False)
    yield Kind("numpy's integer", lambda usual: np.int64(usual), wrong=False, same=True)
    yield Kind("an integer in a tensor", lambda usual: torch.tensor(usual), wrong=False)
    yield Kind("an integer in an array", lambda usual: np.array(usual), wrong=False)


def _choices() -> Iterator[Kind]:
    yield from _strangers(text=False)
    yield Kind("None", _always(None))
    yield Kind("no choice of these", _always("none-of-these"))
    yield Kind("empty text", _always(""))
    yield Kind("bytes", _always(b"kl"))
    yield Kind("a number", _always(3))
    yield Kind("NaN", _always(NAN))
    yield Kind("a list", lambda usual: [usual])
    yield Kind("an array", lambda usual: np.array([1.0, 2.0]))
    yield Kind("upper case", lambda usual: str(usual).upper() + "!", wrong=False)


def _grounds() -> Iterator[Kind]:
    """A cost's name, or a function of the caller's, whose errors are the caller's."""
    return (kind for kind in _choices() if kind.name not in ("a class", "a function"))


def _flags() -> Iterator[Kind]:
    yield from _strangers()
    yield Kind("None", _always(None))
    yield Kind("a number", _always(2))
    yield Kind("NaN", _always(NAN))
    yield Kind("an empty list", _always([]))
    yield Kind("two answers", lambda usual: np.array([True, False]))
    yield Kind("numpy's truth", lambda usual: np.bool_(usual), wrong=False, same=True)


def _paths() -> Iterator[Kind]:
    yield from _strangers(text=False)
    yield Kind("None", _always(None))
    yield Kind("a number", _always(3))
    yield Kind("a list", _always(["folder"]))
    yield Kind("a null character", _always("a\0b"))
    yield Kind("a name that is too long", lambda usual: _kind_of(usual)("x" * 5000))
    yield Kind("under a file", lambda usual: _kind_of(usual)(f"{__file__}/below"))


def _kind_of(usual: Any) -> type[Path] | type[str]:
    return Path if isinstance(usual, Path) else str


def _functions() -> Iterator[Kind]:
    yield Kind("an object", lambda usual: object())
    yield Kind("text", _always("a function"))
    yield Kind("a number", _always(3))
    yield Kind("a list", _always([]))
    yield Kind("a dict", _always({}))
    yield Kind("None", _always(None))


def _sequences() -> Iterator[Kind]:
    yield from _strangers()
    yield Kind("None", _always(None))
    yield Kind("a negative number", _always(-28))
    yield Kind("NaN", _always(NAN))
    yield Kind("text in a list", _always(("a",)))
    yield Kind("NaN in a list", _always((NAN,)))
    yield Kind("a list in a list", _always(([1],)))
    yield Kind("None in a list", _always((None,)))
    yield Kind("a negative number in a list", _always((-3, -3)))
    yield Kind("no entries", _always(()), wrong=False)
    yield Kind("zero in a list", _always((0, 0)), wrong=False)


def _instances() -> Iterator[Kind]:
    yield Kind("an object", lambda usual: object())
    yield Kind("text", _always("an instance"))
    yield Kind("a number", _always(3))
    yield Kind("a list", _always([]))
    yield Kind("a class", lambda usual: type(usual))
    yield Kind("None", _always(None))


def _as(usual: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(numpy_of(usual)).to(dtype)


def _unaligned(usual: Any) -> np.ndarray:
    array = numpy_of(usual)
    moved = np.ndarray(array.shape, array.dtype, buffer=bytearray(array.nbytes + 3), offset=3)
    moved[...] = array
    return moved


def _read_only(usual: Any) -> np.ndarray:
    array = numpy_of(usual).copy()
    array.flags.writeable = False
    return array


def _matrix(usual: Any) -> Any:
    array = numpy_of(usual)
    return array.reshape(1, -1).view(np.matrix) if array.ndim != 2 else array.view(np.matrix)


def _frame(usual: Any) -> Any:
    import pandas

    array = numpy_of(usual)
    return pandas.DataFrame(array) if array.ndim == 2 else pandas.Series(array) if array.ndim == 1 else array


def _frame_of_text(usual: Any) -> Any:
    import pandas

    return pandas.DataFrame({"name": ["a", "b"], "x": [1.0, 2.0]})
