"""Reading tasks: every published form of file, what a broken one is told, and metrics by their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pushforward.errors import InvalidArgument, ShapeError
from pushforward.lm.tasks import TASKS, Examples, Task, from_dataset, metrics, read

# One file a form, as its publishers wrote it: (task, split, file, its text, first texts, second texts, labels).
FORMS = {
    "header": (
        "sst2", "train", "train.tsv", "sentence\tlabel\nit 's \"fine\" . \t1\nbad \t0\n",
        ("it 's \"fine\" . ", "bad "), None, (1, 0),
    ),
    "no newline at the end": (
        "cola", "dev", "dev.tsv", "gj04\t1\t\tThey left.\ngj04\t0\t*\tThey leaving.",
        ("They left.", "They leaving."), None, (1, 0),
    ),
    "no labels": ("cola", "test", "test.tsv", "index\tsentence\n0\tThey left.\n", ("They left.",), None, None),
    "labels by name": (
        "rte", "train", "train.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tnot_entailment\n1\tC\tD\tentailment\n",
        ("A", "C"), ("B", "D"), (1, 0),
    ),
    "superglue's rte": (
        "rte", "dev", "val.jsonl", '{"premise": "A", "hypothesis": "B", "label": "entailment", "idx": 0}\n',
        ("A",), ("B",), (0,),
    ),
    "byte-order mark, plain quotes": (
        "mrpc", "train", "msr_paraphrase_train.txt",
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tThe "one" said\t"No\r\n0\t9\t10\tA\tB\r\n',
        ('The "one" said', "A"), ('"No', "B"), (1, 0),
    ),
    "glue's mrpc": (
        "mrpc", "dev", "dev.tsv", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tA\tB\n", ("A",), ("B",), (0,)
    ),
    "qqp": (
        "qqp", "dev", "dev.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\tWhy?\tHow?\t0\n",
        ("Why?",), ("How?",), (0,),
    ),
    "mnli": (
        "mnli", "dev", "dev_matched.tsv",
        "index\tpromptID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n0\t1\tg\tA\tB\tneutral\tcontradiction\n",
        ("A",), ("B",), (2,),
    ),
    "mnli on other genres": (
        "mnli_mismatched", "test", "test_mismatched.tsv", "index\tsentence1\tsentence2\n0\tA\tB\n", ("A",), ("B",), None
    ),
    "qnli": (
        "qnli", "train", "train.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n",
        ("Who?",), ("He.",), (0,),
    ),
    "wnli": ("wnli", "dev", "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tA\tB\t1\n", ("A",), ("B",), (1,)),
    "scores": (
        "stsb", "dev", "dev.tsv", "index\tgenre\tsentence1\tsentence2\tscore\n0\tx\tA\tB\t3.250\n",
        ("A",), ("B",), (3.25,),
    ),
    "commas, quotes and newlines": (
        "cb", "train", "train.csv",
        'premise,hypothesis,label\n"It ""is"", she\n\nsaid",it is,neutral\nA,B,contradiction\n',
        ('It "is", she\n\nsaid', "A"), ("it is", "B"), (2, 1),
    ),
    "cb": (
        "cb", "dev", "val.jsonl", '{"premise": "A", "hypothesis": "B", "label": "contradiction"}\n',
        ("A",), ("B",), (1,),
    ),
    "truth values": (
        "boolq", "train", "train.jsonl",
        '{"question": "is it", "passage": "It is.", "label": true}\n{"question": "q", "passage": "p", "label": 0}\n',
        ("is it", "q"), ("It is.", "p"), (1, 0),
    ),
    "line separators that are no newlines": (
        "sst2", "dev", "dev.tsv", "sentence\tlabel\none\u2028two\x85three\t1\n\n",
        ("one\u2028two\x85three",), None, (1,),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("task", "split", "name", "text", "first", "second", "labels"), FORMS.values(), ids=FORMS)
def test_a_published_form(tmp_path: Path, task, split, name, text, first, second, labels):
    (tmp_path / name).write_bytes(text.encode())
    examples = read(task, tmp_path, split)
    assert (examples.first, examples.second, examples.labels) == (first, second, labels)
    assert examples.task is TASKS[task]


def test_every_task_is_read_in_a_test():
    assert {form[0] for form in FORMS.values()} == set(TASKS)


# What is written, and what must be said about it; "{file}" stands for the file's path.
BROKEN = {
    "a column too few": (
        "dev.tsv", "sentence\tlabel\nA\t1\nB\n", r"{file}, line 3: columns: 1 given, 2 needed \(sentence, label\)"
    ),
    "a tab in a text": ("dev.tsv", "sentence\tlabel\nA\tB\t1\n", "{file}, line 2: columns: 3 given, 2 needed"),
    "unknown class": (
        "dev.tsv", "sentence\tlabel\n\nA\t2\n",
        r"{file}, line 3: label is '2'; 0 \(negative\) or 1 \(positive\) is needed",
    ),
    "no text": ("dev.tsv", "sentence\tlabel\n \t1\n", "{file}, line 2: sentence is ' '; a text is needed"),
    "no header": ("dev.tsv", "A\t1\n", "{file}, line 1: names of columns are needed, among them sentence"),
    "only a header": ("dev.tsv", "sentence\tlabel\n", "{file}: holds no examples"),
    "empty": ("dev.tsv", "", "{file}: holds no examples"),
    "no labels": ("dev.tsv", "index\tsentence\n0\tA\n", r"{file}: has no column of labels \(label\)"),
    "latin-1": ("dev.tsv", b"sentence\tlabel\nA\t1\ncaf\xe9\t0\n", "{file}, line 3: is not UTF-8"),
    "an open quote": ("dev.csv", 'sentence,label\n"A\nB",1\n"C,1\n', "{file}, line 4: is no comma-separated row"),
    "no json": ("dev.jsonl", '{"sentence": "A", "label": 1}\n{"sentence":\n', "{file}, line 2: is no JSON"),
    "json of another kind": ("dev.jsonl", "[1]\n", "{file}, line 1: is JSON, but not an object"),
    "a key missing": (
        "dev.jsonl", '{"sentence": "A", "label": 1}\n{"label": 1}\n', "{file}, line 2: has the columns label; sentence"
    ),
    "a label missing": ("dev.jsonl", '{"sentence": "A", "label": 1}\n{"sentence": "B"}\n', "line 2: label is None"),
    "a text that is none": ("dev.jsonl", '{"sentence": 3, "label": 1}\n', "line 1: sentence is 3; a text is needed"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_told_where(tmp_path: Path, name: str, text: str | bytes, message: str):
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InvalidArgument, match=message.replace("{file}", str(file))):
        read("sst2", tmp_path, "dev")


@pytest.mark.parametrize("score", ["5.1", "-1", "nan", "good"])
def test_a_score_out_of_range_is_refused(tmp_path: Path, score: str):
    (tmp_path / "dev.tsv").write_text(f"sentence1\tsentence2\tscore\nA\tB\t{score}\n")
    with pytest.raises(InvalidArgument, match=f"line 2: label is '{score}'; a score from 0 to 5 is needed"):
        read("stsb", tmp_path, "dev")


def test_a_missing_file_lists_what_was_looked_for(tmp_path: Path):
    (tmp_path / "train.tsv").touch()
    with pytest.raises(
        InvalidArgument, match=r"no dev file of sst2: looked for dev or val .*\.jsonl; it holds train\.tsv"
    ):
        read("sst2", tmp_path, "dev")
    with pytest.raises(InvalidArgument, match="gone does not exist"):
        read("sst2", tmp_path / "gone")
    with pytest.raises(InvalidArgument, match="split must be one of 'train', 'dev', 'test'; got 'validation'"):
        read("sst2", tmp_path, "validation")
    with pytest.raises(InvalidArgument, match="task must be one of 'sst2', .*; got 'copa'"):
        read("copa", tmp_path)


def test_malformed_rows_are_left_out_on_request(tmp_path: Path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nA\t1\nB\nC\tx\nD\t0\n")
    with pytest.warns(UserWarning, match=r"left out 2 of 4 rows; the first is .*train\.tsv, line 3: columns: 1 given"):
        examples = read("sst2", tmp_path, skip_malformed=True)
    assert (examples.first, examples.labels) == (("A", "D"), (1, 0))
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nA\nB\n")
    with pytest.raises(InvalidArgument, match="line 2: columns: 1 given"):
        read("sst2", tmp_path, skip_malformed=True)


def test_a_task_of_ones_own(tmp_path: Path):
    (tmp_path / "train.csv").write_text("text,mood\nso so,Neutral\ngood,Up\n")
    mine = Task(name="mine", texts=(("text",),), labels=("Down", "Neutral", "Up"), label=("mood",))
    assert read(mine, tmp_path).labels == (1, 2)
    assert metrics(mine, [1, 0], [1, 2]) == {"accuracy": 0.5}


def pairs(task: str = "rte", labels: tuple[float, ...] | None = (0, 1, 1)) -> Examples:
    return Examples(task=TASKS[task], first=("A", "B", "C"), second=("a", "b", "c"), labels=labels)


def test_some_of_the_rows():
    assert len(pairs()) == 3
    assert pairs()[1:] == pairs().select([1, 2])
    chosen = pairs().select(np.array([2, 0]))
    assert (chosen.first, chosen.second, chosen.labels) == (("C", "A"), ("c", "a"), (1, 0))
    assert pairs(labels=None)[:1].labels is None


@pytest.mark.parametrize(
    "examples",
    [
        pairs(),
        pairs(labels=None),
        pairs("stsb", (0.5, 5.0, 2.25)),
        Examples(task=TASKS["sst2"], first=("A",), second=None, labels=(1,)),
    ],
    ids=["pairs", "no labels", "scores", "single texts"],
)
def test_there_and_back_through_datasets(examples: Examples):
    pytest.importorskip("datasets")
    dataset = examples.to_dataset()
    expected = ["sentence1", *(["sentence2"] if examples.second else []), *(["label"] if examples.labels else [])]
    assert dataset.column_names == expected
    assert from_dataset(examples.task.name, dataset) == examples


def test_a_dataset_as_the_hub_has_it():
    datasets = pytest.importorskip("datasets")
    columns = {"premise": ["A", "B"], "hypothesis": ["a", "b"], "idx": [0, 1]}
    classes = datasets.ClassLabel(names=["contradiction", "neutral", "entailment"])  # not in our order
    dataset = datasets.Dataset.from_dict({**columns, "label": [0, 2]}).cast_column("label", classes)
    assert from_dataset("cb", dataset).labels == (1, 0)
    hidden = datasets.Dataset.from_dict({**columns, "label": [-1, -1]}).cast_column("label", classes)
    assert from_dataset("cb", hidden).labels is None
    partly = datasets.Dataset.from_dict({**columns, "label": [0, -1]}).cast_column("label", classes)
    with pytest.raises(InvalidArgument, match="dataset, row 1: label is -1"):
        from_dataset("cb", partly)
    with pytest.raises(
        InvalidArgument, match="dataset, row 0: has the columns premise, .*; question or sentence1 is needed"
    ):
        from_dataset("qnli", dataset)
    with pytest.raises(InvalidArgument, match="dataset holds no examples"):
        from_dataset("cb", dataset.select([]))


def test_metrics_are_their_definitions(rng: np.random.Generator):
    true, predicted = rng.integers(2, size=200), rng.integers(2, size=200)
    tp, fp = np.sum(true & predicted), np.sum(~true & 1 & predicted)
    fn, tn = np.sum(true & ~predicted & 1), np.sum((1 - true) & (1 - predicted))
    f1 = 2 * tp / (2 * tp + fp + fn)
    phi = (tp * tn - fp * fn) / math.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    for task in ("mrpc", "qqp"):
        assert metrics(task, predicted, true) == pytest.approx({"accuracy": (tp + tn) / 200, "f1": f1})
    assert metrics("cola", predicted, true) == pytest.approx({"matthews": phi})
    x, y = rng.random(200), rng.random(200)
    ranks = [values.argsort().argsort() for values in (x, y)]
    assert metrics("stsb", x, y) == pytest.approx(
        {"pearson": np.corrcoef(x, y)[0, 1], "spearman": np.corrcoef(*ranks)[0, 1]}
    )


def test_macro_f1_counts_every_class_alike():
    # Class 0: 2 TP, 1 FP; class 1: 1 TP, 1 FN; class 2: 1 TP.
    found = metrics("cb", [0, 0, 0, 1, 2], [0, 0, 1, 1, 2])
    assert found == pytest.approx({"accuracy": 0.8, "macro_f1": (4 / 5 + 2 / 3 + 1) / 3})


@pytest.mark.parametrize("task", TASKS)
def test_the_truth_scores_one(task: str):
    truth = [1, 0, 2, 0] if len(TASKS[task].labels) == 3 else [1, 0, 1, 0]
    assert metrics(task, truth, truth) == pytest.approx(dict.fromkeys(TASKS[task].metrics, 1.0))


def test_collapsed_predictions():
    assert metrics("cola", [1, 1, 1], [1, 0, 1]) == {"matthews": 0.0}
    assert metrics("mrpc", [0, 0, 0], [1, 0, 1]) == pytest.approx({"accuracy": 1 / 3, "f1": 0.0})
    assert all(math.isnan(value) for value in metrics("stsb", [2.0, 2.0], [1.0, 3.0]).values())


def test_predictions_that_are_none_are_refused():
    with pytest.raises(ShapeError, match=r"predictions have shape \(3, 2\) and labels \(3,\).*argmax"):
        metrics("sst2", np.zeros((3, 2)), [0, 1, 0])
    with pytest.raises(ShapeError, match="at least one example"):
        metrics("sst2", [], [])
    with pytest.raises(InvalidArgument, match=r"labels\[1\] is -1; 0 \(negative\) or 1 \(positive\) is needed"):
        metrics("sst2", [0, 1], [0, -1])
    with pytest.raises(InvalidArgument, match=r"predictions\[0\] is nan; a score from 0 to 5"):
        metrics("stsb", [math.nan, 1.0], [1.0, 2.0])


ON_DISK = [
    ("sst2", "glue/SST-2", "train", 67_349),
    ("sst2", "glue/SST-2", "dev", 872),
    ("cola", "glue/CoLA", "train", 8_551),
    ("cola", "glue/CoLA", "dev", 1_043),
    ("rte", "glue/RTE", "train", 2_490),
    ("rte", "glue/RTE", "dev", 277),
    ("mrpc", "glue/MRPC", "train", 4_076),
    ("mrpc", "glue/MRPC", "test", 1_725),
    ("cb", "superglue/CB", "train", 250),
    ("cb", "superglue/CB", "dev", 56),
]


@pytest.mark.parametrize(("task", "folder", "split", "count"), ON_DISK)
def test_the_published_files_whole(task: str, folder: str, split: str, count: int, data_sets: Path):
    examples = read(task, data_sets / folder, split)
    assert len(examples) == count
    assert set(examples.labels) == set(range(len(TASKS[task].labels)))
