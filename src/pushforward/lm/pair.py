"""Checks that a student and its teacher can be trained as a pair, and what is changed in each before the first step.

Nothing here trains: each function inspects the two models, and either corrects what it may, or raises before a run
begins that would learn nothing.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pushforward.errors import InvalidArgument
from pushforward.lm.losses import KD, DistillationLoss, SquaredError
from pushforward.lm.vocab import check_same_tokenizer

__all__ = [
    "bare",
    "check_head",
    "check_tokenizers",
    "default_loss",
    "gives_scores",
    "is_adapters_base",
    "keep_no_cache",
    "logits_of",
    "most_positions",
    "to_float32",
    "virtual_tokens",
]

# Files of which a folder with a tokenizer has one.
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model", "tokenizer.model")


def bare(model: Any) -> Any:
    """The model within peft's adapters, or the model itself where it has none."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def is_adapters_base(student: nn.Module, teacher: nn.Module) -> bool:
    """Whether the teacher is the model that the student's adapters were put into.

    Raises:
        InvalidArgument: The two are one model, or share weights that are trained, which would change the teacher.
    """
    if hasattr(student, "disable_adapter") and teacher in (student, bare(student)):
        return True
    if student is teacher:
        raise InvalidArgument("student and teacher are one model; a copy is needed: student_from_layers makes one")
    theirs = {id(parameter) for parameter in teacher.parameters()}
    shared = [name for name, p in student.named_parameters() if p.requires_grad and id(p) in theirs]
    if shared:
        raise InvalidArgument(
            f"student and teacher share weights that are trained ({shared[0]} is one of {len(shared)}), so that the "
            "teacher would change with its student; copy the model with copy.deepcopy, freeze what is shared, or put "
            "adapters on it: the teacher is then the model without them"
        )
    return False


def to_float32(student: nn.Module) -> None:
    """Turn the student's weights into float32 where trained ones are in half precision, with a warning.

    A step of a usual size is smaller than half the distance of two neighbouring bfloat16 numbers (1/256 of the weight),
    so that most weights would never move. Adapters of peft are float32 already, and their base stays as it is.
    """
    half = {p.dtype for p in student.parameters() if p.requires_grad and p.is_floating_point() and p.itemsize < 4}
    if half and getattr(bare(student), "quantization_method", None) is None:
        student.float()
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in half))
        warnings.warn(
            f"the student's weights are {names}, in which small steps are rounded away; they are now float32. Pass "
            "bf16=True to compute in bfloat16 all the same, or float32_weights=False to keep them as they were",
            stacklevel=3,
        )


def keep_no_cache(model: nn.Module) -> None:
    """Turn off the cache of keys and values in every model of transformers within a module.

    With a cache, models of transformers let the documents of a packed row attend to each other.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.config.use_cache = False


def check_tokenizers(
    student: nn.Module, teacher: nn.Module, student_tokenizer: Any = None, teacher_tokenizer: Any = None
) -> None:
    """Raise where the two tokenizers differ; warn where they are not known to be the same.

    A tokenizer that is not given is read from the folder that its model was loaded from. A student with its teacher's
    embeddings has its tokenizer.

    Raises:
        InvalidArgument: They differ; the message names the first difference.
    """
    if teacher_tokenizer is not None and student_tokenizer is None:
        raise InvalidArgument("teacher_processing_class is given without processing_class, the student's tokenizer")
    mine = _tokenizer(student) if student_tokenizer is None else student_tokenizer
    its = _tokenizer(teacher) if teacher_tokenizer is None else teacher_tokenizer
    if isinstance(mine, PreTrainedTokenizerBase) and isinstance(its, PreTrainedTokenizerBase):
        check_same_tokenizer(mine, its)
    elif not _same_embeddings(student, teacher):
        warnings.warn(
            "whether student and teacher have one tokenizer is not known, and logits can only be compared under one: "
            "pass both, as processing_class and teacher_processing_class",
            stacklevel=3,
        )


def most_positions(model: nn.Module) -> int | None:
    """The most tokens that a model of transformers takes at once, by its configuration; None where there is no limit.

    RoBERTa and its kin leave the first places of their table to padding.
    """
    model = bare(model)
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    for name, module in model.named_modules():
        if (
            isinstance(module, nn.Embedding)
            and module.num_embeddings == limit
            and name.endswith("position_embeddings")
            and module.padding_idx is not None
        ):
            return limit - module.padding_idx - 1
    return limit


def default_loss(student: nn.Module) -> DistillationLoss:
    """The default distillation loss for a student: KL, or the squared error for a head that gives scores."""
    return SquaredError() if gives_scores(student) else KD("kl")


def gives_scores(student: nn.Module) -> bool:
    """Whether each column of the student's logits is a question of its own, so that no softmax goes over them."""
    model = bare(student)
    config = getattr(model, "config", None)
    if getattr(config, "problem_type", None) in ("regression", "multi_label_classification"):
        return True
    return type(model).__name__.endswith("ForSequenceClassification") and getattr(config, "num_labels", 0) == 1


def check_head(loss: DistillationLoss, student: nn.Module) -> None:
    """Raise where a loss between classes meets a head that gives scores.

    Raises:
        InvalidArgument: It does; the message names the loss to use.
    """
    if loss.of_classes and gives_scores(student):
        config = bare(student).config
        kind = config.problem_type or "regression"
        raise InvalidArgument(
            f"distillation_loss is {loss!r}, but the student's head ({config.num_labels} labels, {kind}) gives scores, "
            "over which no softmax is taken: take SquaredError(), which is also the default for such a head"
        )


def logits_of(name: str, outputs: Any) -> Tensor:
    """The logits in a model's outputs.

    Raises:
        InvalidArgument: The outputs have no logits; the message lists what they have.
    """
    logits = getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    given = (
        [field for field in outputs if getattr(outputs, field, None) is not None] if isinstance(outputs, dict) else []
    )
    fields = ", ".join(given) or f"a {type(outputs).__name__}"
    why = "heads that classify or that say tokens have them; question answering's start_logits are not distilled here"
    if hasattr(outputs, "logits"):
        why = (
            "a fused loss does not make them (use_liger_kernel=True without "
            "liger_kernel_config={'fused_linear_cross_entropy': False}, say)"
        )
    raise InvalidArgument(f"the {name} gave no logits but {fields}: {why}")


def virtual_tokens(model: nn.Module) -> int:
    """The number of positions that a prompt trained by peft puts before those of the batch."""
    if not getattr(model, "_is_prompt_learning", False):
        return 0
    config: Any = model.active_peft_config
    return 0 if str(config.peft_type.value) == "PREFIX_TUNING" else config.num_virtual_tokens


def _tokenizer(model: nn.Module) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder that a model was loaded from; None where there is none."""
    place = Path(getattr(getattr(bare(model), "config", None), "name_or_path", None) or "\0")
    if "\0" in str(place) or not any((place / name).is_file() for name in _TOKENIZERS):
        return None
    try:
        return AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        warnings.warn(f"{place} has a tokenizer that cannot be read: {error}", stacklevel=4)
        return None


def _same_embeddings(student: nn.Module, teacher: nn.Module) -> bool:
    """Whether the student starts with its teacher's token embeddings."""
    tables = [_table(model) for model in (student, teacher)]
    if any(table is None or table.is_meta for table in tables):
        return False
    here, there = tables
    return here.shape == there.shape and torch.equal(here.float(), there.to(here.device).float())


def _table(model: nn.Module) -> Any:
    """The token embeddings, (tokens, width), of the first model of transformers within a module."""
    for module in bare(model).modules():
        if isinstance(module, PreTrainedModel):
            table: Any = module.get_input_embeddings()
            return table.weight.detach()
    return None
