"""What the benchmarks share: rows that are there are not measured again, statistics, digests that survive a move."""

from __future__ import annotations

import json
import os
from pathlib import Path

import lib
import numpy as np
import pytest
from lib import provenance
from scipy import stats


def test_only_missing_rows_are_measured_again(tmp_path: Path) -> None:
    store = lib.Store(path=tmp_path / "a.json", key=("pair", "seed"), ended=lambda row: row["status"] == "ok")
    keys = [{"pair": "one", "seed": seed} for seed in range(3)]
    store.add(keys[0] | {"status": "ok"}, keys[1] | {"status": "raised"})
    assert list(store.missing(keys)) == keys[1:]
    assert list(store.missing(keys, again=True)) == keys


def test_a_row_takes_the_place_of_its_forerunner_and_the_rest_stays(tmp_path: Path) -> None:
    about = iter([{"date": "first"}, {"date": "second"}])
    store = lib.Store(path=tmp_path / "a.json", key=("seed",), about=lambda: next(about), place=lambda row: row["seed"])
    store.add({"seed": 1, "x": 1.0}, {"seed": 2, "x": 2.0})
    store.add({"seed": 0, "x": 0.0}, {"seed": 2, "x": 3.0})
    rows = [{"seed": 0, "x": 0.0}, {"seed": 1, "x": 1.0}, {"seed": 2, "x": 3.0}]
    assert json.loads((tmp_path / "a.json").read_text()) == {"date": "second", "rows": rows}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_row_that_json_cannot_hold_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    store = lib.Store(path=tmp_path / "a.json", key=("seed",))
    store.add({"seed": 0})
    before = store.path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        store.add({"seed": 1, "x": float("nan")})
    assert store.path.read_bytes() == before


def test_lines_are_found_by_some_of_their_fields(tmp_path: Path) -> None:
    lines = lib.Lines(tmp_path / "runs" / "lines.jsonl")
    assert lines.find({"arm": "kl"}) is None
    lines.add({"arm": "ce", "seed": 0})
    lines.add({"arm": "kl", "seed": 1})
    assert lines.find({"arm": "kl"}) == {"arm": "kl", "seed": 1}
    assert len(lines.rows()) == 2


def test_a_paired_interval_and_the_test_of_equivalence_are_scipys() -> None:
    rng = np.random.default_rng(0)
    one, other = ({seed: float(x) for seed, x in enumerate(rng.normal(size=6))} for _ in range(2))
    differences = lib.difference(one, {**other, 99: 1.0})
    truth = stats.ttest_rel(list(one.values()), list(other.values())).confidence_interval()
    found = lib.estimate(differences)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((truth.low, truth.high), rel=1e-3)
    below, above = (
        stats.ttest_1samp(differences, bound, alternative=side).pvalue
        for bound, side in ((-0.5, "greater"), (0.5, "less"))
    )
    assert lib.equivalence(differences, 0.5) == pytest.approx(max(below, above))
    assert lib.t_975(3) == pytest.approx(stats.t.ppf(0.975, 3))


def test_a_bootstrap_holds_its_mean_and_narrows_with_more_draws() -> None:
    few, many = (lib.bootstrap(np.random.default_rng(0).normal(size=n)) for n in (10, 1000))
    for found in (few, many):
        assert found["low"] < found["mean"] < found["high"]
    assert many["high"] - many["low"] < 0.2 * (few["high"] - few["low"])


def test_a_clear_difference_is_bold() -> None:
    clear, open_one = lib.Estimate(1.0, 0.5), lib.Estimate(0.2, 0.5)
    assert clear.bold(clear.text(2, sign="+")) == "**+1.00 ± 0.50**"
    assert open_one.bold(str(open_one)) == "0.20 ± 0.50"


def test_a_move_leaves_the_digest_and_a_change_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MOVED", {"inner/new.py": "old.py"})
    before, after = tmp_path / "before", tmp_path / "after"
    (before).mkdir()
    (after / "inner").mkdir(parents=True)
    (before / "old.py").write_text('"""One."""\nfrom maps.other import (\n    x,\n)\n\nY = x\n')
    (before / "other.py").write_text('"""Two."""\nx = 1\n')
    (after / "inner" / "__init__.py").write_text("")
    (after / "inner" / "new.py").write_text('"""One."""\nimport maps.other.x as x\n\n\nY = x\n')
    (after / "other.py").write_text('"""Two."""\nx = 1\n')
    assert provenance.digest(before) == provenance.digest(after)
    (after / "other.py").write_text('"""Two."""\nx = 2\n')
    assert provenance.digest(before) != provenance.digest(after)


def test_options_are_what_their_defaults_are(tmp_path: Path) -> None:
    options = {
        "pairs": {"one": 1, "two": 2}, "seeds": (0, 1), "limit": 2.5, "again": False, "out": tmp_path, "picture": Path
    }  # fmt: skip
    given = lib.parsed("What it does.", options, given=["--pairs", "two", "--seeds", "7", "8", "--again"])
    assert vars(given) == {
        "pairs": ["two"], "seeds": [7, 8], "limit": 2.5, "again": True, "out": tmp_path, "picture": None
    }  # fmt: skip
    assert lib.parsed(None, options, given=[]).pairs == ["one", "two"]
    with pytest.raises(SystemExit):
        lib.parsed(None, options, given=["--pairs", "three"])


def _pid() -> dict[str, object]:
    import torch

    return {"status": "ok", "pid": os.getpid(), "threads": torch.get_num_threads()}


def test_a_job_has_its_own_process_and_one_thread_and_a_failure_is_a_row() -> None:
    row = lib.in_own_process(_pid, wall_limit=120.0)
    assert row["pid"] != os.getpid()
    assert row["threads"] == 1
    assert lib.in_own_process(json.loads, "{", wall_limit=120.0)["status"].startswith("raised JSONDecodeError: ")
    with pytest.raises(SystemExit, match="loads: raised JSONDecodeError: "):
        lib.result_of(json.loads, "{", wall_limit=120.0)
