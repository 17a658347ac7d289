"""One step of distilling, ours and f-distill's published algorithm, on the same networks, batch and Adam.

    python benchmarks/f_step.py [--problems NAME ...]

problem  data (batch)                     network
digits   8 x 8, one channel (256)         perceptron of 240,000 parameters
images   28 x 28, one channel (32)        U-Net of diffusers'

`Published` is a transcription from the paper's algorithm 1 and from what its authors' FastGen is known to do; no line
of theirs is in it. What differs from ours is the algorithm's: one pass of the teacher gives its answer and, with a
gradient, the discriminator's features; when only features are wanted that pass ends at the last of them; bins are
linear in t and learn in the student's step; h is written in terms of the ratio. The head of the discriminator is ours.

figure     meaning
student    one step of the student: losses, gradients, Adam
critics    one of the critics, likewise
seconds    CPU seconds, one thread, the two in turns on the same batches; the ratio is taken turn by turn
flops      floating-point operations of matrix products and convolutions, backward passes too
peak       the most memory that the step holds beyond what was there, gradients and Adam's state excepted

Source: Xu et al. 2025 (f-distill, arXiv 2502.15681), algorithm 1; Yin et al. 2024 (DMD2, arXiv 2405.14867).
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lib import RESULTS, Row, bootstrap, conditions, cpu_seconds, parsed, result_of, say, write_json
from torch import Tensor, nn
from torch.nn.functional import softplus

from pushforward.diffusion import Denoiser, Discriminator, Distiller, VarianceExploding
from pushforward.diffusion.networks import MLPConfig, NetworkConfig, build, config_for
from pushforward.diffusion.teachers import from_edm

PROBLEMS: dict[str, tuple[NetworkConfig, int]] = {
    "digits": (MLPConfig(shape=(1, 8, 8)), 256),
    "images": (config_for((1, 28, 28)), 32),
}
DIVERGENCE, GAN_WEIGHT, RATE = "js", 1e-3, 1e-4
UNTIMED, TURNS = 1, 9

Step = Callable[[Tensor], None]


class _Ended(Exception):  # noqa: N818 - no error: the pass has all that was asked of it
    pass


class Published(nn.Module):
    """The published algorithm for Jensen-Shannon on a variance-exploding teacher.

    Args:
        teacher: Frozen.
        head: A prepared discriminator, of which only the layers are used.
        start: Noise that the student starts from.
        sigma_data: Standard deviation of the data.
        bins: How many, linear in t.
        decay: Of a bin's running mean.
    """

    def __init__(
        self,
        teacher: Denoiser,
        head: Discriminator,
        *,
        start: float,
        sigma_data: float,
        bins: int = 10,
        decay: float = 0.9,
    ) -> None:
        super().__init__()
        self.teacher, self.process = teacher, teacher.process
        self.student, self.fake = (copy.deepcopy(teacher).requires_grad_(True) for _ in range(2))
        self.head, self.taps = head, head.taps
        self.start, self.sigma_data, self.decay = start, sigma_data, decay
        self.register_buffer("bins", torch.ones(bins))

    def student_loss(self, x: Tensor) -> Tensor:
        x0 = self._generated(x)
        t, eps = self.process.sample_t(len(x)), torch.randn_like(x)
        x_t = x0 + t[:, None, None, None] * eps
        with torch.no_grad():
            fake = self.fake(x_t, t)
        features, teacher = self._features(x_t, t, early=False)
        logits = self._logits(features, t)
        h = self._weight(logits.detach(), t)
        teacher = teacher.detach()
        length = (x0.detach() - teacher).abs().flatten(1).mean(1).clamp_min(1e-6)
        pull = (h / length)[:, None, None, None] * (fake - teacher)
        target = (x0 - pull).detach()
        matching = 0.5 * (x0 - target).square().mean()
        return matching + GAN_WEIGHT * softplus(-logits).mean()

    def critic_loss(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x0 = self._generated(x)
            t, eps = self.process.sample_t(len(x)), torch.randn_like(x)
            sigma = t[:, None, None, None]
            x_t, real_t = x0 + sigma * eps, x + sigma * torch.randn_like(x)
            drawn, _ = self._features(x_t, t, early=True)
            real, _ = self._features(real_t, t, early=True)
        weight = (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()
        denoising = (weight * (self.fake(x_t, t) - x0).square()).mean()
        judging = softplus(-self._logits(real, t)) + softplus(self._logits(drawn, t))
        return denoising + judging.mean()

    def critics(self) -> list[nn.Parameter]:
        return [*self.fake.parameters(), *self.head.parameters()]

    def _generated(self, x: Tensor) -> Tensor:
        t = torch.full((len(x),), self.start)
        return self.student(self.start * torch.randn_like(x), t)

    def _weight(self, logits: Tensor, t: Tensor) -> Tensor:
        ratio = logits.clamp(-10.0, 10.0).exp()
        process, count = self.process, len(self.bins)
        span = process.sigma_max - process.sigma_min
        index = ((t - process.sigma_min) / span * count).floor().long().clamp(0, count - 1)
        samples = torch.bincount(index, minlength=count).float()
        means = torch.bincount(index, weights=ratio, minlength=count) / samples.clamp_min(1.0)
        self.bins = torch.where(samples > 0, self.decay * self.bins + (1 - self.decay) * means, self.bins)
        ratio = ratio / self.bins[index]
        h = 1 - 1 / (1 + ratio)
        return h / h.mean()

    def _features(self, x_t: Tensor, t: Tensor, *, early: bool) -> tuple[dict[str, Tensor], Tensor | None]:
        """The taps' outputs, and the teacher's answer unless the pass ended early."""
        kept: dict[str, Tensor] = {}

        def keep(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
            kept[name] = output
            if early and len(kept) == len(self.taps):
                raise _Ended

        modules = dict(self.teacher.network.named_modules())
        hooks = [modules[name].register_forward_hook(partial(keep, name)) for name in self.taps]
        try:
            return kept, self.teacher(x_t, t)
        except _Ended:
            return kept, None
        finally:
            for hook in hooks:
                hook.remove()

    def _logits(self, features: dict[str, Tensor], t: Tensor) -> Tensor:
        mixed = []
        for name, mixer in zip(self.taps, self.head.mixers, strict=True):
            feature = features[name]
            mixed.append(mixer(feature.flatten(2).mT if feature.ndim == 4 else feature[:, None]).mean(1))
        return self.head.head(torch.cat([*mixed, t.log()[:, None] / 4], -1)).squeeze(-1)


def both(problem: str) -> tuple[dict[str, dict[str, Step]], Tensor]:
    """Steps of "ours" and "published" by "student" and "critics", and the data they are given."""
    config, batch = PROBLEMS[problem]
    torch.manual_seed(0)
    data = 0.5 * torch.randn(batch, *config.shape)
    teacher = from_edm(build(config), VarianceExploding())
    ours = Distiller(teacher, divergence=DIVERGENCE, gan_weight=GAN_WEIGHT, levels=teacher.process)
    ours.prepare(data)
    published = Published(
        teacher, copy.deepcopy(ours.discriminator), start=ours.student.times[0], sigma_data=ours.sigma_data
    )
    losses = {
        "ours": {
            "student": (lambda x: ours.student_loss(x).total, ours.student.parameters()),
            "critics": (lambda x: ours.critic_loss(x).total, ours.critics()),
        },
        "published": {
            "student": (published.student_loss, published.student.parameters()),
            "critics": (published.critic_loss, published.critics()),
        },
    }
    steps = {
        who: {kind: _step(loss, list(parameters)) for kind, (loss, parameters) in kinds.items()}
        for who, kinds in losses.items()
    }
    return steps, data


def _step(loss: Callable[[Tensor], Tensor], parameters: list[nn.Parameter]) -> Step:
    optimiser = torch.optim.Adam(parameters, lr=RATE, betas=(0.0, 0.99))

    def step(x: Tensor) -> None:
        optimiser.zero_grad(set_to_none=False)
        loss(x).backward()
        optimiser.step()

    return step


def measured(problem: str) -> list[Row]:
    """A row a step. Runs in its own process."""
    steps, data = both(problem)
    rows = []
    for kind in ("student", "critics"):
        taken: dict[str, list[float]] = {who: [] for who in steps}
        for turn in range(UNTIMED + TURNS):
            for who in steps if turn % 2 else reversed(steps):
                _, seconds = cpu_seconds(partial(steps[who][kind], data))
                taken[who] += [seconds] if turn >= UNTIMED else []
        ratio = bootstrap([theirs / ours for ours, theirs in zip(taken["ours"], taken["published"], strict=True)])
        for who, kinds in steps.items():
            rows.append({
                "problem": problem, "step": kind, "who": who, "seconds": statistics.median(taken[who]),
                "runs": taken[who], "flops": flops(kinds[kind], data), "peak": peak(kinds[kind], data),
            })  # fmt: skip
        rows[-2]["faster"] = ratio
    return rows


def flops(step: Step, x: Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step(x)
    return counter.get_total_flops()


def peak(step: Step, x: Tensor) -> int:
    """Bytes, from the allocator's own log: the largest running sum of what was taken and given back."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step(x)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def main() -> None:
    asked = parsed(__doc__, {"problems": PROBLEMS, "out": RESULTS / "f_step.json"})
    rows: list[Row] = []
    for problem in asked.problems:
        rows += result_of(measured, problem, wall_limit=1800.0)[0]
        for row in rows[-4:]:
            say(str({name: value for name, value in row.items() if name != "runs"}))
    setting = {"divergence": DIVERGENCE, "gan_weight": GAN_WEIGHT, "turns": TURNS}
    write_json(asked.out, conditions() | {"setting": setting, "rows": rows})


if __name__ == "__main__":
    main()
