"""What the trainings of this room share: batches that a resumed run finds again, a running average, checkpoints.

    batch k = rows pi_e[jB : (j+1)B],   e, j = divmod(k, floor(N / B)),   pi_e the permutation of epoch e

symbol   meaning                                                  unit
N, B     samples, and those of a batch over all processes         1
k        number of the batch since the run began                  1

The permutation follows from seed and epoch, so that no position has to be saved. Of a batch, rank r of W processes has
every W-th row from the r-th.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, Sampler

from pushforward._checks import check_count, check_finite
from pushforward._typed import check_folder, check_tensor
from pushforward.errors import InvalidArgument, NonFiniteError, ShapeError
from pushforward.training import latest
from pushforward.training.distributed import is_main, rank, world_size
from pushforward.training.random import generator
from pushforward.training.resume import fingerprint

__all__ = [
    "Batch",
    "Batches",
    "Data",
    "Pace",
    "average_of",
    "check_run",
    "classes_in",
    "data_settings",
    "descend",
    "each",
    "moved",
    "tensors_in",
    "unpacked",
]

Batch = Tensor | tuple[Tensor, Any] | list[Any]
Data = Tensor | tuple[Tensor, Tensor | dict[str, Any]] | Dataset[Any]


def check_run(data: Any, *, out: str | Path, batch_size: int, workers: int) -> None:
    """Raise where no run can have these settings, before it begins; of the data, only shapes and types are checked.

    Raises:
        InvalidArgument, ShapeError: As `Batches`, or `out` can be no folder.
    """
    _counted(data, batch_size)
    check_count("workers", workers, least=0)
    check_folder("out", out)


class Batches:
    """The batches of a run on this process, from any number on.

    Args:
        data: Samples (N, ...); or a pair of them with their conditions, (N, ...) or a dict of such; or a map-style
            dataset of samples, or of (sample, condition).
        batch_size: B, the samples of a batch over all processes.
        seed: The seed of the order.
        workers: Processes that load a dataset; tensors need none.

    Raises:
        InvalidArgument: Fewer samples than a batch, or a batch that does not divide among the processes.
        ShapeError, NonFiniteError: Samples that are no floating tensor, conditions of another number, NaN.

    Example:
        >>> batches = Batches(torch.arange(6.0)[:, None], batch_size=2, seed=0)
        >>> first, second = (batch for batch, _ in zip(batches.since(0), range(2)))
        >>> bool((next(batches.since(1)) == second).all())
        True
    """

    def __init__(self, data: Data, *, batch_size: int, seed: int, workers: int = 0) -> None:
        self._data, self._seed, self._workers = data, seed, workers
        self._count, self.batch_size = _counted(data, batch_size), batch_size
        _check_finite(data)
        if batch_size % world_size():
            raise InvalidArgument(f"batch_size is {batch_size}, which {world_size()} processes cannot share evenly")

    def since(self, first: int) -> Iterator[Batch]:
        """Iterate over the batches with the numbers `first`, `first` + 1, ... without end."""
        order = _Order(self._count, self.batch_size, self._seed, first)
        if isinstance(self._data, Tensor):
            yield from (self._data[rows] for rows in order)
        elif isinstance(self._data, tuple):
            samples, conditions = self._data
            yield from ((samples[rows], each(conditions, lambda part, rows=rows: part[rows])) for rows in order)
        else:
            # A generator of its own: the loader would draw from the global one whenever it is made.
            loader = DataLoader(
                self._data, batch_sampler=order, num_workers=self._workers, generator=generator(self._seed, "loader")
            )
            yield from loader


def unpacked(batch: Any) -> tuple[Tensor, Any]:
    """The samples of a batch and their condition, which is None where there is none."""
    if isinstance(batch, Tensor):
        return batch, None
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not isinstance(batch[0], Tensor):
        raise ShapeError("batch must be a tensor of samples, or a pair (samples, condition)")
    return batch[0], batch[1]


def classes_in(data: Data) -> tuple[int, ...] | None:
    """The classes among a run's conditions, sorted; () without conditions, None where they are not labels in memory.

    Example:
        >>> classes_in((torch.zeros(4, 2), torch.tensor([3, 1, 1, 3])))
        (1, 3)
    """
    if isinstance(data, Tensor):
        return ()
    condition = data[1] if isinstance(data, tuple) else None
    if not isinstance(condition, Tensor) or condition.ndim != 1 or condition.is_floating_point():
        return None
    return tuple(condition.unique().tolist())


class Pace:
    """Reports once, after the first batches, how long a batch takes.

    Args:
        say: Called with the seconds of a batch; None to report nothing.
    """

    # The first is slow: memory is taken, kernels are chosen.
    _FIRST, _LAST = 1, 4

    def __init__(self, say: Callable[[float], None] | None) -> None:
        self._say, self._count, self._began = say, 0, 0.0

    def batch(self) -> None:
        """Count a batch. Call it before the batch's work."""
        if self._count == self._FIRST:
            self._began = time.perf_counter()
        if self._count == self._LAST and self._say is not None and is_main():
            self._say((time.perf_counter() - self._began) / (self._LAST - self._FIRST))
        self._count += 1


def moved(condition: Any, device: torch.device) -> Any:
    """A condition on another device: a tensor, or a dict or list that holds tensors; anything else unchanged."""
    return each(condition, lambda tensor: tensor.to(device))


