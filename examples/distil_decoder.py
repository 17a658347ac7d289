"""Distil a decoder-only language model, trained here on Python's own reference, into one of its three layers."""

from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Trainer, TrainingArguments

from pushforward.lm.losses import KD, DistillationLoss
from pushforward.lm.sinkhorn import SinkhornKD, TokenCost
from pushforward.lm.students import student_from_layers
from pushforward.lm.trainer import DistillationArguments, DistillationTrainer

WINDOW = 48
QUIET: dict[str, Any] = {
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}

# A character is a token: 128 of them, no tokenizer.
text = torch.frombuffer(bytearray("\n".join(topics.values()).encode("ascii", "replace")), dtype=torch.uint8).long()
windows: list[Any] = [{"input_ids": window, "labels": window} for window in text.split(WINDOW)[:-1]]
train: Any = [window for k, window in enumerate(windows) if k % 50]
held_out = windows[::50]


@torch.no_grad()
def log_probabilities(model: PreTrainedModel) -> Tensor:
    """What the model says of every next character of the held-out windows, (N, T - 1, K)."""
    batch = torch.stack([window["input_ids"] for window in held_out])
    return model.eval()(input_ids=batch).logits[:, :-1].log_softmax(-1)


def judged(student: PreTrainedModel) -> str:
    """How near the student is to its teacher."""
    log_p, log_q = log_probabilities(teacher), log_probabilities(student)
    agreement = (log_p.argmax(-1) == log_q.argmax(-1)).float().mean()
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    return f"KL to the teacher {kl:.4f}   agreement with it {agreement:.1%}"


def distilled(loss: DistillationLoss) -> PreTrainedModel:
    """A student of one layer, trained by the loss and a little by the text."""
    torch.manual_seed(0)
    student = student_from_layers(teacher, 1)
    arguments = DistillationArguments(
        output_dir="student", max_steps=40, per_device_train_batch_size=8, learning_rate=2e-3, label_weight=0.1, **QUIET
    )
    DistillationTrainer(student, teacher, args=arguments, distillation_loss=loss, train_dataset=train).train()
    return student


torch.manual_seed(0)
teacher = GPT2LMHeadModel(
    GPT2Config(vocab_size=128, n_positions=WINDOW, n_embd=64, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0)
)
arguments = TrainingArguments("teacher", max_steps=100, per_device_train_batch_size=8, learning_rate=3e-3, **QUIET)
Trainer(model=teacher, args=arguments, train_dataset=train).train()
embeddings = teacher.lm_head.weight.detach()

print("one layer, untrained         ", judged(student_from_layers(teacher, 1)))
print("distilled by KL              ", judged(distilled(0.9 * KD("kl"))))
# Between classes: a character that is near the right one, by the teacher's own embeddings, is a near miss.
near_misses = SinkhornKD(support="classes", cost=TokenCost(embeddings=embeddings, top_k=8))
print("by KL and between characters ", judged(distilled(0.9 * KD("kl") + 3.0 * near_misses)))
