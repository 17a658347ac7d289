"""What the verbs for language models share: models and data from files, and errors that name the flag.

Nothing here asks the network for anything: a model is a folder.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import tyro

from pushforward.jobs.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pushforward.lm.data import Rows
    from pushforward.lm.tasks import Task

__all__ = [
    "TASK",
    "TaskName",
    "check_length",
    "for_model",
    "load_model",
    "load_tokenizer",
    "naming",
    "quiet",
    "read_task",
    "read_text",
    "source",
]

# The names of `pushforward.lm.tasks.TASKS`, spelt out so that --help need not import it.
TaskName = Literal[
    "sst2", "cola", "rte", "mrpc", "qqp", "mnli", "mnli_mismatched", "qnli", "wnli", "stsb", "cb", "boolq"
]  # fmt: skip

# How --help shows the tasks.
TASK = tyro.conf.arg(metavar=f"{{{','.join(get_args(TaskName))}}}", help_behavior_hint="(default: none)")


@contextmanager
def naming(what: str) -> Generator[None]:
    """Turn the library's errors in the block into errors of the command line about `what`."""
    from pushforward.errors import InvalidArgument

    try:
        yield
    except InvalidArgument as error:
        raise InputError(f"{what}: {error}") from None


@contextmanager
def quiet() -> Generator[None]:
    """Hide advice of transformers and peft, and bars over weights, from the terminal within the block."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Read when these packages are first imported: a model that came from no place would be looked for on the hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(peft|transformers)\.")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_tokenizer(flag: str, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, which can pad.

    Raises:
        InputError: There is none.
    """
    from transformers import AutoTokenizer

    _check_folder(flag, folder)
    from pushforward.lm.folders import BROKEN

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as error:
        raise InputError(f"{flag} {folder}: holds no tokenizer that can be read: {error}") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(flag: str, folder: Path, task: Task | None, *, new_head: bool = False) -> PreTrainedModel:
    """A sequence classifier for a task, or a decoder-only model where `task` is None.

    Args:
        flag: How the folder was given, for messages.
        folder: With a configuration and weights in safetensors form.
        task: What it is for.
        new_head: Whether a head that is missing, or is another task's, may be made anew, to be trained.

    Raises:
        InputError: It cannot be loaded, has no trained head for the task, or its classes are others.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from pushforward.lm.folders import BROKEN, check_folder

    _check_folder(flag, folder)
    with naming(flag):
        check_folder(folder)
    auto: Any = AutoModelForCausalLM if task is None else AutoModelForSequenceClassification
    head: dict[str, Any] = {"num_labels": len(task.labels) or 1} if task and new_head else {}
    if new_head:
        head["dtype"] = "float32"  # it is to be trained, and half precision rounds steps away
    try:
        model, found = auto.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=new_head,
            output_loading_info=True,
            **head,
        )
    except BROKEN as error:
        kind = "decoder-only model" if task is None else "model that classifies"
        raise InputError(f"{flag} {folder}: no {kind} can be loaded from it: {error}") from None
    missing = sorted(found["missing_keys"])
    if missing and not new_head:
        raise InputError(
            f"{flag} {folder}: has no weights for {missing[0]}; if it has no head for the task yet, "
            "distill-lm --train-teacher EPOCHS trains one"
        )
    if task is not None:
        _settle_classes(flag, folder, model, task, anew=new_head)
    return model


def check_length(model: PreTrainedModel, flag: str, rows: Iterable[Rows], max_length: int) -> None:
    """Raise for rows that have more tokens than a model has positions, before anything is computed with them.

    Raises:
        InputError: There is one; the message gives the largest --max-length that would do.
    """
    from pushforward.lm.pair import most_positions

    most = most_positions(model)
    longest = max(len(row["input_ids"]) for some in rows for row in some.rows)
    if most is not None and longest > most:
        raise InputError(
            f"--max-length {max_length}: there are texts of {longest} tokens but the model of {flag} takes {most} "
            f"positions (max_position_embeddings of its configuration); at most --max-length {most}"
        )


def source(task: TaskName | None, data: Path | None, text: Path | None) -> tuple[TaskName | None, Path]:
    """The task and its folder, or no task and a text file, from the flags of these names.

    Raises:
        InputError: One is missing, or they contradict one another.
    """
    if text is not None:
        if task is not None or data is not None:
            raise InputError("--text: stands in place of --task and --data; give the one or the other")
        return None, text
    if task is None or data is None:
        raise InputError(f"{'--task' if task is None else '--data'}: is needed; give --task and --data, or --text")
    return task, data


def read_task(task: Task, folder: Path, split: Any, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Rows:
    """A split of a task.

    Raises:
        InputError: It cannot be read, or has no labels.
    """
    from pushforward.lm.data import sentences
    from pushforward.lm.tasks import read

    with naming(f"--data {folder}"):
        return sentences(read(task, folder, split), tokenizer, max_length=max_length)


def for_model(rows: Rows, model: PreTrainedModel, *, max_length: int) -> Rows:
    """A task's rows as a model needs them.

    Raises:
        InputError: They cannot be made so.
    """
    from pushforward.lm.data import ended

    if rows.task is None or not model.config.is_encoder_decoder:
        return rows
    with naming("--data"):
        return ended(rows, model.config.eos_token_id, max_length=max_length)


def read_text(file: Path, tokenizer: PreTrainedTokenizerBase, *, length: int) -> tuple[Rows, Rows]:
    """The blocks of a plain text to train on, and those of its last tenth.

    Raises:
        InputError: It cannot be read, or is too short.
    """
    from pushforward.lm.data import blocks

    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"--text {file}: there is no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--text {file}: is not UTF-8 ({error.reason}); convert the file") from None
    except OSError as error:
        raise InputError(f"--text {file}: cannot be read: {error.strerror}") from None
    with naming(f"--text {file}"):
        return blocks(text, tokenizer, length=length)


def _check_folder(flag: str, folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file; a model's folder is needed" if folder.exists() else "there is no such folder"
        raise InputError(f"{flag} {folder}: {what}")
    if not (folder / "config.json").is_file():
        raise InputError(f"{flag} {folder}: holds no config.json; a folder that save_pretrained wrote is needed")


def _settle_classes(flag: str, folder: Path, model: PreTrainedModel, task: Task, *, anew: bool) -> None:
    """Check that the model's classes are the task's in its order; a new head gets their names."""
    if model.config.pad_token_id is None:  # as its tokenizer, see above
        model.config.pad_token_id = model.config.eos_token_id
    classes = len(task.labels) or 1
    if model.config.num_labels != classes:
        names = f" ({', '.join(task.labels)})" if task.labels else ", a score"
        raise InputError(f"{flag} {folder}: has {model.config.num_labels} labels but {task.name} has {classes}{names}")
    if anew and task.labels:
        model.config.id2label = dict(enumerate(task.labels))
        model.config.label2id = {name: number for number, name in enumerate(task.labels)}
    names = [str(name).lower() for _, name in sorted((model.config.id2label or {}).items())]
    if names != list(task.labels) and set(names) == set(task.labels):
        raise InputError(
            f"{flag} {folder}: numbers its labels {', '.join(names)} but {task.name} {', '.join(task.labels)}"
        )
