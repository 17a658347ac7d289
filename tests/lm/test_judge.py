"""The judge's figures on models whose probabilities are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from pushforward.lm.data import Rows
from pushforward.lm.judge import judge
from pushforward.lm.tasks import TASKS

TEACHER, STUDENT = (0.9, 0.1), (0.4, 0.6)


class Says(torch.nn.Module):
    """The same probabilities whatever it is asked."""

    def __init__(self, probabilities: tuple[float, ...], *, tokens: bool) -> None:
        super().__init__()
        self.logits, self.tokens = torch.nn.Parameter(torch.tensor(probabilities).log()), tokens

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        shape = input_ids.shape if self.tokens else input_ids.shape[:1]
        return SimpleNamespace(logits=self.logits.expand(*shape, -1))


@pytest.mark.parametrize("tokens", [False, True])
def test_kl_is_from_the_teacher_to_the_student(tokens: bool):
    data = [{"input_ids": [0, 1, 1], "labels": [0, 1, 1] if tokens else 1} for _ in range(3)]
    rows = Rows(
        rows=data,
        collate=lambda some: {name: torch.tensor([row[name] for row in some]) for name in some[0]},
        task=None if tokens else TASKS["sst2"],
    )
    found = judge(Says(STUDENT, tokens=tokens), rows, teacher=Says(TEACHER, tokens=tokens), batch_size=2)
    kl = sum(p * math.log(p / q) for p, q in zip(TEACHER, STUDENT, strict=True))
    assert found["kl"] == pytest.approx(kl, rel=1e-5)
    assert kl != pytest.approx(sum(q * math.log(q / p) for p, q in zip(TEACHER, STUDENT, strict=True)), rel=0.1)
    assert found["agreement"] == 0.0
    if tokens:
        assert found["perplexity"] == pytest.approx(1 / STUDENT[1], rel=1e-5)
    else:
        assert found["accuracy"] == 1.0


@pytest.mark.parametrize("training", [False, True])
def test_the_models_keep_their_modes(training: bool):
    rows = Rows(
        rows=[{"input_ids": [0, 1], "labels": 1}],
        collate=lambda some: {name: torch.tensor([row[name] for row in some]) for name in some[0]},
        task=TASKS["sst2"],
    )
    student, teacher = Says(STUDENT, tokens=False).train(training), Says(TEACHER, tokens=False).train(not training)
    judge(student, rows, teacher=teacher)
    assert (student.training, teacher.training) == (training, not training)
