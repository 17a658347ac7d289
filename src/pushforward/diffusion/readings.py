"""The ways in which a denoiser's network may be read: what it predicts, and what it takes as its time.

process                a network's time, t being the process's
RectifiedFlow          t, 1 - t, 1000 t, 1000 (1 - t), t / 1000
VariancePreserving     t, T - 1 - t, t / T, 1 - t / T, log(sigma / alpha) / 4
VarianceExploding      t = sigma, log(t) / 4 (EDM), log(t), 250 log(t) (consistency models)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pushforward.diffusion.processes import Prediction, Process, RectifiedFlow, VarianceExploding, VariancePreserving

__all__ = ["Predicted", "Reading", "mend", "times_of"]

Predicted = Prediction | Literal["F"]

_IN_DIFFUSERS: dict[Predicted, str] = {
    "x0": " (prediction_type 'sample')",
    "eps": " (prediction_type 'epsilon')",
    "v": " (prediction_type 'v_prediction')",
    "flow": " (of diffusers' schedulers, those called FlowMatch say so, and have another process)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One way to read a network.

    Args:
        predicts: What it predicts; "F" is the raw output that EDM's preconditioning is put around.
        time: What it takes as its time, as a formula in the process's t.
        sign: 1, or -1 where it predicts the negative.
        sigma_data: For "F", the standard deviation of the data in the preconditioning.
    """

    predicts: Predicted
    time: str = "t"
    sign: int = 1
    sigma_data: float | None = None

    def __str__(self) -> str:
        scaled = "" if self.sigma_data is None else f" (sigma_data {self.sigma_data:.3g})"
        return f"{'-' if self.sign < 0 else ''}{self.predicts}{scaled} at time {self.time}"


def times_of(process: Process) -> dict[str, Callable[[Tensor], Tensor]]:
    """The functions of the process's t that a network may take as its time, by formula; t itself is the first."""
    match process:
        case RectifiedFlow():
            return {
                "t": lambda t: t,
                "1 - t": lambda t: 1 - t,
                "1000 t": lambda t: 1000 * t,
                "1000 (1 - t)": lambda t: 1000 * (1 - t),
                "t / 1000": lambda t: t / 1000,
            }
        case VariancePreserving(alphas_cumprod=squares):
            steps = len(squares)
            return {
                "t": lambda t: t,
                f"{steps - 1} - t": lambda t: steps - 1 - t,
                f"t / {steps}": lambda t: t / steps,
                f"1 - t / {steps}": lambda t: 1 - t / steps,
                "log(sigma / alpha) / 4": lambda t: (process.sigma(t) / process.alpha(t)).log() / 4,
            }
        case VarianceExploding():
            return {
                "t": lambda t: t,
                "log(t) / 4": lambda t: t.log() / 4,
                "log(t)": lambda t: t.log(),
                "250 log(t)": lambda t: 250 * t.log(),
            }
        case _:
            return {"t": lambda t: t}


def mend(declared: Reading, best: Reading) -> str:
    """What to change, in words, where a network was declared with one reading and another is right."""
    steps: list[str] = []
    if best.sigma_data != declared.sigma_data and best.sigma_data is not None:
        steps.append(f"use from_edm with sigma_data={best.sigma_data:.3g}")
    elif best.sigma_data != declared.sigma_data:
        steps.append(f"use from_callable with predicts={best.predicts!r}")
    elif best.predicts != declared.predicts:
        steps.append(f"declare predicts={best.predicts!r}{_IN_DIFFUSERS.get(best.predicts, '')}")
    usual = "log(t) / 4" if best.predicts == "F" else "t"
    if best.time != usual:
        steps.append(f"call the network at {best.time} where it is called at {usual} now")
    if best.sign < 0:
        steps.append("turn the sign of what it gives")
    return "; ".join(steps)
