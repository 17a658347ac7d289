"""Train a student against its teacher: transformers' Trainer with a distillation loss, and checkpoints that hold.

    total = w CE(student logits, labels) + distillation_loss(student logits, teacher logits, mask),   w = label_weight

The mask leaves out what the labels leave out (-100), or, where the batch has no labels, what the attention mask leaves
out. A decoder-only model's logits at a position speak of the next token: there the last position has no label. Every
loss is a mean over the positions that count in all micro-batches and processes together, so that 1 x 8 and 8 x 1
accumulation give the same step. A batch in which nothing counts adds nothing to it.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.trainer import OPTIMIZER_NAME, SCALER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from pushforward._checks import check_count, check_instance, check_weight
from pushforward.errors import CheckpointError, InvalidArgument, ShapeError
from pushforward.lm import pair
from pushforward.lm.checkpoint_files import check_state, reading
from pushforward.lm.data import Rows, arguments, taken
from pushforward.lm.losses import Context, DistillationLoss
from pushforward.lm.positions import IGNORED, counts, documents, longest, positions_that_count, separated
from pushforward.lm.vocab import match_widths
from pushforward.training.checkpoint import latest, publishing, verify
from pushforward.training.distributed import barrier, gather, is_main, world_size

__all__ = ["DistillationArguments", "DistillationTrainer"]

# What the Trainer calls its checkpoints.
NAME = "checkpoint"
# What a batch may hold that is the student's alone.
LABELS = ("labels", "label", "label_ids", "shift_labels")
# What torch.save makes of a full disk: the file's writer, its container, or C++'s own stream speaks of it.
FULL = "PytorchStreamWriter|inline_container|iostream error"
ROWS_WITHOUT_LABELS = "rows_without_labels"


@dataclass
class DistillationArguments(TrainingArguments):
    """transformers' `TrainingArguments`, with the settings of distillation.

    Args:
        label_weight: w, the weight of the loss on the labels; 0 leaves them out.
        vocab_size: Tokens that student and teacher share, where padding gives their logits different widths.
        float32_weights: Whether a student in half precision is given float32 weights, without which most of them
            would never move. `bf16=True`, transformers' own, computes in bfloat16 from them.
    """

    label_weight: float = field(default=0.1, metadata={"help": "Weight of the student's own loss on the labels."})
    vocab_size: int | None = field(default=None, metadata={"help": "Shared tokens, where the logits are padded."})
    float32_weights: bool = field(default=True, metadata={"help": "Whether the student's weights are float32."})

    def __post_init__(self) -> None:
        """Check the settings of distillation, then let transformers check the rest."""
        check_weight("label_weight", self.label_weight)
        if self.vocab_size is not None:
            check_count("vocab_size", self.vocab_size)
        super().__post_init__()


class DistillationTrainer(Trainer):
    """Trains a student on its labels and on its teacher's logits.

    Encoders that classify or give scores, decoder-only and encoder-decoder models, and students of peft (adapters,
    prompts) are trained alike: what the logits' positions are is read off the model. Rows may be packed texts
    (`DataCollatorWithFlattening`). Devices, DDP, FSDP, precision and trackers are transformers' own.

    Args:
        student: The model to train. Its weights become float32 (`DistillationArguments.float32_weights`).
        teacher: The model to learn from, of any dtype; it is put into evaluation mode and never trained. It may be the
            very model that the student's adapters were put into: it is then the student without them, and takes no
            memory of its own.
        args: `DistillationArguments`.
        distillation_loss: What the teacher's logits are for; `KD("kl")` by default, and `SquaredError()` for a head
            that gives scores (regression, several labels at once), for which losses between classes are refused.
        train_dataset, eval_dataset, data_collator, compute_metrics, callbacks, optimizers,
            preprocess_logits_for_metrics: As the Trainer's.
        processing_class: The student's tokenizer, as the Trainer's.
        teacher_processing_class: The teacher's tokenizer, which must be the student's. Tokenizers that are not given
            are read from the folders that the models came from; there is a warning where nothing is known of the pair.

    The Trainer's `model_init` and `compute_loss_func` have no place here: a student is a model, and `distillation_loss`
    is the loss. `label_smoothing_factor` smooths the labels as in the Trainer.

    Beside the total, the log has `distillation_loss` and `label_loss`, means over what the step counts on all
    processes, so that loss = distillation_loss + label_weight label_loss; and `rows_without_labels`, the rows since
    the last line all of whose labels are -100, if there were any.

    Checkpoints are published whole or not at all (`pushforward.training.checkpoint`): a run killed at any moment goes
    on, with `train(resume_from_checkpoint=True)`, from the last one whose files are what they were.

    Raises:
        InvalidArgument: `args` or a model is of another kind, the models cannot be a pair (one model, shared weights
            that are trained, different tokenizers), or the loss does not fit the student's head.
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
        teacher_processing_class: Any = None,
        data_collator: Any = None,
        compute_metrics: Callable[[Any], dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self._label_weight = check_instance("args", args, DistillationArguments).label_weight
        self._vocab_size = args.vocab_size
        started = max(world_size(), int(os.environ.get("WORLD_SIZE", "1")))
        if started != args.world_size:
            raise InvalidArgument(
                f"there are {started} processes but args.world_size is {args.world_size}, so that each would train "
                "alone; where they have no accelerators pass use_cpu=True"
            )
        for name, model in (("student", student), ("teacher", teacher)):
            check_instance(name, model, nn.Module)
        _check_rows(train_dataset)
        self.distillation_loss = pair.default_loss(student) if distillation_loss is None else distillation_loss
        check_instance("distillation_loss", self.distillation_loss, DistillationLoss)
        pair.check_head(self.distillation_loss, student)
        self._adapters = pair.is_adapters_base(student, teacher)
        pair.check_tokenizers(student, teacher, processing_class, teacher_processing_class)
        if args.float32_weights:
            pair.to_float32(student)
        self._own_collator = data_collator is not None
        super().__init__(
            model=student,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers or (None, None),
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        if not self.distillation_loss.pairs_samples:
            warnings.warn(
                f"{self.distillation_loss!r} compares batches, not samples: a shuffled teacher scores the same. "
                'Add it to a loss that pairs each sample with its own: 0.9 * KD("kl") + ...',
                stacklevel=2,
            )
        self._read(student, teacher)
        self._parts: dict[str, Tensor] = {}
        self._steps = 0
        self._output, self._draft = Path(str(args.output_dir)), ""
        # Asks the Trainer to count the positions of all micro-batches; the models are never handed the count.
        self.model_accepts_loss_kwargs = True

    def _read(self, student: nn.Module, teacher: nn.Module) -> None:
        """Read what later steps need to know of both models."""
        if self._adapters:
            self.teacher = teacher
        else:
            # Evaluation mode spares the gradient's wrapper: teachers are sharded under FSDP, and plain under DDP.
            self.teacher = self.accelerator.prepare_model(teacher.requires_grad_(False).eval(), evaluation_mode=True)
        bare = pair.bare(self.accelerator.unwrap_model(student))
        self._next_token = type(bare).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        self._student_takes, self._teacher_takes = arguments(bare), arguments(teacher)
        for model, takes in ((bare, self._student_takes), (teacher, self._teacher_takes)):
            if takes is None:
                pair.keep_no_cache(model)
        self._seq2seq = bool(getattr(getattr(teacher, "config", None), "is_encoder_decoder", False))
        self._virtual = (pair.virtual_tokens(student), 0 if self._adapters else pair.virtual_tokens(teacher))
        limits = [
            (limit - virtual, name)
            for name, model, virtual in zip(("student", "teacher"), (student, teacher), self._virtual, strict=True)
            if (limit := pair.most_positions(model)) is not None
        ]
        self._most, self._shortest = min(limits, default=(None, ""))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The total loss of a batch, with the signature of transformers' Trainer."""
        self._check_length(inputs)
        batch = separated(inputs, next_token=self._next_token)
        taught = self._taught(model, batch)
        outputs = model(**taken(batch, self._student_takes))
        pair.check_head(self.distillation_loss, self.accelerator.unwrap_model(model))
        whole, teacher = pair.logits_of("student", outputs), pair.logits_of("teacher", taught)
        whole, teacher = (
            logits[:, v:] if v else logits for logits, v in zip((whole, teacher), self._virtual, strict=True)
        )
        student, teacher = match_widths(whole, teacher, self._vocab_size)
        mask = self._mask(student, inputs)
        parts: dict[str, tuple[float, Tensor]] = {}
        if mask is None or bool(mask.any()):
            context = self._context(student, taught, inputs)
            parts["distillation_loss"] = 1.0, self.distillation_loss(student, teacher, mask, context=context)
        else:
            parts["distillation_loss"] = 1.0, whole[:0].sum()
        if self._label_weight:
            parts["label_loss"] = self._label_weight, self._label_loss(whole, outputs, batch)
        shares = self._shares(inputs, num_items_in_batch, rows=student.ndim == 2)
        parts = {name: (weight, part * shares[name]) for name, (weight, part) in parts.items()}
        if model.training:
            self._keep(parts, inputs, num_items_in_batch)
        first, *others = (weight * part for weight, part in parts.values())
        total = sum(others, first)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The Trainer's count is of all processes, over whose gradients a mean is taken.
            total = total * (self.accelerator.num_processes // self.get_tp_size())
        return (total, outputs) if return_outputs else total

    def _taught(self, model: nn.Module, inputs: Mapping[str, Any]) -> Any:
        """The teacher's outputs on a batch."""
        # An encoder-decoder makes its decoder's inputs from the labels; the others' loss would only be thrown away.
        given = taken(inputs, self._teacher_takes, without=() if self._seq2seq else LABELS)
        if self.distillation_loss.needs_representations:
            given["output_hidden_states"] = True
        if self._teacher_takes is not None and "use_cache" in self._teacher_takes:
            given["use_cache"] = False  # with a cache, the documents of a packed row would see each other
        with torch.no_grad(), contextlib.ExitStack() as stack:
            if not self._adapters:
                return self.teacher(**given)
            stack.enter_context(self.accelerator.unwrap_model(model).disable_adapter())
            stack.callback(model.train, model.training)
            return model.eval()(**given)

    def _mask(self, student: Tensor, inputs: Mapping[str, Any]) -> Tensor | None:
        """The positions that count, where each sample has several; None for all."""
        if student.ndim != 3:  # (batch, positions, classes); else one position a sample
            return None
        mask = positions_that_count(inputs, next_token=self._next_token, seq2seq=self._seq2seq)
        if mask is not None and mask.shape != student.shape[:-1]:
            what = "labels" if "labels" in inputs else "attention mask"
            raise ShapeError(
                f"the batch's {what} have {tuple(mask.shape)} positions (rows, tokens) but the student gave logits at "
                f"{tuple(student.shape[:-1])}; a model that adds or drops positions cannot be compared with its teacher"
            )
        return mask

    def _label_loss(self, student: Tensor, outputs: Any, inputs: Mapping[str, Any]) -> Tensor:
        """The student's own loss on the labels: their mean, or the smoothed loss of transformers' Trainer."""
        labels = inputs.get("labels")
        if getattr(outputs, "loss", None) is None:
            raise InvalidArgument("the batch has no labels to learn from; set label_weight=0, or add them")
        if isinstance(labels, Tensor) and not bool((labels[..., 1:] if self._next_token else labels).ne(IGNORED).any()):
            return student[:0].sum()
        if self.label_smoother is None or labels is None:
            return outputs.loss.mean()
        if pair.gives_scores(self.accelerator.unwrap_model(self.model)):
            raise InvalidArgument(
                "label_smoothing_factor is for classes, but the student's head gives scores; set it to 0"
            )
        return self.label_smoother({"logits": student}, labels, shift_labels=self._next_token)

    def _shares(
        self, inputs: Mapping[str, Any], total: Tensor | int | None, *, rows: bool
    ) -> dict[str, Tensor | float]:
        """A batch's share in each of the counts that a whole step's means are taken over."""
        if total is None:
            return {"distillation_loss": 1.0, "label_loss": 1.0}
        mine = counts(inputs, next_token=self._next_token, seq2seq=self._seq2seq)
        labelled, positions, samples = mine / torch.as_tensor(total, device=mine.device).clamp(min=1)
        return {"distillation_loss": samples if rows else positions, "label_loss": labelled}

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """The counts that a step's means are taken over, on all processes: labels, positions and rows (`counts`)."""
        if not batch_samples:
            return None
        each = [counts(batch, next_token=self._next_token, seq2seq=self._seq2seq) for batch in batch_samples]
        total = torch.stack(each).sum(0).to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = gather(total[None]).sum(0)
        copies = self.get_tp_size() * self.get_cp_size() * self.get_sp_size()
        return total if copies == 1 else total / copies

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro-batches of a step, and the counts that its means are taken over; none after the last step."""
        if self.state.global_step >= self.state.max_steps:
            # The Trainer looks for its end after a step: a finished run that is resumed would take one more.
            self.control.should_training_stop = True
            return [], None
        samples, total = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._steps += bool(samples)
        return samples, total

    def _context(self, student: Tensor, taught: Any, inputs: Mapping[str, Any]) -> Context:
        """The text of each position, and the teacher's representation of its input."""
        groups = states = None
        if student.ndim == 3:
            groups = torch.arange(len(student), device=student.device)[:, None].expand(student.shape[:-1])
            document = documents(inputs)
            if document is not None and document.shape == groups.shape:
                groups = groups * student.shape[1] + document
        if self.distillation_loss.needs_representations:
            layers = getattr(taught, "hidden_states", None) or taught.decoder_hidden_states
            states = layers[-1].float()
            if student.ndim == 3:
                states = states[:, -student.shape[1] :]
            else:  # a sample's is the mean over its tokens
                mask: Tensor | None = inputs.get("attention_mask")
                seen = torch.ones_like(states) if mask is None else mask[..., None]
                states = (states * seen).sum(1) / seen.sum(1)
            states = torch.nn.functional.normalize(states, dim=-1)
        return Context(group_ids=groups, representations=states)

    def _check_length(self, inputs: Mapping[str, Any]) -> None:
        if self._most is None:
            return
        length = longest(inputs, self._most)
        if length > self._most:
            raise ShapeError(
                f"the batch has a text of {length} tokens but the {self._shortest} takes {self._most} positions "
                "(max_position_embeddings of its configuration); cut the texts of train_dataset, with the tokenizer's "
                f"max_length={self._most} say"
            )

    def _check_dataset(self) -> None:
        """Find a text that is too long before the training starts, where the data set is in memory."""
        # Rows of another kind of data set may be made, or read, when they are asked for; a collator may cut them.
        data: Any = self.train_dataset
        plain = isinstance(data, list | tuple) and not self._own_collator
        if self._most is None or not (plain or isinstance(data, Rows)):
            return
        for k in range(len(data)):
            tokens = data[k].get("input_ids", ())
            if len(tokens) > self._most:
                raise ShapeError(
                    f"train_dataset[{k}] has {len(tokens)} tokens but the {self._shortest} takes {self._most} "
                    "positions (max_position_embeddings of its configuration); cut the texts, with the tokenizer's "
                    f"max_length={self._most} say"
                )

    def _keep(
        self, parts: Mapping[str, tuple[float, Tensor]], inputs: Mapping[str, Any], total: Tensor | int | None
    ) -> None:
        """Add a batch's share of the step's means to the next line of the log."""
        labels = inputs.get("labels")
        empty = torch.zeros((), device=next(iter(parts.values()))[1].device)
        if isinstance(labels, Tensor) and labels.ndim == 2 and not labels.is_floating_point():
            empty = empty + (labels == IGNORED).all(-1).sum()
        self._steps += total is None
        for name, part in {**{name: part for name, (_, part) in parts.items()}, ROWS_WITHOUT_LABELS: empty}.items():
            self._parts[name] = self._parts.get(name, 0.0) + part.detach()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the total loss, and the means of its parts since the last line over all processes."""
        if "loss" in logs and self._parts:
            sums = gather(torch.stack([part.float() for part in self._parts.values()])[None])
            found = dict(zip(self._parts, sums.sum(0).tolist(), strict=True))
            empty = found.pop(ROWS_WITHOUT_LABELS)
            over = max(1, self._steps) * (1 if self.args.average_tokens_across_devices else len(sums))
            logs |= {name: total / over for name, total in found.items()}
            logs |= {ROWS_WITHOUT_LABELS: int(empty)} if empty else {}
            self._parts, self._steps = {}, 0
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
            trial, ignore_keys_for_eval: As in transformers' Trainer.

        Returns:
            What transformers' Trainer returns.

        Raises:
            CheckpointError: There is none, or a file of it is missing, truncated or altered; the message names it.
            ShapeError: A row has more tokens than one of the models has positions; the message names it.
        """
        self._check_dataset()
        if resume_from_checkpoint is True:
            found = latest(self._output, name=NAME)
            if found is None:
                raise CheckpointError(f"{self._output} has no whole checkpoint to resume from")
            resume_from_checkpoint = str(found)
        elif resume_from_checkpoint:
            verify(Path(resume_from_checkpoint))
        if resume_from_checkpoint:
            check_state(Path(resume_from_checkpoint) / TRAINER_STATE_NAME)
        try:
            return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)
        except (SafetensorError, UnpicklingError) as error:
            # A manifest was forged, or the checkpoint is of another version; weights that cannot be saved end no run.
            raise CheckpointError(f"{resume_from_checkpoint} cannot be read: {error}") from error

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with reading(checkpoint, OPTIMIZER_NAME, SCHEDULER_NAME):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with reading(checkpoint, SCALER_NAME):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with reading(checkpoint, "rng_state.pth" if self.args.world_size == 1 else "rng_state_*.pth"):
            super()._load_rng_state(checkpoint)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Let transformers' Trainer write its files into a draft, then publish them all at once."""
        step, best, limit = self.state.global_step, self.state.best_global_step, self.args.save_total_limit
        with publishing(self._output, step, keep=None if best else limit, name=NAME) as draft:
            self._draft = str(draft)
            try:
                super()._save_checkpoint(model, trial)
            except RuntimeError as error:
                if re.search(FULL, str(error)):
                    raise OSError(str(error)) from error
                raise
            finally:
                self._draft = ""
            if best:
                # The Trainer searched for it beside the draft.
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
        """Keep the columns that the teacher takes and the student does not, for instance a pair's token types."""
        super()._set_signature_columns_if_needed()
        mine: list[str] = self._signature_columns or []
        self._signature_columns = [*mine, *sorted((self._teacher_takes or frozenset()) - set(mine))]

    def _get_output_dir(self, trial: Any) -> str:
        """The folder in which transformers' Trainer writes a checkpoint."""
        return self._draft or super()._get_output_dir(trial)


def _check_rows(data: Any) -> None:
    """Raise where no rows can be taken from a data set; None is for a Trainer that only evaluates."""
    if data is None:
        return
    has_rows = hasattr(data, "__getitem__") or hasattr(data, "__iter__")
    if not has_rows or isinstance(data, str | bytes | Mapping | type):
        raise InvalidArgument(
            f"train_dataset is a {type(data).__name__}; a list of rows, or one split of a data set, is needed"
        )
    if hasattr(data, "__len__") and len(data) == 0:
        raise InvalidArgument("train_dataset holds no rows")
