"""The positions of a batch that a loss compares, the documents that they belong to, and their number.

A batch of tokens is (B, L): a row is a text, or several texts (documents) packed one after another, the numbering of
whose positions starts anew. A decoder-only model's logits at a position speak of the next token: what counts at
position t is then decided by token t + 1, and the last position of a row never counts.

symbol     meaning                                                        shape
labels     tokens to predict, -100 where there is none                    (B, L)
mask       positions whose logits count                                   (B, L), bool
document   number of a position's document within its row, from 0         (B, L)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["IGNORED", "counts", "documents", "longest", "positions_that_count", "separated"]

# What labels hold where there is nothing to predict.
IGNORED = -100


def documents(inputs: Mapping[str, Any]) -> Tensor | None:
    """The document number of each position, (B, L); None where every row is one text."""
    numbers = inputs.get("seq_idx")
    if numbers is None:
        places = inputs.get("position_ids")
        if not isinstance(places, Tensor) or places.ndim != 2:
            return None
        tokens = _shape(inputs)
        starts = places.diff(dim=-1, prepend=places[:, :1] - 1) != 1
        numbers = starts.cumsum(-1).expand(tokens[0] if tokens else len(places), -1)
    return numbers if bool((numbers != numbers[:, :1]).any()) else None


def separated(inputs: Mapping[str, Any], *, next_token: bool) -> dict[str, Any]:
    """The batch as both models must get it, so that no document of a row attends to another.

    The label of a document's first token is removed, since it is no next token of the document before. Models of
    transformers keep packed documents apart only where no attention mask is given; a mask that hides nothing, or hides
    only what comes after the tokens that count, is left out.
    """
    batch, document = dict(inputs), documents(inputs)
    if document is None:
        return batch
    labels, seen = batch.get("labels"), batch.get("attention_mask")
    if next_token and isinstance(labels, Tensor) and labels.shape == document.shape:
        batch["labels"] = labels.masked_fill(_starts(document), IGNORED)
    if isinstance(seen, Tensor) and seen.ndim == 2 and (next_token or bool(seen.all())):
        del batch["attention_mask"]
    return batch


def positions_that_count(inputs: Mapping[str, Any], *, next_token: bool, seq2seq: bool) -> Tensor | None:
    """The mask over the positions of logits (B, L, K); None for all.

    They are those with labels, or, where the batch has none, those of tokens that the attention mask shows.
    """
    labels, side = inputs.get("labels"), "decoder_" if seq2seq else ""
    seen = inputs.get(f"{side}attention_mask")
    if labels is not None:
        marked = labels != IGNORED
    elif isinstance(seen, Tensor) and seen.ndim == 2:
        marked = seen.bool()
    elif next_token and (shape := _shape(inputs, side)):
        device = next(value.device for value in inputs.values() if isinstance(value, Tensor))
        marked = torch.ones(shape, dtype=torch.bool, device=device)
    else:
        return None
    if not next_token:
        return marked
    document = documents(inputs)
    if document is not None and document.shape == marked.shape:
        marked = marked & ~_starts(document)
    return torch.cat([marked[:, 1:], marked.new_zeros(len(marked), 1)], 1)


def counts(inputs: Mapping[str, Any], *, next_token: bool, seq2seq: bool) -> Tensor:
    """The numbers of labels, of positions of logits (B, L, K) and of rows in a batch, (3,): the means' denominators."""
    tensors = [value for value in inputs.values() if isinstance(value, Tensor) and value.ndim]
    rows, device, labels = len(tensors[0]), tensors[0].device, inputs.get("labels")
    mask = None
    if not isinstance(labels, Tensor) or labels.ndim == 2:
        mask = positions_that_count(inputs, next_token=next_token, seq2seq=seq2seq)
    shape = _shape(inputs, "decoder_" if seq2seq else "") or (rows,)
    positions = torch.Size(shape).numel() if mask is None else mask.sum()
    if not isinstance(labels, Tensor):
        labelled = rows  # what a model of one's own learns from is a matter of its rows
    else:
        labelled = positions if labels.ndim == 2 and next_token else labels.ne(IGNORED).sum()
    return torch.stack([torch.as_tensor(n, device=device) for n in (labelled, positions, rows)])


def longest(inputs: Mapping[str, Any], limit: int) -> int:
    """The length of the longest text of a batch, in positions, where it may be more than `limit`; else 0."""
    shape = _shape(inputs)
    if shape is None or shape[1] <= limit:
        return 0
    places = inputs.get("position_ids")
    return int(places.max()) + 1 if isinstance(places, Tensor) and places.ndim == 2 else shape[1]


def _shape(inputs: Mapping[str, Any], side: str = "") -> tuple[int, int] | None:
    """The shape (B, L) of the tokens that enter an encoder or a decoder; None where it is unknown."""
    for name in (f"{side}input_ids", f"{side}inputs_embeds"):
        tokens = inputs.get(name)
        if isinstance(tokens, Tensor) and tokens.ndim >= 2:
            return tokens.shape[0], tokens.shape[1]
    return None


def _starts(document: Tensor) -> Tensor:
    """Whether a document begins at a position, without the first document of a row."""
    return document.diff(dim=-1, prepend=document[:, :1]) != 0
