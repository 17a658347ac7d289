"""How much memory is free, as systems say it, and what is promised of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pushforward as pf
from pushforward.errors import TooLargeError
from pushforward.ot.geometry.dense import DenseKernel
from pushforward.ot.geometry.points import PointGeometry, StreamedKernel
from pushforward.ot.memory import UNKNOWN, available_memory

CPU = torch.device("cpu")
GIB = 1 << 30


def system(root: Path, files: dict[str, str]) -> int:
    """What is free in a system whose files say this."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return available_memory(CPU, root)


MACHINE = {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   16777216 kB\n"}


def test_a_machine_without_limits(tmp_path):
    assert system(tmp_path, MACHINE) == 16 * GIB
    assert available_memory(CPU, tmp_path / "nothing there") == UNKNOWN


def test_a_container_of_version_2(tmp_path):
    """Inside, its group is the top; what is a cache of files counts as free."""
    group = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
    }
    assert system(tmp_path, MACHINE | group) == GIB + GIB // 2
    assert system(tmp_path, {"sys/fs/cgroup/memory.max": "max\n"}) == 16 * GIB


def test_the_groups_above_count(tmp_path):
    group = {
        "proc/self/cgroup": "0::/user.slice/job\n",
        "sys/fs/cgroup/user.slice/job/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/job/memory.current": "7\n",
        "sys/fs/cgroup/user.slice/memory.max": f"{2 * GIB}\n",
        "sys/fs/cgroup/user.slice/memory.current": f"{GIB}\n",
    }
    assert system(tmp_path, MACHINE | group) == GIB


@pytest.mark.parametrize("path", ["", "docker/abc"])
def test_a_container_of_version_1(tmp_path, path: str):
    """Its path may be that outside of the container, where nothing is mounted."""
    here = f"sys/fs/cgroup/memory/{path}/" if path else "sys/fs/cgroup/memory/"
    group = {
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n",
        here + "memory.limit_in_bytes": f"{GIB}\n",
        here + "memory.usage_in_bytes": f"{2 * GIB}\n",
        here + "memory.stat": f"total_inactive_file {GIB + 5}\n",
    }
    assert system(tmp_path, MACHINE | group) == 5


def test_the_limit_of_the_address_space(tmp_path):
    process = {"proc/self/limits": f"Max address space  {GIB}  {GIB}  bytes\n", "proc/self/statm": "1000 20 3\n"}
    assert system(tmp_path, MACHINE | process) == GIB - 4096 * 1000
    process["proc/self/limits"] = "Max address space  unlimited  unlimited  bytes\n"
    assert system(tmp_path, process) == 16 * GIB


def test_a_plan_between_many_points_is_held_where_memory_is_free(rng, monkeypatch):
    x, y = (torch.from_numpy(rng.random((size, 2))) for size in (50, 40))
    a, b = (torch.full((1, size), 1 / size, dtype=torch.float64) for size in (50, 40))
    g = torch.from_numpy(rng.random((1, 40)))
    monkeypatch.setattr("pushforward.ot.geometry.points.BLOCK", 200)
    held, f, cols = PointGeometry(x, y, "sqeuclidean").kernel(g, 0.3, a, b)
    monkeypatch.setattr("pushforward.ot.memory.available_memory", lambda device: 12 * 50 * 40)
    streamed, f_again, cols_again = PointGeometry(x, y, "sqeuclidean").kernel(g, 0.3, a, b)
    assert isinstance(held, DenseKernel)
    assert isinstance(streamed, StreamedKernel)
    torch.testing.assert_close(f, f_again, rtol=0, atol=1e-14)
    torch.testing.assert_close(cols, cols_again, rtol=1e-13, atol=0)
    torch.testing.assert_close(held.rows(b), streamed.rows(b), rtol=1e-12, atol=0)


def test_derivatives_that_do_not_fit_are_refused(rng, monkeypatch):
    monkeypatch.setattr("pushforward.ot.memory.available_memory", lambda device: 1000)
    x = torch.from_numpy(rng.random((20, 2))).requires_grad_()
    with pytest.raises(TooLargeError, match=r"\(20, 20\) would take 22,400 bytes and 1,000 are free; use fewer points"):
        pf.solve(pf.PointCost(x, x.detach() + 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dense_plan_takes_what_was_promised(dtype: str):
    """A few blocks of rows beside it, 20 MB in all whatever its size, and no second copy."""
    code = f"""
import threading, time
import torch
import pushforward as pf

def resident():
    with open("/proc/self/statm") as text:
        return 4096 * int(text.read().split()[1])

x, y = (torch.rand(n, 2, dtype=torch.{dtype}) for n in (3000, 4000))
plan = pf.solve(pf.PointCost(x, y), tol=1e-3).plan
pf.solve(pf.PointCost(x[:50], y[:40]), tol=1e-3).plan.to_dense()
before, most, done = resident(), [0], threading.Event()

def watch():
    while not done.is_set():
        most[0] = max(most[0], resident())
        time.sleep(1e-3)

watcher = threading.Thread(target=watch)
watcher.start()
dense = plan.to_dense()
done.set()
watcher.join()
print(max(most[0], resident()) - before - dense.numel() * dense.element_size())
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the system has no /proc")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 20e6
