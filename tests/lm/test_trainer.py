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

from pushforward.lm import positions  # noqa: E402
from pushforward.lm import trainer as module  # noqa: E402
from pushforward.lm.losses import KD, SquaredError  # noqa: E402
from pushforward.lm.sinkhorn import SinkhornKD  # noqa: E402
from pushforward.lm.students import student_from_layers, with_lora  # noqa: E402
from pushforward.lm.trainer import DistillationArguments, DistillationTrainer  # noqa: E402
from pushforward.training import verify  # noqa: E402
from pushforward.training.seal import entries, sealed  # noqa: E402

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


def qwen(seed: int = 0, **options) -> torch.nn.Module:
    torch.manual_seed(seed)
    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"num_key_value_heads": 1, "max_position_embeddings": 16}
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(vocab_size=VOCABULARY, **(size | options)))


def rows(kind: str, count: int = 16, seed: int = 1) -> list[dict[str, torch.Tensor]]:
    tokens = torch.randint(1, VOCABULARY, (count, LENGTH), generator=torch.Generator().manual_seed(seed))
    data = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in tokens]
    for k, row in enumerate(data):
        row["labels"] = row["input_ids"][0] % 2 if kind == "bert" else row["input_ids"].clone()
        if kind != "bert" and k % 2:
            row["labels"][-3:] = -100
    return data


MODELS = {"bert": bert, "gpt2": gpt2, "qwen": qwen, "t5": t5}
KINDS = ("bert", "gpt2", "t5")
SGD = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}


def trainer(
    folder: Path,
    kind: str = "bert",
    loss=COMBINED,
    student=None,
    data=None,
    wrap=lambda model: model,
    teacher=None,
    collate=None,
    **options,
) -> DistillationTrainer:
    made, teacher = teacher is None, MODELS[kind]() if teacher is None else teacher
    if kind == "bert" and made:  # as random as it is, it should have something to say
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
        data_collator=collate,
    )


def step_of(run: DistillationTrainer) -> torch.Tensor:
    """What a training changes in the student's weights."""
    for layer in run.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
        elif isinstance(getattr(layer, "dropout", None), float):
            layer.dropout = 0.0
    before = [p.detach().clone() for p in run.model.parameters()]
    run.train()
    return torch.cat([(p.detach() - old).flatten() for p, old in zip(run.model.parameters(), before, strict=True)])


def logged(run: DistillationTrainer, name: str) -> list[float]:
    return [line[name] for line in run.state.log_history if name in line]


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
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
    for kind in KINDS:
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
    for wrong, words in ((3, "train_dataset is a int"), ("rows", "train_dataset is a str"), ([], "holds no rows")):
        with pytest.raises(InvalidArgument, match=words):
            trainer(tmp_path, data=wrong)
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


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_finished_run_that_is_resumed_takes_no_step(accumulated: int, tmp_path: Path):
    options = {"max_steps": 3, "gradient_accumulation_steps": accumulated, "save_strategy": "steps", "save_steps": 1}
    finished = trainer(tmp_path, **options)
    finished.train()
    resumed = trainer(tmp_path, **options)
    assert resumed.train(resume_from_checkpoint=True).global_step == resumed.state.global_step == 3
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, finished.model.state_dict()[name], rtol=0, atol=0)


def _forged(checkpoint: Path, name: str, content: bytes) -> None:
    (checkpoint / name).write_bytes(content)
    (checkpoint / "manifest.json").unlink()
    files = {file.name: file for file in sorted(checkpoint.iterdir())}
    (checkpoint / "manifest.json").write_text(sealed({"step": 1, "files": entries(files)}))


def test_files_of_a_forged_checkpoint_are_refused_by_name(tmp_path: Path):
    trainer(tmp_path, save_strategy="steps", save_steps=1, max_steps=1).train()
    checkpoint = tmp_path / "checkpoint-1"
    resumed = trainer(tmp_path, max_steps=2)
    resumed.accelerator.scaler = torch.amp.GradScaler("cpu")
    state = (checkpoint / "trainer_state.json").read_bytes()
    forged = [
        ("trainer_state.json", content)
        for content in (
            b"{",
            b"[]",
            b'{"unknown": 1}',
            b"\xff",
            state.replace(b'"global_step": 1', b'"global_step": "x"'),
        )
    ]
    torch.save({}, tmp_path / "empty")
    torch.save({"growth": 1}, tmp_path / "other")
    forged += [
        ("scaler.pt", content) for content in (b"", b"x", *((tmp_path / n).read_bytes() for n in ("empty", "other")))
    ]
    forged += [(name, b"x") for name in ("scheduler.pt", "rng_state.pth")]
    for name, content in forged:
        before = (checkpoint / name).read_bytes() if (checkpoint / name).exists() else None
        _forged(checkpoint, name, content)
        with pytest.raises(CheckpointError, match=rf"checkpoint-1/{name}.* is damaged.*; take .*checkpoint-1 away"):
            resumed.train(resume_from_checkpoint=str(checkpoint))
        (checkpoint / name).unlink()
        if before is not None:
            (checkpoint / name).write_bytes(before)


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
    for name in ("_load_optimizer_and_scheduler", "_load_scaler", "_load_rng_state"):
        assert list(inspect.signature(getattr(transformers.Trainer, name)).parameters) == ["self", "checkpoint"]
    assert "self._get_output_dir(" in inspect.getsource(transformers.Trainer._save_checkpoint)
    assert "self._save_checkpoint(" in inspect.getsource(transformers.Trainer._maybe_log_save_evaluate)
    assert transformers.trainer_utils.PREFIX_CHECKPOINT_DIR == module.NAME


