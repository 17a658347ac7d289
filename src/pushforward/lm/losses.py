"""Losses between a student's and a teacher's logits, and weighted sums of them.

    p = softmax(teacher logits / T),   q = softmax(student logits / T)

A loss is called as `loss(student_logits, teacher_logits, mask)` and gives a scalar; `0.9 * KD("kl") + 0.8 *
SinkhornKD()` is a loss again. Positions that the mask leaves out have no part in it. The teacher is a constant: no
gradient flows to it.

symbol           meaning                                          shape
student_logits   what the student says                            (..., K)
teacher_logits   what the teacher says                            (..., K)
mask             positions that count, all if None                (...), bool
T                temperature
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward import divergences
from pushforward._checks import check_instance, check_logits, check_mask, check_positive, check_weight
from pushforward.divergences import FDivergence
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError

__all__ = ["KD", "Context", "DistillationLoss", "WeightedSum", "softened"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a loss may know of the positions beside their logits.

    Args:
        group_ids: The group of each position, the sequence it stands in say; integers, (...).
        representations: A vector for each position that says how alike two inputs are, (..., d).
    """

    group_ids: Tensor | None = None
    representations: Tensor | None = None

    def rows(self, name: str, shape: torch.Size, mask: Tensor | None) -> Tensor | None:
        """One of the two for the positions that count, (N,) or (N, d)."""
        value: Tensor | None = getattr(self, name)
        if value is None:
            return None
        axes = len(shape) + (name == "representations")
        if value.shape[: len(shape)] != shape or value.ndim != axes:
            wanted = f"{tuple(shape)} and a vector's axis" if name == "representations" else str(tuple(shape))
            raise ShapeError(f"{name} has shape {tuple(value.shape)}; one for each position is needed: {wanted}")
        flat = value.detach().reshape(-1, *value.shape[len(shape) :])
        return flat if mask is None else flat[mask.reshape(-1)]


class DistillationLoss:
    """A scalar function of a student's and a teacher's logits; losses are added, and multiplied by weights.

    A new loss implements `rows`.
    """

    alone = True
    """Whether the loss ties every row of the student to its own row of the teacher, so that it can stand alone."""
    needs_representations = False
    """Whether the call must bring `Context.representations`."""

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """The loss of N rows, (N, K) against (N, K) and what `context` says of them: a scalar."""
        raise TypeError(f"{type(self).__name__} is not a loss: it has no rows()")

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        mask: Tensor | None = None,
        *,
        context: Context | None = None,
    ) -> Tensor:
        """The loss over the positions that count.

        Args:
            student_logits: (..., K), floating point.
            teacher_logits: The same shape.
            mask: Which positions count, (...), boolean or 0/1; all if None.
            context: What else is known of the positions.

        Returns:
            A scalar, in float32 at least.

        Raises:
            ShapeError: The shapes differ, or the mask's is not that of the positions.
            NonFiniteError: A logit at a position that counts is NaN or +inf.
            InvalidArgument: The mask leaves nothing, or the logits are not floating point.
        """
        student, teacher, mask = _rows_that_count(student_logits, teacher_logits, mask)
        shape = student_logits.shape[:-1]
        context = context or Context()
        flat = Context(
            group_ids=context.rows("group_ids", shape, mask),
            representations=context.rows("representations", shape, mask),
        )
        with torch.autocast(student.device.type, enabled=False):
            total = self.rows(student, teacher, flat)
        if not math.isfinite(float(total.detach())):
            # Only a bad scalar sends us back over the logits, to say where it came from.
            _refuse_non_finite("student_logits", student_logits, mask)
            _refuse_non_finite("teacher_logits", teacher_logits, mask)
            if bool(total.isnan()):
                raise NonFiniteError(f"{self!r} is NaN although all logits are finite")
        return total

    def __add__(self, other: DistillationLoss) -> WeightedSum:
        """The sum of two losses."""
        return WeightedSum((*_parts(self), *_parts(check_instance("a loss's summand", other, DistillationLoss))))

    def __mul__(self, weight: float) -> WeightedSum:
        """The loss times a weight, at least 0."""
        factor = check_weight("the weight of a loss", weight)
        return WeightedSum(tuple((factor * w, loss) for w, loss in _parts(self)))

    __rmul__ = __mul__


