"""Teachers: denoisers, which estimate the clean data from noised data. `exact` has those without a network.

    x0(x_t, t) = E[x_0 | x_t],     grad log p_t(x_t) = (alpha x0(x_t, t) - x_t) / sigma^2

symbol       meaning                                            shape
x_t          noised data                                        (B, ...)
t            its times                                          () or (B,)
condition    labels, embeddings: whatever the network takes     its own

Nothing here stops a gradient or freezes a parameter: a discriminator on a teacher's features sends its gradient through
the teacher, and a student's own denoiser is the same class. Whoever owns a teacher freezes it.

Sources: Karras et al. 2022 (EDM, arXiv 2206.00364), Table 1 and appendix B.3; Ho and Salimans 2022 (arXiv 2207.12598).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Generator as Suspended
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from pushforward._checks import check_choice, check_instance, check_positive, check_real, check_returned
from pushforward._typed import typed, typed_fields
from pushforward.diffusion.processes import Prediction, Process, RectifiedFlow, VarianceExploding, check_times
from pushforward.errors import InvalidArgument, ShapeError

__all__ = [
    "Denoiser",
    "Guided",
    "Preconditioned",
    "Teacher",
    "from_callable",
    "from_diffusers",
    "from_edm",
    "from_velocity",
    "in_precision",
]


# Bytes of a number in single precision.
_SINGLE = 4


@runtime_checkable
class Teacher(Protocol):
    """What every teacher has: a noising process and a denoiser."""

    @property
    def process(self) -> Process:
        """The process whose noise the teacher removes."""
        ...

    def x0(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """E[x_0 | x_t], differentiable in x_t.

        Args:
            x_t: Noised data, (B, ...).
            t: Its times, () or (B,).
            condition: Its condition, as the network takes it.

        Returns:
            Like x_t.
        """
        ...


class Denoiser(nn.Module):
    """A network, or any function, with its process and the kind of its prediction.

    Args:
        network: Called as network(x_t, t) with times (B,), or as network(x_t, t, condition) where there is a condition.
        process: The process whose noise it was trained on.
        predicts: The kind of its output: "x0", "eps", "v", "flow" or "score" (`pushforward.diffusion.processes`).

    Attributes:
        labels: The classes that it was trained on; () for none; None where they are unknown or its conditions are no
            classes.

    Example:
        >>> teacher = Denoiser(lambda x_t, t: torch.zeros_like(x_t), RectifiedFlow(), predicts="flow")
        >>> teacher.x0(torch.ones(2, 3), torch.tensor(0.5)).shape
        torch.Size([2, 3])
    """

    @typed
    def __init__(self, network: Callable[..., Tensor], process: Process, *, predicts: Prediction = "x0") -> None:
        super().__init__()
        if not callable(network):
            raise InvalidArgument(f"network is a {type(network).__name__}; a module or function of (x_t, t) is needed")
        self.network = network
        self.process = check_instance("process", process, Process)
        check_choice("predicts", predicts, get_args(Prediction))
        self.predicts: Prediction = predicts
        self.labels: tuple[int, ...] | None = None

    @typed
    def x0(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """E[x_0 | x_t], from the network's prediction.

        Args:
            x_t: Noised data, (B, ...).
            t: Its times, () or (B,).
            condition: Its condition, as the network takes it.

        Returns:
            Like x_t.

        Raises:
            ShapeError: t is neither one time nor one for each sample, or the network's prediction is not like x_t.
        """
        t = check_times(t, x_t)
        given = () if condition is None else (condition,)
        value = _asked(self.network, x_t, t, *given)
        value = check_returned("network", value, tuple(x_t.shape))
        return self.process.convert(value, x_t, t, given=self.predicts, wanted="x0")

    forward = x0  # DistributedDataParallel wraps nothing else

    def features(self, x_t: Tensor, t: Tensor, condition: Any = None, *, taps: Sequence[str]) -> dict[str, Tensor]:
        """The outputs of submodules of the network at x_t, differentiable in x_t.

        The network's pass ends at the last of them.

        Args:
            x_t, t, condition: As in `x0`.
            taps: Names of submodules as in `network.named_modules()`.

        Returns:
            The outputs by the submodules' names.

        Raises:
            InvalidArgument: The network is a plain function, or has no such submodule, or never calls it, or its output
                is no tensor.
        """
        with self._tapped(taps) as kept, suppress(_AllThere):
            kept.end_pass = True
            self.x0(x_t, t, condition)
        return kept.checked()

    @typed
    def x0_and_features(
        self, x_t: Tensor, t: Tensor, condition: Any = None, *, taps: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`x0` and `features` from one pass of the network.

        Args:
            x_t, t, condition: As in `x0`.
            taps: Names of submodules as in `network.named_modules()`.

        Returns:
            x0, like x_t, and the outputs by the submodules' names.
        """
        with self._tapped(taps) as kept:
            x0 = self.x0(x_t, t, condition)
        return x0, kept.checked()

    @contextmanager
    def _tapped(self, taps: Sequence[str]) -> Suspended[_Taps, None, None]:
        kept = _Taps(taps)
        modules = {name: submodule(self.network, name) for name in taps}
        with ExitStack() as hooks:
            for name, module in modules.items():
                hooks.enter_context(module.register_forward_hook(partial(kept.keep, name)))
            yield kept


