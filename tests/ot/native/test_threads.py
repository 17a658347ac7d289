"""A system that has no threads left: the kernels do the same work with fewer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="limits of processes are POSIX's")

# Each case in a fork of its own, since a process that gave up its user cannot take it back. The limit counts a user's
# threads, this one's included; it does not hold for root, who becomes somebody without processes.
SCRIPT = """
import os, resource
import numpy as np
from pushforward.ot import _native

native = _native.kernels()
for batch, n in ((1, 600), (8, 500)):
    cost = np.random.default_rng(0).random((batch, n, n))
    def build(threads):
        g, f, cols, plan = *np.zeros((3, batch, n)), np.zeros((batch, n, n))
        native.build(cost, g, np.full((batch, n), 1 / n), 0.1, 1.0, np.zeros(batch), f, cols, plan, None, threads)
        return cols, plan
    alone = build(1)
    for room in (0, 1, 3):
        child = os.fork()
        if child == 0:
            if os.geteuid() == 0:
                os.setresuid(65533, 65533, 65533)
            resource.setrlimit(resource.RLIMIT_NPROC, (1 + room, 1 + room))
            os._exit(0 if all(np.allclose(x, y, rtol=1e-12, atol=0) for x, y in zip(build(8), alone)) else 7)
        print(batch, room, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_threads_that_cannot_be_made_are_done_without(compiled):
    del compiled
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split("\n")[:-1] == [f"{batch} {room} 0" for batch in (1, 8) for room in (0, 1, 3)]
