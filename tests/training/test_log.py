"""A run's log: readable after a kill, continued without a step twice."""

from __future__ import annotations

import errno
import math

import pytest
import torch

from pushforward.errors import InvalidArgument
from pushforward.training import Log, distributed, read_log


def write(file, steps, **how):
    with Log(file, **how) as log:
        for step in steps:
            log.write(step, {"loss": 1 / step})


def steps_of(file):
    return [record["step"] for record in read_log(file)]


def test_records_come_back_bit_for_bit(tmp_path):
    values = {
        "loss": 0.1 + 0.2,
        "nan": math.nan,
        "up": math.inf,
        "down": -math.inf,
        "text": "größer",
        "on": True,
        "n": None,
    }
    with Log(tmp_path / "new" / "log.jsonl") as log:
        log.write(3, values)
        assert len(read_log(tmp_path / "new" / "log.jsonl")) == 1  # before it is closed
    (record,) = read_log(tmp_path / "new" / "log.jsonl")
    assert math.isnan(record.pop("nan"))
    del values["nan"]
    assert record == {"step": 3} | values


def test_every_line_is_json_that_any_program_reads(tmp_path):
    with Log(tmp_path / "log.jsonl") as log:
        log.write(1, {"a": math.nan, "b": -math.inf})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 1, "a": "NaN", "b": "-Infinity"}\n'


def test_a_resumed_run_drops_the_steps_that_come_again(tmp_path):
    file = tmp_path / "log.jsonl"
    write(file, range(1, 8))
    write(file, range(6, 10), resumed=5)
    assert steps_of(file) == list(range(1, 10))
    write(file, [1])
    assert steps_of(file) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_line_cut_short_at_any_byte_is_no_record(tmp_path):
    file = tmp_path / "log.jsonl"
    write(file, [1, 2, 3])
    whole = file.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        file.write_bytes(whole[:end])
        assert steps_of(file) == [1, 2]
        write(file, [3], resumed=2)
        assert file.read_bytes() == whole


@pytest.mark.parametrize("line", ["{", "3", "[1]", '{"loss": 1}', '{"step": "one"}', "\0\0"])
def test_a_damaged_line_is_named(tmp_path, line):
    file = tmp_path / "log.jsonl"
    file.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(InvalidArgument, match=r"log\.jsonl, line 2"):
        read_log(file)


def test_what_is_no_value_is_named(tmp_path):
    with Log(tmp_path / "log.jsonl") as log, pytest.raises(InvalidArgument, match=r"values\['loss'\] is a Tensor"):
        log.write(1, {"loss": torch.tensor(1.0)})


class FullDisk:
    """A stream that takes a few bytes, then none."""

    def __init__(self, stream):
        self.stream, self.room = stream, 9

    def write(self, line):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.stream.write(line[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_a_full_disk_loses_records_and_not_the_run(tmp_path):
    file = tmp_path / "log.jsonl"
    log = Log(file)
    log.write(1, {"loss": 1.0})
    disk = log._stream
    log._stream = FullDisk(disk)
    with pytest.warns(UserWarning, match="step 2 is lost: only a part"):
        log.write(2, {"loss": 1.0})
    with pytest.warns(UserWarning, match="step 3 is lost: .*No space left"):
        log.write(3, {"loss": 1.0})
    log._stream = disk
    log.write(4, {"loss": 1.0})
    log.close()
    assert steps_of(file) == [1, 4]


def test_only_rank_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    write(tmp_path / "log.jsonl", [1])
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_the_numbers_and_forgets_what_is_repeated(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = tmp_path / "board"
    write(tmp_path / "log.jsonl", range(1, 8), tensorboard=board)
    write(tmp_path / "log.jsonl", range(6, 10), tensorboard=board, resumed=5)
    events = EventAccumulator(str(board)).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 10))