def submodule(network: Any, name: str) -> nn.Module:
    """The module of this name within a network, whose output is a feature.

    Raises:
        InvalidArgument: There is none, or the network is a plain function.
    """
    modules = dict(network.named_modules()) if isinstance(network, nn.Module) else {}
    if name not in modules:
        known = ", ".join(repr(known) for known in list(modules)[1:9])
        raise InvalidArgument(
            f"taps: the network has no submodule {name!r}; it has {known}{', ...' if len(modules) > 9 else ''}"
            if modules
            else "taps: the network is a plain function and has no submodules; only an nn.Module has features"
        )
    return modules[name]


@typed
def from_callable(network: Callable[..., Tensor], process: Process, *, predicts: Prediction = "x0") -> Denoiser:
    """A teacher from any network or function; the same as `Denoiser`.

    Args:
        network, process, predicts: As in `Denoiser`.

    Returns:
        The teacher.
    """
    return Denoiser(network, process, predicts=predicts)


def from_diffusers(model: nn.Module | str | Path, scheduler: Any = None) -> Denoiser:
    """A teacher from a model of diffusers, or from the folder of its pipeline: see `adapters.from_diffusers`.

    Args:
        model, scheduler: As in `adapters.from_diffusers`.

    Returns:
        The teacher.
    """
    from pushforward.diffusion import adapters

    return adapters.from_diffusers(model, scheduler)


@typed
def from_velocity(network: Callable[..., Tensor], process: RectifiedFlow) -> Denoiser:
    """A teacher from a flow-matching network v(x_t, t) = E[eps - x_0 | x_t], t = 1 pure noise.

    Where t = 1 is the data, as in part of the literature, give `lambda x, t: -network(x, 1 - t)`; where the network's
    time counts to 1000, multiply it.

    Args:
        network: As in `Denoiser`.
        process: `RectifiedFlow`, with the shift that the network was trained with.

    Returns:
        The teacher.
    """
    return Denoiser(network, check_instance("process", process, RectifiedFlow), predicts="flow")


@typed
def from_edm(network: nn.Module, process: VarianceExploding | None = None, *, sigma_data: float = 0.5) -> Denoiser:
    """A teacher from EDM's raw network F, preconditioned so that input and target have variance 1 at every noise.

        D(x; sigma) = c_skip x + c_out F(c_in x, log(sigma) / 4)

    A network that contains the preconditioning, as the `EDMPrecond` of EDM's authors, predicts "x0": give it to
    `from_callable`.

    Args:
        network: F, called with the scaled data, the times log(sigma) / 4, and the condition where there is one.
        process: `VarianceExploding()` if None.
        sigma_data: Standard deviation of the data.

    Returns:
        The teacher.

    Source: EDM, Table 1.
    """
    process = VarianceExploding() if process is None else check_instance("process", process, VarianceExploding)
    return Denoiser(Preconditioned(network, sigma_data), process)


