"""Conversion between plain torch and numpy, DLPack, nested lists and torch.compile, at the public boundary only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from pushforward.errors import InvalidArgument

__all__ = [
    "AllowedPairs",
    "allowed_pairs",
    "check_numbers",
    "compute_dtype",
    "like_input",
    "not_compiled",
    "result_dtype",
    "to_tensor",
]

P = ParamSpec("P")
R = TypeVar("R")


def not_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, kept out of what `torch.compile` compiles by a clean break of the graph.

    A solver loops until its error is small, in compiled code of its own; there is nothing in it for a graph to hold.
    Nothing is imported, and nothing is different, where nothing is compiled.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)  # pyright: ignore[reportCallIssue]
        return function(*args, **kwargs)

    return call


_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def to_tensor(name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """A tensor over the caller's numbers, sharing their memory where it can; never written to.

    Args:
        name: The argument's name, for the error message.
        value: A tensor, a numpy array, anything with `__dlpack__` or `__array__`, or nested lists of numbers.
        device: Where numbers that are not tensors yet are put.

    Raises:
        InvalidArgument: `value` is not an array of real numbers.
    """
    if isinstance(value, Tensor):
        tensor = value
    else:
        try:
            tensor = _from_foreign(value)
        except (TypeError, ValueError, RuntimeError, BufferError, OverflowError, AttributeError) as reason:
            raise InvalidArgument(f"{name} is not an array of real numbers: {reason}") from None
        tensor = tensor if device is None else tensor.to(device)
    check_numbers(name, tensor)
    tensor = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    if tensor.dtype in _UNSIGNED:  # torch has hardly an operation for them
        too_large = tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any())
        tensor = tensor.to(torch.float64 if too_large else torch.int64)
    # The compiled kernels, and torch's own, read whole numbers at a time.
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % tensor.itemsize else tensor


def check_numbers(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that holds no real numbers in one rectangular array.

    Raises:
        InvalidArgument: It is complex, quantised, of 8-bit floats, nested, or on the meta device.
    """
    if tensor.is_complex() or tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype.itemsize < 2):
        raise InvalidArgument(f"{name} has dtype {tensor.dtype}; real numbers are needed, of 16 bits at least")
    if tensor.is_nested:
        raise InvalidArgument(f"{name} is a nested tensor, whose rows differ in length; a plain one is needed")
    if tensor.is_meta:
        raise InvalidArgument(f"{name} is on meta, a device where tensors hold no numbers")


def _from_foreign(value: Any) -> Tensor:
    if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        return torch.from_dlpack(value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError("entries of it are masked; fill or drop them first")
    array = np.asarray(value)
    if array.dtype == np.longdouble and array.dtype != np.float64:
        array = array.astype(np.float64)
    # Negative strides, byte-swapped, unaligned or read-only memory are numpy's own: torch wants a plain copy.
    plain = array.dtype.isnative and array.flags.writeable and array.flags.aligned
    plain = plain and all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)
    return torch.from_numpy(array if plain else np.array(array, dtype=array.dtype.newbyteorder("=")))


@dataclass(frozen=True, slots=True)
class AllowedPairs:
    """A sparse cost: the pairs that it holds, in row-major order and once each; all others are forbidden.

    Args:
        indices: The pairs' places, (2, k), or (3, k) for a batch.
        values: The pairs' costs, (k,), zeros among them, with the graph of the caller's tensor.
        shape: (n, m) or (B, n, m).
        as_numpy: Whether the caller gave a scipy array.
    """

    indices: Tensor
    values: Tensor
    shape: tuple[int, ...]
    as_numpy: bool

    def dense(self) -> Tensor:
        """The costs as a matrix, +inf where a pair is absent."""
        kind = self.values.dtype if self.values.is_floating_point() else compute_dtype(self.values.device)
        matrix = torch.full(self.shape, torch.inf, dtype=kind, device=self.values.device)
        return matrix.index_put(tuple(self.indices), self.values.to(kind))


# Formats that store zeros beside the entries that were meant.
PADDED = "stores blocks or diagonals, in which a zero may be an allowed pair of cost 0 or no pair at all"


def allowed_pairs(name: str, value: Any) -> AllowedPairs | None:
    """The pairs of a scipy or torch sparse cost, None for anything else; entries given twice are summed, as they do.

    Raises:
        InvalidArgument: A format of blocks or diagonals holds zeros, or a torch tensor has dense dimensions.
    """
    if isinstance(value, Tensor):
        if value.layout is torch.strided:
            return None
        padded = value.layout in (torch.sparse_bsr, torch.sparse_bsc)
        if padded and bool((value.values() == 0).any()):
            raise InvalidArgument(f"{name} {PADDED}; pass a COO or CSR tensor")
        coo = (value.to_dense().to_sparse_coo() if padded else value.to_sparse_coo()).coalesce()
        if coo.dense_dim():
            raise InvalidArgument(f"{name} is a sparse tensor with {coo.dense_dim()} dense dimensions; pass none")
        return AllowedPairs(coo.indices(), coo.values(), tuple(coo.shape), False)
    if not scipy.sparse.issparse(value):
        return None
    if value.ndim != 2:
        raise InvalidArgument(f"{name} is a sparse array of {value.ndim} axes; two are needed, (n, m)")
    if value.format in ("bsr", "dia") and value.nnz != value.count_nonzero():
        raise InvalidArgument(f"{name} {PADDED}; pass {name}.tocoo() without those that are no pairs")
    coo: Any = scipy.sparse.coo_array(value, copy=True)
    coo.sum_duplicates()
    order = np.lexsort((coo.col, coo.row))
    indices = torch.from_numpy(np.stack([coo.row, coo.col])[:, order].astype(np.int64))
    return AllowedPairs(indices, to_tensor(name, coo.data[order]), tuple(coo.shape), True)


def compute_dtype(device: torch.device) -> torch.dtype:
    """The dtype of computations on a device: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def result_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of results: the caller's own if it is a floating one, else the computing one."""
    return tensor.dtype if tensor.is_floating_point() else compute_dtype(tensor.device)


def like_input(result: Tensor, as_numpy: bool) -> Any:
    """The result as numpy if the caller gave numpy, else unchanged."""
    if not as_numpy:
        return result
    array = result.detach().cpu().numpy()
    return array[()] if array.ndim == 0 else array
