"""`pushforward evaluate` against figures worked out by hand, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli import language_models as made
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


@pytest.fixture
def texts(here: Path) -> None:
    made.save_data(here / "data")
    made.save_text(here / "text.txt")


def test_a_task_row_by_row(run: Callable, texts: None):
    made.save_bert(Path("one"))
    made.save_bert(Path("other"), seed=1)
    outcome = run("evaluate", "one", *"--task sst2 --data data --teacher other --batch-size 7 --json".split())
    assert (outcome.code, outcome.err) == (0, "")
    student, teacher = (AutoModelForSequenceClassification.from_pretrained(name).eval() for name in ("one", "other"))
    lines = [line.split("\t") for line in Path("data/dev.tsv").read_text().splitlines()[1:]]
    right = same = kl = 0.0
    for text, label in lines:
        inputs = made.tokenizer()(text, return_tensors="pt")
        with torch.no_grad():
            q, p = (model(**inputs).logits[0].double().softmax(-1) for model in (student, teacher))
        right += int(q.argmax()) == int(label)
        same += int(q.argmax() == p.argmax())
        kl += float((p * (p / q).log()).sum())
    n = len(lines)
    assert json.loads(outcome.out) == pytest.approx(
        {"accuracy": right / n, "agreement": same / n, "kl": kl / n}, rel=1e-4
    )
    assert 0 < same < n, "a teacher that always or never agrees would not show an error"


def test_the_perplexity_of_a_text(run: Callable, texts: None):
    made.save_gpt2(Path("gpt2"))
    outcome = run("evaluate", "gpt2", *"--text text.txt --max-length 10".split())
    assert outcome.code == 0, outcome.err
    name, value = outcome.out.split()
    model = AutoModelForCausalLM.from_pretrained("gpt2").eval()
    text = Path("text.txt").read_text()
    tokens = made.tokenizer()(text[len(text) - len(text) // 10 :], return_tensors="pt")["input_ids"][0]
    losses = []
    for start in range(0, len(tokens) - 9, 10):
        block = tokens[start : start + 10]
        with torch.no_grad():
            logits = model(block[None]).logits[0, :-1].double()
        losses.append(torch.nn.functional.cross_entropy(logits, block[1:]))
    assert name == "perplexity"
    assert float(value) == pytest.approx(math.exp(torch.stack(losses).mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("nowhere --task sst2 --data data", "MODEL nowhere"),
        ("bert --task sst2", "--data"),
        ("bert --data data", "--task"),
        ("bert --text text.txt --task sst2", "--text"),
        ("bert --text nothing.txt", "nothing.txt"),
        ("bert --task sst2 --data data --split test", "test"),
        ("bert --task sst2 --data data --teacher foreign", "--teacher foreign"),
        ("bert --task sst2 --data data --batch-size 0", "--batch-size"),
        ("bert --task cb --data data", "--data data"),
        ("broken --task sst2 --data data", "MODEL broken"),
    ],
)
def test_one_line_names_what_is_wrong(words: str, named: str, run: Callable, texts: None):
    made.save_bert(Path("bert"))
    made.save_bert(Path("foreign"), words=[*made.WORDS, "more"])
    made.save_bert(Path("broken"))
    weights = Path("broken/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:200])
    outcome = run("evaluate", *words.split())
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert named in outcome.err
