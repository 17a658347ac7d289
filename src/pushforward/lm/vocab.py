"""Whether two models read and write the same tokens, which a loss between their logits takes for granted.

symbol   meaning                                             unit
V        tokens that the tokenizer knows, the shared width   1

A model's logits may be wider than V: output layers are padded to round numbers, differently for models of different
size that share a tokenizer (Qwen2.5 has 151,936 columns up to 3B and 152,064 from 7B on, for 151,665 tokens).
"""

from __future__ import annotations

import json
import reprlib
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pushforward._checks import check_count
from pushforward._typed import typed
from pushforward.errors import InvalidArgument, ShapeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["check_same_tokenizer", "match_widths"]

# What turns a text into token numbers; the rest of a tokenizer's file is how it was called last (padding, truncation)
# and how numbers become text again.
_SECTIONS = ("normalizer", "pre_tokenizer", "model", "post_processor")


def check_same_tokenizer(
    student_tokenizer: PreTrainedTokenizerBase, teacher_tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise unless both tokenizers turn every text into the same numbers with the same meaning.

    Compared are the tokens with their numbers, the special tokens (but for the padding, which every loss masks out)
    and, of tokenizers of the `tokenizers` library, normalisation, splitting, merges and what is put around a text.

    Args:
        student_tokenizer, teacher_tokenizer: The tokenizers.

    Raises:
        InvalidArgument: They differ; the message names the first difference.
    """
    difference = (
        _vocabulary_difference(student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab())
        or _first_difference(_special(student_tokenizer), _special(teacher_tokenizer))
        or _first_difference(*_pipelines(student_tokenizer, teacher_tokenizer))
    )
    if difference:
        raise InvalidArgument(
            f"student and teacher have different tokenizers: {difference}; "
            "logits can be compared token by token only under one tokenizer"
        )


@typed
def match_widths(
    student_logits: Tensor, teacher_logits: Tensor, vocab_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits of one width, whose columns stand for the same tokens.

    Args:
        student_logits: Shape (..., V or more).
        teacher_logits: Shape (..., V or more).
        vocab_size: V, to which both are cut: `len(tokenizer)`. None cuts nothing.

    Returns:
        The two, or views of their first V columns. A softmax over these is the model's own, given that it says a token.

    Raises:
        ShapeError: The widths differ and vocab_size is None, or there are fewer than V columns.

    Example:
        >>> import torch
        >>> [tuple(logits.shape) for logits in match_widths(torch.zeros(2, 8), torch.zeros(2, 16), vocab_size=7)]
        [(2, 7), (2, 7)]
    """
    student, teacher = student_logits.shape[-1], teacher_logits.shape[-1]
    if vocab_size is None:
        if student != teacher:
            raise ShapeError(
                f"student_logits have {student} columns and teacher_logits {teacher}; if one tokenizer serves both and "
                "the columns beyond it are padding, pass vocab_size=len(tokenizer) to cut both to it"
            )
        return student_logits, teacher_logits
    width = check_count("vocab_size", vocab_size)
    if width > min(student, teacher):
        raise ShapeError(
            f"vocab_size is {width} but student_logits have {student} columns and teacher_logits {teacher}; "
            "neither may have fewer than the tokenizer has tokens"
        )
    return student_logits[..., :width], teacher_logits[..., :width]


def _vocabulary_difference(student: dict[str, int], teacher: dict[str, int]) -> str:
    """The difference at the smallest token number, in words; empty where there is none."""
    differ = [token for token in student | teacher if student.get(token) != teacher.get(token)]
    if not differ:
        return ""
    token = min(differ, key=lambda token: (min(v[token] for v in (student, teacher) if token in v), token))
    here, there = (f"{v[token]} in" if token in v else "not in" for v in (student, teacher))
    return f"token {token!r} is {here} the student's and {there} the teacher's"


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items() if name != "pad_token"}


def _pipelines(student: Any, teacher: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the `tokenizers` library describes of both, where both are of that library."""
    if not (hasattr(student, "backend_tokenizer") and hasattr(teacher, "backend_tokenizer")):
        return {}, {}
    contents = [json.loads(tokenizer.backend_tokenizer.to_str()) for tokenizer in (student, teacher)]
    first, second = ({section: content.get(section) for section in _SECTIONS} for content in contents)
    return first, second


def _first_difference(student: Any, teacher: Any, path: str = "") -> str:
    """The first place where two JSON values differ, with the values there, in words; empty where there is none."""
    if student == teacher:
        return ""
    if isinstance(student, dict) and isinstance(teacher, dict):
        key = next(key for key in {**student, **teacher} if student.get(key) != teacher.get(key))
        return _first_difference(student.get(key), teacher.get(key), f"{path}.{key}".lstrip("."))
    # A list of plain values, such as a merge, is shown whole.
    if isinstance(student, list) and isinstance(teacher, list) and isinstance((student or [""])[0], dict | list):
        if len(student) != len(teacher):
            return f"{path} has {len(student)} entries in the student's and {len(teacher)} in the teacher's"
        k = next(k for k, (mine, its) in enumerate(zip(student, teacher, strict=True)) if mine != its)
        return _first_difference(student[k], teacher[k], f"{path}[{k}]")
    return f"{path} is {reprlib.repr(student)} in the student's and {reprlib.repr(teacher)} in the teacher's"