# Packed rows


TEXTS = ([5, 6, 7, 8, 9, 10], [20, 21, 22], [30, 31, 32, 33], [7])
UNLABELLED = {1: 3, 2: 4}  # tokens at the start of these texts that are not to be said


def padded(texts: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    length = max(len(row["input_ids"]) for row in texts)

    def fill(name: str, value: int) -> torch.Tensor:
        return torch.tensor([row[name] + [value] * (length - len(row[name])) for row in texts])

    found = {"input_ids": fill("input_ids", 0), "attention_mask": fill("seen", 0)}
    return found | ({"labels": fill("labels", -100)} if "labels" in texts[0] else {})


def flattened(texts: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    found = {
        "input_ids": torch.tensor([sum((row["input_ids"] for row in texts), [])]),
        "position_ids": torch.tensor([sum((list(range(len(row["input_ids"]))) for row in texts), [])]),
        "attention_mask": torch.ones(1, sum(len(row["input_ids"]) for row in texts), dtype=torch.long),
    }
    # As careless people pack: the first token of a text keeps its label.
    return found | (
        {"labels": torch.tensor([sum((row["labels"] for row in texts), [])])} if "labels" in texts[0] else {}
    )


def texts(labels: bool = True) -> list[dict[str, list[int]]]:
    found = [{"input_ids": text, "seen": [1] * len(text)} for text in TEXTS]
    for k, row in enumerate(found if labels else []):
        hidden = UNLABELLED.get(k, 0)
        row["labels"] = [-100] * hidden + row["input_ids"][hidden:]
    return found


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "qwen"])
def test_packed_rows_are_the_padded_ones(kind: str, labels: bool, tmp_path: Path):
    loss = KD("kl") + 0.8 * SinkhornKD() + 0.3 * SinkhornKD(representation_weight=0.5)
    steps, values = [], []
    for collate in (padded, flattened):
        student = student_from_layers(MODELS[kind](), 1)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        options = {"label_weight": 0.4 if labels else 0.0, "max_steps": 1, **SGD}
        run = trainer(tmp_path, kind, loss, student=student, data=texts(labels), collate=collate, **options)
        run.args.remove_unused_columns = False
        steps.append(step_of(run))
        values.append(logged(run, "distillation_loss") + logged(run, "label_loss"))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-4, atol=1e-6)


def test_a_student_that_is_its_packed_teacher_has_nothing_to_learn(tmp_path: Path):
    data = [{"input_ids": text, "labels": text} for text in TEXTS]
    teacher = qwen()
    teacher.config.use_cache = True
    collate = transformers.DataCollatorWithFlattening()
    for wrap in (lambda model: model, lambda model: torch.nn.ModuleList([model])[0]):
        run = trainer(
            tmp_path, loss=None, student=qwen(), teacher=wrap(teacher), data=data, collate=collate, max_steps=1
        )
        run.train()
        assert logged(run, "distillation_loss") == [0.0]


def test_where_documents_begin():
    places = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])
    expected = torch.tensor([[0, 0, 0, 1, 1], [0] * 5])
    tokens = torch.zeros(2, 5, dtype=torch.long)
    assert torch.equal(positions.documents({"input_ids": tokens, "position_ids": places}), expected)
    assert torch.equal(positions.documents({"input_ids": tokens, "seq_idx": expected}), expected)
    assert positions.documents({"input_ids": tokens, "position_ids": places[1:]}) is None
    assert positions.documents({"input_ids": tokens}) is None
    assert positions.documents({"input_ids": tokens, "position_ids": places.expand(3, 2, 5)}) is None  # three axes
    hidden = torch.tensor([[0, 1, 1, 1, 1]] * 2)
    batch = {"input_ids": tokens, "position_ids": places, "attention_mask": hidden}
    assert "attention_mask" not in positions.separated(batch, next_token=True)
    assert "attention_mask" in positions.separated(batch, next_token=False)  # it hides what an encoder would see


