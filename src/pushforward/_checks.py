"""The only place that inspects what a user passed in. Everything behind it may trust its arguments."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pushforward._interop import compute_dtype, to_tensor
from pushforward.errors import InvalidArgument, MassError, NonFiniteError, ShapeError

__all__ = [
    "check_batch",
    "check_choice",
    "check_cost",
    "check_count",
    "check_equal_mass",
    "check_exponent",
    "check_finite",
    "check_grid_shape",
    "check_instance",
    "check_logits",
    "check_mask",
    "check_pair",
    "check_points",
    "check_positive",
    "check_range",
    "check_real",
    "check_returned",
    "check_same_device",
    "check_size",
    "check_weight",
    "check_weights",
    "mass_tolerance",
    "shortened",
]

T = TypeVar("T")

# Masses may differ by this share of themselves before a balanced problem is refused; float32 weights that
# were normalised differ by about 1e-7.
MASS_TOLERANCE = 1e-6
# Costs and their quotients with epsilon, and masses, up to which products of a few of them are still numbers.
LARGEST_NUMBER, LARGEST_MASS = 1e290, 1e100


def check_real(name: str, value: Any, *, allow_inf: bool = True) -> float:
    """`value` as a float, which may be infinite unless `allow_inf` is False.

    Raises:
        InvalidArgument: It is not a single real number, or is NaN.
    """
    number = _real(value)
    if math.isnan(number) or (math.isinf(number) and not allow_inf):
        raise InvalidArgument(f"{name} must be a finite number, got {shortened(value)}")
    return number


def check_positive(name: str, value: Any, *, allow_inf: bool = False) -> float:
    """`value` as a positive float.

    Raises:
        InvalidArgument: It is not a single real number, or not positive, or not finite.
    """
    number = _real(value)
    if not number > 0 or (math.isinf(number) and not allow_inf):
        raise InvalidArgument(f"{name} must be a positive finite number, got {shortened(value)}")
    return number


def check_weight(name: str, value: Any) -> float:
    """`value` as a finite float of at least 0."""
    number = _real(value)
    if not 0 <= number < math.inf:
        raise InvalidArgument(f"{name} must be a finite number of at least 0, got {shortened(value)}")
    return number


def check_count(name: str, value: Any, *, least: int | None = 1) -> int:
    """`value` as an integer of at least `least`, if that is a number, and of 63 bits."""
    try:
        if isinstance(value, bool | np.bool_ | np.timedelta64) or getattr(value, "is_meta", False):
            number = None
        else:
            number = operator.index(value)
    except TypeError:  # an array of several, too
        number = None
    bound = "" if least is None else f" of at least {least}"
    if number is None or (least is not None and number < least):
        raise InvalidArgument(f"{name} must be an integer{bound}, got {shortened(value)}")
    if abs(number) >= 2**63:
        raise InvalidArgument(f"{name} must be an integer{bound} and less than 2^63, got {shortened(value)}")
    return number


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """`value`, which must be one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InvalidArgument(f"{name} must be one of {', '.join(map(repr, choices))}; got {shortened(value)}")
    return value


def check_instance(name: str, value: Any, kind: type[T]) -> T:
    """`value`, which must be of this class.

    Raises:
        InvalidArgument: It is not; the message gives its class.
    """
    if not isinstance(value, kind):
        raise InvalidArgument(f"{name} must be a {kind.__name__}, got a {type(value).__name__}: {shortened(value)}")
    return value


def check_logits(student_logits: Any, teacher_logits: Any) -> tuple[Tensor, Tensor]:
    """Two tensors of logits over the same positions and classes, (..., K).

    Raises:
        InvalidArgument: One is no floating-point tensor.
        ShapeError: Their shapes differ, or have no axis of positions.
    """
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher_logits)):
        if not check_instance(name, logits, Tensor).is_floating_point():
            raise InvalidArgument(f"{name} has dtype {logits.dtype}; floating-point logits are needed")
    student, teacher = tuple(student_logits.shape), tuple(teacher_logits.shape)
    if len(student) < 2 or student != teacher:
        padded = student[:-1] == teacher[:-1]
        raise ShapeError(
            f"student_logits has shape {student} but teacher_logits {teacher}; "
            "both must be (..., classes) over the same positions and classes"
            + ("; pushforward.lm.match_widths cuts a padded vocabulary" if padded else "")
        )
    check_same_device(("student_logits", student_logits), ("teacher_logits", teacher_logits))
    return student_logits, teacher_logits


def check_mask(value: Any, logits: Tensor) -> Tensor:
    """Which positions of logits (..., K) count, as booleans, (...)."""
    mask = to_tensor("mask", value, logits.device).bool()
    if mask.shape != logits.shape[:-1]:
        raise ShapeError(
            f"mask has shape {tuple(mask.shape)} but the logits have positions {tuple(logits.shape[:-1])}; "
            "it says of each position whether it counts"
        )
    return mask


