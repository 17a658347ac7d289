"""Starts runs as processes of their own, quickly: each is forked from one process that has loaded all they need."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from resume import tiny_training
from resume.tiny_training import Kill

from pushforward.training import read_log

_FORKS = multiprocessing.get_context("forkserver")
# Loading takes longer than any of the runs. There is one such process a pytest process, whichever test is the first.
# torch loads _dynamo (and sympy with it) at an optimiser's first step.
_FORKS.set_forkserver_preload(
    ["torch._dynamo", "torch.nn.parallel", "torch.optim.swa_utils", "pushforward.training", "pushforward.maps"]
    + ["pushforward.diffusion", "transformers.models.bert.modeling_bert", "pushforward.lm.trainer", "sklearn.cluster"]
)


def launch(folder: Path, processes: int = 1, kill: Kill | None = None, ballast: int = 0) -> list[int | None]:
    """Train the tiny run until the end or a kill; see `run_ranks`."""
    return run_ranks(processes, tiny_training.train, folder, kill, ballast)


def run_ranks(
    processes: int, target: Callable[..., None], *arguments: Any, printed: Path | None = None
) -> list[int | None]:
    """Call `target` in so many ranks.

    When one process dies the others are killed, too, as a launcher does. What they print goes to `printed`, a folder,
    as rank-0.out, rank-0.err and so on, or nowhere.

    Returns:
        How each process ended: 0, or -9 for SIGKILL.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        _FORKS.Process(target=_one, args=(rank, processes, port, target, arguments, printed))
        for rank in range(processes)
    ]
    for process in ranks:
        process.start()
    running = list(ranks)
    while running:
        ended = wait([process.sentinel for process in running], timeout=120)
        for process in running:
            process.join(0)
        if not ended or any(process.exitcode for process in running):
            for process in ranks:
                process.kill()
                process.join()
        running = [process for process in running if process.exitcode is None]
    return [process.exitcode for process in ranks]


def outcome(folder: Path) -> dict[str, Any]:
    """All that two runs must agree in: the curve, and every byte of the last checkpoint."""
    last = folder / f"step-{tiny_training.STEPS}" / "manifest.json"
    return {"curve": read_log(folder / "log.jsonl"), "files": json.loads(last.read_text())["files"]}


def starts(folder: Path) -> list[int]:
    """The steps from which the run was started, the first time from 0."""
    return [int(line) for line in (folder / "starts.txt").read_text().split()]


def _one(
    rank: int,
    processes: int,
    port: int,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
    printed: Path | None,
) -> None:
    if processes > 1:  # what torchrun sets
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # A rank whose peer was killed says so at length.
    out, err = (printed / f"rank-{rank}.{end}" if printed else Path(os.devnull) for end in ("out", "err"))
    sys.stdout, sys.stderr = out.open("w"), err.open("w")
    target(*arguments)
