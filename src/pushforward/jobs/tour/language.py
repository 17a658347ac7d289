"""Act two: a small language model, trained on the Python reference, distilled into a smaller one, in two ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward import samples
from pushforward.jobs.inputs.language import quiet
from pushforward.jobs.tour.threads import one_thread
from pushforward.report import Block, Code, Picture, Section, Text
from pushforward.report import training as show

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

    from pushforward.lm.data import Rows
    from pushforward.lm.losses import DistillationLoss

__all__ = ["language"]

_VOCABULARY, _LENGTH, _WIDTH, _LAYERS, _KEPT = 512, 64, 96, 4, 2
_TEACHER_STEPS, _STUDENT_STEPS, _BATCH = 160, 60, 16
_TEACHER_RATE, _STUDENT_RATE = 4e-3, 1e-3
# Held-out blocks that the curves look at; the table is of all.
_LOOKED_AT, _EVERY = 48, 10

_QUESTION = f"""A model that speaks well is large, one that is cheap to serve is small. Distillation trains the small
one, the student, on what the large one, the teacher, would say: at every position not one right token, but the
teacher's whole distribution. Here both are tiny. The teacher is a transformer of {_LAYERS} layers, trained a moment ago
on the Python language reference, which every Python carries for its help; the student starts from {_KEPT} of these
layers, and a tenth of the text is kept for judging."""
_WAYS = """Both students learn from the same batches, and with a weight of 0.1 from the right tokens too. One minimises
0.9 of the divergence KL from teacher to student at every position. For the other, 0.8 of the Sinkhorn distance is
added: what it costs to move a block's distributions onto the teacher's, without knowing which belongs to which."""
_TABLE = """On held-out text. Perplexity is the number of equally likely tokens that would be as hard to guess, of
{vocabulary}; agreement is the share of tokens at which student and teacher have the same first guess; KL is in nats a
token. One run each, so that differences in the last digits mean nothing."""


@dataclass(frozen=True, kw_only=True)
class _Taught:
    """A student's figures after its training, and the steps and values of KL and perplexity on the way."""

    figures: Mapping[str, float]
    kl: show.Curve
    perplexity: show.Curve


def language(folder: Path) -> Section:
    """Train a small teacher on real prose, and distil it with and without the Sinkhorn term.

    Args:
        folder: The tour's folder; the pictures and logs go there.

    Returns:
        The section.
    """
    # Matrices this small are no faster on two threads, and much slower where other programs run.
    with quiet(), one_thread():
        from pushforward.lm.data import blocks
        from pushforward.lm.judge import judge
        from pushforward.lm.losses import KD
        from pushforward.lm.sinkhorn import SinkhornKD
        from pushforward.lm.students import student_from_layers

        text = samples.prose()
        tokenizer = _tokenizer(text)
        train, held_out = blocks(text, tokenizer, length=_LENGTH)
        teacher = _teacher(folder, train, len(tokenizer))
        untaught = judge(student_from_layers(teacher, _KEPT), held_out, teacher=teacher)
        losses = {"KL": 0.9 * KD("kl"), "KL + Sinkhorn": 0.9 * KD("kl") + 0.8 * SinkhornKD()}
        taught = {
            name: _distil(folder / f"language-{number}", teacher, loss, train, held_out)
            for number, (name, loss) in enumerate(losses.items())
        }
        rows: dict[str, Mapping[str, float | str]] = {
            "teacher": judge(teacher, held_out),
            f"its {_KEPT} layers, untaught": untaught,
            **{name: student.figures for name, student in taught.items()},
        }
    blocks_shown: tuple[Block, ...] = (
        Text(text=_QUESTION),
        Text(text=_WAYS),
        *_pictures(folder, taught),
        show.figures_table(rows, caption=_TABLE.format(vocabulary=len(tokenizer))),
        Text(text=_reading(taught["KL"].figures, taught["KL + Sinkhorn"].figures)),
        Text(text="The same from your own teacher and text, or from a GLUE task:"),
        Code(text="pushforward distill-lm --teacher FOLDER --student layers:3 --text FILE --out runs/mine"),
    )
    return Section(label="Act two", title="Teaching a smaller model", blocks=blocks_shown)


