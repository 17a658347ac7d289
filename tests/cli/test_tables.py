"""Tables of people, in the ways that people write them: read right, or refused; never read wrong in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli import table_kinds as kinds

from pushforward.jobs.errors import InputError
from pushforward.jobs.inputs.costs import read_cost
from pushforward.jobs.inputs.points import read_cloud, read_points
from pushforward.jobs.inputs.tables import read_table
from pushforward.maps.saved import load_map

CASES = kinds.cases()


@pytest.mark.parametrize(("kind", "verb"), CASES, ids=[f"{verb}: {kind.name}" for kind, verb in CASES])
def test_a_table_is_read_right_or_refused(kind, verb: str, here: Path):
    said = kinds.judge(kind, verb)
    if verb == "solve":
        assert said == ("refused" if kind.name in kinds.REFUSED else "read")
    else:
        assert said in ("read", "refused")


def _cloud(text: str):
    Path("t.csv").write_text(text)
    return read_cloud(Path("t.csv"))


def test_a_table_that_pandas_wrote(here: Path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.default_rng(0).normal(size=(12, 3)), columns=["a", "b", "c"])
    for words in ({}, {"index": False}, {"sep": ";", "decimal": ","}, {"index": False, "quoting": 1}):
        frame.to_csv("t.csv", **words)
        rows = read_cloud(Path("t.csv"))
        np.testing.assert_array_equal(rows.points, frame.to_numpy())
        assert rows.names == ("a", "b", "c")
        assert (rows.labels is None) == ("index" in words)
    pandas.DataFrame(frame.to_numpy()).to_csv("t.csv", index=False)
    np.testing.assert_array_equal(read_cloud(Path("t.csv")).points, frame.to_numpy())
    frame.to_csv("t.csv", header=False)
    with pytest.raises(InputError, match=r"t\.csv: column 1 holds whole numbers 0, 1, 2, \.\.\."):
        read_cloud(Path("t.csv"))


# What decides where a table can be read in two ways: the text, the sign in the message, the text mended, its points.
TWO_WAYS = [
    ("0,0.5\n1,0.7\n2,9.5\n", "holds whole numbers", "0.,0.5\n1.,0.7\n2.,9.5\n", [[0, 0.5], [1, 0.7], [2, 9.5]]),
    ("0,0.5\n1,0.7\n2,0.9\n", "write a heading line", ",b\n0,0.5\n1,0.7\n2,0.9\n", [[0.5], [0.7], [0.9]]),
    ("id,b\n4,0.5\n2,0.7\n", "leave its heading empty", ",b\n4,0.5\n2,0.7\n", [[0.5], [0.7]]),
    ("id,b\n4,0.5\n2,0.7\n", 'column 1 "id"', "id,b\n4.0,0.5\n2.0,0.7\n", [[4, 0.5], [2, 0.7]]),
    ("0,1\n2,3\n3,2\n", "may be a heading or a row", "a,b\n2,3\n3,2\n", [[2, 3], [3, 2]]),
    ("0,1\n2,3\n3,2\n", "may be a heading or a row", "0.0,1.0\n2,3\n3,2\n", [[0, 1], [2, 3], [3, 2]]),
    ("1,234;2,345\n", "may be a decimal one or part thousands", "1.234;2.3456\n", [[1.234, 2.3456]]),
    ("a,two\n1,2\n,3\n", "is empty", "a,two\n1,2\n2,3\n", [[1, 2], [2, 3]]),
    ("1,two\n3,4\n", '"two" is not a number', "1,2.5\n3,4\n", [[1, 2.5], [3, 4]]),
    ("x\n1,5\n2,7\n", "numbers with a decimal comma", "x\n1.5\n2.7\n", [[1.5], [2.7]]),
    ("a,b\n1,2\n,\n3,4\n", "line 3 is a row of empty cells", "a,b\n1,2\n3,4\n", [[1, 2], [3, 4]]),
    ("c0 0,5\nc1 0,7\n", "separated by commas, or by blanks", "foo x\nc0 0,5\nc1 0,7\n", [[0.5], [0.7]]),
    ("3,072\n8,946\n", "starts with a zero", "3.072\n8.946\n", [[3.072], [8.946]]),
    ("x,y\n007,3\n008,4\n", "starts with a zero", ",y\n007,3\n008,4\n", [[3], [4]]),
    ("400,410\n1,3\n2,5\n5,1\n", "may be a heading or a row", "400nm,410nm\n1,3\n2,5\n5,1\n", [[1, 3], [2, 5], [5, 1]]),
    ("A,0.5\nB,0.7\n", "may be a heading or a row", "name,x\nA,0.5\nB,0.7\n", [[0.5], [0.7]]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sign", "mended", "points"), TWO_WAYS, ids=[case[1] + case[2] for case in TWO_WAYS])
def test_the_line_names_what_decides(text: str, sign: str, mended: str, points: list[list[float]], here: Path):
    with pytest.raises(InputError) as error:
        _cloud(text)
    assert str(error.value).startswith("t.csv: ")
    assert sign in str(error.value)
    np.testing.assert_array_equal(_cloud(mended).points, points)


# Small tables of whole numbers that are what they look like.
PLAIN = [
    ("x,y\n0,0\n1,0\n2,1\n", [[0, 0], [1, 0], [2, 1]]),
    ("0,0\n0,1\n1,0\n1,1\n", [[0, 0], [0, 1], [1, 0], [1, 1]]),
    ("0\n1\n2\n3\n", [[0], [1], [2], [3]]),
    ("0\n0.25\n0.5\n1\n", [[0], [0.25], [0.5], [1]]),
    ("3,4\n", [[3, 4]]),
    ("t\n0,\n2,\n", [[0], [2]]),
]


@pytest.mark.parametrize(("text", "points"), PLAIN, ids=[repr(text) for text, _ in PLAIN])
def test_a_small_plain_table(text: str, points: list[list[float]], here: Path):
    np.testing.assert_array_equal(_cloud(text).points, points)


def test_columns_of_the_second_file_pair_by_name(here: Path):
    Path("x.csv").write_text("a,b\n0.5,1\n")
    Path("y.csv").write_text(",b,a\n7,3,2.5\n")
    problem = read_points(Path("x.csv"), Path("y.csv"))
    np.testing.assert_array_equal(problem.y, [[2.5, 3]])
    Path("y.csv").write_text("b,d\n3,2\n")
    with pytest.raises(InputError, match=r'y\.csv: .*lacks "a" and has beyond it "d"'):
        read_points(Path("x.csv"), Path("y.csv"))


def test_one_file_is_a_cost_where_it_looks_like_one_or_is_said_to_be(here: Path):
    Path("c.csv").write_text(",a,b\nu,0,2\nv,1,3\n")
    with pytest.raises(InputError, match=r"c\.csv: is the only file and has headings .* --cost matrix"):
        read_cost(Path("c.csv"), sure=False)
    np.testing.assert_array_equal(read_cost(Path("c.csv")).cost, [[0, 2], [1, 3]])
    Path("c.csv").write_text("0,1,2\n1,0,1\n2,1,0\n")
    np.testing.assert_array_equal(read_cost(Path("c.csv"), sure=False).cost, [[0, 1, 2], [1, 0, 1], [2, 1, 0]])


def test_a_long_identifier_is_no_coordinate(here: Path):
    with pytest.raises(InputError, match="line 3: 9007199254740993"):
        _cloud("x,y\n1,2\n9007199254740993,3\n")
    assert _cloud("x,y\n1,2\n9007199254740992,3\n").points[1, 0] == 2**53


def test_a_comma_within_quotes_spans_lines(here: Path):
    table = read_table(_put("t.csv", '"name, of\nthe row",x\n"one,\ntwo",1.5\nthree,2.5\n'))
    assert table.labels == ("one,\ntwo", "three")
    assert list(table.lines) == [4, 5]


def _put(name: str, text: str) -> Path:
    Path(name).write_text(text)
    return Path(name)


@pytest.fixture
def tables(here: Path) -> None:
    """Tables of two clouds with the headings a, b, c, and new points with them turned about, labels and one more."""
    rng = np.random.default_rng(0)
    for name, count in (("x.csv", 40), ("y.csv", 30)):
        kinds.Path(name).write_text(kinds._text(rng.normal(size=(count, 3)) * [1, 2, 3]))
    _put("new.csv", "cell,c,batch,a,b\nA-1,1.5,7,0.25,3\nA-2,2.5,8,0.5,4\n")


def test_a_map_takes_the_columns_that_it_was_fitted_with(run: Callable, tables: None):
    assert run("fit-map", "x.csv", "y.csv", "--method", "linear", "--out", "run").code == 0
    assert json.loads(Path("run/origin.json").read_text())["columns"] == ["a", "b", "c"]
    outcome = run("apply-map", "run", "new.csv")
    assert outcome.code == 0
    assert outcome.err == 'pushforward: new.csv: left out "batch", which the map does not take\n'
    images = load_map("run/map").transform(np.array([[0.25, 3, 1.5], [0.5, 4, 2.5]]))
    lines = Path("run/new-mapped.csv").read_text().splitlines()
    assert lines[0] == "cell,c,a,b"
    assert [line.split(",")[0] for line in lines[1:]] == ["A-1", "A-2"]
    found = [[float(cell) for cell in line.split(",")[1:]] for line in lines[1:]]
    np.testing.assert_array_equal(found, images[:, [2, 0, 1]])
    again = read_cloud(Path("run/new-mapped.csv"))  # what was written can be read
    assert (again.names, again.labels) == (("c", "a", "b"), ("A-1", "A-2"))


def test_a_map_refuses_a_table_that_lacks_a_column(run: Callable, tables: None):
    assert run("fit-map", "x.csv", "y.csv", "--method", "linear", "--out", "run").code == 0
    _put("less.csv", "a,b\n1,2.5\n")
    outcome = run("apply-map", "run", "less.csv")
    assert outcome.code == 2
    assert outcome.err == 'pushforward: less.csv: has no column "c"; its columns are "a", "b"\n'


def test_a_map_from_before_columns_were_kept_pairs_by_position(run: Callable, tables: None):
    assert run("fit-map", "x.csv", "y.csv", "--method", "linear", "--out", "run").code == 0
    origin = json.loads(Path("run/origin.json").read_text())
    del origin["columns"]
    Path("run/origin.json").write_text(json.dumps(origin))
    _put("other.csv", "p,q,r\n0.25,3,1.5\n")
    assert run("apply-map", "run", "other.csv", "--out", "out.csv").code == 0
    heading, row = Path("out.csv").read_text().splitlines()
    assert heading == "p,q,r"
    images = load_map("run/map").transform(np.array([[0.25, 3, 1.5]]))
    np.testing.assert_array_equal([float(cell) for cell in row.split(",")], images[0])
