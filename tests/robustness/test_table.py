"""Public doors x kinds of bad input: an error of the library's that names the argument, or the right answer.

`PYTHONPATH=tests python -m robustness.table` goes through all of it, in minutes; this test through a fixed part. What
is known to fall short there is in `known_gaps.json`, by the kind of fault: a new fault and a mended one turn the test
red.
"""

from __future__ import annotations

import json
from pathlib import Path

from robustness.table import count

SHARE = 12
KNOWN = json.loads(Path(__file__).with_name("known_gaps.json").read_text(encoding="utf-8"))


def test_bad_input_is_named_or_right_but_for_known_gaps():
    good, total, failures = count(share=SHARE)
    known = {line for lines in KNOWN.values() for line in lines}
    found = {": ".join(failure.split(": ")[:2]): failure for failure in failures}
    new = [failure for line, failure in found.items() if line not in known]
    assert not new, "new faults:\n" + "\n".join(new)
    assert not known - found.keys(), f"mended; take them out of known_gaps.json: {sorted(known - found.keys())}"
    assert total > 1000
    assert good == total - len(known)
