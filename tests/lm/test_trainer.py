"""The trainer on tiny models of every kind: what it minimises, what it leaves alone, what it publishes."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path

import pytest
import torch

from pushforward.errors import CheckpointError, InvalidArgument, NonFiniteError, ShapeError

transformers = pytest.importorskip("transformers")

from pushforward.lm import trainer as module  # noqa: E402
from pushforward.lm.losses import KD  # noqa: E402
from pushforward.lm.sinkhorn import SinkhornKD  # noqa: E402
from pushforward.lm.students import student_from_layers, with_lora  # noqa: E402
from pushforward.lm.trainer import DistillationArguments, DistillationTrainer  # noqa: E402
from pushforward.training import verify  # noqa: E402

VOCABULARY, LENGTH = 40, 7
COMBINED = 0.9 * KD("kl") + 0.8 * SinkhornKD()


def bert() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_attention_heads=2, num_hidden_layers=2
    )
    return transformers.BertForSequenceClassification(config)


def gpt2() -> torch.nn.Module:
    torch.manual_seed(0)
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, **size))


def t5() -> torch.nn.Module:
    torch.manual_seed(0)
    size = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 2}
    config = transformers.T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **size)
    return transformers.T5ForConditionalGeneration(config)


def rows(kind: str, count: int = 16, seed: int = 1) -> list[dict[str, torch.Tensor]]:
    tokens = torch.randint(1, VOCABULARY, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    data = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in tokens]
    for k, row in enumerate(data):
        row["labels"] = row["input_ids"][0] % 2 if kind == "bert" else row["input_ids"].clone()
        if kind != "bert" and k % 2:
            row["labels"][-3:] = -100
    return data


MODELS = {"bert": bert, "gpt2": gpt2, "t5": t5}


def trainer(
    folder: Path, kind: str = "bert", loss=COMBINED, student=None, data=None, wrap=lambda model: model, **options
) -> DistillationTrainer:
    teacher = MODELS[kind]()
    if kind == "bert":  # as random as it is, it should have something to say
        teacher.classifier.weight.data *= 50
    settings = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return DistillationTrainer(
        student if student is not None else student_from_layers(teacher, 1),
        wrap(teacher),
        args=DistillationArguments(output_dir=str(folder), **(settings | options)),
        distillation_loss=loss,
        train_dataset=rows(kind) if data is None else data,
        eval_dataset=rows(kind, seed=2),
    )


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_every_kind_of_model_learns_from_its_teacher(kind: str, tmp_path: Path):
    run = trainer(tmp_path, kind, num_train_epochs=8, label_weight=0.0, logging_steps=1000)
    run.eval_dataset = run.train_dataset
    with torch.no_grad():  # astray, so that there is something to learn
        for parameter in run.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    before, teacher = run.evaluate()["eval_loss"], copy.deepcopy(run.teacher.state_dict())
    run.train()
    assert run.evaluate()["eval_loss"] < 0.7 * before
    assert not run.teacher.training
    assert all(torch.equal(teacher[name], tensor) for name, tensor in run.teacher.state_dict().items())


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_the_loss_is_that_of_the_labelled_positions(kind: str, tmp_path: Path):
    run, batch = trainer(tmp_path, kind, KD("kl"), label_weight=0.3), None
    batch = run.data_collator(rows(kind, 4))
    run.model.eval()
    with torch.no_grad():
        loss = run.compute_loss(run.model, batch)
        student, teacher = run.model(**batch), run.teacher(**batch)
    logits, labels = (student.logits, teacher.logits), batch["labels"]
    if kind == "gpt2":
        logits, labels = tuple(each[:, :-1] for each in logits), labels[:, 1:]
    mask = None if kind == "bert" else labels != -100
    with torch.no_grad():
        counted = run._get_num_items_in_batch([batch], run.args.device)
        torch.testing.assert_close(run.compute_loss(run.model, batch, num_items_in_batch=counted), loss)
    torch.testing.assert_close(loss, 0.3 * student.loss + KD("kl")(*logits, mask))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_accumulation_gives_the_step_of_the_whole_batch(kind: str, tmp_path: Path):
    data = rows(kind, 8)
    weights = []
    for size, steps in ((8, 1), (2, 4)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        run = trainer(tmp_path, kind, KD("kl"), data=data, optim="sgd", weight_decay=0.0, max_grad_norm=0.0, **sizes)
        for layer in run.model.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        run.train()
        weights.append(torch.cat([p.detach().flatten() for p in run.model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)


def test_the_log_shows_the_parts(tmp_path: Path):
    run = trainer(tmp_path, loss=KD("kl"), label_weight=0.5)
    run.train()
    for line in run.state.log_history[:-1]:
        assert line["loss"] == pytest.approx(line["distillation_loss"] + 0.5 * line["label_loss"], rel=1e-4)


def test_texts_without_labels(tmp_path: Path):
    data = [{k: v for k, v in row.items() if k != "labels"} for row in rows("gpt2")]
    trainer(tmp_path, "gpt2", KD("kl"), data=data, label_weight=0.0, max_steps=1).train()
    with pytest.raises(InvalidArgument, match="no labels to learn from; set label_weight=0"):
        trainer(tmp_path, "gpt2", KD("kl"), data=data, max_steps=1).train()


def test_representations_of_the_inputs_come_from_the_teacher(tmp_path: Path):
    loss = KD("kl") + SinkhornKD(representation_weight=0.5)
    for kind in MODELS:
        trainer(tmp_path, kind, loss, max_steps=1).train()


def test_padded_vocabularies(tmp_path: Path):
    student = gpt2()
    student.resize_token_embeddings(VOCABULARY + 8)
    trainer(tmp_path, "gpt2", student=student, max_steps=1, vocab_size=VOCABULARY).train()
    with pytest.raises(ShapeError, match=f"student_logits have {VOCABULARY + 8} columns"):
        trainer(tmp_path, "gpt2", student=student, max_steps=1).train()


def test_a_student_with_adapters(tmp_path: Path):
    pytest.importorskip("peft")
    student = with_lora(student_from_layers(gpt2(), 1), 2)
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    trainer(tmp_path, "gpt2", student=student, num_train_epochs=2).train()
    changed = {name for name, p in student.named_parameters() if not torch.equal(before[name], p)}
    assert changed
    assert changed <= trained


def test_a_teacher_keeps_its_token_types_whatever_the_student_takes(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    small = {"vocab_size": VOCABULARY, "dim": 16, "hidden_dim": 24, "n_heads": 2, "n_layers": 1}
    student = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**small))
    columns = [
        {k: v.tolist() for k, v in row.items()} | {"token_type_ids": [0, 0, 0, 1, 1, 1, 1]} for row in rows("bert")
    ]
    run = trainer(tmp_path, student=student, data=datasets.Dataset.from_list(columns), max_steps=1)
    seen = []
    run.teacher.register_forward_pre_hook(lambda _, args, given: seen.append(set(given)), with_kwargs=True)
    run.train()
    assert all("token_type_ids" in given for given in seen)
    assert seen


def test_a_wrapper_of_ones_own_is_given_the_whole_batch(tmp_path: Path):
    class Wrapped(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner, self.seen = inner, set()

        def forward(self, input_ids: torch.Tensor, **others: torch.Tensor):
            self.seen |= set(others)
            return self.inner(input_ids, **others)

    run = trainer(tmp_path, max_steps=1, wrap=Wrapped)
    run.train()
    assert run.teacher.seen == {"attention_mask"}


def test_half_precision_teachers(tmp_path: Path):
    run = trainer(tmp_path, max_steps=1)
    run.teacher.to(torch.bfloat16)
    run.train()


def test_a_loss_that_pairs_nothing_is_warned_of(tmp_path: Path):
    with pytest.warns(UserWarning, match="a shuffled teacher scores the same"):
        trainer(tmp_path, loss=SinkhornKD())


def test_what_is_refused(tmp_path: Path):
    teacher = bert()
    arguments = DistillationArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(InvalidArgument, match="args must be a DistillationArguments, got a TrainingArguments"):
        DistillationTrainer(bert(), teacher, args=transformers.TrainingArguments(output_dir=str(tmp_path)))
    with pytest.raises(InvalidArgument, match="student and teacher are one model"):
        DistillationTrainer(teacher, teacher, args=arguments)
    with pytest.raises(InvalidArgument, match="teacher must be a Module, got a str"):
        DistillationTrainer(bert(), "teacher", args=arguments)
    with pytest.raises(InvalidArgument, match="label_weight must be a finite number of at least 0"):
        DistillationArguments(output_dir=str(tmp_path), label_weight=-1.0)


def test_a_diverged_student_stops_the_run(tmp_path: Path):
    run = trainer(tmp_path)
    torch.nn.init.constant_(run.model.classifier.weight, torch.nan)
    with pytest.raises(NonFiniteError, match=r"student_logits\[0, 0\] is nan"):
        run.train()


def test_checkpoints_are_published_whole_and_pruned(tmp_path: Path):
    run = trainer(tmp_path, save_strategy="steps", save_steps=1, save_total_limit=2)
    run.train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-4"]
    for step in (3, 4):
        verify(tmp_path / f"checkpoint-{step}")
    listed = json.loads((tmp_path / "checkpoint-4" / "manifest.json").read_text())["files"]
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(listed)


def test_the_best_checkpoint_stays(tmp_path: Path):
    strategies = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    run = trainer(tmp_path, num_train_epochs=2, save_total_limit=1, load_best_model_at_end=True, **strategies)
    run.train()
    evaluated = {line["step"]: line["eval_loss"] for line in run.state.log_history if "eval_loss" in line}
    best = min(evaluated, key=evaluated.get)
    assert run.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    verify(tmp_path / f"checkpoint-{best}")
    assert run.evaluate()["eval_loss"] == pytest.approx(evaluated[best], rel=1e-5)


def test_an_altered_checkpoint_is_refused_by_name_or_passed_over(tmp_path: Path):
    trainer(tmp_path, save_strategy="steps", save_steps=1, max_steps=2).train()
    weights = tmp_path / "checkpoint-2" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"model\.safetensors was altered"):
        trainer(tmp_path).train(resume_from_checkpoint=str(weights.parent))
    run = trainer(tmp_path, max_steps=3)
    with pytest.warns(UserWarning, match="checkpoint-2 is passed over"):
        run.train(resume_from_checkpoint=True)
    assert [line["step"] for line in run.state.log_history if "loss" in line] == [1, 2, 3]
    with pytest.raises(CheckpointError, match="has no whole checkpoint to resume from"):
        trainer(tmp_path / "elsewhere").train(resume_from_checkpoint=True)


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
    save = torch.save

    def full_at_four(content, file, *args, **kwargs):
        if run.state.global_step == 4:
            raise RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file")
        save(content, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full_at_four)
    with pytest.warns(UserWarning, match="no checkpoint of step 4 .*; the run goes on"):
        run.train()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
    verify(tmp_path / "checkpoint-2")


def test_the_hooks_that_saving_rests_on_are_still_transformers_own():
    """Were one renamed, checkpoints would be written in the open again, silently."""
    assert list(inspect.signature(transformers.Trainer._save_checkpoint).parameters) == ["self", "model", "trial"]
    assert list(inspect.signature(transformers.Trainer._get_output_dir).parameters) == ["self", "trial"]
    assert "self._get_output_dir(" in inspect.getsource(transformers.Trainer._save_checkpoint)
    assert "self._save_checkpoint(" in inspect.getsource(transformers.Trainer._maybe_log_save_evaluate)
    assert transformers.trainer_utils.PREFIX_CHECKPOINT_DIR == module.NAME
