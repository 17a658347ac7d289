"""Does a Sinkhorn term help beside KL, away from encoders? A decoder-only and an encoder-decoder pair on plain text.

    python benchmarks/lm_pairs.py [--out FILE]        what is left of the runs, then the JSON

The protocol, written before the runs, is `lm_pairs.md`. The text is read from $PUSHFORWARD_DATA/lm/tinyshakespeare.txt.
Every run appends a line to runs/lm_pairs/lines.jsonl at once; a second call skips what is there.
"""

from __future__ import annotations

import functools
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lm_pairs_terms
import torch
from lib import RESULTS, Row, conditions, parsed, write_json
from lm_pairs_arms import ADDED, ARMS, IDEAS, Arm, arm_of
from lm_pairs_models import (
    BATCH,
    JUDGED,
    LENGTH,
    LINE,
    LINES,
    STEPS,
    TEACHER_STEPS,
    VOCABULARY,
    Pair,
    batch_of,
    examples,
    judged,
    settings,
    student,
    teacher,
    write_line,
)  # fmt: skip
from transformers import logging as hf_logging

from pushforward.lm.trainer import DistillationArguments, DistillationTrainer

RATES = (1e-3, 5e-4, 2e-3)
TUNING_SEED = 100
SEEDS = {"decoder": 5, "seq2seq": 3, "ideas": 3, "faithful": 3}
Setting = tuple[float, float]  # learning rate, weight


def trained(pair: Pair, arm: Arm, setting: Setting, seed: int) -> tuple[Any, dict[str, float]]:
    """A student, its CPU seconds of training, and how many warnings of inexact plans came."""
    rate, weight = setting
    teaching = teacher(pair)
    torch.manual_seed(seed)
    model = student(pair)
    loss = arm.loss(teaching.get_output_embeddings().weight.detach(), weight)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wanted = settings(pair, steps=STEPS, rate=rate, seed=seed, batch=BATCH[pair], folder=folder)
        DistillationTrainer(
            model, teaching, args=DistillationArguments(**wanted, label_weight=arm.label_weight),
            distillation_loss=loss, train_dataset=examples(pair, "train"), data_collator=batch_of,
        ).train()  # fmt: skip
    short = sum("marginal error" in str(one.message) for one in caught)
    return model, {"seconds": time.process_time() - start, "inexact plans": short}


def run(stage: str, pair: Pair, name: str, setting: Setting, seed: int) -> Row:
    """The line of a run, made if it is not there."""
    key = {"stage": stage, "pair": pair, "arm": name, "rate": setting[0], "weight": setting[1], "seed": seed}
    if (known := LINES.find(key)) is not None:
        return known
    model, spent = trained(pair, arm_of(pair, name), setting, seed)
    row = key | judged(pair, model, "valid" if stage == "tuning" else "held out") | spent
    write_line(row)
    return row


@functools.cache
def chosen(pair: Pair, name: str, by: str = "perplexity") -> Setting:
    """The best rate at the first weight, for CE and KL; the others take KL's. Then the best weight at that rate."""
    arm = arm_of(pair, name)
    if arm.like:
        return chosen(pair, arm.like)

    def best(tries: list[Setting], by: str = "perplexity") -> Setting:
        if len(tries) == 1:
            return tries[0]
        sign = 1 if by == "perplexity" else -1
        return min(tries, key=lambda setting: sign * run("tuning", pair, name, setting, TUNING_SEED)[by])

    if name in ("ce", "kl"):
        rate, _ = best([(rate, arm.weights[0]) for rate in RATES])
    else:
        rate, _ = chosen(pair, "kl")
    return best([(rate, weight) for weight in arm.weights], by)


def beside() -> None:
    """What the terms do, seen on a student of the KL arm; once."""
    if LINES.find({"stage": "diagonal"}) is None:
        model, _ = trained("decoder", ARMS["decoder"]["kl"], chosen("decoder", "kl"), 0)
        lm_pairs_terms.diagonal(model)
        lm_pairs_terms.terms(model)


def everything(out: Path) -> None:
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    torch.set_num_threads(1)
    machine = conditions(["transformers", "accelerate", "tokenizers"])
    fixed = {
        "vocabulary": VOCABULARY, "window": LENGTH, "line": LINE, "batch": BATCH, "steps": STEPS,
        "teacher steps": TEACHER_STEPS, "rates": RATES, "tuning seed": TUNING_SEED, "judged": JUDGED,
    }  # fmt: skip

    def final(pair: Pair, arms: dict[str, Arm], seeds: int, by: str = "perplexity") -> None:
        stage = "final" if by == "perplexity" else f"final by {by}"
        for seed in range(seeds):
            for name in arms:
                run(stage, pair, name, chosen(pair, name, by), seed)
                write_json(out, machine | {"settings": fixed, "runs": LINES.rows()})

    final("decoder", ARMS["decoder"] | ADDED, SEEDS["decoder"])
    beside()
    faithful = {name: arm for name, arm in ARMS["decoder"].items() if name not in ("ce", "kl + published")}
    final("decoder", faithful, SEEDS["faithful"], by="agreement")
    final("seq2seq", ARMS["seq2seq"], SEEDS["seq2seq"])
    final("decoder", IDEAS, SEEDS["ideas"])


def main() -> None:
    everything(parsed(__doc__, {"out": RESULTS / "lm_pairs.json"}).out)


if __name__ == "__main__":
    main()