# Means


def test_rows_without_labels_add_nothing_and_are_counted(tmp_path: Path):
    data = [{"input_ids": [5, 6, 7], "labels": labels} for labels in ([-100, 6, 7], [-100] * 3)]
    steps = []
    for size, accumulated, some in ((1, 2, data), (2, 1, data), (1, 1, data[:1])):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated, "max_steps": 1}
        run = trainer(tmp_path, "qwen", KD() + SinkhornKD(), student=qwen(1), data=some, **sizes, **SGD)
        steps.append(step_of(run))
        assert logged(run, "rows_without_labels") == ([1] if some is data else [])
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(steps[2], steps[0], rtol=1e-5, atol=1e-7)
    run = trainer(tmp_path, "qwen", KD() + SinkhornKD(), student=qwen(1), data=data[1:], max_steps=1, **SGD)
    assert not step_of(run).any()
    assert logged(run, "loss") == logged(run, "distillation_loss") == [0.0]


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_accumulation_without_labels_is_the_whole_batch(kind: str, tmp_path: Path):
    data = [{"input_ids": list(range(1, n)), "seen": [1] * (n - 1)} for n in (4, 8, 3, 6)]

    def collate(some):
        batch = padded(some)
        if kind == "t5":
            batch |= {f"decoder_{name}": tensor for name, tensor in batch.items()}
        return batch

    steps, losses = [], []
    for size, accumulated in ((4, 1), (1, 4)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated, "max_steps": 1}
        student = student_from_layers(MODELS[kind](), 1)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        run = trainer(
            tmp_path, kind, KD(), student=student, data=data, collate=collate, label_weight=0.0, **sizes, **SGD
        )
        run.args.remove_unused_columns = False
        steps.append(step_of(run))
        losses.append(logged(run, "loss") + logged(run, "distillation_loss"))
    assert float((steps[1] - steps[0]).norm()) <= 1e-5 * float(steps[0].norm())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[1][0] == pytest.approx(losses[1][1], rel=1e-6)


def test_the_parts_in_the_log_are_weighted_as_the_step_is(tmp_path: Path):
    data = [{"input_ids": [5, 6, 7, 8], "labels": labels} for labels in ([5, 6, 7, 8], [-100, -100, -100, 8])]
    found = []
    for size, accumulated in ((2, 1), (1, 2)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated, "max_steps": 2}
        options = sizes | {"num_train_epochs": 2, "logging_steps": 2, "label_weight": 0.5}
        run = trainer(tmp_path, "qwen", KD(), student=qwen(1), data=data, **options)
        run.train()
        found.append([logged(run, name)[0] for name in ("loss", "distillation_loss", "label_loss")])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    for loss, distilled, labelled in found:
        assert loss == pytest.approx(distilled + 0.5 * labelled, rel=1e-6)


def test_labels_are_smoothed_as_the_trainer_does(tmp_path: Path):
    for kind in ("bert", "gpt2"):
        settings = {"label_smoothing_factor": 0.3, "max_steps": 1}
        run = trainer(tmp_path, kind, KD(), label_weight=1.0, data=rows(kind, 4), **settings)
        plain = transformers.Trainer(copy.deepcopy(run.model), run.args, train_dataset=rows(kind, 4))
        batch = run.data_collator(rows(kind, 4))
        for model in (run.model, plain.model):
            model.eval()
        mine = run.compute_loss(run.model, dict(batch)) - KD()(*_aligned_logits(run, batch, kind))
        torch.testing.assert_close(mine, plain.compute_loss(plain.model, dict(batch)), rtol=1e-5, atol=1e-6)


def _aligned_logits(run: DistillationTrainer, batch: dict[str, torch.Tensor], kind: str):
    with torch.no_grad():
        student, teacher = run.model(**batch).logits, run.teacher(**batch).logits
    if kind == "bert":
        return student, teacher
    return student[:, :-1], teacher[:, :-1], batch["labels"][:, 1:] != -100


# Heads