class WeightedSum(DistillationLoss):
    """A sum of losses with weights.

    Args:
        parts: (weight, loss) pairs.
    """

    def __init__(self, parts: tuple[tuple[float, DistillationLoss], ...]) -> None:
        self.parts = parts
        self.alone = any(weight > 0 and loss.alone for weight, loss in parts)
        self.needs_representations = any(loss.needs_representations for _, loss in parts)

    def __repr__(self) -> str:
        """The sum as it would be written."""
        return " + ".join(f"{weight:g} * {loss!r}" for weight, loss in self.parts)

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """The weighted sum of the parts."""
        return torch.stack([w * loss.rows(student_logits, teacher_logits, context) for w, loss in self.parts]).sum()


class KD(DistillationLoss):
    """T^2 times the mean f-divergence D_f(p || q) of a position.

    T^2 keeps the gradient's size when T changes (Hinton et al. 2015, arXiv 1503.02531).

    Args:
        divergence: An entry of `pushforward.divergences`, or its name: "kl" is the forward KL from teacher to student.
        temperature: T.

    Example:
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])
        >>> round(float(KD("kl", temperature=1.0)(student, teacher)), 4)
        0.3278
    """

    def __init__(self, divergence: str | FDivergence = "kl", *, temperature: float = 2.0) -> None:
        self.divergence = divergence if isinstance(divergence, FDivergence) else divergences.named(divergence)
        self.temperature = check_positive("temperature", temperature)

    def __repr__(self) -> str:
        """The call that makes it."""
        return f"KD({self.divergence.name!r}, temperature={self.temperature:g})"

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """The loss of N rows: a scalar."""
        del context
        log_q = softened(student_logits, self.temperature).log_softmax(-1)
        log_p = softened(teacher_logits, self.temperature).log_softmax(-1)
        return self.temperature**2 * self.divergence.between(log_p, log_q).mean()


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Logits / T in float32, or float64 where the logits are."""
    wide = logits if logits.dtype is torch.float64 else logits.float()
    return wide if temperature == 1 else wide / temperature


def _parts(loss: DistillationLoss) -> tuple[tuple[float, DistillationLoss], ...]:
    return loss.parts if isinstance(loss, WeightedSum) else ((1.0, loss),)


def _rows_that_count(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Student's and teacher's rows that count, (N, K) each, and the mask as a boolean tensor."""
    check_logits(student_logits, teacher_logits)
    width = student_logits.shape[-1]
    student, teacher = student_logits.reshape(-1, width), teacher_logits.detach().reshape(-1, width)
    if mask is not None:
        mask = check_mask(mask, student_logits)
        student, teacher = student[mask.reshape(-1)], teacher[mask.reshape(-1)]
    if student.numel() == 0:
        why = "no mask" if mask is None else "a mask that is False everywhere"
        raise InvalidArgument(f"no position is left: logits of shape {tuple(student_logits.shape)} and {why}")
    return student, teacher, mask


def _refuse_non_finite(name: str, logits: Tensor, mask: Tensor | None) -> None:
    # -inf is how a token is forbidden: its probability is 0, which is a number.
    bad = logits.detach().isnan() | (logits.detach() == torch.inf)
    if mask is not None:
        bad &= mask[..., None]
    if bool(bad.any()):
        index = tuple(int(k) for k in bad.nonzero()[0])
        raise NonFiniteError(
            f"{name}[{', '.join(map(str, index))}] is {float(logits.detach()[index]):g}; finite logits are needed "
            "(too high a learning rate, or half precision that overflows, are the usual causes)"
        )