@typed_fields
@dataclass(frozen=True, kw_only=True, slots=True)
class Guided:
    """Classifier-free guidance: x0(null) + scale (x0(condition) - x0(null)).

    It is the same in x0, eps, v, flow and score, since each is an affine function of the others.

    Args:
        teacher: A teacher that was trained on the condition and on the null.
        scale: 1 is the condition alone, 0 the null; more than 1 is guidance.
        null: The condition that stands for none: None, an empty prompt's embedding, the label that was trained as
            "no label", or a dict of such. One of it is enough, with or without an axis for the batch.

    Raises:
        InvalidArgument: The scale is not finite.
    """

    teacher: Teacher
    scale: float
    null: Any = None

    def __post_init__(self) -> None:
        check_instance("teacher", self.teacher, Teacher)
        check_real("scale", self.scale, allow_inf=False)

    @property
    def process(self) -> Process:
        """The process of the guided teacher."""
        return self.teacher.process

    @typed
    def x0(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """The guided prediction; the null's where no condition is given.

        Args:
            x_t: Noised data, (B, ...).
            t: Its times, () or (B,).
            condition: Its condition, as the teacher takes it; None for the null.

        Returns:
            Like x_t.
        """
        null = _for_each(self.null, condition, x_t)
        if condition is None:
            return self.teacher.x0(x_t, t, null)
        unconditional, conditional = self.teacher.x0(x_t, t, null), self.teacher.x0(x_t, t, condition)
        return unconditional + self.scale * (conditional - unconditional)


@typed
def in_precision(condition: Any, dtype: torch.dtype) -> Any:
    """A condition whose floating tensors have this dtype, where theirs or this one is of half precision."""
    if isinstance(condition, Tensor) and condition.is_floating_point():
        return condition.to(dtype) if min(condition.itemsize, dtype.itemsize) < _SINGLE else condition
    if isinstance(condition, Mapping):
        return {name: in_precision(part, dtype) for name, part in condition.items()}
    return condition


def _asked(network: Callable[..., Tensor], x_t: Tensor, t: Tensor, *condition: Any) -> Tensor:
    """A network's output, computed in its own precision where that is half, or where the samples are in double."""
    if not isinstance(network, nn.Module) or getattr(network, "own_precision", False):
        return network(x_t, t, *condition)
    dtype = next((weight.dtype for weight in network.parameters() if weight.is_floating_point()), None)
    if dtype is None:
        return network(x_t, t, *condition)
    other = dtype.itemsize < _SINGLE or x_t.dtype is torch.float64
    return network(x_t.to(dtype) if other else x_t, t, *(in_precision(one, dtype) for one in condition))


def _for_each(null: Any, condition: Any, x_t: Tensor) -> Any:
    """A null condition repeated for each sample, on the samples' device."""
    if isinstance(null, Mapping):
        parts = condition if isinstance(condition, Mapping) else {}
        return {name: _for_each(part, parts.get(name), x_t) for name, part in null.items()}
    if isinstance(null, int):
        null = torch.tensor(null)
    if not isinstance(null, Tensor):
        return null
    null = null.to(x_t.device)
    if null.ndim == 0 or (isinstance(condition, Tensor) and null.ndim == condition.ndim - 1):
        null = null[None]
    if len(null) not in (1, len(x_t)):
        raise ShapeError(f"null is of {len(null)} samples, but the batch has {len(x_t)}; one, or one each, is needed")
    return null.expand(len(x_t), *null.shape[1:])


class _AllThere(Exception):  # noqa: N818 - no error: it ends a pass that has given all that it was for
    """Every feature that was asked for is there."""


class _Taps:
    """The outputs of named submodules in one pass."""

    def __init__(self, names: Sequence[str]) -> None:
        self._kept: dict[str, Any] = {}
        self._names = tuple(names)
        self.end_pass = False  # once all are there

    def keep(self, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        self._kept[name] = output
        if self.end_pass and len(self._kept) == len(self._names):
            # Not kept anywhere: its traceback holds all that the pass has computed.
            raise _AllThere

    def checked(self) -> dict[str, Tensor]:
        for name in self._names:
            if not isinstance(self._kept.get(name), Tensor):
                what = f"gave a {type(self._kept[name]).__name__}" if name in self._kept else "was never called"
                raise InvalidArgument(f"taps: {name!r} {what}; name a submodule that gives a tensor at every call")
        return self._kept


class Preconditioned(nn.Module):
    """EDM's D made from its F, as a function of (x_t, sigma); `from_edm` puts it around a network.

    Args:
        network: F.
        sigma_data: Standard deviation of the data.
    """

    # The network within is asked in its own.
    own_precision = True

    @typed
    def __init__(self, network: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = check_positive("sigma_data", sigma_data)

    @typed
    def forward(self, x_t: Tensor, t: Tensor, *condition: Any) -> Tensor:
        """The denoised data D(x_t; t), like x_t.

        Raises:
            ShapeError: t is neither one time nor one for each sample.
        """
        t = check_times(t, x_t)
        sigma = t.reshape(-1, *[1] * (x_t.ndim - 1)).to(torch.promote_types(x_t.dtype, torch.float32))
        total = torch.hypot(sigma, torch.full_like(sigma, self.sigma_data))
        value = _asked(self.network, (x_t / total).to(x_t.dtype), t.log() / 4, *condition)
        denoised = (self.sigma_data / total) ** 2 * x_t + sigma * self.sigma_data / total * value
        return denoised.to(torch.promote_types(x_t.dtype, value.dtype))
