"""Sentence classification tasks of GLUE and SuperGLUE: their files as people have them, and each task's own metrics.

Columns are found by the names that a task's publishers or the hub gave them, in the forms of file that
`task_files.py` reads. Classes are numbered as on the hub. The tasks of SuperGLUE that are more than a label for one
or two texts are left out: COPA chooses between sentences, WiC and WSC point at words, MultiRC and ReCoRD ask for
answers.

Sources: Wang et al. 2019, GLUE (arXiv 1804.07461) and SuperGLUE (arXiv 1905.00537), for files and metrics.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import torch

from pushforward._checks import check_choice
from pushforward._interop import to_tensor
from pushforward._typed import typed, typed_fields
from pushforward.errors import InvalidArgument, ShapeError
from pushforward.lm.task_files import ENDS, Row, read_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TASKS", "Examples", "Metric", "Split", "Task", "TaskName", "from_dataset", "metrics", "read"]

Split = Literal["train", "dev", "test"]
Metric = Literal["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"]
TaskName = Literal[
    "sst2", "cola", "rte", "mrpc", "qqp", "mnli", "mnli_mismatched", "qnli", "wnli", "stsb", "cb", "boolq"
]  # fmt: skip

_FILES: Mapping[Split, tuple[str, ...]] = {"train": ("train",), "dev": ("dev", "val", "validation"), "test": ("test",)}
# STS-B's scores, the only labels that are numbers and not names.
_SCORES = (0.0, 5.0)


@typed_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A classification or scoring task on one or two texts.

    Args:
        name: The task's name in recipes and messages.
        texts: For each text, the names that its column may have.
        labels: Names of the classes in the order of their numbers; empty where the label is a score from 0 to 5.
        metrics: The metrics of its predictions, the most important first.
        label: The names that the label's column may have.
        header: Column names of a file that does not start with them.
        files: For each split, the names (without their end) that its file may have, in the order of preference.
    """

    name: str
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]
    metrics: tuple[Metric, ...] = ("accuracy",)
    label: tuple[str, ...] = ("label",)
    header: tuple[str, ...] = ()
    files: Mapping[Split, tuple[str, ...]] = field(default_factory=lambda: _FILES, hash=False)

    def __post_init__(self) -> None:
        for name, given in (("texts", self.texts), ("metrics", self.metrics)):
            if not isinstance(given, tuple | list):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidArgument(f"{name} must be a tuple, got {given!r}")
        for text in self.texts:
            columns = isinstance(text, tuple | list)  # pyright: ignore[reportUnnecessaryIsInstance]
            if not columns or not all(isinstance(name, str) for name in text):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidArgument(f"texts must be a tuple of the names of each text's column, got {self.texts!r}")
        for metric in self.metrics:
            check_choice("metrics", metric, get_args(Metric))
        for split in self.files:
            check_choice("files", split, get_args(Split))


_SENTENCE, _SENTENCES = (("sentence",),), (("sentence1",), ("sentence2",))
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI = Task(
    name="mnli",
    texts=(("premise", "sentence1"), ("hypothesis", "sentence2")),
    labels=("entailment", "neutral", "contradiction"),
    label=("label", "gold_label"),
    files={"train": ("train",), "dev": ("dev_matched",), "test": ("test_matched",)},
)

TASKS: dict[TaskName, Task] = {
    "sst2": Task(name="sst2", texts=_SENTENCE, labels=("negative", "positive")),
    "cola": Task(
        name="cola",
        texts=_SENTENCE,
        labels=("unacceptable", "acceptable"),
        metrics=("matthews",),
        header=("source", "label", "mark", "sentence"),
    ),
    "rte": Task(name="rte", texts=(("sentence1", "premise"), ("sentence2", "hypothesis")), labels=_ENTAILMENT),
    "mrpc": Task(
        name="mrpc",
        texts=(("sentence1", "#1 String"), ("sentence2", "#2 String")),
        labels=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
        label=("label", "Quality"),
        # GLUE's own test.tsv has no labels; the corpus from which it was made has.
        files={**_FILES, "train": ("train", "msr_paraphrase_train"), "test": ("msr_paraphrase_test", "test")},
    ),
    "qqp": Task(
        name="qqp",
        texts=(("question1",), ("question2",)),
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        label=("label", "is_duplicate"),
    ),
    "mnli": _MNLI,
    "mnli_mismatched": replace(
        _MNLI,
        name="mnli_mismatched",
        files={"train": ("train",), "dev": ("dev_mismatched",), "test": ("test_mismatched",)},
    ),
    "qnli": Task(name="qnli", texts=(("question",), ("sentence",)), labels=_ENTAILMENT),
    "wnli": Task(name="wnli", texts=_SENTENCES, labels=("not_entailment", "entailment")),
    "stsb": Task(name="stsb", texts=_SENTENCES, labels=(), metrics=("pearson", "spearman"), label=("label", "score")),
    "cb": Task(
        name="cb",
        texts=(("premise",), ("hypothesis",)),
        labels=("entailment", "contradiction", "neutral"),
        metrics=("accuracy", "macro_f1"),
    ),
    "boolq": Task(name="boolq", texts=(("question",), ("passage",)), labels=("false", "true")),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """The examples of a split by column; `examples[:100]` and `examples.select(indices)` are some of its rows.

    Args:
        task: The task that they are examples of.
        first: The only or the first text of each example.
        second: The second text of each; None for a task on single texts.
        labels: Class numbers, or scores; None where the split has no labels.
    """

    task: Task
    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: tuple[float, ...] | None

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: slice) -> Examples:
        return self.select(range(len(self))[rows])

    def select(self, indices: Sequence[int]) -> Examples:
        """Some of the examples, in a given order.

        Args:
            indices: The places of the rows.

        Returns:
            The examples at these places, in this order.
        """
        return replace(
            self,
            first=tuple(self.first[k] for k in indices),
            second=None if self.second is None else tuple(self.second[k] for k in indices),
            labels=None if self.labels is None else tuple(self.labels[k] for k in indices),
        )

    def to_dataset(self) -> Dataset:
        """The examples as a `datasets.Dataset`, with the columns sentence1, sentence2 (pairs) and label (if known)."""
        from datasets import ClassLabel, Dataset, Features, Value

        columns: dict[str, Any] = {"sentence1": self.first}
        features: dict[str, Any] = {"sentence1": Value("string")}
        if self.second is not None:
            columns["sentence2"], features["sentence2"] = self.second, Value("string")
        if self.labels is not None:
            columns["label"] = self.labels
            features["label"] = ClassLabel(names=list(self.task.labels)) if self.task.labels else Value("float32")
        return Dataset.from_dict({name: list(column) for name, column in columns.items()}, Features(features))


