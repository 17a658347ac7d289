"""Tiny models, tokenizers and data, made on the spot."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForSequenceClassification,
)

GOOD, BAD, THINGS = ["fine", "warm", "bright"], ["dull", "grim", "weak"], ["film", "plot", "scene"]
WORDS = ["[PAD]", "[UNK]", "a", "with", *GOOD, *BAD, *THINGS]


def tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    whole = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "attention_mask"],
    )


def save_bert(folder: Path, *, head: bool = True, labels: int = 2, words: list[str] = WORDS, seed: int = 0) -> None:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
        initializer_range=0.7 if head else 0.02,  # a teacher has opinions
        num_labels=labels,
    )
    (BertForSequenceClassification if head else BertModel)(config).save_pretrained(folder)
    tokenizer(words).save_pretrained(folder)


def save_gpt2(folder: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(WORDS), n_embd=8, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_t5(folder: Path) -> None:
    """With a tokenizer that knows the end of a text but does not write it."""
    torch.manual_seed(0)
    words = [*WORDS, "</s>"]
    size = {"d_model": 8, "d_ff": 8, "d_kv": 4, "num_heads": 2, "num_layers": 2}
    config = T5Config(vocab_size=len(words), pad_token_id=0, eos_token_id=len(WORDS), decoder_start_token_id=0, **size)
    T5ForSequenceClassification(config).save_pretrained(folder)
    tokenizer(words).save_pretrained(folder)


def save_scores(folder: Path) -> None:
    draw = random.Random(0)
    folder.mkdir()
    for split, rows in (("train", 24), ("dev", 12)):
        lines = [f"{sentence(draw, k % 2 == 1)}\t{sentence(draw, True)}\t{5 * (k % 2)}" for k in range(rows)]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *lines]) + "\n")


def sentence(draw: random.Random, positive: bool) -> str:
    return f"a {draw.choice(GOOD if positive else BAD)} {draw.choice(THINGS)} with a {draw.choice(THINGS)}"


def save_data(folder: Path) -> None:
    draw = random.Random(0)
    folder.mkdir()
    for split, rows in (("train", 48), ("dev", 20)):
        lines = [f"{sentence(draw, k % 2 == 1)}\t{k % 2}" for k in range(rows)]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")


def save_text(file: Path) -> None:
    draw = random.Random(0)
    file.write_text("\n".join(sentence(draw, k % 2 == 1) for k in range(120)))