@pytest.mark.parametrize("head", [{"num_labels": 1}, {"num_labels": 3, "problem_type": "multi_label_classification"}])
def test_heads_that_give_scores_learn_them(head: dict, tmp_path: Path):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = transformers.BertConfig(vocab_size=VOCABULARY, **small, **head)
    teacher = transformers.BertForSequenceClassification(config)
    teacher.classifier.weight.data *= 50
    student = student_from_layers(teacher, 1)
    student.classifier.weight.data *= 0.1
    data = [{"input_ids": row["input_ids"], "labels": torch.ones(head["num_labels"])} for row in rows("bert")]
    if head["num_labels"] == 1:
        data = [{**row, "labels": 3.0} for row in data]
    run = trainer(
        tmp_path, loss=None, student=student, teacher=teacher, data=data, num_train_epochs=8, label_weight=0.0
    )
    assert isinstance(run.distillation_loss, SquaredError)
    run.train()
    found = logged(run, "distillation_loss")
    assert found[-1] < 0.5 * found[0]
    with pytest.raises(InvalidArgument, match=r"distillation_loss is .* gives scores.*SquaredError\(\)"):
        trainer(tmp_path, loss=COMBINED, student=student, teacher=teacher, data=data)
    if head["num_labels"] == 1:  # for several labels the Trainer itself warns, and smooths nothing
        smoothed = trainer(tmp_path, loss=None, student=student, teacher=teacher, data=data, label_smoothing_factor=0.1)
        with pytest.raises(InvalidArgument, match="label_smoothing_factor is for classes"):
            smoothed.train()


def test_several_labels_at_once_are_noticed_when_the_model_does(tmp_path: Path):
    data = [{**row, "labels": torch.tensor([1.0, 0.0])} for row in rows("bert")]
    with pytest.raises(InvalidArgument, match="multi_label_classification.* gives scores"):
        trainer(tmp_path, data=data).train()


def test_what_gives_no_logits_is_named(tmp_path: Path):
    class Fused(transformers.Qwen2ForCausalLM):
        def forward(self, input_ids=None, attention_mask=None, labels=None, **others):
            outputs = super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **others)
            outputs.logits = None
            return outputs

    with pytest.raises(InvalidArgument, match="the student gave no logits but loss: a fused loss.*use_liger_kernel"):
        trainer(tmp_path, "qwen", student=Fused(qwen().config), max_steps=1, data=rows("gpt2")).train()
    small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
    teacher = transformers.BertForQuestionAnswering(transformers.BertConfig(vocab_size=VOCABULARY, **small))
    data = [{"input_ids": [5, 6, 7], "start_positions": 1, "end_positions": 2}] * 4
    with pytest.raises(InvalidArgument, match="start_logits, end_logits: .*question answering"):
        trainer(tmp_path, student=student_from_layers(teacher, 1), teacher=teacher, data=data).train()


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_texts_longer_than_a_model_are_refused_before_the_first_step(side: str, tmp_path: Path):
    data = [
        *rows("gpt2", 3),
        {"input_ids": torch.ones(12, dtype=torch.long), "labels": torch.ones(12, dtype=torch.long)},
    ]
    models = {"student": qwen(1), "teacher": qwen()}
    models[side].config.max_position_embeddings = 11
    run = trainer(tmp_path, "qwen", **models, data=data, collate=None)
    with pytest.raises(ShapeError, match=rf"train_dataset\[3\] has 12 tokens but the {side} takes 11 positions"):
        run.train()
    run = trainer(tmp_path, "qwen", **models, data=data[3:], collate=transformers.default_data_collator)
    with pytest.raises(ShapeError, match=rf"a text of 12 tokens but the {side} takes 11 positions"):
        run.train()
    packed = [{"input_ids": [3] * 8, "labels": [3] * 8}] * 4
    trainer(
        tmp_path, "qwen", **models, data=packed, collate=transformers.DataCollatorWithFlattening(), max_steps=1
    ).train()


# Weights


def test_a_student_in_half_precision_moves_all_its_weights(tmp_path: Path):
    teacher = qwen().to(torch.bfloat16)
    for options in ({}, {"bf16": True}):
        student = qwen(1).to(torch.bfloat16)
        before = {name: p.detach().clone() for name, p in student.named_parameters()}
        with pytest.warns(UserWarning, match="weights are bfloat16.*now float32"):
            run = trainer(
                tmp_path,
                "qwen",
                student=student,
                teacher=teacher,
                data=rows("gpt2"),
                max_steps=1,
                learning_rate=1e-5,
                **options,
            )
        run.train()
        assert {p.dtype for p in student.parameters()} == {torch.float32}
        assert {p.dtype for p in teacher.parameters()} == {torch.bfloat16}
        moved = torch.cat([(p.detach() != before[name].float()).flatten() for name, p in student.named_parameters()])
        assert moved.float().mean() > 0.8  # what is not in the batch has no gradient
    kept = qwen(1).to(torch.bfloat16)
    trainer(tmp_path, "qwen", student=kept, teacher=teacher, data=rows("gpt2"), float32_weights=False)
    assert kept.dtype is torch.bfloat16


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_teacher_may_be_the_student_without_its_adapters(kind: str, tmp_path: Path):
    pytest.importorskip("peft")
    steps = []
    for shared in (True, False):
        base = MODELS[kind]()
        torch.manual_seed(1)
        copied = copy.deepcopy(base)
        student = with_lora(base, 2)
        with torch.no_grad():
            for name, parameter in student.named_parameters():
                if "lora_B" in name:
                    parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
        run = trainer(
            tmp_path, kind, student=student, teacher=base if shared else copied, max_steps=2, label_weight=0.0
        )
        assert logged(run, "distillation_loss") == []
        steps.append(step_of(run))
        assert logged(run, "distillation_loss")[0] > 0
        assert student.training
    assert steps[0].any()
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-5, atol=1e-7)


