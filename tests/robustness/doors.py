"""Every public door, found by walking the packages' `__all__`, and a call of each that is right but for one argument.

A new public name is covered by itself as long as its parameters have names that are known here; a parameter that is
not known fails the test, which then asks for a usual value of it in `USUAL`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import pushforward as pf
from pushforward import diffusion as df
from pushforward import divergences, lm, maps
from pushforward.maps import costs
from pushforward.ot import compat

__all__ = ["NAN_IS_AN_ANSWER", "Door", "doors", "is_legal", "sort_of", "usual"]

PACKAGES = ("", ".divergences", ".ot", ".ot.compat", ".metrics", ".maps", ".maps.costs", ".maps.truths", ".lm")
PACKAGES += (".training", ".diffusion", ".diffusion.losses", ".diffusion.samplers", ".diffusion.teachers")
PACKAGES += (".diffusion.networks", ".diffusion.doctor", ".samples")

# What the library makes and hands out, and nobody calls.
HANDED_OUT = {"ExactSolution", "Examination", "Examples", "Iterations", "Level", "MapReport", "Plan", "SampleReport"}
HANDED_OUT |= {"Solution", "Status", "Step", "W2Benchmark", "Context", "Generator.input_of"}
# Hooks of torch's, transformers' and scikit-learn's, whose arguments are not a caller's; contracts for others to fill.
HOOKS = {"to", "parallel", "state_dict", "load_state_dict", "critics", "log", "compute_loss", "rows", "prepare"}
HOOKS |= {"get_batch_samples"}
HOOKS |= {"set_fit_request", "set_score_request", "set_transform_request", "axis_costs", "pull_back", "features"}
# What costs are asked by maps and solvers, at every step.
HOOKS |= {"many", "paired", "h", "gradient", "conjugate_gradient"}
CONTRACTS = {
    "check_same_tokenizer",
    "w2_benchmark",
    "from_diffusers",
    "Process",
    "KnownMap",
    "TranslationCost",
    "DistillationLoss",
    "DistillationArguments",
    "RectifiedFlow.linear",
}
# Arguments that anything may be given to: code of the caller's, or what goes on to the caller's own network.
ANYTHING = {"condition", "null", "random_state", "progress", "data_collator", "processing_class", "compute_metrics"}
ANYTHING |= {"callbacks", "eval_dataset", "tensorboard", "generator", "groups", "scheduler", "text", "check", "device"}
# What is without effect in POT's functions, and of no type of its own there.
ANYTHING |= {"potentials_init", "batchSize"}
# What transformers' Trainer takes, and checks; the caller's own objects that a saved map was fitted with.
ANYTHING |= {"teacher_processing_class", "optimizers", "preprocess_logits_for_metrics", "load.cost", "load.network"}
ANYTHING |= {"trial", "ignore_keys_for_eval", "resume_from_checkpoint", "state"}

RANDOM = np.random.default_rng(0)
X, Y, COST = RANDOM.random((6, 2)), RANDOM.random((5, 2)) + 0.1, RANDOM.random((6, 5)) + 0.1
PROCESS = df.VarianceExploding(sigma_min=0.01, sigma_max=20.0)


class Net(nn.Module):
    """The smallest denoiser that has a layer to tap."""

    feature_taps = ("first",)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What it says of x at t."""
        return self.last(self.first(torch.cat([x, t[:, None]], -1)).tanh())


def tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array)).clone()


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="doors-"))


def new_path() -> Path:
    return Path(tempfile.mkdtemp(dir=_folder())) / "new"


@functools.cache
def mixture() -> df.GaussianMixture:
    return df.GaussianMixture(
        weights=[1.0, 1.0], means=[[0.5, 0.0], [-0.5, 0.2]], covariances=[0.2, 0.2], process=PROCESS
    )


@functools.cache
def denoiser() -> df.Denoiser:
    torch.manual_seed(0)
    return df.teachers.from_edm(Net(), PROCESS)


def saved_map() -> Path:
    folder = new_path()
    maps.LinearMap().fit(X, Y).save(folder)
    return folder


def distiller() -> df.Distiller:
    torch.manual_seed(0)
    return df.Distiller(mixture(), student=denoiser(), gan_weight=0.0, divergence="reverse_kl")


def saved_pipeline() -> Path:
    folder = new_path()
    config = df.networks.MLPConfig(shape=(2,), width=4, blocks=1)
    student = df.Generator(df.teachers.from_edm(df.networks.build(config), PROCESS), [20.0])
    df.OneStepPipeline(student, shape=(2,)).save_pretrained(folder)
    return folder


