"""The text, the tokens, the teachers and the untrained students of `lm_pairs.py`, and how a model is judged."""

from __future__ import annotations

import functools
import math
import random
import tempfile
import time
from typing import Any

import torch
from lib import ROOT, Lines, Row, data_folder, say
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments

from pushforward.lm.students import student_from_layers

RUNS = ROOT / "runs" / "lm_pairs"
LINES = Lines(RUNS / "lines.jsonl")
VOCABULARY, LENGTH, LINE = 1024, 48, 24  # tokens: of the tokenizer, a window, a line at most
PAD, MASK = 0, 1
BATCH = {"decoder": 4, "seq2seq": 8}  # windows of a step
STEPS = 120
TEACHER_STEPS = {"decoder": 700, "seq2seq": 700}
JUDGED = {"valid": 200, "held out": 400}  # windows
Pair = str  # "decoder" or "seq2seq"
Example = dict[str, Tensor]


def write_line(row: Row) -> None:
    LINES.add(row)
    say(str(row))


@functools.cache
def texts() -> dict[str, str]:
    text = (data_folder("lm/tinyshakespeare.txt") / "lm" / "tinyshakespeare.txt").read_text()
    n = len(text)
    return {"train": text[: n * 85 // 100], "valid": text[n * 85 // 100 : n * 9 // 10], "held out": text[n * 9 // 10 :]}


@functools.cache
def tokenizer() -> ByteLevelBPETokenizer:
    made = ByteLevelBPETokenizer()
    made.train_from_iterator([texts()["train"]], VOCABULARY, special_tokens=["<pad>", "<mask>"], show_progress=False)
    return made


@functools.cache
def examples(pair: Pair, split: str) -> list[Example]:
    text = texts()[split]
    if pair == "decoder":
        windows = torch.tensor(tokenizer().encode(text).ids).split(LENGTH)[:-1]
        found = [{"input_ids": w, "labels": torch.cat([torch.tensor([-100]), w[1:]])} for w in windows]
    else:
        lines = [tokenizer().encode(line).ids for line in text.splitlines() if line]
        chance = random.Random(split)
        found = [_restoration(ids, chance) for ids in lines if 4 <= len(ids) <= LINE]
    stride = max(len(found) // JUDGED.get(split, len(found)), 1)
    return found[::stride][: JUDGED.get(split)]


def _restoration(ids: list[int], chance: random.Random) -> Example:
    """A line of which a quarter of the tokens is hidden, and the line."""
    hidden = [MASK if chance.random() < 0.25 else token for token in ids]
    rest = LINE - len(ids)
    return {
        "input_ids": torch.tensor(hidden + rest * [PAD]),
        "attention_mask": torch.tensor(len(ids) * [1] + rest * [0]),
        "labels": torch.tensor(ids + rest * [-100]),
    }


def batch_of(rows: list[Example]) -> Example:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def untrained(pair: Pair) -> Any:
    if pair == "decoder":
        config = GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=128, n_layer=4, n_head=4, bos_token_id=PAD,
            eos_token_id=PAD, resid_pdrop=0.05, embd_pdrop=0.05, attn_pdrop=0.05,
        )  # fmt: skip
        return GPT2LMHeadModel(config)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=128, d_kv=32, d_ff=256, num_layers=3, num_heads=4, dropout_rate=0.05,
        pad_token_id=PAD, eos_token_id=PAD, decoder_start_token_id=PAD, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def settings(pair: Pair, *, steps: int, rate: float, seed: int, batch: int, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder, "max_steps": steps, "learning_rate": rate, "seed": seed, "weight_decay": 0.01,
        "per_device_train_batch_size": batch, "lr_scheduler_type": "linear", "warmup_steps": steps // 10,
        "max_grad_norm": 1.0, "logging_strategy": "no", "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False,
    }  # fmt: skip


@functools.cache
def teacher(pair: Pair) -> Any:
    """Trained once, then read from runs/."""
    place = RUNS / f"teacher-{pair}"
    if not (place / "config.json").exists():
        torch.manual_seed(0)
        model = untrained(pair)
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            wanted = settings(pair, steps=TEACHER_STEPS[pair], rate=3e-3, seed=0, batch=16, folder=folder)
            Trainer(
                model=model, args=TrainingArguments(**wanted), train_dataset=examples(pair, "train"),
                data_collator=batch_of,
            ).train()  # fmt: skip
        write_line({"stage": "teacher", "pair": pair, "seconds": time.process_time() - start, **judged(pair, model)})
        model.save_pretrained(place)
    return type(untrained(pair)).from_pretrained(place).eval()


def student(pair: Pair) -> Any:
    return student_from_layers(teacher(pair), 2 if pair == "decoder" else 1)


@torch.no_grad()
def logits_of(pair: Pair, model: Any, split: str) -> tuple[Tensor, Tensor]:
    """Log-probabilities at the positions that have labels (N, K), and the labels (N,)."""
    model.eval()
    log_q, labels = [], []
    for rows in _fifty(pair, split):
        batch = batch_of(rows)
        logits, wanted = model(**batch).logits, batch["labels"]
        if pair == "decoder":
            logits, wanted = logits[:, :-1], wanted[:, 1:]
        log_q.append(logits[wanted != -100].log_softmax(-1))
        labels.append(wanted[wanted != -100])
    return torch.cat(log_q), torch.cat(labels)


def _fifty(pair: Pair, split: str) -> list[list[Example]]:
    rows = examples(pair, split)
    return [rows[k : k + 50] for k in range(0, len(rows), 50)]


@functools.cache
def teacher_says(pair: Pair, split: str) -> Tensor:
    return logits_of(pair, teacher(pair), split)[0]


def judged(pair: Pair, model: Any, split: str = "held out") -> dict[str, float]:
    log_q, labels = logits_of(pair, model, split)
    found = {
        "perplexity": math.exp(-log_q.gather(1, labels[:, None]).mean()),
        "accuracy": (log_q.argmax(-1) == labels).double().mean().item(),
    }
    if (RUNS / f"teacher-{pair}" / "config.json").exists():
        log_p = teacher_says(pair, split)
        found["agreement"] = (log_q.argmax(-1) == log_p.argmax(-1)).double().mean().item()
        found["kl"] = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
    return found