@typed
def read(
    task: TaskName | Task, folder: str | Path, split: Split = "train", *, skip_malformed: bool = False
) -> Examples:
    r"""A split of a task from the file in which its publishers put it.

    Args:
        task: A name of the catalogue, or a task of your own.
        folder: Where the task's files lie.
        split: Which of them; "test" may come without labels.
        skip_malformed: Leave out rows that cannot be read and warn how many there were, as GLUE's file of QQP needs.

    Returns:
        The examples.

    Raises:
        InvalidArgument: No such file (the message says what was looked for), an empty one, or a row that cannot be read
            (the message says the file, the line and what was expected).

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = Path(folder.name, "dev.tsv").write_text("sentence\tlabel\nfine .\t1\nnot so fine .\t0\n")
        >>> read("sst2", folder.name, "dev").labels
        (1, 0)
    """
    task = _resolve(task)
    check_choice("split", split, get_args(Split))
    file = _find(task, Path(folder), split)
    rows = [
        (f"{file}, line {line}", row)
        for line, row in read_rows(file, names=(*task.texts[0], "sentence1"), header=task.header)
    ]
    if not rows:
        raise InvalidArgument(f"{file}: holds no examples")
    examples = _examples(task, rows, skip_malformed=skip_malformed)
    if examples.labels is None and split != "test":
        raise InvalidArgument(f"{file}: has no column of labels ({_or(task.label)})")
    return examples


@typed
def from_dataset(task: TaskName | Task, dataset: Dataset) -> Examples:
    """The examples in a `datasets.Dataset`, with the hub's column names or with sentence1, sentence2, label.

    Args:
        task: A name of the catalogue, or a task of your own.
        dataset: One split. Classes are matched by their names where it has them; a column of -1 counts as no labels.

    Returns:
        The examples.

    Raises:
        InvalidArgument: A column is missing, a row cannot be used, or there is none.
    """
    task = _resolve(task)
    if not all(hasattr(dataset, name) for name in ("column_names", "features", "__len__")) or isinstance(dataset, type):
        raise InvalidArgument(f"dataset is a {type(dataset).__name__}; a datasets.Dataset, one split, is needed")
    if len(dataset) == 0:
        raise InvalidArgument("dataset holds no examples")
    label = next((name for name in task.label if name in dataset.column_names), "")
    rows: list[Row] = list(cast(Any, dataset))
    if label and {row[label] for row in rows} == {-1}:
        rows = [{name: row[name] for name in row if name != label} for row in rows]
    elif label and hasattr(dataset.features[label], "names"):
        names: dict[int, str] = dict(enumerate(dataset.features[label].names))
        rows = [{**row, label: names.get(row[label], row[label])} for row in rows]
    return _examples(task, [(f"dataset, row {k}", row) for k, row in enumerate(rows)])


