"""Students of tiny teachers with random weights: what they keep, what they share, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pushforward.errors import InvalidArgument

transformers = pytest.importorskip("transformers")

from pushforward.lm.students import parse_student, student_from_layers, with_lora  # noqa: E402

VOCABULARY = 40
DEPTH = 4


def bert(**options):
    return transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_hidden_layers=DEPTH,
        **options,
    )


def _bert():
    return transformers.BertForSequenceClassification(bert(num_labels=3))


def _distilbert():
    config = transformers.DistilBertConfig(vocab_size=VOCABULARY, dim=16, hidden_dim=24, n_heads=2, n_layers=DEPTH)
    return transformers.DistilBertForSequenceClassification(config)


def _gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_head=2, n_layer=DEPTH)
    )


LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": DEPTH,
}


def _llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA))


def _qwen():
    # Every layer has its kind in the configuration, and two kinds are present.
    config = transformers.Qwen2Config(**LLAMA, use_sliding_window=True, max_window_layers=2, tie_word_embeddings=True)
    return transformers.Qwen2ForCausalLM(config)


def _t5():
    # T5's blocks hold lists of 2 (encoder) and 3 (decoder) sublayers, and the first holds the position bias of all.
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=DEPTH, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def _bart():
    config = transformers.BartConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        encoder_layers=DEPTH,
        decoder_layers=DEPTH,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=32,
    )
    return transformers.BartForConditionalGeneration(config)


MODELS = {
    "bert": (_bert, ["bert.encoder.layer"]),
    "distilbert": (_distilbert, ["distilbert.transformer.layer"]),
    "gpt2": (_gpt2, ["transformer.h"]),
    "llama": (_llama, ["model.layers"]),
    "qwen": (_qwen, ["model.layers"]),
    "t5": (_t5, ["encoder.block", "decoder.block"]),
    "bart": (_bart, ["model.encoder.layers", "model.decoder.layers"]),
}
EVERY_MODEL = pytest.mark.parametrize(("make", "blocks"), MODELS.values(), ids=MODELS)


def logits(model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.randint(3, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(0))
    inputs = {"decoder_input_ids": tokens.flip(1)} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=tokens, **inputs).logits


@EVERY_MODEL
def test_all_layers_give_the_teachers_outputs(make: Callable, blocks: list[str]):
    torch.manual_seed(0)
    teacher = make()
    torch.testing.assert_close(logits(student_from_layers(teacher, DEPTH)), logits(teacher), rtol=0, atol=0)


@EVERY_MODEL
@pytest.mark.parametrize(("layers", "kept"), [(1, [0]), (3, [0, 2, 3]), ([1, 2], [1, 2])], ids=str)
def test_the_students_blocks_are_the_teachers(make: Callable, blocks: list[str], layers, kept: list[int]):
    torch.manual_seed(1)
    teacher = make()
    student = student_from_layers(teacher, layers)
    assert type(student) is type(teacher)
    for name in blocks:
        assert len(student.get_submodule(name)) == len(kept)
    weights = dict(teacher.named_parameters())
    for name, weight in student.named_parameters():
        source = name
        for prefix in blocks:
            if name.startswith(f"{prefix}."):
                place, _, rest = name.removeprefix(f"{prefix}.").partition(".")
                source = f"{prefix}.{0 if 'relative_attention_bias' in rest else kept[int(place)]}.{rest}"
        torch.testing.assert_close(weight, weights[source], rtol=0, atol=0)


@EVERY_MODEL
def test_nothing_is_shared_with_the_teacher(make: Callable, blocks: list[str]):
    teacher = make()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    config = teacher.config.to_dict()
    student = student_from_layers(teacher, 2)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(7)
    assert teacher.config.to_dict() == config
    for name, tensor in teacher.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@EVERY_MODEL
def test_a_student_is_saved_and_loaded(make: Callable, blocks: list[str], tmp_path: Path):
    teacher = make()
    student = student_from_layers(teacher, [1, 3])
    student.save_pretrained(tmp_path)
    loaded = type(student).from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded), logits(student), rtol=0, atol=0)
    embeddings = [model.get_input_embeddings().weight for model in (teacher, student, loaded)]
    heads = [model.get_output_embeddings() for model in (teacher, student, loaded)]
    if heads[0] is not None:
        tied = [head.weight is embedding for head, embedding in zip(heads, embeddings, strict=True)]
        assert tied == [tied[0]] * 3


def test_the_kind_of_each_layer_goes_with_it():
    teacher = _qwen()
    kinds = teacher.config.layer_types
    assert len(set(kinds)) == 2
    assert student_from_layers(teacher, [0, 3]).config.layer_types == [kinds[0], kinds[3]]


def test_even_spacing_is_distilberts():
    teacher = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=8, hidden_size=4, intermediate_size=4, num_attention_heads=1, num_hidden_layers=12
        )
    )
    for place, layer in enumerate(teacher.encoder.layer):
        torch.nn.init.constant_(layer.output.dense.bias, place)
    kept = [int(layer.output.dense.bias[0]) for layer in student_from_layers(teacher, 6).encoder.layer]
    assert kept == [0, 2, 4, 7, 9, 11]


def test_sides_of_different_depth():
    teacher = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=4, num_decoder_layers=3
        )
    )
    student = student_from_layers(teacher, 3)
    assert (len(student.encoder.block), len(student.decoder.block)) == (3, 3)
    with pytest.raises(InvalidArgument, match="layers asks for 4 blocks but .* \\(decoder\\) has 3"):
        student_from_layers(teacher, 4)


@pytest.mark.parametrize(
    ("teachers", "students"), [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64,) * 2]
)
def test_a_student_is_precise_enough_to_be_trained(teachers: torch.dtype, students: torch.dtype, tmp_path: Path):
    teacher = _llama().to(teachers)
    student = student_from_layers(teacher, 2)
    assert {parameter.dtype for parameter in student.parameters()} == {students}
    assert {parameter.dtype for parameter in teacher.parameters()} == {teachers}
    teacher.save_pretrained(tmp_path)
    assert parse_student(str(tmp_path), teacher).dtype is torch.float32
    assert student.generation_config.to_dict() == _llama().generation_config.to_dict()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (0, "integer of at least 1, got 0"),
        (True, "integer of at least 1, got True"),
        (5, "asks for 5 blocks but BertForSequenceClassification has 4"),
        ([], "places of blocks are needed"),
        ([1, 1], "none twice"),
        ([2, 0], "increasing"),
        ([0, 4], "asks for block 4 but BertForSequenceClassification has 4, counted from 0"),
        ([-1], "integer of at least 0, got -1"),
    ],
)
def test_wrong_layers_are_refused(layers, message: str):
    with pytest.raises(InvalidArgument, match=message):
        student_from_layers(_bert(), layers)


def test_an_architecture_without_blocks_is_refused():
    shared = transformers.AlbertModel(
        transformers.AlbertConfig(
            vocab_size=8,
            hidden_size=8,
            embedding_size=4,
            intermediate_size=8,
            num_attention_heads=1,
            num_hidden_layers=4,
        )
    )
    with pytest.raises(InvalidArgument, match="AlbertModel, .* 4 layers, .* no list of so many blocks"):
        student_from_layers(shared, 2)
    with pytest.raises(InvalidArgument, match="must be a transformers PreTrainedModel, got a Linear"):
        student_from_layers(torch.nn.Linear(2, 2), 1)


def test_blocks_of_several_kinds_are_refused_where_they_do_not_fit():
    config = transformers.Qwen2MoeConfig(
        **LLAMA, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8, shared_expert_intermediate_size=8,
        mlp_only_layers=[0],
    )  # fmt: skip
    teacher = transformers.Qwen2MoeForCausalLM(config)
    assert student_from_layers(teacher, [0, 2]).config.num_hidden_layers == 2
    with pytest.raises(InvalidArgument, match="not of one kind"):
        student_from_layers(teacher, [1, 2])


def test_the_command_lines_student(tmp_path: Path):
    teacher = _bert()
    assert parse_student("layers:3", teacher).config.num_hidden_layers == 3
    student = parse_student("layers:1,2", teacher)
    torch.testing.assert_close(
        student.bert.encoder.layer[0].output.dense.weight, teacher.bert.encoder.layer[1].output.dense.weight
    )
    transformers.DistilBertModel(_distilbert().config).save_pretrained(tmp_path)
    loaded = parse_student(str(tmp_path), teacher)
    assert type(loaded) is transformers.DistilBertForSequenceClassification
    assert loaded.config.num_labels == 3


@pytest.mark.parametrize("text", ["layers:", "layers:three", "layers:1.5"])
def test_a_misspelt_student_is_refused(text: str):
    with pytest.raises(InvalidArgument, match='"layers:3" keeps three blocks'):
        parse_student(text, _bert())


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(InvalidArgument, match="cannot be loaded"):
        parse_student(str(tmp_path), _bert())


@pytest.mark.parametrize("make", [_bert, _gpt2, _t5], ids=["bert", "gpt2", "t5"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_adapters_and_the_classifier_are_all_that_is_trained(make: Callable):
    pytest.importorskip("peft")
    adapted = with_lora(make(), 2)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("lora_A" in name for name in trained)
    assert {name for name in trained if "lora_" not in name} == {
        name for name, _ in adapted.named_parameters() if "classifier.modules_to_save" in name
    }
    if make is _bert:
        assert any("classifier" in name for name in trained)


def test_a_rank_of_nothing_is_refused():
    with pytest.raises(InvalidArgument, match="rank must be an integer of at least 1"):
        with_lora(_bert(), 0)
