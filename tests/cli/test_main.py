"""The command as a process, and what it does when it is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pushforward as pf
from pushforward.cli.main import main


@pytest.mark.parametrize(
    "verb",
    [[], ["solve"], ["fit-map"], ["apply-map"], ["train-diffusion"], ["sample"], ["evaluate"], ["tour"], ["doctor"]],
    ids=lambda verb: " ".join(verb) or "top",
)
def test_help_imports_nothing_heavy(verb: list[str]):
    code = (
        "import sys; from pushforward.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'jinja2', 'pydantic', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *verb, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: pushforward" in done.stdout


def test_a_verb_asked_for_help_tells_more_than_the_list(capsys: pytest.CaptureFixture[str]):
    shown = []
    for words in (["--help"], ["solve", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert not stop.value.code
        shown.append(capsys.readouterr().out)
    listed, solve = shown
    assert "Solve transport between pictures" in listed
    assert "Exit code" not in listed
    assert "Exit code 0: converged. 1: not converged" in solve


def test_help_is_quick():
    # Loading is what takes its time: numpy alone would add 120 modules, torch a thousand.
    code = (
        "import atexit, sys; from pushforward.cli.main import main\n"
        "atexit.register(lambda: sys.stderr.write(str(len(sys.modules))))\n"
        "main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stderr) < 250


def test_errors_leave_the_process_with_code_two():
    done = subprocess.run(
        [sys.executable, "-m", "pushforward.cli.main", "solve", "missing.npy"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pushforward: missing.npy: there is no such file\n"


def test_interruption_is_one_line(run: Callable, clouds: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pf, "solve", interrupted)
    outcome = run("solve", *clouds)
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "pushforward: interrupted\n")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_standard_output_is_said_in_one_line(buffered: bool):
    python = [sys.executable] if buffered else [sys.executable, "-u"]
    with FULL.open("w") as full:
        done = subprocess.run(
            [*python, "-m", "pushforward.cli.main", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "pushforward: standard output cannot be written: No space left on device\n"


def test_a_closed_standard_output_is_said_in_one_line():
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    words = ["-m", "pushforward.cli.main", "--help"]
    done = subprocess.run([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "pushforward: standard output is closed; send it to a file or to /dev/null\n"


def test_a_reader_that_has_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pushforward.cli.main", "--help"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
