"""One run of the registered benchmark: the teacher, or a student and its figures.

The losses, over a batch of 32:

    total = (1 - alpha) CE + alpha D + beta E,     E one of the additions below, D = KL where there is one

symbol      meaning                                                             where it comes from
rate        the learning rate's first value, decaying linearly to 0             chosen on the validation phrases
alpha       share of the divergence D (T = 2) from the teacher                  chosen; additions take KL's
beta        weight of the addition                                              chosen; 0.8 for the published form
"""

from __future__ import annotations

import functools
import time
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from lib import ROOT, Row
from lm_registered_data import PLANS, SPLIT_SEED, Plan, batches, collator, encoder_folder, splits, tokenised

RUNS = ROOT / "runs" / "lm_registered"
DIVERGENCES = ("kl", "reverse_kl", "js", "total_variation")
ADDITIONS = ("published", "corrected", "corrected_representations", "mean_l1")
LOSSES = ("ce", *DIVERGENCES, *ADDITIONS)
TEACHER_RATE = 5e-5


def arguments(plan: Plan, *, rate: float, epochs: int, seed: int, label_weight: float) -> Any:
    from pushforward.lm.trainer import DistillationArguments

    return DistillationArguments(
        output_dir=str(RUNS / "trainer"),
        num_train_epochs=epochs,
        per_device_train_batch_size=plan.batch,
        learning_rate=rate,
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        seed=seed,
        label_weight=label_weight,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )


def answered(model: Any, dataset: Any) -> tuple[Any, Any]:
    """Logits (N, classes) and mean last hidden states (N, d) of a model in evaluation mode."""
    import torch

    model.eval()
    logits, pooled = torch.empty(len(dataset), 2), torch.empty(len(dataset), model.config.hidden_size)
    with torch.no_grad():
        for places, batch in batches(dataset):
            batch.pop("labels")
            out = model(**batch, output_hidden_states=True)
            seen = batch["attention_mask"][..., None]
            logits[places] = out.logits
            pooled[places] = (out.hidden_states[-1] * seen).sum(1) / seen.sum(1)
    return logits, pooled


def make_teacher(task: str, data: str) -> Row:
    """The encoder fine-tuned on the teacher's share of train, and its answers on everything that students will see."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForSequenceClassification, Trainer

    plan, start = PLANS[task], time.perf_counter()
    parts = splits(task, data)
    torch.manual_seed(SPLIT_SEED)
    model = AutoModelForSequenceClassification.from_pretrained(encoder_folder(), num_labels=2)
    args = arguments(plan, rate=TEACHER_RATE, epochs=plan.teacher_epochs, seed=SPLIT_SEED, label_weight=0.0)
    dataset = tokenised(task, parts["teacher"])
    Trainer(model=model, args=args, train_dataset=dataset, data_collator=collator()).train()
    model.save_pretrained(RUNS / f"{task}-teacher")
    answers, figures = {}, {}
    for name, examples in parts.items():
        if name == "teacher" or not len(examples):
            continue
        answers[f"{name}.logits"], answers[f"{name}.pooled"] = answered(model, tokenised(task, examples))
        figures[name] = judged(task, answers[f"{name}.logits"], answers[f"{name}.logits"], examples.labels)
    save_file(answers, RUNS / f"{task}-answers.safetensors")
    return {"task": task, "stage": "teacher", "sets": figures, "seconds": time.perf_counter() - start}


def judged(task: str, logits: Any, teacher_logits: Any, labels: Sequence[float]) -> Row:
    """The task's metrics, the agreement with the teacher (all in per cent) and KL(teacher || student) at T = 1."""
    from pushforward.lm.tasks import metrics

    scores = metrics(task, logits.argmax(-1).numpy(), np.asarray(labels))
    log_p, log_q = teacher_logits.double().log_softmax(-1), logits.double().log_softmax(-1)
    return {name: 100 * value for name, value in scores.items()} | {
        "agreement": 100 * float((logits.argmax(-1) == teacher_logits.argmax(-1)).double().mean()),
        "kl": float((log_p.exp() * (log_p - log_q)).sum(-1).mean()),
    }


