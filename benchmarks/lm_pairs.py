"""Does a Sinkhorn term help beside KL, away from encoders? A decoder-only and an encoder-decoder pair on plain text.

    python benchmarks/lm_pairs.py [--out FILE]        what is left of the runs, then the JSON
    python benchmarks/lm_pairs.py --tables            the JSON -> the tables of docs/lm-pairs.md

The protocol, written before the runs, is `lm_pairs.md`. The text is read from $PUSHFORWARD_DATA/lm/tinyshakespeare.txt.
Every run appends a line to runs/lm_pairs/lines.jsonl at once; a second call skips what is there.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import math
import os
import random
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure import conditions, say, write_json
from scipy.stats import t as student_t
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration, Trainer, TrainingArguments
from transformers import logging as hf_logging

from pushforward.lm.losses import KD, Context, DistillationLoss
from pushforward.lm.sinkhorn import SinkhornKD, TokenCost
from pushforward.lm.students import student_from_layers
from pushforward.lm.trainer import DistillationArguments, DistillationTrainer
from pushforward.ot.solve import solve

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "lm_pairs.json"
PAGE = ROOT / "docs" / "lm-pairs.md"
RUNS = ROOT / "runs" / "lm_pairs"
VOCABULARY, LENGTH, LINE = 1024, 48, 24  # tokens: of the tokenizer, a window, a line at most
PAD, MASK = 0, 1
BATCH = {"decoder": 4, "seq2seq": 8}  # windows of a step
STEPS = 120
TEACHER_STEPS = {"decoder": 700, "seq2seq": 700}
RATES = (1e-3, 5e-4, 2e-3)
TUNING_SEED = 100
JUDGED = {"valid": 200, "held out": 400}  # windows
MEASURES = ("perplexity", "accuracy", "agreement", "kl")
Pair = str  # "decoder" or "seq2seq"
Example = dict[str, Tensor]
Setting = tuple[float, float]  # learning rate, weight


class Ungrouped(DistillationLoss):
    """A loss among all positions of the batch, where the trainer would keep those of each sequence to themselves."""

    pairs_samples = False

    def __init__(self, loss: DistillationLoss) -> None:
        self.loss = loss

    def rows(self, student_logits: Tensor, teacher_logits: Tensor, context: Context) -> Tensor:
        return self.loss.rows(student_logits, teacher_logits, replace(context, group_ids=None))


def in_classes(embeddings: Tensor, temperature: float = 2.0) -> SinkhornKD:
    return SinkhornKD(
        support="classes", cost=TokenCost(embeddings=embeddings, top_k=32), temperature=temperature, epsilon=0.1
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """What students are trained on: label_weight CE + loss(teacher's output embeddings, weight).

    `weights` are tried in this order; an idea has none, and takes the setting of the arm `like`.
    """

    loss: Callable[[Tensor, float], DistillationLoss]
    weights: tuple[float, ...] = ()
    like: str = ""
    label_weight: float = 0.1


KL = 0.9 * KD("kl")
L1 = 0.5 * KD("total_variation")  # mean_i |p_i - q_i|_1: KD is T^2 TV, TV half of the L1 distance, T = 2
PUBLISHED = SinkhornKD(published=True)
ARMS: dict[Pair, dict[str, Arm]] = {
    "decoder": {
        "ce": Arm(loss=lambda _, w: 0.0 * KD("kl"), weights=(0.0,), label_weight=1.0),
        "kl": Arm(loss=lambda _, w: w * KD("kl"), weights=(0.9, 0.3, 2.7)),
        "js": Arm(loss=lambda _, w: w * KD("js"), weights=(2.7, 0.9, 8.1)),
        "kl + l1": Arm(loss=lambda _, w: KL + w * L1, weights=(0.8, 0.1, 3.0)),
        "kl + published": Arm(loss=lambda _, w: KL + w * PUBLISHED, weights=(0.8, 8.0, 80.0)),
        "kl + batch": Arm(loss=lambda _, w: KL + w * SinkhornKD(), weights=(0.8, 0.1, 3.0)),
        "kl + classes": Arm(loss=lambda e, w: KL + w * in_classes(e), weights=(3.0, 0.8, 10.0)),
    },
    "seq2seq": {
        "ce": Arm(loss=lambda _, w: 0.0 * KD("kl"), weights=(0.0,), label_weight=1.0),
        "kl": Arm(loss=lambda _, w: w * KD("kl"), weights=(0.9,)),
        "kl + batch": Arm(loss=lambda _, w: KL + w * SinkhornKD(), weights=(0.8,)),
        "kl + classes": Arm(loss=lambda e, w: KL + w * in_classes(e), weights=(3.0,)),
    },
}
IDEAS = {
    "classes alone": Arm(loss=lambda e, w: w * in_classes(e), like="kl + classes"),
    "kl + batch of all": Arm(loss=lambda _, w: KL + w * Ungrouped(SinkhornKD()), like="kl + batch"),
    "kl, T = 0.5": Arm(loss=lambda _, w: w * KD("kl", temperature=0.5), like="kl"),
    "kl, T = 0.5, w = 0.9": Arm(loss=lambda _, w: w * KD("kl", temperature=0.5), weights=(0.9,)),
    "kl + classes, T = 0.5": Arm(
        loss=lambda e, w: 0.9 * KD("kl", temperature=0.5) + w * in_classes(e, 0.5), like="kl + classes"
    ),
}
CONTROLS = (  # compared beside KL
    ("kl + l1", "kl, w = 0.9"),
    ("kl + published", "kl, w = 0.9"),
    ("kl + batch", "kl, w = 0.9"),
    ("kl + classes", "kl, w = 0.9"),
    ("kl + batch", "kl + l1"),
    ("classes alone", "kl, w = 0.9"),
    ("kl + batch of all", "kl, w = 0.9"),
    ("kl + classes, T = 0.5", "kl, T = 0.5, w = 0.9"),
)
ADDED = {"kl, w = 0.9": Arm(loss=lambda _, w: w * KD("kl"), weights=(0.9,))}  # what the sums are sums with
SEEDS = {"decoder": 5, "seq2seq": 3, "ideas": 3, "faithful": 3}


# ---- text


@functools.cache
def texts() -> dict[str, str]:
    folder = os.environ.get("PUSHFORWARD_DATA")
    if not folder:
        raise SystemExit("set PUSHFORWARD_DATA to the folder that holds lm/tinyshakespeare.txt")
    text = (Path(folder) / "lm" / "tinyshakespeare.txt").read_text()
    n = len(text)
    return {"train": text[: n * 85 // 100], "valid": text[n * 85 // 100 : n * 9 // 10], "held out": text[n * 9 // 10 :]}


@functools.cache
def tokenizer() -> ByteLevelBPETokenizer:
    made = ByteLevelBPETokenizer()
    made.train_from_iterator([texts()["train"]], VOCABULARY, special_tokens=["<pad>", "<mask>"], show_progress=False)
    return made


@functools.cache
def examples(pair: Pair, split: str) -> list[Example]:
    text = texts()[split]
    if pair == "decoder":
        windows = torch.tensor(tokenizer().encode(text).ids).split(LENGTH)[:-1]
        found = [{"input_ids": w, "labels": torch.cat([torch.tensor([-100]), w[1:]])} for w in windows]
    else:
        lines = [tokenizer().encode(line).ids for line in text.splitlines() if line]
        chance = random.Random(split)
        found = [_restoration(ids, chance) for ids in lines if 4 <= len(ids) <= LINE]
    stride = max(len(found) // JUDGED.get(split, len(found)), 1)
    return found[::stride][: JUDGED.get(split)]


def _restoration(ids: list[int], chance: random.Random) -> Example:
    """A line of which a quarter of the tokens is hidden, and the line."""
    hidden = [MASK if chance.random() < 0.25 else token for token in ids]
    rest = LINE - len(ids)
    return {
        "input_ids": torch.tensor(hidden + rest * [PAD]),
        "attention_mask": torch.tensor(len(ids) * [1] + rest * [0]),
        "labels": torch.tensor(ids + rest * [-100]),
    }


def batch_of(rows: list[Example]) -> Example:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


# ---- models


def untrained(pair: Pair) -> Any:
    if pair == "decoder":
        config = GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=128, n_layer=4, n_head=4, bos_token_id=PAD,
            eos_token_id=PAD, resid_pdrop=0.05, embd_pdrop=0.05, attn_pdrop=0.05,
        )  # fmt: skip
        return GPT2LMHeadModel(config)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=128, d_kv=32, d_ff=256, num_layers=3, num_heads=4, dropout_rate=0.05,
        pad_token_id=PAD, eos_token_id=PAD, decoder_start_token_id=PAD, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def settings(pair: Pair, *, steps: int, rate: float, seed: int, batch: int, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder, "max_steps": steps, "learning_rate": rate, "seed": seed, "weight_decay": 0.01,
        "per_device_train_batch_size": batch, "lr_scheduler_type": "linear", "warmup_steps": steps // 10,
        "max_grad_norm": 1.0, "logging_strategy": "no", "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False,
    }  # fmt: skip


@functools.cache
def teacher(pair: Pair) -> Any:
    """Trained once, then read from runs/."""
    place = RUNS / f"teacher-{pair}"
    if not (place / "config.json").exists():
        torch.manual_seed(0)
        model = untrained(pair)
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            wanted = settings(pair, steps=TEACHER_STEPS[pair], rate=3e-3, seed=0, batch=16, folder=folder)
            Trainer(
                model=model, args=TrainingArguments(**wanted), train_dataset=examples(pair, "train"),
                data_collator=batch_of,
            ).train()  # fmt: skip
        write_line({"stage": "teacher", "pair": pair, "seconds": time.process_time() - start, **judged(pair, model)})
        model.save_pretrained(place)
    return type(untrained(pair)).from_pretrained(place).eval()


def student(pair: Pair) -> Any:
    return student_from_layers(teacher(pair), 2 if pair == "decoder" else 1)


# ---- runs


@torch.no_grad()
def logits_of(pair: Pair, model: Any, split: str) -> tuple[Tensor, Tensor]:
    """Log-probabilities at the positions that have labels (N, K), and the labels (N,)."""
    model.eval()
    said, labels = [], []
    for rows in _fifty(pair, split):
        batch = batch_of(rows)
        logits, wanted = model(**batch).logits, batch["labels"]
        if pair == "decoder":
            logits, wanted = logits[:, :-1], wanted[:, 1:]
        said.append(logits[wanted != -100].log_softmax(-1))
        labels.append(wanted[wanted != -100])
    return torch.cat(said), torch.cat(labels)


def _fifty(pair: Pair, split: str) -> list[list[Example]]:
    rows = examples(pair, split)
    return [rows[k : k + 50] for k in range(0, len(rows), 50)]


@functools.cache
def teacher_says(pair: Pair, split: str) -> Tensor:
    return logits_of(pair, teacher(pair), split)[0]


def judged(pair: Pair, model: Any, split: str = "held out") -> dict[str, float]:
    log_q, labels = logits_of(pair, model, split)
    found = {
        "perplexity": math.exp(-log_q.gather(1, labels[:, None]).mean()),
        "accuracy": (log_q.argmax(-1) == labels).double().mean().item(),
    }
    if (RUNS / f"teacher-{pair}" / "config.json").exists():
        log_p = teacher_says(pair, split)
        found["agreement"] = (log_q.argmax(-1) == log_p.argmax(-1)).double().mean().item()
        found["kl"] = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
    return found


def trained(pair: Pair, arm: Arm, setting: Setting, seed: int) -> tuple[Any, dict[str, float]]:
    """A student, its CPU seconds of training, and how many warnings of inexact plans came."""
    rate, weight = setting
    teaching = teacher(pair)
    torch.manual_seed(seed)
    model = student(pair)
    loss = arm.loss(teaching.get_output_embeddings().weight.detach(), weight)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        wanted = settings(pair, steps=STEPS, rate=rate, seed=seed, batch=BATCH[pair], folder=folder)
        DistillationTrainer(
            model, teaching, args=DistillationArguments(**wanted, label_weight=arm.label_weight),
            distillation_loss=loss, train_dataset=examples(pair, "train"), data_collator=batch_of,
        ).train()  # fmt: skip
    short = sum("marginal error" in str(one.message) for one in told)
    return model, {"seconds": time.process_time() - start, "inexact plans": short}


def lines() -> list[dict[str, Any]]:
    file = RUNS / "lines.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write_line(row: dict[str, Any]) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / "lines.jsonl").open("a") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
    say(json.dumps(row))


def run(stage: str, pair: Pair, name: str, setting: Setting, seed: int) -> dict[str, Any]:
    """The line of a run, made if it is not there."""
    key = {"stage": stage, "pair": pair, "arm": name, "rate": setting[0], "weight": setting[1], "seed": seed}
    for row in lines():
        if key.items() <= row.items():
            return row
    arm = arm_of(pair, name)
    model, told = trained(pair, arm, setting, seed)
    row = key | judged(pair, model, "valid" if stage == "tuning" else "held out") | told
    write_line(row)
    return row


def arm_of(pair: Pair, name: str) -> Arm:
    return {**ARMS[pair], **IDEAS, **ADDED}[name]


@functools.cache
def chosen(pair: Pair, name: str, by: str = "perplexity") -> Setting:
    """The best rate at the first weight, for CE and KL; the others take KL's. Then the best weight at that rate."""
    arm = arm_of(pair, name)
    if arm.like:
        return chosen(pair, arm.like)

    def best(tries: list[Setting], by: str = "perplexity") -> Setting:
        if len(tries) == 1:
            return tries[0]
        sign = 1 if by == "perplexity" else -1
        return min(tries, key=lambda setting: sign * run("tuning", pair, name, setting, TUNING_SEED)[by])

    if name in ("ce", "kl"):
        rate, _ = best([(rate, arm.weights[0]) for rate in RATES])
    else:
        rate, _ = chosen(pair, "kl")
    return best([(rate, weight) for weight in arm.weights], by)


# ---- why


def beside() -> None:
    """The plan's diagonal, the gradients' sizes and the seconds of a step, on a student of the KL arm."""
    if any(row["stage"] == "diagonal" for row in lines()):
        return
    model, _ = trained("decoder", ARMS["decoder"]["kl"], chosen("decoder", "kl"), 0)
    said = {"q": logits_of("decoder", model, "held out")[0], "p": teacher_says("decoder", "held out")}
    for n in (47, 188, 752):
        q, p = ((said[side][:n] / 2).softmax(-1).double() for side in "qp")
        solution = solve(torch.cdist(q, p, p=1.0), epsilon=0.1, throw=False)
        share, paid = solution.plan.to_dense().diagonal().sum().item(), float(solution.transport_cost)
        l1 = (q - p).abs().sum(-1).mean().item()
        write_line({"stage": "diagonal", "positions": n, "share": share, "transport_cost": paid, "mean l1": l1})
    _terms(model)


def _terms(model: Any) -> None:
    model.train()
    teaching = teacher("decoder")
    batch = batch_of(examples("decoder", "held out")[: BATCH["decoder"]])
    positions = (BATCH["decoder"], LENGTH - 1)
    context = Context(group_ids=torch.arange(positions[0])[:, None].expand(positions))
    p = teaching(**batch).logits[:, :-1].detach()
    q = model(**batch).logits[:, :-1].detach().requires_grad_()
    terms = {
        "kl": KD("kl"), "js": KD("js"), "l1": L1, "published": PUBLISHED, "batch": SinkhornKD(),
        "batch of all": Ungrouped(SinkhornKD()), "classes": in_classes(teaching.get_output_embeddings().weight),
    }  # fmt: skip

    def gradient(loss: DistillationLoss) -> Tensor:
        return torch.autograd.grad(loss(q, p, context=context), q)[0].flatten()

    reference = gradient(KD("kl"))
    for name, loss in terms.items():
        slope = gradient(loss)
        write_line({
            "stage": "term", "term": name, "seconds": _seconds(functools.partial(gradient, loss)),
            "gradient over kl's": (slope.norm() / reference.norm()).item(),
            "cosine with kl's": torch.cosine_similarity(slope, reference, dim=0).item(),
        })  # fmt: skip
    with torch.no_grad():
        write_line({"stage": "model", "term": "teacher forward", "seconds": _seconds(lambda: teaching(**batch))})
    both = _seconds(lambda: model(**batch).loss.backward())
    write_line({"stage": "model", "term": "student forward and backward", "seconds": both})


def _seconds(call: Callable[[], Any]) -> float:
    call()
    found = []
    for _ in range(5):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return statistics.median(found)


# ---- all of it, and its tables


def everything(out: Path) -> None:
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    torch.set_num_threads(1)
    machine = conditions()
    machine.pop("tolerance")
    packages = ("transformers", "accelerate", "tokenizers")
    machine["versions"] |= {name: importlib.metadata.version(name) for name in packages}
    fixed = {
        "vocabulary": VOCABULARY, "window": LENGTH, "line": LINE, "batch": BATCH, "steps": STEPS,
        "teacher steps": TEACHER_STEPS, "rates": RATES, "tuning seed": TUNING_SEED, "judged": JUDGED,
    }  # fmt: skip

    def final(pair: Pair, arms: dict[str, Arm], seeds: int, by: str = "perplexity") -> None:
        stage = "final" if by == "perplexity" else f"final by {by}"
        for seed in range(seeds):
            for name in arms:
                run(stage, pair, name, chosen(pair, name, by), seed)
                write_json(out, machine | {"settings": fixed, "runs": lines()})

    final("decoder", ARMS["decoder"] | ADDED, SEEDS["decoder"])
    beside()
    faithful = {name: arm for name, arm in ARMS["decoder"].items() if name not in ("ce", "kl + published")}
    final("decoder", faithful, SEEDS["faithful"], by="agreement")
    final("seq2seq", ARMS["seq2seq"], SEEDS["seq2seq"])
    final("decoder", IDEAS, SEEDS["ideas"])


def tables(results: dict[str, Any]) -> dict[str, str]:
    rows = results["runs"]

    def final(pair: Pair, stage: str = "final") -> list[dict[str, Any]]:
        return [row for row in rows if row["stage"] == stage and row["pair"] == pair]

    decoder, faithful, seq2seq = final("decoder"), final("decoder", "final by agreement"), final("seq2seq")
    arms = [*ARMS["decoder"], *ADDED]

    def of(*stages: str) -> list[dict[str, Any]]:
        return [row for row in rows if row["stage"] in stages]

    def percent(share: float) -> str:
        return f"{100 * share:.1f} %"

    teachers = [
        [row["pair"], f"{row['perplexity']:.1f}", percent(row["accuracy"]), f"{row['seconds']:.0f}"]
        for row in of("teacher")
    ]
    diagonal = [
        [str(row["positions"]), percent(row["share"]), f"{row['transport_cost']:.4f}", f"{row['mean l1']:.4f}"]
        for row in of("diagonal")
    ]
    compared = ("gradient over kl's", "cosine with kl's")
    terms = [
        [row["term"], f"{1e3 * row['seconds']:.1f}", *(f"{row[key]:.2g}" if key in row else "" for key in compared)]
        for row in of("term", "model")
    ]
    return {
        "teachers": _table(["teacher", "perplexity", "accuracy", "CPU seconds"], teachers),
        "decoder": _arms(decoder, arms),
        "differences": _differences(decoder, arms),
        "faithful": _arms(faithful, arms),
        "faithful-differences": _differences(faithful, arms),
        "ideas": _arms(decoder, list(IDEAS)),
        "ideas-differences": _differences(decoder, list(IDEAS)),
        "seq2seq": _arms(seq2seq, list(ARMS["seq2seq"])),
        "seq2seq-differences": _differences(seq2seq, list(ARMS["seq2seq"])),
        "diagonal": _table(["positions", "mass on the diagonal", "transport cost", "mean L1"], diagonal),
        "terms": _table(["at weight 1", "milliseconds", "gradient over KL's", "cosine with KL's"], terms),
    }


def _arms(rows: list[dict[str, Any]], names: list[str]) -> str:
    body = []
    for name in names:
        mine = [row for row in rows if row["arm"] == name]
        if not mine:
            continue
        mean = {key: statistics.mean(row[key] for row in mine) for key in (*MEASURES, "seconds")}
        said = [name, f"{mine[0]['rate']:g}", f"{mine[0]['weight']:g}", str(len(mine)), f"{mean['perplexity']:.2f}"]
        said += [f"{100 * mean[key]:.2f}" for key in ("accuracy", "agreement")]
        body.append([*said, f"{mean['kl']:.4f}", f"{mean['seconds']:.1f}"])
    return _table(["loss", "rate", "w", "seeds", "perplexity", "accuracy %", "agreement %", "KL", "CPU seconds"], body)


def _differences(rows: list[dict[str, Any]], names: list[str]) -> str:
    pairs = [(name, "kl") for name in names if name != "kl"]
    pairs += [(a, b) for a, b in CONTROLS if a in names]
    body = []
    for a, b in pairs:
        found = [_paired(rows, a, b, measure) for measure in MEASURES]
        if all(found):
            body.append([f"{a} - {b}", *found])
    return _table(["difference, paired by seed", "perplexity", "accuracy, points", "agreement, points", "KL"], body)


def _paired(rows: list[dict[str, Any]], a: str, b: str, measure: str) -> str:
    """Mean difference and the half width of its 95 % interval; bold where that leaves out 0."""
    scale, digits = {"perplexity": (1, 2), "kl": (1, 5)}.get(measure, (100, 2))
    first, second = ({row["seed"]: scale * row[measure] for row in rows if row["arm"] == name} for name in (a, b))
    differences = [first[seed] - second[seed] for seed in first.keys() & second.keys()]
    n = len(differences)
    if n < 2:
        return ""
    mean = statistics.mean(differences)
    half = student_t.ppf(0.975, n - 1) * statistics.stdev(differences) / math.sqrt(n)
    text = f"{mean:+.{digits}f} ± {half:.{digits}f}"
    return f"**{text}**" if abs(mean) > half else text


def _table(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write_tables() -> None:
    made, page = tables(json.loads(RESULTS.read_text())), PAGE.read_text()
    for name, table in made.items():
        around = re.compile(rf"(<!-- lm_pairs:{name} -->\n).*?(<!-- /lm_pairs:{name} -->)", re.DOTALL)
        page = around.sub(lambda found, table=table: found[1] + table + found[2], page)
    PAGE.write_text(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tables", action="store_true", help="write the tables of docs/lm-pairs.md and run nothing")
    arguments = parser.parse_args()
    if arguments.tables:
        write_tables()
    else:
        everything(arguments.out)


if __name__ == "__main__":
    main()