def _tokenizer(text: str) -> PreTrainedTokenizerBase:
    """Byte pairs of this very text: a second's work, and no download."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=_VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=pairs)


def _teacher(folder: Path, train: Rows, vocabulary: int) -> GPT2LMHeadModel:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, set_seed

    set_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=_LENGTH,
        n_embd=_WIDTH,
        n_layer=_LAYERS,
        n_head=4,
        # So narrow a model starts to learn from the usual 0.02 only after some hundred steps.
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=None,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    teacher = GPT2LMHeadModel(config)
    arguments = _arguments(folder / "language-teacher", steps=_TEACHER_STEPS, rate=_TEACHER_RATE)
    data: Any = train
    trainer = Trainer(teacher, arguments, train_dataset=data, data_collator=data.collate)
    from pushforward.jobs.distill_lm.watch import Watch

    Watch("teacher", folder / "language-teacher" / "log.jsonl", progress=False).over(trainer, trainer.train)
    return teacher


def _distil(folder: Path, teacher: GPT2LMHeadModel, loss: DistillationLoss, train: Rows, held_out: Rows) -> _Taught:
    from pushforward.jobs.distill_lm.watch import Watch, read_curve
    from pushforward.lm.judge import judge
    from pushforward.lm.students import student_from_layers
    from pushforward.lm.trainer import DistillationTrainer

    student = student_from_layers(teacher, _KEPT)
    trainer = DistillationTrainer(
        student,
        teacher,
        args=_arguments(folder, steps=_STUDENT_STEPS, rate=_STUDENT_RATE),
        distillation_loss=loss,
        train_dataset=train,
        data_collator=train.collate,
    )
    some = held_out.some(_LOOKED_AT)
    log = folder / "log.jsonl"
    watch = Watch("student", log, progress=False, check=lambda: judge(student, some, teacher=teacher), every=_EVERY)
    watch.over(trainer, trainer.train)
    return _Taught(
        figures=judge(student, held_out, teacher=teacher) | {"seconds_per_step": watch.seconds_per_step},
        kl=read_curve(log, "held_out_kl"),
        perplexity=read_curve(log, "held_out_perplexity"),
    )


def _arguments(folder: Path, *, steps: int, rate: float) -> Any:
    import torch

    from pushforward.lm.trainer import DistillationArguments

    return DistillationArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=_BATCH,
        learning_rate=rate,
        warmup_steps=10,
        label_weight=0.1,
        logging_steps=_EVERY,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _pictures(folder: Path, taught: Mapping[str, _Taught]) -> tuple[Picture, Picture]:
    return (
        show.curves_picture(
            folder,
            "distillation-kl",
            {name: student.kl for name, student in taught.items()},
            quantity="KL to teacher (nats a token)",
            caption="How far the students are from their teacher, on text that neither has seen, while they learn.",
        ),
        show.curves_picture(
            folder,
            "distillation-perplexity",
            {name: student.perplexity for name, student in taught.items()},
            quantity="perplexity",
            caption="How well they say the text itself, which is not what they are mainly asked for.",
        ),
    )


def _reading(plain: Mapping[str, float], added: Mapping[str, float]) -> str:
    """What the two students' figures say, and what they do not."""
    change = 100 * (added["kl"] / plain["kl"] - 1)
    slower = added["seconds_per_step"] / plain["seconds_per_step"]
    effect = (
        "leaves the distance to the teacher as it is, within 2 %"
        if math.fabs(change) < 2
        else f"{'lowers' if change < 0 else 'raises'} the distance to the teacher by {math.fabs(change):.0f} %"
    )
    return (
        f"Read with care: on this text and this one seed the Sinkhorn term {effect}, and a step takes {slower:.1f} "
        "times as long. A claim about either loss needs several seeds and a real task, which distill-lm --seeds 5 runs."
    )