def check_finite(name: str, tensor: Tensor) -> Tensor:
    """`tensor`, which must hold no NaN and no infinity.

    Raises:
        NonFiniteError: It does; the message gives the first such index.
    """
    # A sum is one pass and is finite unless an entry is not (or the sum overflows, which the second look excuses).
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach().sum())):
        _name_first(name, tensor, ~torch.isfinite(tensor), "finite numbers are needed")
    return tensor


def check_points(name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """Points, shape (n, d), in computing precision.

    Raises:
        ShapeError: They have other axes than two, or none of them.
        NonFiniteError: One of them is not finite, or so large that squared distances overflow.
    """
    points = to_tensor(name, value, device)
    if points.ndim != 2 or 0 in points.shape:
        raise ShapeError(
            f"{name} has shape {tuple(points.shape)}; points are needed, as (how many, dimension), at least one of each"
        )
    points = check_finite(name, points.to(compute_dtype(points.device)))
    largest = torch.finfo(points.dtype).max ** 0.45  # the sum of many squares, and its product with a weight, fit
    low, high = (float(extreme) for extreme in points.detach().aminmax())
    if max(-low, high) > largest:
        _name_first(name, points, points.abs() > largest, f"use a unit in which points are within {largest:.0e}")
    return points


def check_pair(x: Tensor, y: Tensor) -> None:
    """Two sets of points of one dimension, (n, d) and (m, d); their numbers are not checked.

    Raises:
        ShapeError: They have other axes than two, or differ in dimension.
    """
    for name, points in (("x", x), ("y", y)):
        if points.ndim != 2:
            raise ShapeError(f"{name} has shape {tuple(points.shape)}; points are needed, as (how many, dimension)")
    if x.shape[1] != y.shape[1]:
        raise ShapeError(f"x has points of dimension {x.shape[1]} but y of dimension {y.shape[1]}")


def check_returned(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    """What a caller's function gave back: a tensor of this shape."""
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ShapeError(f"{name} returned {what}; a tensor of shape {shape} is needed")
    return value


def check_grid_shape(name: str, value: Any) -> tuple[int, ...]:
    """Pixels along each axis of a grid."""
    if not isinstance(value, tuple | list) or len(value) == 0:
        raise InvalidArgument(f"{name} must be a tuple of pixels along each axis, got {shortened(value)}")
    return tuple(check_count(name, pixels) for pixels in value)


def check_exponent(name: str, value: Any) -> int:
    """The power of a grid's distances."""
    if isinstance(value, bool) or _real(value) not in (1, 2):
        raise InvalidArgument(f"{name} must be 1 (l1) or 2 (squared l2), got {shortened(value)}")
    return int(value)


def check_cost(cost: Any) -> Tensor:
    """A cost matrix or a batch of them, (n, m) or (B, n, m), as the caller has it; +inf forbids a pair.

    Raises:
        ShapeError: Wrong number of axes, or an empty one.
        NonFiniteError: NaN or -inf.
    """
    tensor = to_tensor("cost", cost)
    if tensor.ndim not in (2, 3):
        raise ShapeError(f"cost has shape {tuple(tensor.shape)}; (n, m) or a batch (B, n, m) is needed")
    if 0 in tensor.shape:
        raise ShapeError(f"cost has shape {tuple(tensor.shape)}: an empty side has nothing to transport")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach().sum())):
        _name_first(
            "cost",
            tensor,
            torch.isnan(tensor) | (tensor == -torch.inf),
            "only finite costs, or +inf for a forbidden pair, are allowed",
        )
    return tensor


def check_weights(name: str, value: Any, size: int, batch: int | None, like: Tensor, axis: str) -> Tensor:
    """Weights as (batch or 1, size) in computing precision; uniform, of mass 1, where `value` is None.

    Args:
        name: "a" or "b".
        value: (size,), (batch, size) or None.
        size: Entries that the cost asks for.
        batch: B for a batched cost, else None.
        like: Tensor whose device the weights must share.
        axis: What the cost calls these entries, for the message: "row" or "column".

    Raises:
        ShapeError, NonFiniteError, MassError: With the offending shape, index or sum.
    """
    dtype = compute_dtype(like.device)
    if value is None:
        return torch.full((batch or 1, size), 1.0 / size, dtype=dtype, device=like.device)
    weights = to_tensor(name, value, like.device)
    check_same_device(("cost", like), (name, weights))
    allowed = [(size,)] if batch is None else [(size,), (batch, size)]
    if tuple(weights.shape) not in allowed:
        raise ShapeError(
            f"{name} has shape {tuple(weights.shape)} but cost has {size} {axis}s"
            f"{'' if batch is None else f' in a batch of {batch}'}; "
            f"{name} is the weight of each {axis}: {' or '.join(map(str, allowed))} is needed"
        )
    check_finite(name, weights)
    weights = weights.to(dtype)
    if bool((weights.detach() < 0).any()):
        _name_first(name, weights, weights < 0, "weights must be at least 0", MassError)
    if weights.ndim == 1:
        weights = weights.expand(batch or 1, size)
    if not bool((weights.detach().sum(-1) > 0).all()):
        raise MassError(f"{name} sums to 0: there is nothing to transport")
    return weights


