"""What the students of `lm_pairs.py` are trained on: the losses of its arms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lm_pairs_models import Pair
from torch import Tensor

from pushforward.lm.losses import KD, Context, DistillationLoss
from pushforward.lm.sinkhorn import SinkhornKD, TokenCost


class Ungrouped(DistillationLoss):
    """A loss among all positions of the batch, where the trainer would keep those of each sequence to themselves."""

    pairs_samples = False

    def __init__(self, loss: DistillationLoss) -> None:
        self.loss = loss

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        return self.loss.rows(student_logits, teacher_logits, replace(context, group_ids=None))


def in_classes(embeddings: Tensor, temperature: float = 2.0) -> SinkhornKD:
    return SinkhornKD(
        support="classes", cost=TokenCost(embeddings=embeddings, top_k=32), temperature=temperature, epsilon=0.1
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """What students are trained on: label_weight CE + loss(teacher's output embeddings, weight).

    `weights` are tried in this order; an idea has none, and takes the setting of the arm `like`.
    """

    loss: Callable[[Tensor, float], DistillationLoss]
    weights: tuple[float, ...] = ()
    like: str = ""
    label_weight: float = 0.1


KL = 0.9 * KD("kl")
L1 = 0.5 * KD("total_variation")  # mean_i |p_i - q_i|_1: KD is T^2 TV, TV half of the L1 distance, T = 2
PUBLISHED = SinkhornKD(published=True)
ARMS: dict[Pair, dict[str, Arm]] = {
    "decoder": {
        "ce": Arm(loss=lambda _, w: 0.0 * KD("kl"), weights=(0.0,), label_weight=1.0),
        "kl": Arm(loss=lambda _, w: w * KD("kl"), weights=(0.9, 0.3, 2.7)),
        "js": Arm(loss=lambda _, w: w * KD("js"), weights=(2.7, 0.9, 8.1)),
        "kl + l1": Arm(loss=lambda _, w: KL + w * L1, weights=(0.8, 0.1, 3.0)),
        "kl + published": Arm(loss=lambda _, w: KL + w * PUBLISHED, weights=(0.8, 8.0, 80.0)),
        "kl + batch": Arm(loss=lambda _, w: KL + w * SinkhornKD(), weights=(0.8, 0.1, 3.0)),
        "kl + classes": Arm(loss=lambda e, w: KL + w * in_classes(e), weights=(3.0, 0.8, 10.0)),
    },
    "seq2seq": {
        "ce": Arm(loss=lambda _, w: 0.0 * KD("kl"), weights=(0.0,), label_weight=1.0),
        "kl": Arm(loss=lambda _, w: w * KD("kl"), weights=(0.9,)),
        "kl + batch": Arm(loss=lambda _, w: KL + w * SinkhornKD(), weights=(0.8,)),
        "kl + classes": Arm(loss=lambda e, w: KL + w * in_classes(e), weights=(3.0,)),
    },
}
IDEAS = {
    "classes alone": Arm(loss=lambda e, w: w * in_classes(e), like="kl + classes"),
    "kl + batch of all": Arm(loss=lambda _, w: KL + w * Ungrouped(SinkhornKD()), like="kl + batch"),
    "kl, T = 0.5": Arm(loss=lambda _, w: w * KD("kl", temperature=0.5), like="kl"),
    "kl, T = 0.5, w = 0.9": Arm(loss=lambda _, w: w * KD("kl", temperature=0.5), weights=(0.9,)),
    "kl + classes, T = 0.5": Arm(
        loss=lambda e, w: 0.9 * KD("kl", temperature=0.5) + w * in_classes(e, 0.5), like="kl + classes"
    ),
}
ADDED = {"kl, w = 0.9": Arm(loss=lambda _, w: w * KD("kl"), weights=(0.9,))}  # what the sums are sums with


def arm_of(pair: Pair, name: str) -> Arm:
    return {**ARMS[pair], **IDEAS, **ADDED}[name]
