"""Why the terms of `lm_pairs.py` do what they do: the plan's diagonal, gradients' sizes, seconds of a step."""

from __future__ import annotations

import functools
from typing import Any

import torch
from lib import median_seconds
from lm_pairs_arms import L1, PUBLISHED, Ungrouped, in_classes
from lm_pairs_models import BATCH, LENGTH, batch_of, examples, logits_of, teacher, teacher_says, write_line
from torch import Tensor

from pushforward.lm.losses import KD, Context, DistillationLoss
from pushforward.lm.sinkhorn import SinkhornKD
from pushforward.ot.solve import solve


def diagonal(model: Any) -> None:
    """What the plan between a student's answers and its teacher's leaves on the diagonal, by number of positions."""
    answers = {"q": logits_of("decoder", model, "held out")[0], "p": teacher_says("decoder", "held out")}
    for n in (47, 188, 752):
        q, p = ((answers[side][:n] / 2).softmax(-1).double() for side in "qp")
        solution = solve(torch.cdist(q, p, p=1.0), epsilon=0.1, throw=False)
        share, paid = solution.plan.to_dense().diagonal().sum().item(), float(solution.transport_cost)
        l1 = (q - p).abs().sum(-1).mean().item()
        write_line({"stage": "diagonal", "positions": n, "share": share, "transport_cost": paid, "mean l1": l1})


def terms(model: Any) -> None:
    """Milliseconds of each loss and its gradient, beside KL's gradient, and those of the models."""
    model.train()
    teaching = teacher("decoder")
    batch = batch_of(examples("decoder", "held out")[: BATCH["decoder"]])
    positions = (BATCH["decoder"], LENGTH - 1)
    context = Context(group_ids=torch.arange(positions[0])[:, None].expand(positions))
    p = teaching(**batch).logits[:, :-1].detach()
    q = model(**batch).logits[:, :-1].detach().requires_grad_()
    seconds = functools.partial(median_seconds, repeats=5)
    losses = {
        "kl": KD("kl"), "js": KD("js"), "l1": L1, "published": PUBLISHED, "batch": SinkhornKD(),
        "batch of all": Ungrouped(SinkhornKD()), "classes": in_classes(teaching.get_output_embeddings().weight),
    }  # fmt: skip

    def gradient(loss: DistillationLoss) -> Tensor:
        return torch.autograd.grad(loss(q, p, context=context), q)[0].flatten()

    reference = gradient(KD("kl"))
    for name, loss in losses.items():
        slope = gradient(loss)
        write_line({
            "stage": "term", "term": name, "seconds": seconds(functools.partial(gradient, loss)),
            "gradient over kl's": (slope.norm() / reference.norm()).item(),
            "cosine with kl's": torch.cosine_similarity(slope, reference, dim=0).item(),
        })  # fmt: skip
    with torch.no_grad():
        write_line({"stage": "model", "term": "teacher forward", "seconds": seconds(lambda: teaching(**batch))})
    both = seconds(lambda: model(**batch).loss.backward())
    write_line({"stage": "model", "term": "student forward and backward", "seconds": both})
