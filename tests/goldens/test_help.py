"""What `pushforward VERB --help` says, frozen: a flag that is renamed, lost or given another default is seen here.

Where a change is meant, PUSHFORWARD_FREEZE=1 writes the texts anew, and the difference is read before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pushforward.cli.main import main

TEXTS = Path(__file__).parent / "help"
VERBS = ["", "solve", "fit-map", "apply-map", "train-diffusion", "distill-diffusion", "distill-lm", "evaluate"]
VERBS += ["sample", "tour", "doctor"]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb or "top")
def test_help_is_what_it_was(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as stop:
        main([*([verb] if verb else []), "--help"])
    assert not stop.value.code
    shown = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n"
    file = TEXTS / f"{verb or 'top'}.txt"
    if os.environ.get("PUSHFORWARD_FREEZE"):
        file.write_text(shown, encoding="utf-8")
    assert shown == file.read_text(encoding="utf-8")