def metrics(task: TaskName | Task, predictions: Any, labels: Any) -> dict[str, float]:
    """The metrics that the task's publishers use, for predictions against labels.

    Args:
        task: A name of the catalogue, or a task of your own.
        predictions: Class numbers (not logits), or scores for STS-B, shape (N,).
        labels: The truth, the same shape.

    Returns:
        Each metric of the task by its name, as a share of 1. A correlation with predictions that are all the same is
        undefined: NaN (Matthews' is then 0 by convention).

    Raises:
        ShapeError: Not one prediction a label.
        InvalidArgument: No class of the task, or not finite.

    Example:
        >>> metrics("mrpc", [1, 1, 0, 1], [1, 0, 0, 1])
        {'accuracy': 0.75, 'f1': 0.8}
    """
    task = _resolve(task)
    given = (to_tensor(name, value) for name, value in (("predictions", predictions), ("labels", labels)))
    # numpy has no bfloat16.
    predicted, true = ((part.float() if part.dtype == torch.bfloat16 else part).numpy(force=True) for part in given)
    if predicted.shape != true.shape or true.ndim != 1 or not len(true):
        raise ShapeError(
            f"predictions have shape {predicted.shape} and labels {true.shape}; one number for each of at least one "
            "example is needed (of logits, take the argmax over the last axis)"
        )
    for name, values in (("predictions", predicted), ("labels", true)):
        good = np.isin(values, np.arange(len(task.labels))) if task.labels else np.isfinite(values)
        if not good.all():
            k = int(np.argmin(good))
            raise InvalidArgument(f"{name}[{k}] is {values[k]}; {_expected(task)} is needed")
    return {name: _metric(name, predicted, true) for name in task.metrics}


def _metric(name: Metric, predicted: Any, true: Any) -> float:
    from scipy import stats
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    zero: Any = 0.0  # of a class that is neither there nor predicted
    match name:
        case "accuracy":
            return float(accuracy_score(true, predicted))
        case "f1":
            return float(f1_score(true, predicted, zero_division=zero))
        case "macro_f1":
            return float(f1_score(true, predicted, average="macro", zero_division=zero))
        case "matthews":
            return float(matthews_corrcoef(true, predicted))
        case "pearson" | "spearman":
            if np.ptp(predicted) == 0 or np.ptp(true) == 0:
                return math.nan
            correlation: Any = stats.pearsonr if name == "pearson" else stats.spearmanr
            return float(correlation(true, predicted).statistic)


def _resolve(task: TaskName | Task) -> Task:
    return task if isinstance(task, Task) else TASKS[cast(TaskName, check_choice("task", task, tuple(TASKS)))]


def _find(task: Task, folder: Path, split: Split) -> Path:
    """The first file in the folder that may hold the split."""
    if not folder.is_dir():
        raise InvalidArgument(f"folder {folder} does not exist or is a file; the one with the task's files is needed")
    for stem in task.files[split]:
        for end in ENDS:
            if (folder / f"{stem}{end}").is_file():
                return folder / f"{stem}{end}"
    there = sorted(path.name for path in folder.iterdir())
    raise InvalidArgument(
        f"{folder} has no {split} file of {task.name}: looked for {_or(task.files[split])} ending in {_or(ENDS)}; "
        f"it holds {', '.join(there[:10]) or 'nothing'}{', ...' if len(there) > 10 else ''}"
    )


def _examples(
    task: Task, rows: Sequence[tuple[str, Row | InvalidArgument]], *, skip_malformed: bool = False
) -> Examples:
    """The examples in rows, each given with its place for error messages."""
    columns = next((list(row) for _, row in rows if not isinstance(row, InvalidArgument)), [])
    label = next((name for name in task.label if name in columns), None)
    texts: list[list[str]] = []
    labels: list[float] = []
    malformed: list[str] = []
    for where, row in rows:
        try:
            if isinstance(row, InvalidArgument):
                raise row
            text = [_text(row, (*names, f"sentence{k}")) for k, names in enumerate(task.texts, 1)]
            labels += [] if label is None else [_label(task, row.get(label))]
            texts.append(text)
        except InvalidArgument as error:
            malformed.append(f"{where}: {error}")
            if not skip_malformed or len(malformed) == len(rows):
                raise InvalidArgument(malformed[0]) from None
    if malformed:
        warnings.warn(f"left out {len(malformed)} of {len(rows)} rows; the first is {malformed[0]}", stacklevel=3)
    first, *second = (tuple(column) for column in zip(*texts, strict=True))
    return Examples(
        task=task,
        first=first,
        second=second[0] if second else None,
        labels=None if label is None else tuple(labels),
    )


def _text(row: Row, names: Sequence[str]) -> str:
    name = next((name for name in names if name in row), None)
    if name is None:
        raise InvalidArgument(f"has the columns {', '.join(row)}; {_or(names)} is needed")
    if not isinstance(row[name], str) or not row[name].strip():
        raise InvalidArgument(f"{name} is {row[name]!r}; a text is needed")
    return row[name]


def _label(task: Task, value: Any) -> float:
    """The number of a class that is given by number or by name, or a score."""
    text = str(value).strip().lower()
    if not task.labels:
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if _SCORES[0] <= score <= _SCORES[1]:
            return score
    for number, label in enumerate(task.labels):
        if text in (str(number), label.lower()):
            return number
    raise InvalidArgument(f"label is {value!r}; {_expected(task)} is needed")


def _expected(task: Task) -> str:
    if not task.labels:
        return f"a score from {_SCORES[0]:g} to {_SCORES[1]:g}"
    return _or([f"{number} ({label})" for number, label in enumerate(task.labels)])


def _or(names: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(names))