@functools.cache
def bert() -> Any:
    import transformers

    config = transformers.BertConfig(
        vocab_size=40, hidden_size=8, intermediate_size=8, num_attention_heads=1, num_hidden_layers=2
    )
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def arguments() -> Any:
    return lm.DistillationArguments(output_dir=str(new_path()), max_steps=1, report_to=[], use_cpu=True)


def examples() -> Any:
    import datasets

    return datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [0, 1]})


def sentences() -> Any:
    rows = torch.arange(16).reshape(4, 4)
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row[0] % 2} for row in rows]


def log_file() -> Path:
    file = new_path()
    file.write_text('{"step": 1, "loss": 0.5}\n')
    return file


def checkpoint() -> Path:
    folder = new_path()
    with pf.training.publishing(folder, 3) as draft:
        (draft / "weights.txt").write_text("0.5")
    return folder / "step-3"


def state_stem() -> Path:
    stem = new_path()
    pf.training.save_state(stem, {"w": torch.ones(2)})
    return stem


def task_folder() -> Path:
    folder = new_path()
    folder.mkdir()
    (folder / "train.tsv").write_text("sentence\tlabel\na b\t0\nc d\t1\n")
    return folder


@functools.cache
def r1() -> tuple[torch.Tensor, torch.Tensor]:
    inputs = tensor(X).float().requires_grad_()
    return inputs.square().sum(-1), inputs


def logits(shift: float) -> Callable[[], torch.Tensor]:
    return lambda: torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(4, 5).sin() + shift * torch.arange(5)