def average_of(module: nn.Module, decay: float) -> AveragedModel:
    """A running average of a module's parameters, m <- b m + (1 - b) theta, with b = min(decay, (1 + k) / (10 + k)).

    The first update copies the parameters. b is small at first (k counts the updates after that), so that the start is
    soon forgotten.
    """

    def update(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        return average.lerp(current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return AveragedModel(module, avg_fn=update).requires_grad_(False)


def descend(loss: Tensor, optimiser: torch.optim.Optimizer, *, clip: float, loss_name: str, folder: Path) -> Tensor:
    """One step of an optimiser down a loss.

    Args:
        loss: The loss, ().
        optimiser: The optimiser of the trained parameters.
        clip: The gradient's largest length; a longer one is scaled down to it.
        loss_name: The loss's name and step, for the error.
        folder: The run's folder.

    Returns:
        The gradient's length before it was clipped, ().

    Raises:
        NonFiniteError: The gradient is not finite. The weights are unchanged, and the message names the last
            checkpoint.
    """
    optimiser.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_([weight for group in optimiser.param_groups for weight in group["params"]], clip)
    # After the processes' average, so that all of them stop, and before the weights are touched.
    if not bool(torch.isfinite(norm)):
        kept = latest(folder)
        raise NonFiniteError(
            f"the gradient of {loss_name} is {float(norm)}; "
            + (f"the last good checkpoint is {kept}" if kept else "there is no checkpoint yet")
            + ": lower learning_rate, compute in float32, or look for samples that are not finite"
        )
    optimiser.step()
    return norm.detach()


def data_settings(data: Data, first: Batch) -> Any:
    """What tells a run's data from others, as `fingerprint` gives it.

    Args:
        data: The data. Tensors count whole.
        first: This process's first batch, which stands for a dataset, with its length.
    """
    if isinstance(data, Tensor | tuple):
        return fingerprint(data)
    return fingerprint([data, len(data), first])  # pyright: ignore[reportArgumentType]  a map-style one has a length


class _Order(Sampler[list[int]]):
    def __init__(self, count: int, batch_size: int, seed: int, first: int) -> None:
        self._count, self._batch_size, self._seed, self._first = count, batch_size, seed, first

    def __iter__(self) -> Iterator[list[int]]:
        known, order = -1, torch.empty(0)
        for number in itertools.count(self._first):
            epoch, position = divmod(number, self._count // self._batch_size)
            if epoch != known:
                known = epoch
                order = torch.randperm(self._count, generator=generator(self._seed, f"order of epoch {epoch}"))
            rows = order[position * self._batch_size : (position + 1) * self._batch_size]
            yield rows[rank() :: world_size()].tolist()


def _counted(data: Any, batch_size: int) -> int:
    """The number of samples in data of any allowed kind, at least a batch of them."""
    if isinstance(data, Tensor) or (isinstance(data, tuple) and len(data) == 2):
        samples, conditions = (data, None) if isinstance(data, Tensor) else data
        _check_samples(samples)
        _check_conditions(conditions, len(samples))
        count = len(samples)
    else:
        count = len(_dataset(data))
    if check_count("batch_size", batch_size) > count:
        raise InvalidArgument(f"batch_size is {batch_size} but data has {count} samples; ask for as many at most")
    return count


def _dataset(data: Any) -> Any:
    """A map-style dataset, by whether it has a length and by its first sample."""
    mapped = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if not mapped or isinstance(data, str | bytes | Mapping | np.ndarray | type):
        raise InvalidArgument(
            f"data is a {type(data).__name__}; a tensor, a pair (samples, conditions), or a map-style dataset is needed"
        )
    if len(data):
        sample = data[0]
        sample = sample[0] if isinstance(sample, tuple | list) and len(sample) else sample
        _check_samples(sample[None] if isinstance(sample, Tensor) else sample)
    return data


def _check_finite(data: Any) -> None:
    """Raise where tensors of data hold NaN or an infinity."""
    if isinstance(data, Tensor | tuple):
        samples, conditions = (data, None) if isinstance(data, Tensor) else data
        check_finite("data", samples)
        for name, part in tensors_in("conditions", conditions):
            check_finite(name, part)


def each(condition: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A condition with `change` applied to each of its tensors: to a tensor, or within a dict or list."""
    if isinstance(condition, Tensor):
        return change(condition)
    if isinstance(condition, Mapping):
        return {name: each(part, change) for name, part in condition.items()}
    if isinstance(condition, list | tuple):
        return type(condition)(each(part, change) for part in condition)
    return condition


def tensors_in(name: str, condition: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a condition, or of a dict of conditions, with their names."""
    if isinstance(condition, Mapping):
        return [found for key, part in condition.items() for found in tensors_in(f"{name}[{key!r}]", part)]
    return [(name, condition)] if isinstance(condition, Tensor) else []


def _check_conditions(conditions: Any, count: int, name: str = "conditions") -> None:
    """Raise where conditions are not one for each sample."""
    if isinstance(conditions, Mapping):
        for key, part in conditions.items():
            _check_conditions(part, count, f"conditions[{key!r}]")
    elif isinstance(conditions, Tensor):
        if conditions.ndim == 0 or len(conditions) != count:
            found = len(conditions) if conditions.ndim else 1
            what = "conditions" if name == "conditions" else f"entries of {name}"
            raise ShapeError(f"data has {count} samples but {found} {what}; one each is needed")
    elif conditions is not None:
        raise InvalidArgument(f"data: {name} are a {type(conditions).__name__}; a tensor or a dict of them is needed")


def _check_samples(samples: Any) -> None:
    if not isinstance(samples, Tensor) or samples.ndim < 2 or not samples.is_floating_point():
        what = f"{tuple(samples.shape)}, {samples.dtype}" if isinstance(samples, Tensor) else type(samples).__name__
        raise ShapeError(f"data: samples are {what}; a floating tensor (N, ...) is needed, images as x / 127.5 - 1")
    if check_tensor("data", samples).layout is not torch.strided:
        raise InvalidArgument("data: samples are a sparse tensor; a dense one is needed")
