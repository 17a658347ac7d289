"""Texts as a model's training and test data: rows of token numbers, batches of them, and the inputs a model takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pushforward._checks import check_count
from pushforward.errors import InvalidArgument

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pushforward.lm.tasks import Examples, Task

__all__ = ["Rows", "arguments", "blocks", "ended", "sentences", "taken"]

# What collators that pack texts say of them, and models of transformers take among their `**kwargs`.
PACKING = frozenset({"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A data set in a Trainer's form, `len(rows)` and `rows[k]`, with the function that makes batches of it.

    Args:
        rows: For each example its `input_ids`, its `labels` and the model's other inputs.
        collate: Turns some rows into the tensors of a batch.
        task: The task that the rows are examples of; None where the next token is predicted.
    """

    rows: Sequence[Mapping[str, Any]]
    collate: Callable[[Any], Mapping[str, Tensor]] = field(repr=False)
    task: Task | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> Mapping[str, Any]:
        return self.rows[k]

    def some(self, most: int) -> Rows:
        """At most `most` of the rows, spread evenly over all of them."""
        stride = -(-len(self.rows) // check_count("most", most))
        return Rows(rows=self.rows[::stride], collate=self.collate, task=self.task)


def sentences(examples: Examples, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Rows:
    """The examples of a task as rows, one each; batches are padded to their longest row.

    Args:
        examples: A split that has labels.
        tokenizer: The tokenizer of teacher and student; it must have a token for padding.
        max_length: Tokens after which a text, or the longer one of two, is cut.

    Returns:
        The rows.

    Raises:
        InvalidArgument: The examples have no labels, or the tokenizer has no token for padding.
    """
    from transformers import DataCollatorWithPadding

    check_count("max_length", max_length)
    if examples.labels is None:
        raise InvalidArgument("examples have no labels: there is nothing to learn from them or to judge by")
    if tokenizer.pad_token is None:
        raise InvalidArgument(
            "tokenizer has no token for padding; tokenizer.pad_token = tokenizer.eos_token gives it one"
        )
    second = None if examples.second is None else list(examples.second)
    tokens: Mapping[str, Any] = tokenizer(list(examples.first), second, truncation=True, max_length=max_length)
    rows = [{**{name: tokens[name][k] for name in tokens}, "labels": label} for k, label in enumerate(examples.labels)]
    return Rows(rows=rows, collate=DataCollatorWithPadding(tokenizer), task=examples.task)


def ended(rows: Rows, token: int, *, max_length: int) -> Rows:
    """The rows of a task, each with one end-of-text token, by which T5 and BART classify a text.

    Args:
        rows: Rows from `sentences`.
        token: `eos_token_id` of the model's configuration. It is added to rows whose tokenizer added none.
        max_length: The most tokens of a row, this one included.

    Returns:
        The rows with the token.

    Raises:
        InvalidArgument: Rows hold the token in different numbers, of which these models make no batch.
    """

    def end(row: Mapping[str, Any]) -> Mapping[str, Any]:
        if token in row["input_ids"]:
            return row
        last = {"input_ids": token, "attention_mask": 1}
        cut = {name: value[: max_length - 1] for name, value in row.items() if isinstance(value, list)}
        return {**row, **{name: [*value, last.get(name, value[-1])] for name, value in cut.items()}}

    found = [end(row) for row in rows.rows]
    numbers = sorted({row["input_ids"].count(token) for row in found})
    if len(numbers) > 1:
        raise InvalidArgument(
            f"texts hold the end-of-text token {numbers[0]} to {numbers[-1]} times; a model that classifies by it "
            "needs the same number in each: does a text spell the token, or does max_length cut it from some?"
        )
    return Rows(rows=found, collate=rows.collate, task=rows.task)


def blocks(text: str, tokenizer: PreTrainedTokenizerBase, *, length: int, held_out: float = 0.1) -> tuple[Rows, Rows]:
    """A text cut into blocks of equal length, in which every next token is to be predicted.

    Args:
        text: Plain text.
        tokenizer: The tokenizer of teacher and student.
        length: Tokens of a block; the rest at the end is dropped.
        held_out: Share of the text, at its end, that is held out for evaluation.

    Returns:
        The blocks for training and the blocks held out.

    Raises:
        InvalidArgument: The text is too short for a block of each.
    """
    check_count("length", length, least=2)
    # Cut before the tokenizer sees it, so that no token reaches over from one part into the other.
    cut = len(text) - int(len(text) * held_out)
    train, judged = (_cut(part, tokenizer, length) for part in (text[:cut], text[cut:]))
    if not train or not judged:
        raise InvalidArgument(
            f"text has {len(text)} characters, too few for two blocks of {length} tokens; "
            "give a longer text or shorter blocks"
        )
    return Rows(rows=train, collate=_stack), Rows(rows=judged, collate=_stack)


def arguments(model: nn.Module) -> frozenset[str] | None:
    """The names of the batch entries that a model's forward takes; None where a wrapper passes on any entry.

    A model of transformers names all that it takes, although it may have `**kwargs` besides; the arguments of a model
    with adapters are those of the model within.
    """
    from transformers import PreTrainedModel

    bare: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
    parameters = inspect.signature(bare.forward).parameters.values()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if open_ended and not isinstance(bare, PreTrainedModel):
        return None
    named = frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return named | PACKING if open_ended else named


def taken(batch: Mapping[str, Any], names: frozenset[str] | None, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The entries of a batch that a model takes: those among `names`, without those in `without`."""
    return {name: value for name, value in batch.items() if (names is None or name in names) and name not in without}


def _cut(text: str, tokenizer: PreTrainedTokenizerBase, length: int) -> list[dict[str, list[int]]]:
    tokens: Any = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    parts = [tokens[start : start + length] for start in range(0, len(tokens) - length + 1, length)]
    return [{"input_ids": part, "labels": part} for part in parts]


def _stack(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
