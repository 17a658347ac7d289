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
from pushforward._typed import typed
from pushforward.divergences import FDivergence
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.lm.chunked import SMALL, mean_divergence, row_divergences, softened

__all__ = ["KD", "Context", "DistillationLoss", "SquaredError", "WeightedSum", "softened"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a loss may use beside the logits of each position.

    Args:
        group_ids: The group of each position, for instance its sequence; integers, (...).
        representations: A vector for each position, whose distances say how similar two inputs are, (..., d).
    """

    group_ids: Tensor | None = None
    representations: Tensor | None = None

    def rows(self, name: str, shape: torch.Size, mask: Tensor | None) -> Tensor | None:
        """One of the two fields at the positions that count.

        Args:
            name: "group_ids" or "representations".
            shape: The shape of the positions.
            mask: The positions that count; all if None.

        Returns:
            (N,) or (N, d); None where the field is None.
        """
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
    """A scalar function of a student's and a teacher's logits; losses can be added, and multiplied by weights.

    A new loss implements `rows`.
    """

    pairs_samples = True
    """Whether the loss ties every row of the student to its own row of the teacher, so that it can stand alone."""
    needs_representations = False
    """Whether the call must bring `Context.representations`."""
    of_classes = False
    """Whether it takes a softmax over the columns, which are then the classes of one question."""
    needs_finite = False
    """Whether `rows` cannot be given NaN, so that the logits are checked before the call and not after it."""

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """The loss of N rows of logits; a subclass implements it.

        Args:
            student_logits, teacher_logits: (N, K) each.
            context: What is known of the N rows.

        Returns:
            A scalar.
        """
        raise TypeError(f"{type(self).__name__} is not a loss: it has no rows()")

    def many(self, student_logits: Tensor, teacher_logits: Tensor, kept: Tensor | None, context: Context) -> Tensor:
        """The loss of some rows among many; a subclass that needs no copy of the rows overrides it.

        Args:
            student_logits, teacher_logits: (N, K) each.
            kept: The places of the n rows that count, (n,); None for all.
            context: What is known of those n rows.

        Returns:
            A scalar.
        """
        if kept is None:
            return self.rows(student_logits, teacher_logits, context)
        return self.rows(student_logits[kept], teacher_logits[kept], context)

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
            InvalidArgument: The mask leaves nothing, the logits are not floating point, or a loss between classes is
                given logits of a single column, the softmax of which is 1 whatever they are.
        """
        student, teacher, mask = _checked(student_logits, teacher_logits, mask, of_classes=self.of_classes)
        shape = student_logits.shape[:-1]
        context = context or Context()
        flat = Context(
            group_ids=context.rows("group_ids", shape, mask),
            representations=context.rows("representations", shape, mask),
        )
        if self.needs_finite:
            _refuse_non_finite("student_logits", student_logits, mask)
            _refuse_non_finite("teacher_logits", teacher_logits, mask)
        kept = None if mask is None else mask.reshape(-1).nonzero()[:, 0]
        with torch.autocast(student.device.type, enabled=False):
            if student.numel() > SMALL:
                total = self.many(student, teacher, kept, flat)
            else:
                total = DistillationLoss.many(self, student, teacher, kept, flat)
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
        self.pairs_samples = any(weight > 0 and loss.pairs_samples for weight, loss in parts)
        self.needs_representations = any(loss.needs_representations for _, loss in parts)
        self.of_classes = any(loss.of_classes for _, loss in parts)
        self.needs_finite = any(loss.needs_finite for _, loss in parts)

    def __repr__(self) -> str:
        """The sum as Python code."""
        return " + ".join(f"{weight:g} * {loss!r}" for weight, loss in self.parts)

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """The weighted sum of the parts' losses, a scalar."""
        return torch.stack([w * loss.rows(student_logits, teacher_logits, context) for w, loss in self.parts]).sum()

    def many(self, student_logits: Tensor, teacher_logits: Tensor, kept: Tensor | None, context: Context) -> Tensor:
        """The weighted sum of the parts' losses, a scalar; each part uses its own `many`."""
        parts = [w * loss.many(student_logits, teacher_logits, kept, context) for w, loss in self.parts]
        return torch.stack(parts).sum()


class KD(DistillationLoss):
    """T^2 times the mean over positions of the f-divergence D_f(p || q).

    T^2 keeps the gradient's size when T changes (Hinton et al. 2015, arXiv 1503.02531).

    Args:
        divergence: An entry of `pushforward.divergences`, or its name: "kl" is the forward KL from teacher to student.
        temperature: T.

    Example:
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])
        >>> round(float(KD("kl", temperature=1.0)(student, teacher)), 4)
        0.3278
    """

    of_classes = True

    @typed
    def __init__(self, divergence: str | FDivergence = "kl", *, temperature: float = 2.0) -> None:
        self.divergence = divergence if isinstance(divergence, FDivergence) else divergences.named(divergence)
        self.temperature = check_positive("temperature", temperature)

    def __repr__(self) -> str:
        """The Python call that makes the loss."""
        return f"KD({self.divergence.name!r}, temperature={self.temperature:g})"

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """The loss of N rows, a scalar."""
        del context
        each = row_divergences(student_logits, teacher_logits, self.divergence, self.temperature)
        return self.temperature**2 * each.mean()

    def many(self, student_logits: Tensor, teacher_logits: Tensor, kept: Tensor | None, context: Context) -> Tensor:
        """The loss of the rows that count, a scalar, computed in chunks (`pushforward.lm.chunked`)."""
        del context
        return mean_divergence(student_logits, teacher_logits, kept, self.divergence, self.temperature)


class SquaredError(DistillationLoss):
    """The mean squared difference of the logits, for heads that give scores.

    A regression head (STS-B's) has one column, and each column of a multi-label head is a question of its own: no
    softmax goes over them. Logits of classes may be matched in this way, too.

    Example:
        >>> float(SquaredError()(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]])))
        2.0
    """

    def __repr__(self) -> str:
        """The Python call that makes the loss."""
        return "SquaredError()"

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        """The loss of N rows, a scalar."""
        del context
        return (softened(student_logits, 1.0) - softened(teacher_logits, 1.0)).square().mean()


def _parts(loss: DistillationLoss) -> tuple[tuple[float, DistillationLoss], ...]:
    return loss.parts if isinstance(loss, WeightedSum) else ((1.0, loss),)


def _checked(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None, *, of_classes: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Student's and teacher's logits as rows, (N, K) each, and the mask as a boolean tensor."""
    check_logits(student_logits, teacher_logits)
    width = student_logits.shape[-1]
    if width == 1 and of_classes:
        raise InvalidArgument(
            f"student_logits has shape {tuple(student_logits.shape)}: a softmax over one column is 1 whatever the "
            "logits are, so that there is nothing to learn; for a head that gives a score take SquaredError()"
        )
    student, teacher = student_logits.reshape(-1, width), teacher_logits.detach().reshape(-1, width)
    mask = None if mask is None else check_mask(mask, student_logits)
    if student.numel() == 0 or (mask is not None and not bool(mask.any())):
        why = "no mask" if mask is None else "a mask that is False everywhere"
        raise InvalidArgument(f"no position is left: logits of shape {tuple(student_logits.shape)} and {why}")
    return student, teacher, mask


def _refuse_non_finite(name: str, logits: Tensor, mask: Tensor | None) -> None:
    # A sum holds nothing of the logits' size; -inf, which is how a token is forbidden, makes it -inf, and two large
    # numbers may make it infinite, which the second look excuses.
    if mask is None and not math.isnan(total := float(logits.detach().sum(dtype=torch.float32))) and total < math.inf:
        return
    bad = logits.detach().isnan() | (logits.detach() == torch.inf)
    if mask is not None:
        bad &= mask[..., None]
    if bool(bad.any()):
        index = tuple(int(k) for k in bad.nonzero()[0])
        raise NonFiniteError(
            f"{name}[{', '.join(map(str, index))}] is {float(logits.detach()[index]):g}; finite logits are needed "
            "(too high a learning rate, or half precision that overflows, are the usual causes)"
        )