# A usual value by "door.parameter", or by the parameter's name alone.
USUAL: dict[str, Callable[[], Any]] = {
    "cost": lambda: COST,
    "M": lambda: COST,
    "reg": lambda: 0.1,
    "reg_m": lambda: 1.0,
    "metrics": lambda: {"w2": 9.0, "variance_ratio": 1.1},
    "floor": lambda: 5.0,
    "simple": lambda: {"identity": {"w2": 6.0, "variance_ratio": 1.0}},
    "density": lambda: 0.5,
    "critic_rate": lambda: 1e-3,
    "checkpoint": new_path,
    "pace": lambda: lambda seconds: None,
    "dtype": lambda: torch.float64,
    "tau": lambda: 1e3,
    "epsilon0": lambda: 1e4,
    "numInnerItermax": lambda: 100,
    "print_period": lambda: 20,
    "warmstart": lambda: (np.zeros(6), np.zeros(5)),
    "c": lambda: np.full((6, 5), 1 / 30),
    "X_s": lambda: X,
    "X_t": lambda: Y,
    "a": lambda: np.full(6, 1 / 6),
    "b": lambda: np.full(5, 1 / 5),
    "init": lambda: np.zeros(5),
    "x": lambda: X,
    "y": lambda: Y,
    "X": lambda: X,
    "Y": lambda: Y,
    "tx": lambda: X + 1,
    "mapped": lambda: X + 1,
    "predicted": lambda: X + 1,
    "observed": lambda: X[:5] + 2,
    "true": lambda: X + 1.5,
    "real": lambda: X,
    "generated": lambda: X + 0.1,
    "other": lambda: X + 0.2,
    "control": lambda: X,
    "treated": lambda: X + 0.5,
    "points": lambda: X,
    "labels": lambda: np.array([0, 1, 0, 1, 1, 0]),
    "epsilon": lambda: 0.1,
    "tol": lambda: 1e-6,
    "max_iterations": lambda: 2000,
    "unbalanced": lambda: 1.0,
    "method": lambda: "auto",
    "throw": lambda: False,
    "k": lambda: 2,
    "shape": lambda: (2, 3),
    "p": lambda: 2,
    "scale": lambda: 1.0,
    "reduction": lambda: "mean",
    "debias": lambda: True,
    "name": lambda: "step",
    "named.name": lambda: "kl",
    "FDivergence.name": lambda: "mine",
    "f": lambda: torch.square,
    "integrand": lambda: torch.add,
    "smooth": lambda: True,
    "beta": lambda: 0.3,
    "alpha": lambda: 0.3,
    "log_p": lambda: torch.zeros(4, 3),
    "log_q": lambda: torch.zeros(4, 3),
    "log_r": lambda: torch.zeros(4),
    "classes": lambda: 2,
    "seed": lambda: 0,
    "count": lambda: 2,
    "variance": lambda: 1.0,
    "gammas": lambda: (2.0, 1.0),
    "matching.cost": lambda: COST[:5],
    "gamma": lambda: 0.5,
    "basis": lambda: tensor(np.eye(2)[:, :1]),
    "z": lambda: tensor(X),
    "w": lambda: tensor(X),
    "function": lambda: torch.sub,
    "PNorm.p": lambda: 1.5,
    "PowerCost.p": lambda: 1.5,
    "dim": lambda: 2,
    "Meridians.map.x": lambda: tensor(RANDOM.random((6, 3))),
    "coefficients.x": lambda: tensor(X).float(),
    "sample.noise": lambda: tensor(X).float(),
    "sample.shape": lambda: (2,),
    "Meridians.x": lambda: tensor(RANDOM.random((6, 3))),
    "Discriminator.teacher": denoiser,
    "Discriminator.forward.features": lambda: {"network.first": torch.zeros(6, 4)},
    "state": lambda: {"w": torch.ones(2)},
    "Trainer.distiller": distiller,
    "r1_penalty.inputs": lambda: r1()[1],
    "r1_penalty.real_logits": lambda: r1()[0],
    "UNet.forward.x_t": lambda: torch.zeros(6, 1, 4, 4),
    "MLP.forward.x": lambda: tensor(X).float(),
    "n": lambda: 4,
    "offers": lambda: tensor(Y),
    "prices": lambda: torch.zeros(5, dtype=torch.float64),
    "source": lambda: lambda n, generator: torch.zeros(n, 2),
    "profile": lambda: torch.square,
    "w2_benchmark.folder": new_path,
    "network": Net,
    "process": lambda: PROCESS,
    "predicts": lambda: "x0",
    "x_t": lambda: tensor(X).float(),
    "x0": lambda: tensor(X).float(),
    "t": lambda: torch.full((6,), 0.5),
    "eps": lambda: tensor(X).float(),
    "noise": lambda: tensor(X).float(),
    "u": lambda: torch.full((6,), 0.5),
    "value": lambda: tensor(X).float(),
    "given": lambda: "x0",
    "wanted": lambda: "eps",
    "taps": lambda: ("first",),
    "teacher": mixture,
    "student": denoiser,
    "gan_weight": lambda: 0.0,
    "divergence": lambda: "reverse_kl",
    "ratio": lambda: df.ExactRatio(p=mixture(), q=mixture()),
    "levels": lambda: PROCESS,
    "q": mixture,
    "ExactRatio.p": mixture,
    "weights": lambda: [1.0, 1.0],
    "means": lambda: [[0.5, 0.0], [-0.5, 0.2]],
    "covariances": lambda: [0.2, 0.2],
    "alphas_cumprod": lambda: torch.linspace(0.99, 0.01, 10, dtype=torch.float64),
    "denoiser": denoiser,
    "times": lambda: [20.0],
    "OneStepPipeline.generator": lambda: df.Generator(denoiser(), [20.0]),
    "OneStepPipeline.shape": lambda: (2,),
    "from_pretrained.folder": saved_pipeline,
    "from_pretrained.network": lambda: None,
    "distiller": distiller,
    "data": lambda: tensor(X).float(),
    "out": new_path,
    "batch": lambda: tensor(X).float(),
    "prediction": lambda: tensor(X).float(),
    "sigma": lambda: torch.ones(6),
    "denoising_loss.alpha": lambda: torch.ones(6),
    "fake": lambda: tensor(X).float() + 1,
    "score_difference_loss.teacher": lambda: tensor(X).float() + 2,
    "score_difference_loss.weight": lambda: torch.ones(6),
    "fake_logits": lambda: torch.zeros(6),
    "real_logits": lambda: torch.zeros(6),
    "inputs": lambda: tensor(X).float(),
    "sigma_data": lambda: 0.5,
    "from_velocity.process": df.RectifiedFlow,
    "model": Net,
    "examine.teacher": denoiser,
    "examine.data": lambda: torch.randn(600, 2, generator=torch.Generator().manual_seed(0)),
    "config": lambda: df.networks.MLPConfig(shape=(2,), width=4, blocks=1),
    "UNet.config": lambda: df.networks.UNetConfig(shape=(1, 4, 4), channels=(16,)),
    "UNetConfig.shape": lambda: (1, 8, 8),
    "config_for.shape": lambda: (2,),
    "words": lambda: {"kind": "mlp", "shape": [2], "width": 4, "blocks": 1, "classes": None},
    "channels": lambda: (16, 16),
    "steps": lambda: 2,
    "hidden": lambda: (4, 4),
    "batch_size": lambda: 4,
    "workers": lambda: 0,
    "student_logits": logits(0.0),
    "teacher_logits": logits(0.1),
    "mask": lambda: torch.ones(4, dtype=torch.bool),
    "group_ids": lambda: torch.zeros(4, dtype=torch.int64),
    "vocab_size": lambda: 5,
    "temperature": lambda: 2.0,
    "support": lambda: "batch",
    "SinkhornKD.cost": lambda: torch.ones(5, 5) - torch.eye(5),
    "SinkhornKD.value": lambda: "divergence",
    "published": lambda: False,
    "embeddings": lambda: torch.eye(5),
    "tokens": lambda: torch.tensor([[0, 1]]),
    "top_k": lambda: 3,
    "task": lambda: "sst2",
    "dataset": examples,
    "read.folder": task_folder,
    "split": lambda: "train",
    "skip_malformed": lambda: False,
    "predictions": lambda: np.array([0, 1, 0, 1, 1, 0]),
    "layers": lambda: 1,
    "rank": lambda: 2,
    "texts": lambda: (("sentence",),),
    "Task.labels": lambda: ("no", "yes"),
    "load_map.folder": saved_map,
    **{
        f"{kind}.load.folder": functools.partial(lambda kind: saved_as(getattr(maps, kind)), kind)
        for kind in maps.__all__
    },
    "save.folder": new_path,
    "load.cost": lambda: None,
    "load.network": lambda: None,
    "save_pretrained.folder": new_path,
    "latest.folder": new_path,
    "publishing.folder": new_path,
    "step": lambda: 3,
    "keep": lambda: 2,
    "save_state.stem": new_path,
    "load_state.stem": state_stem,
    "read_log.file": log_file,
    "Log.file": new_path,
    "resumed": lambda: 3,
    "verify.path": checkpoint,
    "values": lambda: {"loss": 0.5},
    "label": lambda: 3,
    "MLP.config": lambda: df.networks.MLPConfig(shape=(2,), width=4, blocks=1, classes=3),
    "MLP.forward.label": lambda: torch.tensor([0, 1, 2, 3, 0, 1]),
    "condition": lambda: torch.zeros(6, 2),
    "in_precision.dtype": lambda: torch.float64,
    "index": lambda: 0,
    "target": lambda: 8,
    "digit_pair.source": lambda: 3,
    "photograph.name": lambda: "china",
    "height": lambda: 8,
    "args": arguments,
    "distillation_loss": lambda: lm.KD("kl"),
    "DistillationTrainer.train_dataset": sentences,
    "DistillationTrainer.teacher": bert,
    "parse_student.teacher": bert,
    "parse_student.student": lambda: "layers:1",
    "DistillationTrainer.student": lambda: lm.student_from_layers(bert(), 1),
    "student_from_layers.teacher": bert,
    "with_lora.model": bert,
    "student_tokenizer": lambda: None,
    "teacher_tokenizer": lambda: None,
}

