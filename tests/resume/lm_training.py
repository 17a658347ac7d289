"""A small distillation run in processes of its own, and ways to kill it.

The student learns from a classifier with dropout, AdamW and a schedule, with the Sinkhorn term over all ranks' samples.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from resume.launch import run_ranks

STEPS, SAVE_EVERY = 8, 3


def launch(
    folder: Path,
    *,
    processes: int = 1,
    kill: tuple[str, int] | None = None,
    dropout: float = 0.1,
    tokens: bool = False,
    **options: Any,
) -> list[int | None]:
    """Train until the end or a kill; how each process ended.

    Args:
        folder: The run's.
        processes: As many ranks, over which a batch of 8 is shared.
        kill: ("step", k) after step k's update; ("save", k) in the middle of step k's save.
        dropout: The student's.
        tokens: Whether next tokens are learnt, with labels on few of them, or classes.
        options: Of `DistillationArguments`.
    """
    options = {"per_device_train_batch_size": 8 // processes, **options}
    return run_ranks(processes, _train, folder, kill, dropout, tokens, options)


def _classes(dropout: float) -> tuple[Any, list[dict[str, Any]]]:
    """A teacher that classifies, and its data."""
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    teacher = transformers.BertForSequenceClassification(config)
    teacher.classifier.weight.data *= 50
    tokens = torch.randint(1, 40, (40, 7), generator=torch.Generator().manual_seed(1))
    return teacher, [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row[0] % 2} for row in tokens]


def _next_tokens(dropout: float) -> tuple[Any, list[dict[str, Any]]]:
    """A teacher that says next tokens, and texts that have 0 to 6 of them to say."""
    import torch
    import transformers

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=8, **rates)
    teacher = transformers.GPT2LMHeadModel(config)
    teacher.transformer.wte.weight.data *= 10
    tokens = torch.randint(1, 40, (40, 7), generator=torch.Generator().manual_seed(1))
    data = [{"input_ids": row, "labels": row.clone()} for row in tokens]
    for k, row in enumerate(data):
        row["labels"][: 1 + k % 7] = -100
    return teacher, data


def _train(folder: Path, kill: tuple[str, int] | None, dropout: float, tokens: bool, options: dict[str, Any]) -> None:
    import torch
    import transformers

    from pushforward.lm import KD, DistillationArguments, DistillationTrainer, SinkhornKD, student_from_layers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    teacher, data = (_next_tokens if tokens else _classes)(dropout)

    class Killed(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
            if kill == ("step", state.global_step):
                os.kill(os.getpid(), signal.SIGKILL)

    arguments = DistillationArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        logging_steps=1,
        save_steps=SAVE_EVERY,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **{"learning_rate": 3e-3, **options},
    )
    student = student_from_layers(teacher, 1)
    run = DistillationTrainer(
        student,
        teacher,
        args=arguments,
        train_dataset=data,
        distillation_loss=0.9 * KD("kl") + 0.8 * SinkhornKD(),
        callbacks=[Killed()],
    )
    save = torch.save

    def save_or_die(content: Any, file: Any, *others: Any, **more: Any) -> None:
        if kill == ("save", run.state.global_step) and str(file).endswith("scheduler.pt"):
            os.kill(os.getpid(), signal.SIGKILL)
        save(content, file, *others, **more)

    torch.save = save_or_die
    run.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
