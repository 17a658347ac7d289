"""The mean divergence of many rows of logits, without float32 copies of them all.

    L = T^2 / n  sum_i D_f(p_i || q_i),   p_i = softmax(teacher_i / T),   q_i = softmax(student_i / T)

Rows are taken a few at a time: the forward pass keeps the sum alone, and the backward pass computes each chunk once
more, with its derivative, into the gradient that it returns. Beside that gradient, which has the size of the student's
logits, both passes hold what one chunk needs. Value and gradient are those of the plain formula up to rounding.

symbol     meaning                                              shape
student    logits                                               (N, K)
teacher    logits                                               (N, K)
kept       places of the n rows that count, all if None         (n,)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pushforward._interop import compute_dtype
from pushforward.divergences import FDivergence

__all__ = ["SMALL", "mean_divergence", "row_divergences", "softened"]

# Logits of no more entries are computed in one piece, as the formula is written.
SMALL = 2**20
# Entries of a chunk, some fifteen copies of which are held at once. Larger calls have larger chunks, so that there are
# never more than so many: on an accelerator each costs some tens of kernels.
CHUNK, MOST_CHUNKS = 2**18, 128


def mean_divergence(
    student: Tensor, teacher: Tensor, kept: Tensor | None, divergence: FDivergence, temperature: float
) -> Tensor:
    """T^2 times the mean divergence of the rows that count.

    It can be differentiated more than once; the second derivative takes the memory of the plain formula.

    Args:
        student: Logits, (N, K); the gradient flows to them.
        teacher: Logits, (N, K); constants.
        kept: Places of the rows that count, (n,) with n at least 1; None for all.
        divergence: D_f.
        temperature: T.

    Returns:
        A scalar, in float32 at least.
    """
    return _MeanDivergence.apply(student, teacher.detach(), kept, divergence, temperature)


def row_divergences(student: Tensor, teacher: Tensor, divergence: FDivergence, temperature: float) -> Tensor:
    """The divergence D_f(p_i || q_i) of each row, (N,), by the plain formula."""
    log_q = softened(student, temperature).log_softmax(-1)
    log_p = softened(teacher, temperature).log_softmax(-1)
    return divergence.between(log_p, log_q)


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Logits / T in float32, or float64 where the logits are."""
    precise = logits if logits.dtype is torch.float64 else logits.float()
    return precise if temperature == 1 else precise / temperature


def _chunks(student: Tensor, kept: Tensor | None) -> Iterator[Tensor | slice]:
    """The places of the rows, one chunk after another."""
    n = len(student) if kept is None else len(kept)
    rows = max(1, CHUNK // student.shape[-1], -(-n // MOST_CHUNKS))
    for start in range(0, n, rows):
        places = slice(start, min(start + rows, n))
        yield places if kept is None else kept[places]


class _MeanDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        student: Tensor, teacher: Tensor, kept: Tensor | None, divergence: FDivergence, temperature: float
    ) -> Tensor:
        dtype = torch.promote_types(student.dtype, torch.float32)
        total = torch.zeros((), dtype=compute_dtype(student.device), device=student.device)
        for places in _chunks(student, kept):
            total += row_divergences(student[places], teacher[places], divergence, temperature).sum()
        return (temperature**2 * total / (len(student) if kept is None else len(kept))).to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        student, teacher, kept, ctx.divergence, ctx.temperature = inputs
        ctx.save_for_backward(student, teacher, kept)

    @staticmethod
    def backward(ctx: Any, bar: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        student, teacher, kept = ctx.saved_tensors
        n = len(student) if kept is None else len(kept)
        with torch.autocast(student.device.type, enabled=False):
            if torch.is_grad_enabled():  # a second derivative is wanted: the graph is needed whole
                rows = (student, teacher) if kept is None else (student[kept], teacher[kept])
                value = ctx.temperature**2 * row_divergences(*rows, ctx.divergence, ctx.temperature).mean()
                gradient = torch.autograd.grad(value, student, bar, create_graph=True)[0]
                return gradient, None, None, None, None
            gradient = torch.zeros_like(student) if kept is not None else torch.empty_like(student)
            for places in _chunks(student, kept):
                rows = softened(student[places], 1.0).detach().requires_grad_()
                with torch.enable_grad():
                    value = row_divergences(rows, teacher[places], ctx.divergence, ctx.temperature).sum()
                (slope,) = torch.autograd.grad(value, rows)
                gradient[places] = slope.mul_(bar * (ctx.temperature**2 / n)).to(gradient.dtype)
        return gradient, None, None, None, None
