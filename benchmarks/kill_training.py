"""How often is a training run that was killed, and started again, bit for bit the run that was left alone?

The run is tests/resume/tiny_training.py: dropout, batch normalisation, noise from three generators, AdamW, a schedule,
a moving average, a loss over all ranks' rows. Each trial is a fresh run, one SIGKILL of a real process, and a second
start that must end with the same losses, to the last bit, and with a last checkpoint of the same bytes. Kills come

    step     between a random step's update and its record
    call     at a random one of the calls that open, make, rename, list or delete something in a save
    moment   at a random time after a save of 16 MB began

with one process and with two (gloo). A kill that came too late, after the run's end, is drawn again and not counted.

    python benchmarks/kill_training.py --trials 100 --minutes 8
"""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lib import RESULTS, ROOT, conditions, parsed, say, write_json

sys.path.insert(0, str(ROOT / "tests"))

from resume import launch  # noqa: E402
from resume.tiny_training import SAVE_EVERY, STEPS, Kill  # noqa: E402

BALLAST = 4_000_000
CALLS = 35
LONGEST = 0.15
CASES = [(where, processes) for where in ("step", "call", "moment") for processes in (1, 2)]


def drawn(where: str, processes: int, draw: random.Random) -> Kill:
    saves = range(2 * SAVE_EVERY, STEPS, SAVE_EVERY)
    step = draw.randint(1, STEPS) if where == "step" else draw.choice(saves)
    amount = {"step": 0.0, "call": float(draw.randrange(CALLS)), "moment": draw.uniform(0, LONGEST)}[where]
    # Only rank 0 makes, renames and deletes folders.
    return Kill(rank=0 if where == "call" else draw.randrange(processes), where=where, step=step, amount=amount)


def trial(folder: Path, processes: int, kill: Kill, undisturbed: dict[str, Any]) -> dict[str, Any] | None:
    ballast = BALLAST if kill.where == "moment" else 0
    shutil.rmtree(folder, ignore_errors=True)
    if launch.launch(folder, processes, kill, ballast)[kill.rank] != -9:
        return None
    half_done = any(path.name.startswith(".") for path in folder.iterdir())
    ended = launch.launch(folder, processes, ballast=ballast)
    identical = ended == [0] * processes and launch.outcome(folder) == undisturbed
    return {
        "where": kill.where,
        "processes": processes,
        "rank": kill.rank,
        "step": kill.step,
        "amount": kill.amount,
        "left_half_done": half_done,
        "resumed_from": launch.starts(folder)[-1],
        "identical": identical,
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for where, processes in CASES:
        mine = [row for row in rows if (row["where"], row["processes"]) == (where, processes)]
        counts = {key: sum(row[key] for row in mine) for key in ("identical", "left_half_done")}
        found.append({"where": where, "processes": processes, "kills": len(mine)} | counts)
    return found


def main() -> None:
    flags = parsed(__doc__, {"trials": 100, "minutes": 60.0, "seed": 0, "out": RESULTS / "kill_training.json"})
    began, draw, rows = time.monotonic(), random.Random(flags.seed), []
    with tempfile.TemporaryDirectory() as place:
        undisturbed: dict[tuple[int, int], dict[str, Any]] = {}
        for processes, ballast in itertools.product((1, 2), (0, BALLAST)):
            folder = Path(place) / f"undisturbed-{processes}-{ballast}"
            launch.launch(folder, processes, ballast=ballast)
            undisturbed[processes, ballast] = launch.outcome(folder)
        for _, (where, processes) in itertools.product(range(flags.trials), CASES):
            row = None
            while row is None and time.monotonic() - began < 60 * flags.minutes:
                kill = drawn(where, processes, draw)
                expected = undisturbed[processes, BALLAST if where == "moment" else 0]
                row = trial(Path(place) / "killed", processes, kill, expected)
            if row is not None:
                rows.append(row)
                if not row["identical"]:
                    say(f"NOT identical: {row}")
    for line in summary(rows):
        say(f"{line['where']:7} {line['processes']} process(es): {line['identical']}/{line['kills']} identical")
    asked = {"trials": flags.trials, "minutes": flags.minutes, "seed": flags.seed}
    write_json(flags.out, conditions() | {"asked": asked, "summary": summary(rows), "rows": rows})


if __name__ == "__main__":
    main()
