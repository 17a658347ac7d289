"""Tokenizers that are one, and each way in which they are not."""

from __future__ import annotations

import pytest
import torch

from pushforward.errors import InvalidArgument, ShapeError
from pushforward.lm.vocab import check_same_tokenizer, match_widths

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

VOCABULARY = {"<unk>": 0, "<s>": 1, "a": 2, "b": 3, "c": 4, "ab": 5, "bc": 6}
MERGES = [("a", "b"), ("b", "c")]


def tokenizer(vocabulary=VOCABULARY, merges=MERGES, normalizer=None, post=None, **special):
    model = tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>")
    content = tokenizers.Tokenizer(model)
    if normalizer:
        content.normalizer = normalizer
    if post:
        content.post_processor = post
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=content, **{"unk_token": "<unk>", "bos_token": "<s>", **special}
    )


def test_the_same_content_passes_whatever_was_done_with_it():
    student, teacher = tokenizer(), tokenizer()
    check_same_tokenizer(student, teacher)
    student(["a", "ab c"], truncation=True, max_length=1)  # leaves its settings in the tokenizer
    student.pad_token, student.padding_side = "<unk>", "left"
    check_same_tokenizer(student, teacher)


DIFFERENT = {
    "two tokens swapped": (
        {"vocabulary": VOCABULARY | {"b": 4, "c": 3}}, "token 'b' is 4 in the student's and 3 in the teacher's"
    ),
    "a token more": (
        {"vocabulary": VOCABULARY | {"d": 7}}, "token 'd' is 7 in the student's and not in the teacher's"
    ),
    "another token of the same number": (
        {"vocabulary": {"A" if t == "a" else t: k for t, k in VOCABULARY.items()}, "merges": MERGES[1:]},
        "token 'A' is 2 in the student's and not in the teacher's",
    ),
    "merges in another order": (
        {"merges": MERGES[::-1]}, r"model\.merges\[0\] is \['b', 'c'\] in the student's and \['a', 'b'\] in"
    ),
    "a merge less": ({"merges": MERGES[:1]}, "model.merges has 1 entries in the student's and 2 in the teacher's"),
    "letters lowered": (
        {"normalizer": tokenizers.normalizers.Lowercase()},
        "normalizer is .* in the student's and None in the teacher's",
    ),
    "a beginning put before": (
        {"post": tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])},
        "post_processor.single has 2 entries in the student's and 1 in",
    ),
    "another special token": (
        {"bos_token": "<unk>"}, "bos_token is '<unk>' in the student's and '<s>' in the teacher's"
    ),
    "a special token more": ({"eos_token": "<s>"}, "eos_token is '<s>' in the student's and None in the teacher's"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "message"), DIFFERENT.values(), ids=DIFFERENT)
def test_a_difference_is_named(options: dict, message: str):
    with pytest.raises(InvalidArgument, match=f"different tokenizers: {message}"):
        check_same_tokenizer(tokenizer(**options), tokenizer())


def test_scores_of_a_unigram_model_are_its_content():
    def unigram(score: float):
        model = tokenizers.models.Unigram([("<unk>", 0.0), ("a", -1.0), ("aa", score)], unk_id=0)
        return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model), unk_token="<unk>")

    check_same_tokenizer(unigram(-1.5), unigram(-1.5))
    with pytest.raises(
        InvalidArgument, match=r"model\.vocab\[2\] is \['aa', -1\.5\] in the student's and \['aa', -3\.0\] in"
    ):
        check_same_tokenizer(unigram(-1.5), unigram(-3.0))


def test_padded_columns_are_cut():
    student, teacher = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 3, 12)
    narrow, wide = match_widths(student, teacher, vocab_size=7)
    torch.testing.assert_close(narrow, student[..., :7])
    torch.testing.assert_close(wide, teacher[..., :7])
    narrow.sum().backward()
    assert student.grad[..., :7].eq(1).all()
    assert student.grad[..., 7:].eq(0).all()


def test_equal_widths_are_left_alone():
    student, teacher = torch.zeros(2, 8), torch.zeros(2, 8)
    assert match_widths(student, teacher) == (student, teacher)


def test_widths_that_do_not_match_are_refused():
    student, teacher = torch.zeros(2, 8), torch.zeros(2, 12)
    with pytest.raises(ShapeError, match=r"8 columns and teacher_logits 12; .* pass vocab_size=len\(tokenizer\)"):
        match_widths(student, teacher)
    with pytest.raises(ShapeError, match="vocab_size is 9 but student_logits have 8 columns and teacher_logits 12"):
        match_widths(student, teacher, vocab_size=9)
    with pytest.raises(InvalidArgument, match="vocab_size must be an integer of at least 1, got 0"):
        match_widths(student, teacher, vocab_size=0)