def check_batch(a: Any, b: Any) -> int | None:
    """How many problems weights (B, n) and (B, m) ask for; None where neither has a batch.

    Raises:
        ShapeError: They ask for different numbers.
    """
    given = {name: tuple(to_tensor(name, value).shape) for name, value in (("a", a), ("b", b)) if value is not None}
    sizes = {shape[0] for shape in given.values() if len(shape) == 2}
    if len(sizes) > 1:
        raise ShapeError(f"a has shape {given['a']} but b has {given['b']}: their batches differ")
    return sizes.pop() if sizes else None


def mass_tolerance(*weights: Any) -> float:
    """How far masses may differ: what rounding to the callers' dtypes explains, and one part in a million at least."""
    given = [to_tensor("weights", w) for w in weights if w is not None]
    halves = [w.dtype for w in given if w.is_floating_point() and w.dtype.itemsize < 4]
    return max([MASS_TOLERANCE, *(4 * torch.finfo(dtype).eps for dtype in halves)])


def check_equal_mass(a: Tensor, b: Tensor, tolerance: float) -> None:
    """Both sides must hold the same mass, problem by problem.

    Raises:
        MassError: They differ by more than this share of the larger.
    """
    mass_a, mass_b = a.detach().sum(-1), b.detach().sum(-1)
    differ = (mass_a - mass_b).abs() > tolerance * torch.maximum(mass_a, mass_b)
    if bool(differ.any()):
        k = int(differ.nonzero()[0])
        raise MassError(
            f"a sums to {float(mass_a[k]):.9g} but b sums to {float(mass_b[k]):.9g}"
            f"{f' (problem {k} of the batch)' if len(a) > 1 else ''}; "
            "a plan keeps mass: normalise both, or pass unbalanced= to let it change"
        )


def check_size(costs: float) -> None:
    """Costs, given by the sum of their absolute values, must leave room for sums and products of them.

    Raises:
        NonFiniteError: They do not.
    """
    if not costs <= LARGEST_NUMBER:
        raise NonFiniteError(
            f"cost is too large: its absolute values sum to more than {LARGEST_NUMBER:g}, near the end of "
            "floating-point numbers; divide cost and epsilon by a common unit"
        )


def check_range(costs: float, epsilon: float, prices: tuple[float, float], a: Tensor, b: Tensor) -> None:
    """What is computed from these numbers must neither overflow nor underflow in float64.

    Args:
        costs: The sum of all costs' absolute values.
        epsilon: Regularisation.
        prices: The prices of leaving the marginals.
        a, b: Weights, (B, n) and (B, m).

    Raises:
        NonFiniteError, MassError, InvalidArgument: They might; the message says in what units they would not.
    """
    least = max(costs, 1.0) / LARGEST_NUMBER
    if not epsilon >= least:
        raise InvalidArgument(f"epsilon is {epsilon:g}: cost / epsilon overflows; at least {least:.2g} is needed here")
    if min(prices) < least:
        raise InvalidArgument(f"unbalanced is {min(prices):g}: 1 / unbalanced overflows; use at least {least:.2g}")
    masses = torch.stack([a.detach().sum(-1), b.detach().sum(-1)])
    lows, highs = (extreme.tolist() for extreme in masses.aminmax(dim=-1))
    for name, low, high in zip(("a", "b"), lows, highs, strict=True):
        if not (low >= 1 / LARGEST_MASS and high <= LARGEST_MASS):
            raise MassError(
                f"{name} sums to {low if low < 1 / LARGEST_MASS else high:g}; masses from {1 / LARGEST_MASS:g} to "
                f"{LARGEST_MASS:g} can be computed with: divide a and b by a common unit"
            )
        if costs * high > LARGEST_NUMBER or 0 < costs < 1 / LARGEST_NUMBER / low:
            raise NonFiniteError(
                f"cost, of sum {costs:.2g}, times the mass of {name} is {costs * high:.2g}, near the end of "
                "floating-point numbers; change the units of either"
            )


def check_same_device(*named: tuple[str, Tensor]) -> None:
    """All tensors must live on one device."""
    (first, reference), *others = named
    for name, tensor in others:
        if tensor.device != reference.device:
            raise InvalidArgument(
                f"{name} is on {tensor.device} but {first} is on {reference.device}; move one of them"
            )


def _name_first(
    name: str, tensor: Tensor, bad: Tensor, advice: str, error: type[InvalidArgument] = NonFiniteError
) -> None:
    where = bad.detach().nonzero()
    if len(where):
        index = tuple(int(k) for k in where[0])
        raise error(f"{name}[{', '.join(map(str, index))}] is {float(tensor[index]):g}; {advice}")


def shortened(value: Any) -> str:
    """`value` as one line of a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _real(value: Any) -> float:
    """A single real number as a float; NaN for anything else."""
    if isinstance(value, str | bytes | bool | np.bool_ | np.timedelta64 | np.complexfloating):
        return math.nan
    if isinstance(value, Tensor):
        if value.is_meta or value.is_complex() or value.dtype == torch.bool:
            return math.nan
        value = value.detach()
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan
