"""Students made of their teacher's own layers, or read from a folder.

symbol   meaning                                                unit
n        blocks that the teacher has (on each side)             1
k        blocks that the student keeps                          1
kept     their places in the teacher, kept[0] < kept[1] < ...   1

The k places spread evenly over the n are kept[i] = round(i (n - 1) / (k - 1)), halves rounded up, so that the first and
the last block stay; k = 1 keeps the first. For 6 of 12 these are 0, 2, 4, 7, 9, 11, from which DistilBERT starts.

Source: Sanh et al. 2019 (DistilBERT, arXiv 1910.01108).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pushforward._checks import check_count, check_real
from pushforward._typed import typed
from pushforward.errors import InvalidArgument
from pushforward.lm.folders import BROKEN, check_folder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["parse_student", "student_from_layers", "with_lora"]

# What configurations call the depth of either side of an encoder-decoder. Every other model answers to
# `num_hidden_layers`, to which transformers maps the names of its older configurations.
_DEPTHS = {
    "encoder": ("encoder_layers", "num_encoder_layers", "num_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
}


def student_from_layers(teacher: PreTrainedModel, layers: int | Sequence[int]) -> PreTrainedModel:
    """A student of the teacher's class that starts from some of its blocks, and from its embeddings and head.

    Args:
        teacher: An encoder (BERT), a decoder (GPT-2, Llama) or an encoder-decoder (T5, BART). It is left as it is.
        layers: How many blocks to keep, spread evenly (see above), or the places of those to keep, counted from 0 and
            increasing: `range(3)` for the first three. An encoder-decoder keeps these of both its sides.

    Returns:
        A model with weights of its own on the teacher's device, in evaluation mode as after `from_pretrained`; its
        configuration says the new depth. The weights are float32 (float64 of such a teacher) whatever the teacher's
        precision: steps of a training are rounded away in half precision.

    Raises:
        InvalidArgument: The teacher has fewer blocks, `layers` is empty or repeats one, or no list of blocks, or only
            one whose blocks cannot take each other's places, was found.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> teacher = BertModel(BertConfig(vocab_size=32, hidden_size=12, intermediate_size=16, num_hidden_layers=6))
        >>> student_from_layers(teacher, 3).config.num_hidden_layers
        3
    """
    _check_model("teacher", teacher)
    config, state = copy.deepcopy(teacher.config), teacher.state_dict()
    for side, field in _sides(teacher.config):
        n = getattr(teacher.config, field)
        kept = _places(layers, n, f"{type(teacher).__name__}{side and f' ({side})'}")
        state = _renumbered(state, _find_blocks(teacher, side, n), kept)
        setattr(config, field, len(kept))
        for name, per_layer in list(vars(config).items()):
            # Configurations such as Qwen's or Gemma's list the kind of each layer.
            if "layer" in name and isinstance(per_layer, list) and len(per_layer) == n:
                setattr(config, name, [per_layer[place] for place in kept])
    return _build(teacher, config, {name: tensor.clone() for name, tensor in state.items()})


@typed
def parse_student(student: str, teacher: PreTrainedModel) -> PreTrainedModel:
    """The student that a command line names.

    Args:
        student: "layers:3" (as many, spread evenly), "layers:0,2,4" (these), or a folder or hub name to load, of any
            architecture; only weights in safetensors form are read, and made float32, as those of layers are.
        teacher: The model that gives its blocks, or its kind of head (and number of labels) to a loaded student.

    Returns:
        The student, with float32 weights.

    Raises:
        InvalidArgument: As `student_from_layers`, or there is nothing to load at that place.
    """
    if not student.startswith("layers:"):
        return _load(student, teacher)
    try:
        numbers = [int(number) for number in student.removeprefix("layers:").split(",")]
    except ValueError:
        raise InvalidArgument(
            f'student is "{student}"; "layers:3" keeps three blocks, "layers:0,2,4" these, anything else is a folder'
        ) from None
    return student_from_layers(teacher, numbers if "," in student else numbers[0])


@typed
def with_lora(model: PreTrainedModel, rank: int, *, alpha: float | None = None) -> PeftModel:
    """The model with low-rank adapters on all linear layers of its blocks; a classification head is trained in full.

    For anything finer, call `peft.get_peft_model` with a `LoraConfig` of your own: the trainer takes what it returns.

    Args:
        model: The student; peft puts the adapters into it.
        rank: Rank of each adapter.
        alpha: The adapters' output is scaled by alpha / rank; None is twice the rank.

    Returns:
        The model that peft returns.

    Source: Hu et al. 2021 (LoRA, arXiv 2106.09685).
    """
    from peft import LoraConfig, get_peft_model

    _check_model("model", model)
    rank = check_count("rank", rank)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else check_real("alpha", alpha, allow_inf=False),  # pyright: ignore[reportArgumentType]
        target_modules="all-linear",
        task_type=_head(model)[1],
    )
    return get_peft_model(model, config)  # pyright: ignore[reportReturnType]


def _check_model(name: str, model: Any) -> None:
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise InvalidArgument(f"{name} must be a transformers PreTrainedModel, got a {type(model).__name__}")


def _sides(config: PreTrainedConfig) -> list[tuple[str, str]]:
    """Pairs of (side, name of its depth in the configuration); the side of a model that has only one is ""."""
    if not config.is_encoder_decoder:
        return [("", "num_hidden_layers")] if hasattr(config, "num_hidden_layers") else _no_blocks(config)
    found = [(side, name) for side, names in _DEPTHS.items() for name in names if hasattr(config, name)]
    return found if [side for side, _ in found] == list(_DEPTHS) else _no_blocks(config)


def _no_blocks(config: PreTrainedConfig) -> Any:
    raise InvalidArgument(
        f"teacher is of the kind {config.model_type!r}, whose configuration names no depth that is known here; "
        "load the student from a folder instead"
    )


def _places(layers: int | Sequence[int], n: int, teacher: str) -> list[int]:
    """`kept`, checked against the n blocks of the teacher."""
    if not isinstance(layers, Sequence):
        k = check_count("layers", layers)
        if k > n:
            raise InvalidArgument(f"layers asks for {k} blocks but {teacher} has {n}")
        return [(2 * i * (n - 1) + k - 1) // (2 * (k - 1)) for i in range(k)] if k > 1 else [0]
    kept = [check_count("layers", place, least=0) for place in layers]
    if not kept or kept != sorted(set(kept)):
        raise InvalidArgument(f"layers is {list(layers)}; places of blocks are needed, increasing, none twice")
    if kept[-1] >= n:
        raise InvalidArgument(f"layers asks for block {kept[-1]} but {teacher} has {n}, counted from 0")
    return kept


def _find_blocks(teacher: PreTrainedModel, side: str, n: int) -> str:
    """The dotted name of a side's list of blocks: among all lists of n modules, the one with the most weights.

    A block may hold lists itself (experts, T5's sublayers), and one of them may happen to be n long.
    """
    lists = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in teacher.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n and (not side or side in name.split("."))
    }
    if not lists:
        raise InvalidArgument(
            f"teacher is a {type(teacher).__name__}, whose configuration says {n} {side and side + ' '}layers, but it "
            "has no list of so many blocks (do they share weights?); load the student from a folder instead"
        )
    return max(lists, key=lambda name: lists[name])


def _renumbered(state: Mapping[str, Tensor], blocks: str, kept: list[int]) -> dict[str, Tensor]:
    """The teacher's weights under the student's names, without those of the blocks that are left out."""
    renumbered: dict[str, Tensor] = {}
    first: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith(f"{blocks}."):
            renumbered[name] = tensor
            continue
        place, _, rest = name.removeprefix(f"{blocks}.").partition(".")
        if int(place) in kept:
            renumbered[f"{blocks}.{kept.index(int(place))}.{rest}"] = tensor
        elif place == "0":
            first[name] = tensor
    # T5's first block holds the position bias of all: what only the first block has stays in the first.
    return first | renumbered


def _build(teacher: PreTrainedModel, config: PreTrainedConfig, state: dict[str, Tensor]) -> PreTrainedModel:
    """A model of the teacher's class with exactly these weights."""
    load: Any = type(teacher).from_pretrained  # the annotation does not know that it returns two with its last argument
    dtype = torch.promote_types(teacher.dtype, torch.float32)
    student, found = load(None, config=config, state_dict=state, dtype=dtype, output_loading_info=True)
    wrong = sorted({*found["missing_keys"], *found["unexpected_keys"], *map(str, found["mismatched_keys"])})
    if wrong:
        raise InvalidArgument(
            f"layers: the blocks of {type(teacher).__name__} are not of one kind, so that the chosen ones cannot take "
            f"each other's places ({wrong[0]} does not fit); choose others"
        )
    student.config.name_or_path = ""  # it comes from no place, which transformers writes as "None"
    if teacher.can_generate():
        student.generation_config = copy.deepcopy(teacher.generation_config)
    return student.to(teacher.device)


def _load(place: str, teacher: PreTrainedModel) -> PreTrainedModel:
    auto, _ = _head(teacher)
    labels = {"num_labels": teacher.config.num_labels} if auto.__name__.endswith("SequenceClassification") else {}
    if Path(place).is_dir():
        check_folder(Path(place))
    try:
        return auto.from_pretrained(place, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, **labels)
    except BROKEN as error:
        raise InvalidArgument(
            f'student "{place}" cannot be loaded; a folder with a model in safetensors form is needed, or a name '
            f"on the hub: {error}"
        ) from error


def _head(model: PreTrainedModel) -> tuple[Any, str]:
    """The auto class, and peft's name of the task, of models with this one's kind of head."""
    import transformers as hf
    from transformers.models.auto import modeling_auto as known

    kinds = [
        (known.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, hf.AutoModelForSequenceClassification, "SEQ_CLS"),
        (known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, hf.AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM"),
        (known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, hf.AutoModelForCausalLM, "CAUSAL_LM"),
    ]
    for names, auto, task in kinds:
        if type(model).__name__ in names.values():
            return auto, task
    raise InvalidArgument(
        f"{type(model).__name__} has none of the heads that are distilled here: "
        "sequence classification, causal and sequence-to-sequence language modelling"
    )
