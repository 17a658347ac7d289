"""What each of two processes finds, written to a file of its own: see `test_gather.py`."""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pushforward.cli.main import main as run_command
from pushforward.errors import ShapeError
from pushforward.maps.costs import SquaredEuclidean
from pushforward.maps.linear import Affine
from pushforward.maps.monge import fitting
from pushforward.maps.monge.conditions import Group
from pushforward.maps.monge.networks import MapNetwork
from pushforward.maps.monge.objective import Objective
from pushforward.maps.monge.stages import MongeGap, Regression
from pushforward.training import distributed, latest, publishing


def network() -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def points(n: int) -> Tensor:
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


def loss_of(y: Tensor) -> Tensor:
    """No sum over rows: every pair of rows meets."""
    return (y[:, None] - y[None]).square().sum(-1).add(1).log().logsumexp((0, 1)) + y.prod(0).sum()


def gradients(model: nn.Module) -> list[list[float]]:
    return [p.grad.flatten().tolist() for p in model.parameters() if p.grad is not None]


def parallel_gradients(first: int, total: int) -> list[list[float]]:
    """Of the loss on `total` rows, of which rank 0 holds the first ones."""
    model, mine = DistributedDataParallel(network()), points(total).tensor_split([first])[distributed.rank()]
    loss_of(distributed.gather(model(mine))).backward()
    return gradients(model)


def what_is_said(call: Callable[[], Any]) -> str:
    try:
        call()
    except (ShapeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def second_derivative() -> None:
    x = torch.ones(2, 2, requires_grad=True)
    (first,) = torch.autograd.grad(distributed.gather(x).pow(3).sum(), x, create_graph=True)
    first.sum().backward()


def backward_of_an_expanded_gradient() -> list[list[float]]:
    x = torch.ones(2, 3, requires_grad=True)
    columns = x.T  # not contiguous
    (distributed.gather(columns).sum() * (distributed.rank() + 1)).backward()
    return x.grad.tolist()


def trained_map() -> dict[str, list[float]]:
    """Weights of a map's network after steps of plain descent, which move by the gradient itself, of either stage."""
    cost, x, y = SquaredEuclidean(), points(8), points(9)[1:] * 2.0 + 1.0
    settings: dict[str, Any] = {"batch_size": 8, "seed": 0, "steps": 4, "learning_rate": 0.1, "patience": 1}
    objective = Objective(cost=cost, fit_epsilon=0.5, gap_epsilon=0.5, weight=3.0, estimator="debiased")
    groups = [Group(name="all", x=x, y=y)]
    stages = {
        "gap": MongeGap(groups=groups, objectives=[objective], units=[1.0], symmetry=0.5, **settings),
        "entropic": Regression(points=x, targets=y, unit=1.0, conditions=None, **settings),
    }
    found: dict[str, list[float]] = {}
    for name, stage in stages.items():
        network = MapNetwork(
            form="structured",
            start=Affine(matrix=torch.eye(3), shift=torch.zeros(3)),
            drift=torch.zeros(3, 0),
            centre=torch.zeros(3),
            scale=1.0,
            cost=cost,
            hidden=(6,),
            generator=torch.Generator().manual_seed(0),
        ).double()
        run = fitting._Run(network=network, judge=None, checkpoints=None, progress=None)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        part = fitting._Part(run=run, index=0, stage=stage, optimiser=optimiser)
        for step in range(3):
            part.step(step)
        found[name] = torch.cat([weight.detach().flatten() for weight in network.parameters()]).tolist()
    return found


def save(folder: Path, step: int, trouble: Exception | None) -> dict[str, Any]:
    """Both ranks save; rank 1 has trouble."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            with publishing(folder, step) as draft:
                (draft / f"rank-{distributed.rank()}.txt").write_text(f"{step}")
                if trouble and distributed.rank() == 1:
                    raise trouble
            raised = ""
        except RuntimeError as error:
            raised = str(error)
    last = latest(folder)
    files = sorted(path.name for path in last.iterdir()) if last else []
    return {"raised": raised, "heard": [str(one.message) for one in heard], "last": last and last.name, "files": files}


def report(folder: Path) -> dict[str, Any]:
    r = distributed.rank()
    other_shape, other_need = torch.zeros(2, 3 + r), torch.zeros(2, 3, requires_grad=r == 0)
    return {
        "world": [r, distributed.world_size(), distributed.is_main()],
        "uneven": parallel_gradients(5, 7),
        "even": parallel_gradients(4, 8),
        "empty": parallel_gradients(6, 6),
        "integers": distributed.gather(torch.arange(3 * r, 3 * r + 2 + r)).tolist(),
        "booleans": distributed.gather(torch.tensor([r == 1] * (r + 1))).tolist(),
        "half": distributed.gather(torch.full((1, 2), 0.5 + r, dtype=torch.bfloat16)).tolist(),
        "nothing": list(distributed.gather(torch.zeros(0, 4)).shape),
        "sum of ranks": backward_of_an_expanded_gradient(),
        "map": trained_map(),
        "texts": distributed.gather_text("" if r else "größer"),
        "shape": what_is_said(lambda: distributed.gather(other_shape)),
        "need": what_is_said(lambda: distributed.gather(other_need)),
        "second": what_is_said(second_derivative),
        "saved": save(folder / "run", 1, None),
        "full disk": save(folder / "run", 2, OSError(errno.ENOSPC, "No space left on device")),
        "other error": save(folder / "run", 3, RuntimeError("a mistake")),
    }


def command(folder: Path, words: list[str]) -> None:
    """The command line, in a folder."""
    os.chdir(folder)
    sys.exit(run_command(words))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with distributed.setup() as device, distributed.setup():
        distributed.barrier()
        found = report(folder) | {"device": device.type}
    found["afterwards"] = distributed.world_size()
    (folder / f"{found['world'][0]}.json").write_text(json.dumps(found))