# Sorts of parameters whose annotation does not tell, by the same names.
SORTS = {
    "cost": "array",
    "PointCost.cost": "ground",
    "SinkhornKD.cost": "instance",
    "data": "tensor",
    "words": "instance",
    "layers": "count",
    "p": "real",
    "ExactRatio.p": "instance",
    "values": "instance",
    "batch": "array",
    "dataset": "instance",
    "train_dataset": "instance",
    "network": "function",
    "unbalanced": "real",
    "NearestOffer.cost": "ground",
    "parse_student.student": "choice",
    "mask": "array",
    "metric": "ground",
    "reg_m": "real",
    "c": "array",
}
# Wrong values of a sort that are right for some parameters, by the kinds' names.
NEGATIVE = ("negative", "a very negative one")
UNIFORM = ("None", "an empty list", "no entries")
LEGAL: dict[str, tuple[str, ...]] = {
    # POT's users ask for uniform weights so.
    **{f"{door}.{weights}": UNIFORM for door in compat.__all__ for weights in "ab"},
    **{f"{door}.{name}": ("negative",) for door in ("emd", "emd2") for name in ("numItermax", "processes")},
    "tau": ("-inf",),
    "epsilon0": ("-inf",),
    "FDivergence.name": ("no choice of these", "empty text"),
    "Task.name": ("no choice of these", "empty text"),
    **{f"Task.{name}": ("text in a list",) for name in ("labels", "label", "header")},
    # What checkpoints are called is the caller's to choose; a disk that cannot be written to ends no run.
    **{f"{door}.name": ("no choice of these",) for door in ("latest", "publishing")},
    "publishing.folder": ("a name that is too long", "under a file"),
    # Samples from the end, as a list's.
    "digit.index": ("negative",),
    "digit_pair.index": ("negative",),
    "print_period": NEGATIVE,
    "numInnerItermax": NEGATIVE,
    "reg_m": ("a list", "two numbers in an array", "two numbers in a tensor"),
}
# Ratios that are documented to be NaN where both of their parts are 0.
NAN_IS_AN_ANSWER = {"cosine_similarity", "gene_correlation"}
# What goes on as it is to a network or a teacher of the caller's, which alone knows of how many axes: its own error.
PASSED_ON = {"Generator.forward.noise", "heun.noise"}
ARRAYS = set("x y X Y a b M tx init mapped predicted true real generated other control treated points labels".split())
ARRAYS |= {"X_s", "X_t", "observed", "weights", "means", "covariances", "predictions"}
GROUND = {"sinkhorn_divergence", "SinkhornLoss", "PointCost", "pairwise_cost", "exact_gap", "judge_map", "monge_gap"}
GROUND |= {"EntropicMap", "MongeMap", "ProgressiveMap", "resolve", "NearestOffer"}


