"""Metrics of a model on its data, and of its distance from its teacher.

name         meaning                                                                 unit
perplexity   exp of the mean -log q(next token)                                      1
agreement    share of positions at which student and teacher have the same argmax    1
kl           mean KL(p || q) from teacher p to student q, at temperature 1           nats

and a task's own metrics (`tasks.metrics`). A position is an example of a task, or a token that has one before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pushforward import divergences
from pushforward.lm.data import Rows, arguments, taken
from pushforward.lm.tasks import metrics
from pushforward.lm.vocab import match_widths

if TYPE_CHECKING:
    from pushforward.lm.tasks import Task

__all__ = ["judge"]


@torch.no_grad()
def judge(
    model: nn.Module,
    rows: Rows,
    *,
    teacher: nn.Module | None = None,
    batch_size: int = 32,
    vocab_size: int | None = None,
) -> dict[str, float]:
    """A model's metrics on rows that it was not trained on.

    Args:
        model: A sequence classifier where the rows are of a task, else a decoder-only model. Its mode and the states of
            the random generators are left unchanged.
        rows: The rows to evaluate on.
        teacher: The teacher, for agreement and KL; None leaves both out.
        batch_size: The rows of a batch.
        vocab_size: Tokens that both share, where padding gives their logits different widths.

    Returns:
        The metrics by name. A task whose label is a score has no `agreement` and no `kl`.
    """
    modes = [(m, m.training) for m in (model, teacher) if m is not None]
    for module, _ in modes:
        module.eval()
    try:
        if rows.task is None:
            return _judge_text(model, teacher, rows, batch_size, vocab_size)
        return _judge_task(model, teacher, rows, rows.task, batch_size)
    finally:
        for module, mode in modes:
            module.train(mode)


def _judge_task(
    model: nn.Module, teacher: nn.Module | None, rows: Rows, task: Task, batch_size: int
) -> dict[str, float]:
    labels = torch.cat([batch["labels"] for batch in _batches(rows, batch_size)])
    logits = _all_logits(model, rows, batch_size)
    found = metrics(task, logits.argmax(-1) if task.labels else logits[:, 0], labels)
    if teacher is None or not task.labels:
        return found
    taught = _all_logits(teacher, rows, batch_size)
    return found | {
        "agreement": float((logits.argmax(-1) == taught.argmax(-1)).double().mean()),
        "kl": float(_kl(taught, logits).mean()),
    }


def _judge_text(
    model: nn.Module, teacher: nn.Module | None, rows: Rows, batch_size: int, vocab_size: int | None
) -> dict[str, float]:
    # Logits over a vocabulary are large: what is wanted is summed batch by batch.
    tokens = nll = same = kl = 0.0
    for batch in _batches(rows, batch_size):
        logits = _logits(model, batch)[:, :-1]
        says = batch["labels"][:, 1:].to(logits.device)
        tokens += says.numel()
        nll += float(nn.functional.cross_entropy(logits.flatten(0, 1), says.flatten(), reduction="sum"))
        if teacher is not None:
            taught = _logits(teacher, batch)[:, :-1]
            if logits.shape[-1] != taught.shape[-1]:
                logits, taught = match_widths(logits, taught, vocab_size)
            same += float((logits.argmax(-1) == taught.argmax(-1)).sum())
            kl += float(_kl(taught, logits).sum())
    found = {"perplexity": math.exp(min(nll / tokens, 700.0))}
    return found if teacher is None else found | {"agreement": same / tokens, "kl": kl / tokens}


def _batches(rows: Rows, size: int) -> Iterator[Mapping[str, Tensor]]:
    for start in range(0, len(rows), size):
        yield rows.collate(rows.rows[start : start + size])


def _all_logits(model: nn.Module, rows: Rows, batch_size: int) -> Tensor:
    return torch.cat([_logits(model, batch).cpu() for batch in _batches(rows, batch_size)])


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    device = next(model.parameters()).device
    given = taken(batch, arguments(model), without=("labels",))
    given = {name: tensor.to(device) for name, tensor in given.items()}
    return model(**given).logits.float()


def _kl(taught: Tensor, logits: Tensor) -> Tensor:
    return divergences.KL.between(taught.log_softmax(-1), logits.log_softmax(-1))
