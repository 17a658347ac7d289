"""The settings at which OTT-JAX's Monge gap is at its best: a search on each pair, judged by the true error.

    python benchmarks/maps_tune.py [--pairs NAME ...] [--steps 400]

Every candidate of `maps_peers.TRIED` trains for `--steps` steps and is judged on the test points: by L2-UVP where the
map is known, by W2^2 plus the exact gap where it is not. Nobody who fits a map could choose like this: it favours the
peer. Pairs that are not searched take the settings of the nearest one, see BORROWED. Writes maps_peer_settings.json
after every trial; one that is there is not run again.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lib import conditions, in_own_process, parsed, read, say, write_json
from maps_peers import CHOSEN, TRIED, OttSettings, ott_monge_gap
from maps_problems import BATCH, EXACT, load

SEARCHED = ("gaussian-32", "w2-16", "mixture")
BORROWED = {"w2-2": "mixture", "w2-64": "w2-16"}


def trial(pair: str, settings: dict[str, Any], steps: int) -> dict[str, Any]:
    """One candidate's error. Runs in its own process."""
    from pushforward.metrics import judge_map

    points = load(pair, 0)
    transform, seconds = ott_monge_gap(
        points.x, points.y, settings=OttSettings(**settings), steps=steps, batch_size=BATCH, seed=0
    )
    report = judge_map(
        points.x_test, transform(points.x_test), points.y_test, true=points.true, variance=points.variance,
        other=points.y_other, points=EXACT,
    )  # fmt: skip
    error = report.w2 + report.exact_gap if report.l2_uvp is None else report.l2_uvp
    return {"status": "ok", "error": error, "seconds": seconds, "figures": report.figures()}


def main() -> None:
    arguments = parsed(__doc__, {"pairs": SEARCHED, "steps": 400, "limit": 900.0})
    found = {"chosen": {}, "trials": []} | read(CHOSEN)
    found |= conditions() | {"steps": arguments.steps, "batch_size": BATCH}
    for pair in arguments.pairs:
        rows = [row for row in found["trials"] if row["pair"] == pair]
        for settings in map(asdict, TRIED):
            if any(row["settings"] == settings for row in rows):
                continue
            row = in_own_process(trial, pair, settings, arguments.steps, wall_limit=arguments.limit)
            rows.append({"pair": pair, "settings": settings} | row)
            say(f"{pair:12} {settings} {row['status']} error {row.get('error')} in {row.get('seconds')} s")
            found["trials"] = [row for row in found["trials"] if row["pair"] != pair] + rows
            best = min((row for row in rows if row["status"] == "ok"), key=lambda row: row["error"])
            borrowers = [name for name, lender in BORROWED.items() if lender == pair]
            found["chosen"] |= dict.fromkeys([pair, *borrowers], best["settings"])
            write_json(CHOSEN, found)


if __name__ == "__main__":
    main()