@dataclass(frozen=True)
class Door:
    """A public function, constructor or method.

    Args:
        name: As a caller writes it.
        call: It, on the right arguments by name.
        parameters: Those that it takes.
    """

    name: str
    call: Callable[..., Any]
    parameters: dict[str, inspect.Parameter]


@functools.cache
def doors() -> tuple[Door, ...]:
    """Every door, once, whatever the names that it is exported under."""
    seen: dict[int, Door] = {}
    for package in PACKAGES:
        module = importlib.import_module(f"pushforward{package}")
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and id(thing) not in seen and name not in CONTRACTS and not _is_type_form(thing):
                for door in _doors_of(name, thing):
                    seen[id(thing) if door.name == name else id(door)] = door
    return tuple(seen.values())


def _is_type_form(thing: Any) -> bool:
    return getattr(thing, "_is_protocol", False) or getattr(thing, "__module__", "") == "typing"


def _doors_of(name: str, thing: Any) -> Iterator[Door]:
    if isinstance(thing, type):
        if name in HANDED_OUT or issubclass(thing, Exception):
            return
        yield Door(name, _constructed(thing), _parameters(thing))
        for method, function in inspect.getmembers(thing, callable):
            if _is_own(thing, method) and method not in HOOKS and f"{name}.{method}" not in HANDED_OUT:
                owner = isinstance(inspect.getattr_static(thing, method), classmethod | staticmethod)
                call = function if owner else functools.partial(_on_instance, name, thing, method)
                yield Door(f"{name}.{method}", call, _parameters(function))
        return
    if isinstance(thing, divergences.FDivergence):
        return
    yield Door(name, _entered if name == "publishing" else thing, _parameters(thing))


def _constructed(kind: type) -> Callable[..., Any]:
    """Making one; what is looked at later, at its first use, is used."""

    def make(**arguments: Any) -> Any:
        made = kind(**arguments)
        if issubclass(kind, maps.base.TransportMap):
            return made.fit(X, Y)
        if kind is pf.PointCost:
            return made.matrix()
        return made

    return make


def _entered(**arguments: Any) -> None:
    with pf.training.publishing(**arguments):
        pass


def _is_own(kind: type, method: str) -> bool:
    if method.startswith("_"):
        return False
    home = next(base for base in kind.__mro__ if method in base.__dict__)
    return home.__module__.startswith("pushforward")


def _parameters(thing: Any) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(thing).parameters
    return {name: p for name, p in parameters.items() if name != "self" and p.kind is not p.VAR_POSITIONAL}


def _on_instance(name: str, kind: type, method: str, **arguments: Any) -> Any:
    return getattr(_instance(name, kind), method)(**arguments)


def _instance(name: str, kind: type) -> Any:
    if issubclass(kind, maps.base.TransportMap):
        return copy.deepcopy(_fitted(kind))  # a fit that fails must not spoil the next call
    if issubclass(kind, df.Distiller | df.Discriminator):
        return _prepared(name, kind)
    if issubclass(kind, df.Trainer | df.TeacherTrainer | pf.training.Log):
        return kind(**required(Door(name, kind, _parameters(kind))))
    if kind is lm.DistillationTrainer:
        return kind(**required(Door(name, kind, _parameters(kind))), train_dataset=sentences())
    return _made(name, kind)


