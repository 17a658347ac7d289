"""Train a student against its teacher: transformers' Trainer with a distillation loss, and checkpoints that hold.

    total = w CE(student logits, labels) + distillation_loss(student logits, teacher logits, mask),   w = label_weight

The mask leaves out what the labels leave out (-100). A decoder-only model's logits at a position speak of the next
token: there the last position has no label. With labels in the batch every loss is a mean over the labelled positions
of all micro-batches and processes together, so that 1 x 8 and 8 x 1 accumulation give the same step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from pushforward._checks import check_count, check_instance, check_weight
from pushforward.errors import CheckpointError, InvalidArgument, ShapeError
from pushforward.lm.data import arguments, taken
from pushforward.lm.losses import KD, Context, DistillationLoss
from pushforward.lm.vocab import match_widths
from pushforward.training.checkpoint import latest, publishing, verify
from pushforward.training.distributed import barrier, is_main

__all__ = ["DistillationArguments", "DistillationTrainer"]

# What the Trainer calls its checkpoints.
NAME = "checkpoint"
# What a batch may hold that is the student's alone.
LABELS = ("labels", "label", "label_ids", "shift_labels")


@dataclass
class DistillationArguments(TrainingArguments):
    """Those of transformers, and what distillation adds.

    Args:
        label_weight: w of the loss on the labels; 0 leaves them out.
        vocab_size: Tokens that student and teacher share, where padding gives their logits different widths.
    """

    label_weight: float = field(default=0.1, metadata={"help": "Weight of the student's own loss on the labels."})
    vocab_size: int | None = field(default=None, metadata={"help": "Shared tokens, where the logits are padded."})

    def __post_init__(self) -> None:
        """Check what is ours, then let transformers check the rest."""
        check_weight("label_weight", self.label_weight)
        if self.vocab_size is not None:
            check_count("vocab_size", self.vocab_size)
        super().__post_init__()


class DistillationTrainer(Trainer):
    """Trains a student on its labels and on its teacher's logits.

    Encoders that classify, decoder-only and encoder-decoder models, and LoRA students of peft are trained alike: what
    the logits' positions are is read off the model. Devices, DDP, FSDP, precision and trackers are transformers' own.

    Args:
        student: The model to train.
        teacher: The model to learn from, of any dtype; it is put into evaluation mode and never trained.
        args: `DistillationArguments`.
        distillation_loss: What the teacher's logits are for; `KD("kl")` by default.
        train_dataset, eval_dataset, processing_class, data_collator, compute_metrics, callbacks: As the Trainer's.

    Checkpoints are published whole or not at all (`pushforward.training.checkpoint`): a run killed at any moment goes
    on, with `train(resume_from_checkpoint=True)`, from the last one whose files are what they were.

    Raises:
        InvalidArgument: `args` or a model is of another kind.
    """

    def __init__(  # noqa: PLR0913 - transformers' own arguments, named one by one
        self,
        student: PreTrainedModel | nn.Module,
        teacher: PreTrainedModel | nn.Module,
        *,
        args: DistillationArguments,
        distillation_loss: DistillationLoss | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        data_collator: Any = None,
        compute_metrics: Callable[[Any], dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self._label_weight = check_instance("args", args, DistillationArguments).label_weight
        self._vocab_size = args.vocab_size
        for name, model in (("student", student), ("teacher", teacher)):
            check_instance(name, model, nn.Module)
        if student is teacher:
            raise InvalidArgument("student and teacher are one model; a copy is needed: student_from_layers makes one")
        super().__init__(
            model=student,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
        )
        self.distillation_loss = KD("kl") if distillation_loss is None else distillation_loss
        if not self.distillation_loss.alone:
            warnings.warn(
                f"{self.distillation_loss!r} compares batches, not samples: a shuffled teacher scores the same. "
                'Add it to a loss that pairs each sample with its own: 0.9 * KD("kl") + ...',
                stacklevel=2,
            )
        # Evaluation mode spares the gradient's wrapper: teachers are sharded under FSDP, and plain under DDP.
        self.teacher = self.accelerator.prepare_model(teacher.requires_grad_(False).eval(), evaluation_mode=True)
        bare = self.accelerator.unwrap_model(student)
        bare = bare.get_base_model() if hasattr(bare, "get_base_model") else bare
        self._next_token = type(bare).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        self._student_takes, self._teacher_takes = arguments(bare), arguments(teacher)
        self._seq2seq = bool(getattr(getattr(teacher, "config", None), "is_encoder_decoder", False))
        self._parts: dict[str, Tensor] = {}
        self._batches = 0
        self._output, self._draft = Path(str(args.output_dir)), ""
        # Asks the Trainer to count the labelled positions of all micro-batches; the models are never handed the count.
        self.model_accepts_loss_kwargs = True
        # A first position's label is no next token of anything; not every model's configuration tells the Trainer so.
        self._loss_shifts_labels = self._next_token

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The total loss of a batch; the Trainer's own signature."""
        outputs = model(**taken(inputs, self._student_takes))
        with torch.no_grad():
            teacher_outputs = self.teacher(**self._for_teacher(inputs))
        student, teacher, mask, context = self._aligned(outputs, teacher_outputs, inputs)
        distilled = self.distillation_loss(student, teacher, mask, context=context)
        total, parts = distilled, {"distillation_loss": distilled}
        if self._label_weight:
            if getattr(outputs, "loss", None) is None:
                raise InvalidArgument("the batch has no labels to learn from; set label_weight=0, or add them")
            parts["label_loss"] = outputs.loss
            total = total + self._label_weight * outputs.loss
        if num_items_in_batch is not None:
            positions = student[..., 0].numel() if mask is None else mask.sum()
            share = positions / num_items_in_batch
            # The Trainer's count is of all processes, over whose gradients a mean is taken.
            total = total * share * (self.accelerator.num_processes if self.args.average_tokens_across_devices else 1)
        if model.training:
            self._batches += 1
            for name, part in parts.items():
                self._parts[name] = self._parts.get(name, 0.0) + part.detach()
        return (total, outputs) if return_outputs else total

    def _for_teacher(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        # An encoder-decoder makes its decoder's inputs from the labels; the others' loss would only be thrown away.
        left_out = () if self._seq2seq else LABELS
        given = taken(inputs, self._teacher_takes, without=left_out)
        return {**given, "output_hidden_states": True} if self.distillation_loss.needs_representations else given

    def _aligned(
        self, outputs: Any, teacher_outputs: Any, inputs: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor | None, Context]:
        """Logits of both at the positions that have labels, the mask over them, and what else is known of them."""
        student, teacher = outputs.logits, teacher_outputs.logits
        labels, mask = inputs.get("labels"), None
        if student.shape[-1] != teacher.shape[-1] or self._vocab_size is not None:
            student, teacher = match_widths(student, teacher, self._vocab_size)
        if student.ndim == 3:  # (batch, positions, classes); else one position a sample
            mask = inputs.get("attention_mask") if labels is None else labels != -100
            if labels is None and self._seq2seq:
                mask = inputs.get("decoder_attention_mask")
            if self._next_token:
                student, teacher = student[:, :-1], teacher[:, :-1]
                mask = None if mask is None else mask[:, 1:]
            if mask is not None and mask.shape != student.shape[:-1]:
                raise ShapeError(
                    f"labels give {tuple(mask.shape)} positions but the student's logits have "
                    f"{tuple(student.shape[:-1])}"
                )
        return student, teacher, mask, self._context(student, teacher_outputs, inputs)

    def _context(self, student: Tensor, teacher_outputs: Any, inputs: Mapping[str, Any]) -> Context:
        """Each position's sequence, and what the teacher makes of its input."""
        groups = states = None
        if student.ndim == 3:
            groups = torch.arange(len(student), device=student.device)[:, None].expand(student.shape[:-1])
        if self.distillation_loss.needs_representations:
            layers = getattr(teacher_outputs, "hidden_states", None) or teacher_outputs.decoder_hidden_states
            states = layers[-1].float()
            if student.ndim == 3:
                states = states[:, : student.shape[1]]
            else:  # a sample's is the mean over its tokens
                seen = inputs["attention_mask"][..., None] if "attention_mask" in inputs else torch.ones_like(states)
                states = (states * seen).sum(1) / seen.sum(1)
            states = torch.nn.functional.normalize(states, dim=-1)
        return Context(group_ids=groups, representations=states)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Beside the total loss, the means of its parts since the last line."""
        if "loss" in logs and self._parts:
            logs |= {name: total.item() / self._batches for name, total in self._parts.items()}
            self._parts, self._batches = {}, 0
        super().log(logs, start_time)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train, from the start or from a checkpoint that verifies.

        Args:
            resume_from_checkpoint: A checkpoint's folder, or True for the last whole one in `args.output_dir`.
            trial, ignore_keys_for_eval: As the Trainer's.

        Raises:
            CheckpointError: There is none, or a file of it is missing, truncated or altered; the message names it.
        """
        if resume_from_checkpoint is True:
            found = latest(self._output, name=NAME)
            if found is None:
                raise CheckpointError(f"{self._output} has no whole checkpoint to resume from")
            resume_from_checkpoint = str(found)
        elif resume_from_checkpoint:
            verify(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Have the Trainer write its files where nobody looks, then publish them all at once."""
        step, best, limit = self.state.global_step, self.state.best_global_step, self.args.save_total_limit
        with publishing(self._output, step, keep=None if best else limit, name=NAME) as draft:
            self._draft = str(draft)
            try:
                super()._save_checkpoint(model, trial)
            except RuntimeError as error:
                # What torch.save makes of a full disk.
                if "PytorchStreamWriter" in str(error):
                    raise OSError(str(error)) from error
                raise
            finally:
                self._draft = ""
            if best:
                # The Trainer looked for it beside the draft.
                self.state.best_model_checkpoint = str(self._output / f"{NAME}-{best}")
            barrier()
            if is_main():
                written = draft / f"{NAME}-{step}"
                self.state.save_to_json(str(written / TRAINER_STATE_NAME))
                for file in written.iterdir():
                    file.rename(draft / file.name)
                written.rmdir()
        if best and limit and is_main():
            rotate_checkpoints(
                str(self._output), save_total_limit=limit, best_model_checkpoint=str(self.state.best_model_checkpoint)
            )

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the columns that the teacher takes and the student does not: a pair's token types, say."""
        super()._set_signature_columns_if_needed()
        mine: list[str] = self._signature_columns or []
        self._signature_columns = [*mine, *sorted((self._teacher_takes or frozenset()) - set(mine))]

    def _get_output_dir(self, trial: Any) -> str:
        """Where the Trainer makes a checkpoint's folder."""
        return self._draft or super()._get_output_dir(trial)