@functools.cache
def prepared(task: str, data: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The teacher's model, its answers, and the tokenised splits: once a process."""
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    teacher = AutoModelForSequenceClassification.from_pretrained(RUNS / f"{task}-teacher")
    parts = {
        name: tokenised(task, part) for name, part in splits(task, data).items() if name != "teacher" and len(part)
    }
    return teacher, load_file(RUNS / f"{task}-answers.safetensors"), parts


def recalled(ids: Sequence[Sequence[int]], logits: Any, pooled: Any) -> Any:
    """A teacher that answers from memory, by a sample's tokens; `order` is a checksum of what was asked when."""
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    class Recalled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = {tuple(tokens): k for k, tokens in enumerate(ids)}
            self.order = 0

        def forward(self, input_ids: Any, attention_mask: Any, output_hidden_states: bool = False) -> Any:
            del output_hidden_states
            lengths = attention_mask.sum(-1).tolist()
            rows = [self.place[tuple(row[:n])] for row, n in zip(input_ids.tolist(), lengths, strict=True)]
            self.order = zlib.crc32(np.asarray(rows).tobytes(), self.order)
            # One state stands for all tokens: the trainer's mean over them is this state again.
            return SequenceClassifierOutput(logits=logits[rows], hidden_states=(pooled[rows][:, None],))

    return Recalled()


def addition(name: str) -> Any:
    from pushforward.lm.losses import KD
    from pushforward.lm.sinkhorn import SinkhornKD

    match name:
        case "published":
            return SinkhornKD(published=True)
        case "corrected":
            return SinkhornKD()
        case "corrected_representations":
            return SinkhornKD(representation_weight=1.0)
        case _:
            # mean |p - q|_1 is twice the total variation; KD multiplies by T^2 = 4.
            return (2 / 4) * KD("total_variation")


def distillation(loss: str, settings: Row) -> tuple[float, Any]:
    """(weight of CE, the distillation loss)."""
    from pushforward.lm.losses import KD

    if loss == "ce":
        return 1.0, 0.0 * KD("kl")
    if loss in DIVERGENCES:
        return 1 - settings["alpha"], settings["alpha"] * KD(loss)
    return 1 - settings["alpha"], settings["alpha"] * KD("kl") + settings["beta"] * addition(loss)


def fresh_student(teacher: Any) -> Any:
    """The teacher's first two layers; its embeddings stay as they are."""
    from pushforward.lm.students import student_from_layers

    student = student_from_layers(teacher, [0, 1])
    # Half of a step would go into AdamW on 30,522 rows of embeddings of which a batch touches 200.
    student.base_model.embeddings.requires_grad_(False)
    return student


def trained(job: Row, data: str, callbacks: list[Any] | None = None) -> tuple[Any, int]:
    """A student after its last epoch, and the checksum of its data's order."""
    from pushforward.lm.trainer import DistillationTrainer

    plan = PLANS[job["task"]]
    teacher, answers, parts = prepared(job["task"], data)
    chosen = np.random.default_rng(job["seed"]).permutation(plan.pool)[: plan.subset].tolist()
    dataset = parts["pool"].select(chosen)
    memory = recalled(dataset["input_ids"], answers["pool.logits"][chosen], answers["pool.pooled"][chosen])
    label_weight, loss = distillation(job["loss"], job["settings"])
    rate = job["settings"]["rate"]
    args = arguments(plan, rate=rate, epochs=plan.epochs, seed=job["seed"], label_weight=label_weight)
    student = fresh_student(teacher)
    DistillationTrainer(
        student, memory, args=args, distillation_loss=loss, train_dataset=dataset, data_collator=collator(),
        callbacks=callbacks,
    ).train()  # fmt: skip
    return student, memory.order


def run(job: Row, data: str) -> Row:
    """The line of one job. Runs in a worker."""
    import torch
    import transformers

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    if job["stage"] == "teacher":
        return make_teacher(job["task"], data)
    start, task = time.perf_counter(), job["task"]
    student, order = trained(job, data)
    seconds = time.perf_counter() - start
    _, answers, parts = prepared(task, data)
    names = ("validation",) if job["stage"] == "trial" else PLANS[task].evaluated_on
    figures = {}
    for name in names:
        logits, _ = answered(student, parts[name])
        figures[name] = judged(task, logits, answers[f"{name}.logits"], parts[name]["labels"])
    return job | {"sets": figures, "order": order, "seconds": seconds}