@functools.cache
def _made(name: str, kind: type) -> Any:
    return kind(**required(Door(name, kind, _parameters(kind))))


@functools.cache
def _prepared(name: str, kind: type) -> Any:
    made = _made(name, kind)
    made.prepare(*(usual(name, given) for given in (["batch"] if kind is df.Distiller else ["x_t", "t"])))
    return made


@functools.cache
def _fitted(kind: type) -> Any:
    names = _parameters(kind)
    quick = {name: usual(kind.__name__, name) for name in ("steps", "hidden", "batch_size") if name in names}
    return kind(**quick).fit(X, Y)


def saved_as(kind: type) -> Path:
    """A folder with a map of this class."""
    folder = new_path()
    _fitted(kind).save(folder)
    return folder


def required(door: Door) -> dict[str, Any]:
    """Usual values of what the door cannot do without, and of what would take long."""
    quick = (
        {
            "steps",
            "student",
            "top_k",
            "count",
            "gan_weight",
            "divergence",
            "hidden",
            "batch_size",
            "every",
            "max_iterations",
        }
        if re.match(r".*Map|.*Trainer|Distiller|TokenCost|marker_genes", door.name)
        else set()
    )
    return {
        name: usual(door.name, name)
        for name, parameter in door.parameters.items()
        if parameter.default is parameter.empty or (name in quick and _key(USUAL, door.name, name))
    }


def usual(door: str, parameter: str, default: Any = None) -> Any:
    """A value that is right; the default where no other is known."""
    key = _key(USUAL, door, parameter)
    if parameter == "cost" and (door in GROUND or door.split(".")[0] in GROUND):
        return "sqeuclidean"
    if key is None and default is not None and default is not inspect.Parameter.empty:
        return default
    if key is None:
        raise LookupError(f"{door} has a parameter {parameter}: give a usual value of it in tests/robustness/doors.py")
    value = USUAL[key]()
    tensors = door.startswith(TENSORS) or "." in door and door.split(".")[0] in dir(costs)
    return tensor(value) if isinstance(value, np.ndarray) and tensors else value


# Doors that compute on tensors alone.
TENSORS = ("SinkhornLoss", "pairwise_cost", "bures_map", "Empirical", "GaussianPair.", "LogSumExp.", "Meridians.")
TENSORS += ("NearestOffer.", "Radial.", "MLP.", "UNet.")


def _key(table: dict[str, Any], door: str, parameter: str) -> str | None:
    *_, last = door.split(".")
    return next((key for key in (f"{door}.{parameter}", f"{last}.{parameter}", parameter) if key in table), None)


def sort_of(door: Door, parameter: str) -> str | None:
    """Which kinds of bad input apply; None where anything may be given."""
    free = parameter in ANYTHING or f"{door.name.split('.')[-1]}.{parameter}" in ANYTHING
    if free and f"{door.name}.{parameter}" not in USUAL:
        return None
    annotation = str(door.parameters[parameter].annotation)
    if parameter == "cost" and (door.name in GROUND):
        return "ground"
    key = _key(SORTS, door.name, parameter)
    if key is not None and (key != "cost" or annotation == "Any"):
        return SORTS[key]
    rules = (
        (r"^Any\b", "array" if parameter in ARRAYS else "instance"),
        (r"^(Tensor|Array)\b", "tensor"),
        (r"Callable", "function"),
        (r"Path", "path"),
        (r"^bool\b", "flag"),
        (r"\bfloat\b(?!\])", "real"),
        (r"^int\b", "count"),
        (r"Sequence|tuple|list", "sequence"),
        (r"Literal|^str\b|Method|Estimator|Form|Start|Prediction|TaskName|Split|GroundCost|Shrinkage", "choice"),
    )
    return next((sort for pattern, sort in rules if re.search(pattern, annotation)), "instance")


def may_be_none(door: Door, parameter: str) -> bool:
    """Whether None is a right value."""
    found = door.parameters[parameter]
    return found.default is None or "None" in str(found.annotation) or dataclasses.MISSING is found.default


def is_legal(door: Door, parameter: str, kind: str) -> bool:
    """Whether a kind that is wrong elsewhere is right here."""
    key = _key(LEGAL, door.name, parameter)
    return key is not None and kind in LEGAL[key]
