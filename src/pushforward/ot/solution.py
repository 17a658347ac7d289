"""The result of `solve`: its value and potentials, its plan as an operator, its errors and certified bounds.

value            <f, a> + <g, b> - epsilon (sum P - sum a sum b), the dual at the potentials returned (its relaxed form
                 where marginals are relaxed): always a lower bound of the optimum, and equal to it at convergence
transport_cost   <P, C>
marginal_error   |P 1 - a|_1 + |P^T 1 - b|_1 over the mass, recomputed from these potentials in a pass over the whole
                 cost
duality_gap      an upper bound of (optimum - value): the price of a plan with exact marginals made from P, minus value
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from pushforward._checks import check_positive, shortened
from pushforward._interop import like_input, to_tensor
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.ot.history import Iterations, Step
from pushforward.ot.memory import refuse_if_too_large
from pushforward.ot.problem import Problem

__all__ = ["Plan", "Solution", "Status"]

Array = TypeVar("Array")

# Copies of a dense plan that autograd's operations hold at once.
COPIES_WITH_GRAPH = 6.0


class Status(enum.Enum):
    """How a solve ended; the value of a member is its meaning."""

    CONVERGED = "the marginal error, recomputed from the plan, is within the tolerance"
    ITERATION_LIMIT = "max_iterations were used up before the tolerance was reached"
    STALLED = (
        "the error stopped falling before the tolerance was reached: rounding, or an epsilon too small for this cost"
    )
    INFEASIBLE = "no plan with these marginals avoids the forbidden (infinite-cost) pairs"
    NON_FINITE = "the potentials left the range of floating-point numbers"

    @property
    def message(self) -> str:
        """The meaning of this status in words."""
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Output:
    """The form in which results are returned to the caller.

    Args:
        batched: Whether the caller gave a batch; else the batch axis is dropped.
        as_numpy: Whether the caller gave numpy arrays.
        dtype: The caller's floating dtype.
    """

    batched: bool
    as_numpy: bool
    dtype: torch.dtype

    def __call__(self, result: Tensor) -> Any:
        result = result if self.batched else result[0]
        return like_input(fitting(result, self.dtype), self.as_numpy)

    def number(self, result: Tensor) -> Any:
        """A measure of the solution, (B,), as a float, or as float64 numbers, one for each problem."""
        return like_input(result.detach(), self.as_numpy) if self.batched else float(result.detach()[0])


def fitting(result: Tensor, dtype: torch.dtype) -> Tensor:
    """The result in this dtype, or in the next wider one whose range holds it.

    Rounding takes less than eps of the sum of the absolute values; a larger loss is due to the range.
    """
    *narrow, _ = _dtypes(dtype, result.dtype)
    for small in narrow:
        lost, size = _loss(result.detach(), result.detach().to(small))
        if lost <= torch.finfo(small).eps * size:
            return result.to(small)
    return result


def _dtypes(dtype: torch.dtype, computed: torch.dtype) -> list[torch.dtype]:
    """The dtypes to try for a result, the widest last."""
    if torch.finfo(dtype).bits >= torch.finfo(computed).bits:
        return [computed]
    return [*dict.fromkeys((dtype, torch.float32, computed))]


def _loss(exact: Tensor, rounded: Tensor) -> tuple[float, float]:
    """The sum of the absolute values lost in rounding, and that of the exact values."""
    exact = exact.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    lost = (rounded.nan_to_num(nan=0.0).to(exact.dtype) - exact).abs().sum()
    return float(lost), float(exact.abs().sum())


class Plan(Generic[Array]):
    """A transport plan as an operator: products without ever holding n x m numbers; a matrix on request.

    Args:
        problem: The problem that was solved.
        f, g: Potentials, (B, n) and (B, m).
        epsilon: Regularisation, in units of the cost.
        output: The form in which results are returned to the caller.

    Example:
        >>> import pushforward as pf
        >>> plan = pf.solve(torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64), epsilon=0.1).plan
        >>> plan @ torch.ones(2, dtype=torch.float64)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """

    def __init__(self, problem: Problem, f: Tensor, g: Tensor, epsilon: float | Tensor, output: Output) -> None:
        self._problem, self._f, self._g, self._epsilon, self._output = problem, f, g, epsilon, output

    @property
    def shape(self) -> tuple[int, ...]:
        """The plan's shape, (n, m) or (B, n, m)."""
        shape = self._problem.geometry.shape
        return shape if self._output.batched else shape[1:]

    @property
    def T(self) -> Plan[Array]:  # noqa: N802 - the name that arrays have
        """The transposed plan, from columns to rows."""
        return Plan(self._problem.transposed(), self._g, self._f, self._epsilon, self._output)

    def __repr__(self) -> str:
        return f"Plan(shape={self.shape}, dtype={self._output.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The plan as a numpy matrix, for `np.asarray(plan)`; as `to_dense`."""
        if copy is False:
            raise ValueError("a plan is an operator; its matrix is computed, so that it cannot be had without a copy")
        return to_tensor("plan", self.to_dense()).detach().cpu().numpy().astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Array:
        """A part of one problem's plan as a matrix: `plan[:]`, `plan[2:5]`, `plan[rows, columns]`, as of an array.

        Args:
            key: Rows, or a pair of rows and columns: each an integer, a slice, indices or a mask. Of two lists of
                indices all pairs are returned.

        Raises:
            InvalidArgument: The plan is a batch's, or the key has more than two parts.
            IndexError: There is no such row or column.
            TooLargeError: The part would not fit in memory.
        """
        keys = (*key, slice(None))[:2] if isinstance(key, tuple) and len(key) <= 2 else (key, slice(None))
        if self._output.batched or isinstance(keys[0], tuple):
            raise InvalidArgument(f"the plan has shape {self.shape}; plan[rows, columns] is for one problem's, (n, m)")
        p = self._problem
        places = [_places(part, size) for part, size in zip(keys, self.shape, strict=True)]
        rows, cols = (torch.from_numpy(np.ascontiguousarray(place.reshape(-1))).to(p.a.device) for place in places)
        refuse_if_too_large("this part of the plan", (len(rows), len(cols)), p.a, copies=p.geometry.plan_copies)
        f, g, a, b = self._f[:, rows], self._g[:, cols], p.a[:, rows], p.b[:, cols]
        part: Any = self._output(p.geometry.select(rows, cols).plan(f, g, self._epsilon, a, b))
        return part[tuple(0 if place.ndim == 0 else slice(None) for place in places)]

    def __matmul__(self, v: Array) -> Array:
        """The product P v for v of shape (m,), (m, k), or with the batch axis in front."""
        p = self._problem
        batch, _, m = p.geometry.shape
        given = to_tensor("v", v, p.a.device).to(p.a.dtype)
        columns = given if self._output.batched else given[None]
        vector = columns.ndim == 2
        columns = columns[..., None] if vector else columns
        if columns.ndim != 3 or columns.shape[:2] != (batch, m):
            raise ShapeError(f"v has shape {tuple(given.shape)} but the plan has shape {self.shape}")
        result = p.geometry.product(self._f, self._g, self._epsilon, p.a, p.b, columns)
        return self._output(result[..., 0] if vector else result)

    def barycentric(self, y: Array) -> Array:
        """The mean target of each row's mass, (P y)_i / (P 1)_i.

        Args:
            y: Targets, (m, d), or (B, m, d).

        Returns:
            (n, d), or (B, n, d); NaN for a row without mass.
        """
        p = self._problem
        batch, _, m = p.geometry.shape
        given = to_tensor("y", y, p.a.device).to(p.a.dtype)
        targets = given.expand(batch, *given.shape) if given.ndim == 2 else given
        if targets.ndim != 3 or targets.shape[:2] != (batch, m):
            raise ShapeError(
                f"y has shape {tuple(given.shape)} but the plan has shape {self.shape}: "
                "a point for each column is needed"
            )
        both = torch.cat([targets, torch.ones_like(targets[..., :1])], dim=-1)
        moved = p.geometry.product(self._f, self._g, self._epsilon, p.a, p.b, both)
        return self._output(moved[..., :-1] / moved[..., -1:])

    def to_dense(self) -> Array:
        """The plan as a matrix, (n, m) or (B, n, m).

        Raises:
            TooLargeError: It would not fit in memory; raised before anything is allocated.
        """
        p = self._problem
        if self._has_graph:
            refuse_if_too_large("the dense plan with its graph", p.geometry.shape, p.a, copies=COPIES_WITH_GRAPH)
            return self._output(p.geometry.plan(self._f, self._g, self._epsilon, p.a, p.b))
        *narrow, widest = _dtypes(self._output.dtype, p.a.dtype)
        dense = None
        for dtype in narrow:
            dense = self._written(dtype) if dense is None else dense
        dense = self._written(widest) if dense is None else dense
        assert dense is not None  # nothing is lost in the dtype of the computation
        return like_input(dense if self._output.batched else dense[0], self._output.as_numpy)

    def _written(self, dtype: torch.dtype) -> Tensor | None:
        """The dense plan in a dtype, (B, n, m); None where that does not hold it (`fitting`)."""
        like = torch.empty((), dtype=dtype, device=self._problem.a.device)
        geometry = self._problem.geometry
        refuse_if_too_large("the dense plan", geometry.shape, like, copies=geometry.plan_copies)
        dense, lost, size = like.new_empty(geometry.shape), 0.0, 0.0
        for rows, part in self._blocks():
            dense[:, rows] = part
            if dtype != part.dtype:
                here = _loss(part, dense[:, rows])
                lost, size = lost + here[0], size + here[1]
        return dense if lost <= torch.finfo(dtype).eps * size else None

    def to_sparse(self, threshold: float = 1e-12) -> Any:
        """The large entries of the plan, counted first and then written: no dense matrix is held.

        Args:
            threshold: The least entry that is kept, as a share of the mass.

        Returns:
            A scipy COO array for numpy callers, a torch COO tensor otherwise.

        Raises:
            TooLargeError: So many entries would not fit in memory.
        """
        least = check_positive("threshold", threshold) * float(self._problem.mass.detach().mean())
        if self._has_graph:
            dense = to_tensor("plan", self.to_dense())
            return torch.where(dense >= least, dense, 0).to_sparse_coo().coalesce()
        count = sum(int((part >= least).sum()) for _, part in self._blocks())
        axes = len(self.shape)
        refuse_if_too_large("the sparse plan's entries", (count, axes + 1), self._problem.a)
        at = self._problem.a.new_empty((axes, count), dtype=torch.int64)
        values, done = self._problem.a.new_empty(count), 0
        for rows, part in self._blocks():
            found = (part >= least).nonzero().T
            here = slice(done, done + found.shape[1])
            values[here] = part[tuple(found)]
            found[1] += rows.start
            at[:, here] = found[-axes:]
            done = here.stop
        if self._output.batched and len(self._problem.a) > 1:
            order = at[0].argsort(stable=True)  # blocks may hold rows of several problems
            at, values = at[:, order], values[order]
        values = fitting(values, self._output.dtype)
        if not self._output.as_numpy:
            return torch.sparse_coo_tensor(at, values, self.shape, is_coalesced=True, check_invariants=False)
        import scipy.sparse

        return scipy.sparse.coo_array((values.numpy(), tuple(at.numpy())), shape=self.shape)

    @property
    def _has_graph(self) -> bool:
        given = (self._f, self._g, self._problem.a, self._problem.b, self._epsilon)
        return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in given)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The plan by blocks of rows, (B, k, m)."""
        p = self._problem
        with torch.no_grad():
            for whole, part in p.geometry.parts():
                for inner, block in part.row_blocks():
                    rows = slice(whole.start + inner.start, whole.start + inner.stop)
                    yield rows, block.plan(self._f[:, rows], self._g, self._epsilon, p.a[:, rows], p.b)


def _places(key: Any, size: int) -> np.ndarray:
    """The indices that a key picks of so many, (k,), or () for an integer."""
    places = np.asarray(np.arange(size)[key.cpu().numpy() if isinstance(key, Tensor) else key])
    if places.ndim > 1:
        raise InvalidArgument(f"a plan's rows and columns are picked along one axis each, not by {shortened(key)}")
    return places


@dataclass(frozen=True, kw_only=True, slots=True)
class Internals:
    """A solution in computing precision, with its batch axis: for code that builds on `solve`.

    Args:
        problem: The problem; where there is a graph, its cost and weights carry it.
        f, g: Potentials, (B, n) and (B, m).
        epsilon: The problem's regularisation; a tensor () where there is a graph.
        output: The form in which results are returned to the caller.
        transport_cost, duality_gap, bounds: Functions that return <P, C>, the gap and the bounds, (B,), on request.
    """

    problem: Problem
    f: Tensor
    g: Tensor
    epsilon: float | Tensor
    output: Output
    transport_cost: Callable[[], Tensor]
    duality_gap: Callable[[], Tensor]
    bounds: Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Solution(Generic[Array]):
    """What `solve` returns.

    Args:
        status: How it ended; the worst of a batch.
        value: The regularised optimum, from the dual (module docstring). Differentiable.
        f, g: Potentials of rows (n,) and columns (m,), in units of the cost, with <f, a> = <g, b>. Differentiable.
        marginal_error: L1 error of both marginals over the mass, recomputed from f and g.
        iterations: Counts of the work done.
        history: Every step with the error before it.
        epsilon: Regularisation used, in units of the cost.
        method: Solver that gave the answer.
        internals: The same in computing precision, for code that builds on `solve`.

    For a batch every number has a leading axis B. f, g, value, transport_cost and the plan are in the caller's dtype
    and library; they were computed in float64, and marginal_error is that of the float64 plan.
    """

    status: Status
    value: Array
    f: Array
    g: Array
    marginal_error: Any
    iterations: Iterations
    history: tuple[Step, ...] = field(repr=False)
    epsilon: float
    method: str
    internals: Internals = field(repr=False)

    def __repr__(self) -> str:
        values = to_tensor("value", self.value).detach().reshape(-1).tolist()
        errors = torch.as_tensor(self.marginal_error).reshape(-1).tolist()
        shown = f"{values[0]:.6g}" if len(values) == 1 else f"{min(values):.6g} to {max(values):.6g}"
        return (
            f"Solution({self.status.name}, value={shown}, marginal_error={max(errors):.2g}, "
            f"epsilon={self.epsilon:.4g}, method={self.method!r}, plan={self.plan!r})"
        )

    @functools.cached_property
    def transport_cost(self) -> Array:
        """The cost <P, C> of the plan without the regularisation. Differentiable."""
        return self.internals.output(self.internals.transport_cost())

    @functools.cached_property
    def duality_gap(self) -> Any:
        """An upper bound of optimum - value, in units of the cost times mass."""
        return self.internals.output.number(self.internals.duality_gap())

    @functools.cached_property
    def plan(self) -> Plan[Array]:
        """The plan as an operator."""
        inside = self.internals
        return Plan(inside.problem, inside.f, inside.g, inside.epsilon, inside.output)

    @property
    def converged(self) -> bool:
        """Whether the marginal error is within the tolerance."""
        return self.status is Status.CONVERGED

    def bounds(self) -> tuple[Any, Any]:
        """Certified bounds (lower, upper) of the *unregularised* optimal transport cost.

        Lower: the dual value of potentials made feasible by two c-transforms. Upper: the cost of a plan with exact
        marginals, P rounded as in Altschuler et al. 2017 (arXiv 1705.09634), algorithm 2. Both include a bound of their
        own rounding errors.

        Raises:
            InvalidArgument: The problem relaxes its marginals, so that there is no such cost.
        """
        lower, upper = self.internals.bounds()
        return self.internals.output.number(lower), self.internals.output.number(upper)
