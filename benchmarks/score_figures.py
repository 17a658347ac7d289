"""How each figure of the scoreboard is measured: a function a figure; `scoreboard.py` has the list."""

from __future__ import annotations

import json
import statistics
from typing import Any

from lib import RESULTS, ROOT, read
from score_reached import Reached, committed, run_python, source_of

CLOUD = """
import resource, sys, torch, pushforward as pf
torch.set_num_threads(1)
torch.manual_seed(0)
n, d = int(sys.argv[1]), int(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
x, y = torch.randn(n, d), torch.randn(n, d) + 1
solution = pf.solve(pf.PointCost(x, y), epsilon=0.2 * 2 * d, tol=1e-2, max_iterations=int(sys.argv[3]), throw=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, before * 1024, solution.status.name)
"""
LOSS = """
import resource, sys, torch
from pushforward.lm import KD
torch.set_num_threads(1)
rows, vocabulary = 256, 152_000
student, teacher = (torch.randn(rows, vocabulary).requires_grad_(k == 0) for k in range(2))
copy = student.numel() * 4
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
KD(sys.argv[1])(student, teacher).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / copy)
"""


def hostile_runs() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The summaries of `ot_hostile.py`, one a path of the code (compiled, torch), and where they were measured."""
    runs = read(RESULTS / "ot_hostile.json")["paths"]
    newest = max(runs.values(), key=lambda run: run["date"])
    return [{"path": name} | run["summary"] for name, run in runs.items()], source_of(newest, "ot_hostile")


def of_hostile(key: str) -> Reached:
    """How often something that must not happen did, on each path."""
    summaries, source = hostile_runs()
    text = "; ".join(f"{s[key]} of {s['problems']:,} ({s['path']})" for s in summaries)
    return Reached(text=text, met=all(s[key] == 0 for s in summaries), **source)


def hopeless_admitted() -> Reached:
    summaries, source = hostile_runs()
    counts = [(s["hopeless problems admitted"], s["hopeless problems"], s["path"]) for s in summaries]
    text = "; ".join(f"{admitted:,} of {all_of:,} ({path})" for admitted, all_of, path in counts)
    return Reached(text=text, met=all(admitted == all_of for admitted, all_of, _ in counts), **source)


def bad_inputs() -> Reached:
    code = (
        "import json, sys; sys.path.insert(0, 'tests'); from robustness import table; print(json.dumps(table.count()))"
    )
    last = run_python("-c", code, check=True).stdout.splitlines()[-1]
    good, total, failures = json.loads(last.replace(f"{ROOT}/", ""))
    return Reached(
        text=f"{good:,} of {total:,}, {100 * good / total:.1f} %",
        met=good == total,
        command="PYTHONPATH=tests python -m robustness.table",
        details=failures or None,
    )


def closed_forms() -> Reached:
    import numpy as np
    import torch

    import pushforward as pf

    rng, worst = np.random.default_rng(0), {torch.float64: 0.0, torch.float32: 0.0}
    for dtype in worst:

        def found(value: Any, truth: float, dtype: torch.dtype = dtype) -> None:
            worst[dtype] = max(worst[dtype], abs(float(value) - truth) / abs(truth))

        def of(array: Any, dtype: torch.dtype = dtype) -> torch.Tensor:
            return torch.tensor(np.asarray(array), dtype=dtype)

        for _ in range(100):
            epsilon = 10 ** rng.uniform(-2, 1)
            # One atom against many has one plan; its entropy is 0.
            cost, weights = 0.1 + rng.random((1, 9)), rng.dirichlet(np.ones(9))
            found(pf.solve(of(cost), None, of(weights), epsilon=epsilon).value, float((cost @ weights)[0]))
            # Two by two: t / (1/2 - t) = exp(1 / epsilon).
            t = 0.5 / (1 + np.exp(-1 / epsilon))
            entropy = sum(2 * p * np.log(4 * p) for p in (t, 0.5 - t) if p > 0)
            found(pf.solve(of([[1, 2], [2, 1]]), epsilon=epsilon).value, 1 + 2 * (0.5 - t) + epsilon * entropy)
            # A translation's divergence is its square.
            x, shift = rng.normal(size=(12, 3)), rng.normal(size=3)
            found(pf.sinkhorn_divergence(of(x), of(x + shift), epsilon=epsilon, tol=1e-12), float(shift @ shift))
            # On the line the exact plan is the monotone one.
            x, y = np.sort(rng.normal(size=15)), np.sort(rng.normal(size=15))
            found(pf.exact(pf.PointCost(of(x[:, None]), of(y[:, None]))).cost, float(((x - y) ** 2).mean()))
    double, single = worst.values()
    return Reached(text=f"{double:.1e} / {single:.1e}", met=double <= 1e-8 and single <= 1e-4)


def references() -> Reached:
    import importlib.util

    import numpy as np
    import ot

    import pushforward as pf

    rng, limit, same = np.random.default_rng(0), 0.0, 0.0
    for _ in range(20):
        x, y = rng.normal(size=(40, 3)), rng.normal(size=(50, 3)) + 1
        cost, a, b = ot.dist(x, y), rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(50))
        exact = ot.emd2(a, b, cost)
        found = pf.solve(cost, a, b, epsilon=1e-4 * cost.mean()).transport_cost
        limit = max(limit, abs(found - exact) / exact)
    if importlib.util.find_spec("ott") is None:
        return Reached(text=f"{limit:.1e} / OTT is not installed", met=None)
    import jax

    jax.config.update("jax_enable_x64", val=True)
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    for epsilon in (0.05, 0.5):
        cost = rng.random((40, 50))
        a, b = rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(50))
        problem = linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=epsilon), a, b)
        theirs = sinkhorn.Sinkhorn(threshold=1e-12, max_iterations=100_000)(problem)
        ours = pf.solve(cost, a, b, epsilon=epsilon, tol=1e-12).value
        same = max(same, abs(ours - float(theirs.reg_ot_cost)) / abs(ours))
    return Reached(text=f"{limit:.1e} / {same:.1e}", met=bool(limit <= 1e-3 and same <= 1e-6))


def divergences() -> Reached:
    import torch

    from pushforward.divergences import CATALOGUE

    generator, worst = torch.Generator().manual_seed(0), 0.0
    for divergence in CATALOGUE.values():
        log_p, log_q = (torch.randn(64, 9, dtype=torch.float64, generator=generator).log_softmax(-1) for _ in range(2))
        definition = (log_q.exp() * divergence.f(log_p - log_q)).sum(-1)
        worst = max(worst, float((divergence.between(log_p, log_q) - definition).abs().max()))
        if not divergence.smooth:
            continue
        r = torch.linspace(-5, 5, 41, dtype=torch.float64).exp().requires_grad_()
        (first,) = torch.autograd.grad(divergence.f(r.log()).sum(), r, create_graph=True)
        second = torch.autograd.grad(first.sum(), r)[0]
        expected = (r.square() * second).detach()
        off = (divergence.weight(r.detach().log()) - expected).abs() / (1 + expected.abs() + r.detach())
        worst = max(worst, float(off.max()))
    return Reached(text=f"{worst:.1e}", met=worst <= 1e-12)


def half_precision_logits() -> Reached:
    import torch

    from pushforward.lm import KD

    generator, worst, finite = torch.Generator().manual_seed(0), 0.0, True
    for name in ("kl", "reverse_kl", "js"):
        student, teacher = (4 * torch.randn(8, 152_000, generator=generator).bfloat16() for _ in range(2))
        loss = KD(name)
        half, whole = (student.to(t).requires_grad_() for t in (torch.bfloat16, torch.float64))
        low, high = loss(half, teacher), loss(whole, teacher.double())
        low.backward()
        finite &= bool(torch.isfinite(half.grad).all() and torch.isfinite(low))
        worst = max(worst, float((low.detach().double() / high.detach() - 1).abs()))
    return Reached(text=f"{worst:.1e}; {'none' if finite else 'NaN'}", met=worst <= 1e-2 and finite)


def peak_memory() -> Reached:
    peak, before, status = run_python("-c", CLOUD, 100_000, 64, 3, check=True).stdout.split()
    text = f"{int(peak) / 1e9:.2f} GB of which {int(before) / 1e9:.2f} are torch's ({status.lower()} after 3 steps)"
    return Reached(text=text, met=int(peak) <= 2e9)


def memory_growth() -> Reached:
    taken = []
    for n in (25_000, 50_000):
        peak, before, _ = run_python("-c", CLOUD, n, 64, 3, check=True).stdout.split()
        taken.append(int(peak) - int(before))
    return Reached(text=f"{taken[1] / taken[0]:.2f}x", met=taken[1] <= 2.2 * taken[0], details=taken)


def loss_memory() -> Reached:
    found = {name: float(run_python("-c", LOSS, name, check=True).stdout.split()[-1]) for name in ("kl", "js")}
    return Reached(text=", ".join(f"{v:.1f}x" for v in found.values()), met=max(found.values()) <= 1.3, details=found)


def kills(*where: str) -> Reached:
    result, source = committed("kill_training")
    rows = [row for row in result["summary"] if row["where"] in where]
    kills, identical = (sum(row[key] for row in rows) for key in ("kills", "identical"))
    return Reached(text=f"{identical} of {kills}", met=identical == kills, **source)


def first_use() -> Reached:
    def seconds(source: str) -> float:
        clock = f"import time; began = time.perf_counter(); {source}; print(time.perf_counter() - began)"
        return statistics.median(float(run_python("-c", clock, check=True).stdout.split()[-1]) for _ in range(5))

    over = seconds("import torch, pushforward; pushforward.solve") - seconds("import torch")
    command = "[sys.executable, '-m', 'pushforward.cli.main', '--help']"
    helped = seconds(f"import subprocess, sys; subprocess.run({command}, capture_output=True)")
    first = seconds("import numpy, pushforward; pushforward.solve(numpy.random.rand(500, 500), epsilon=1e-3)")
    text = f"{over:.2f} s; {helped:.2f} s; {first:.1f} s"
    return Reached(text=text, met=over <= 0.2 and helped <= 0.7 and first <= 60)


def exact_in_rationals() -> Reached:
    result, source = committed("exact_rationals")
    faults = sum(result["faults"].values())
    return Reached(text=f"{faults} of {result['problems']:,}", met=faults == 0, details=result["faults"], **source)


def tables_read_wrong() -> Reached:
    done = run_python("tests/cli/table_kinds.py")
    lines = done.stdout.splitlines()
    command = "python tests/cli/table_kinds.py"
    return Reached(text=lines[-1], met=done.returncode == 0, command=command, details=lines[:-1] or None)
