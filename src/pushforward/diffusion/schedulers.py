"""The convention of the network behind a scheduler of diffusers; and the scheduler of a few-step student.

    network time = offset + slope t,     prediction = sign model(x_t, network time)

scheduler                                process                 a network's time       a network predicts
DDPM, DDIM and what samples the same     VariancePreserving      t                      eps, v or x0
FlowMatch..., `use_flow_sigmas`          RectifiedFlow           1000 t                 eps - x0
the latter with `invert_sigmas`          RectifiedFlow           1000 (1 - t)           x0 - eps
EDM...                                   VarianceExploding       log(sigma) / 4         F, or -F for v_prediction

Some transformers' pipelines divide the time by 1000 (Flux) or turn it round (Lumina 2) before they pass it on; these
are known by their class. Others may do so too: `pushforward doctor --teacher` finds out.

Nothing here imports diffusers: a scheduler is read, and one to be made is a class's name and its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pushforward.diffusion.processes import Prediction, Process, RectifiedFlow, VarianceExploding, VariancePreserving
from pushforward.errors import InvalidArgument

__all__ = ["Convention", "FewSteps", "check_known", "convention_of", "few_steps"]

# Samplers of one process: each holds the `alphas_cumprod` that the network was trained with.
_VARIANCE_PRESERVING = frozenset(
    {
        *("DDIMInverseScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler"),
        *("DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler"),
        *("DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler"),
        *("HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler"),
        *("LMSDiscreteScheduler", "PNDMScheduler", "SASolverScheduler", "TCDScheduler", "UniPCMultistepScheduler"),
    }
)
_FLOW = frozenset({"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"})
_EDM = frozenset({"EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"})

_PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_NAMES = {ours: theirs for theirs, ours in _PREDICTIONS.items()}

_UNIT_TIME = frozenset(
    f"{name}Transformer2DModel"
    for name in ("AuraFlow", "Chroma", "Flux", "Flux2", "LongCatImage", "OvisImage", "QwenImage")
)
_UNIT_TIME_REVERSED = frozenset({"Lumina2Transformer2DModel"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Convention:
    """How a model of diffusers is called, and what its output means.

    Args:
        process: The process whose noise it was trained on.
        predicts: The kind of prediction that `sign` times its output is.
        slope, offset: The model's time is offset + slope t.
        sign: 1 or -1.
        sigma_data: For a model inside EDM's preconditioning, the standard deviation there; None for any other.
    """

    process: Process
    predicts: Prediction
    slope: float = 1.0
    offset: float = 0.0
    sign: float = 1.0
    sigma_data: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FewSteps:
    """The classes of diffusers that sample a few-step student of pixels.

    Args:
        pipeline: The name of the pipeline's class, which calls a UNet2DModel.
        scheduler: The name of the scheduler's class.
        arguments: The scheduler's arguments.
    """

    pipeline: str
    scheduler: str
    arguments: dict[str, Any]


def check_known(name: str) -> None:
    """Raise where the process of a scheduler is unknown.

    Args:
        name: The scheduler's class.

    Raises:
        InvalidArgument: It is not one of those that are listed here; the message lists them.
    """
    known = _VARIANCE_PRESERVING | _FLOW | _EDM
    if name not in known:
        raise InvalidArgument(
            f"scheduler is a {name}, whose process is unknown here; known are {', '.join(sorted(known))}. "
            "from_callable takes the model with a process of your own"
        )


def convention_of(scheduler: Any, model: str) -> Convention:
    """The convention of the model that was trained with a scheduler of diffusers.

    Args:
        scheduler: The scheduler. Its class, its `config` and, where there are some, its `alphas_cumprod` are read.
        model: The name of the model's class.

    Returns:
        The process, the kind of prediction, and the model's time and sign.

    Raises:
        InvalidArgument: Its class or its prediction type is unknown.
    """
    name, config = type(scheduler).__name__, scheduler.config
    check_known(name)
    if name in _EDM:
        sign = -1.0 if _prediction(name, config, ("epsilon", "v_prediction")) == "v" else 1.0
        process = VarianceExploding(sigma_min=config.sigma_min, sigma_max=config.sigma_max, rho=config.rho)
        return Convention(process=process, predicts="x0", sign=sign, sigma_data=config.sigma_data)
    if name in _FLOW:
        return _flow(config, _shift(config), model)
    if config.get("use_flow_sigmas"):
        if config.prediction_type != "flow_prediction":
            raise InvalidArgument(
                f"{name} has use_flow_sigmas with prediction_type {config.prediction_type!r}; flow_prediction is known"
            )
        return _flow(config, config.flow_shift, model)
    predicts = _prediction(name, config, _PREDICTIONS)
    squares = scheduler.alphas_cumprod.double().clone()
    if config.get("rescale_betas_zero_snr"):
        # Some samplers (Euler's) put 2^-24 there, to have a finite sigma; the network was trained without any signal.
        squares[-1] = 0.0
    if predicts == "eps" and not bool(squares[-1] > 0):
        raise InvalidArgument(
            f"{name} has rescale_betas_zero_snr with prediction_type 'epsilon', from which no x0 follows at the last "
            "timestep; such networks predict v_prediction or sample"
        )
    return Convention(process=VariancePreserving(alphas_cumprod=squares), predicts=predicts)


def few_steps(process: Process, predicts: Prediction, times: Sequence[float], *, slope: float) -> FewSteps | None:
    """The pipeline and scheduler of diffusers that call a student at given times, with fresh noise between.

    Args:
        process: The student's process.
        predicts: The kind of prediction of the student's network.
        times: The student's times, falling, as in `Generator`.
        slope: The network's time is slope t.

    Returns:
        The classes and arguments; None where diffusers has none: of a flow's times the first must be 1, where a
        pipeline starts, and the rest evenly spaced, since its scheduler has no others.
    """
    if isinstance(process, VariancePreserving) and predicts in _NAMES and slope == 1:
        steps = int(times[0]) + 1
        if not all(t.is_integer() for t in times) or not 2 <= steps <= len(process.alphas_cumprod):
            return None
        squares = process.alphas_cumprod[:steps].double()
        betas = 1 - squares / torch.cat([squares.new_ones(1), squares[:-1]])
        arguments = {
            # Cut after the first time, so that the scheduler's last timestep, where it starts, is that one.
            "trained_betas": betas.tolist(),
            "num_train_timesteps": steps,
            "original_inference_steps": steps,
            "prediction_type": _NAMES[predicts],
            # Consistency models mix x_t into x0 by a share that falls with this factor; here it is to be 0.
            "timestep_scaling": 1e6,
        }
        # Unlike DDPM's pipeline it takes labels and times, and makes one step by default.
        return FewSteps(pipeline="ConsistencyModelPipeline", scheduler="LCMScheduler", arguments=arguments)
    even = [1 + (times[-1] - 1) * k / max(len(times) - 1, 1) for k in range(len(times))]
    as_even = all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(times, even, strict=True))
    if isinstance(process, RectifiedFlow) and predicts == "flow" and as_even and slope.is_integer() and slope > 1:
        arguments = {
            "num_train_timesteps": int(slope),
            "shift_terminal": times[-1] if len(times) > 1 else None,
            "stochastic_sampling": True,
        }
        return FewSteps(pipeline="DDPMPipeline", scheduler="FlowMatchEulerDiscreteScheduler", arguments=arguments)
    return None


def _flow(config: Any, shift: float, model: str) -> Convention:
    process, steps = RectifiedFlow(shift=shift), float(config.num_train_timesteps)
    if model in _UNIT_TIME:
        return Convention(process=process, predicts="flow")
    if model in _UNIT_TIME_REVERSED:
        return Convention(process=process, predicts="flow", slope=-1.0, offset=1.0, sign=-1.0)
    if config.get("invert_sigmas"):
        return Convention(process=process, predicts="flow", slope=-steps, offset=steps, sign=-1.0)
    return Convention(process=process, predicts="flow", slope=steps)


def _shift(config: Any) -> float:
    if not config.get("use_dynamic_shifting"):
        return config.shift
    # It follows from an image's size, which is not known here: that of the largest images is taken.
    return config.max_shift if config.get("time_shift_type") == "linear" else math.exp(config.max_shift)


def _prediction(name: str, config: Any, known: Collection[str]) -> Prediction:
    if config.prediction_type not in known:
        raise InvalidArgument(
            f"{name} has prediction_type {config.prediction_type!r}; known are {', '.join(map(repr, known))}"
        )
    return _PREDICTIONS[config.prediction_type]