def test_weights_that_are_shared_and_trained_are_refused(tmp_path: Path):
    teacher, student = gpt2(), gpt2()
    student.transformer.wte = teacher.transformer.wte
    with pytest.raises(InvalidArgument, match=r"share weights that are trained \(transformer.wte.weight is one of 1\)"):
        trainer(tmp_path, "gpt2", student=student, teacher=teacher)
    teacher.transformer.wte.requires_grad_(False)
    student.lm_head.requires_grad_(False)
    trainer(tmp_path, "gpt2", student=student, teacher=teacher, max_steps=1).train()


def test_prompts_are_positions_of_the_student_alone(tmp_path: Path):
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    teacher = qwen()
    student = peft.get_peft_model(qwen(), config)
    run = trainer(tmp_path, "qwen", student=student, teacher=teacher, data=rows("gpt2"), max_steps=2)
    batch = run.data_collator(rows("gpt2", 4))
    with torch.no_grad():
        logits, taught = student(**batch).logits[:, 3:-1], teacher(**batch).logits[:, :-1]
        value = COMBINED(logits, taught, batch["labels"][:, 1:] != -100)
        assert float(run.compute_loss(student, batch)) > 0
        ungrouped = trainer(tmp_path, "qwen", KD(), student=student, teacher=teacher, label_weight=0.0)
        mine = ungrouped.compute_loss(student, batch)
    torch.testing.assert_close(mine, KD()(logits, taught, batch["labels"][:, 1:] != -100))
    assert torch.isfinite(value)
    assert step_of(run).any()


# Tokenizers


def tokenizer(*words: str):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({word: k for k, word in enumerate(words)}, unk_token=words[0])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(model), unk_token=words[0])


def test_tokenizers_are_compared_where_they_are_known(tmp_path: Path):
    one, other = tokenizer("?", "a", "b"), tokenizer("?", "b", "a")
    arguments = DistillationArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(InvalidArgument, match="different tokenizers: token 'a'"):
        DistillationTrainer(qwen(1), qwen(), args=arguments, processing_class=one, teacher_processing_class=other)
    with pytest.raises(InvalidArgument, match="teacher_processing_class is given without processing_class"):
        DistillationTrainer(qwen(1), qwen(), args=arguments, teacher_processing_class=other)
    with pytest.warns(UserWarning, match="one tokenizer is not known"):
        DistillationTrainer(qwen(1), qwen(), args=arguments)
    DistillationTrainer(qwen(1), qwen(), args=arguments, processing_class=one, teacher_processing_class=one)
    for name, its in (("one", one), ("other", other)):
        qwen(len(name)).save_pretrained(tmp_path / name)
        its.save_pretrained(tmp_path / name)
    models = [transformers.Qwen2ForCausalLM.from_pretrained(tmp_path / name) for name in ("one", "other")]
    with pytest.raises(InvalidArgument, match="different tokenizers"):
        DistillationTrainer(*models, args=arguments)


def test_processes_that_would_each_train_alone_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "world_size", lambda: 2)
    with pytest.raises(InvalidArgument, match="there are 2 processes but args.world_size is 1.*use_cpu=True"):
        trainer(tmp_path)


def test_arguments_of_the_trainer_are_passed_on(tmp_path: Path):
    student = qwen(1)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    run = DistillationTrainer(
        student,
        qwen(),
        args=DistillationArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True),
        train_dataset=rows("gpt2", 4),
        eval_dataset=rows("gpt2", 4),
        optimizers=(optimizer, None),
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        compute_metrics=lambda found: {"shape": len(found.predictions.shape)},
        teacher_processing_class=None,
    )
    run.train()
    assert run.optimizer.optimizer is optimizer
    assert run.evaluate()["eval_shape"] == 2
