"""The losses of f-distill, for any training loop: of the student, and of the critics that follow it.

    student   h'(r') (x0_teacher - x0_fake) / |x0 - x0_teacher|_1   at x_t, down to G's parameters (theorem 1)
              + gan_weight * -log D(x_t)
    critics   denoising score matching of the fake denoiser on the student's samples
              + the discriminator's loss, data against student, both under noise

symbol       meaning                                                        shape
x0, x_t      the student's samples G(z), and the same under noise           (B, ...)
x0_teacher   the teacher's estimate of x0 from x_t                          (B, ...)
x0_fake      the estimate of a denoiser trained on the student's samples    (B, ...)
r', h'       ratio and weight, normalised (`ratio`)                         (B,)

The length |x0 - x0_teacher|_1 makes steps alike at all noise levels (DMD, equation 8). For the reverse KL h is 1: no
ratio is needed, and without a GAN term there is no discriminator.

Sources: Xu et al. 2025 (f-distill, arXiv 2502.15681), algorithm 1; Yin et al. 2024 (DMD, arXiv 2311.18828; DMD2, arXiv
2405.14867) for the reverse KL, the GAN term and several steps.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from collections.abc import Generator as Suspended
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pushforward._checks import check_count, check_finite, check_instance, check_weight
from pushforward._typed import check_tensor, typed
from pushforward.diffusion.generator import MOST_STEPS, Generator
from pushforward.diffusion.loop import Batch, tensors_in, unpacked
from pushforward.diffusion.lora import weights_of_adapters
from pushforward.diffusion.losses import denoising_loss, discriminator_loss, generator_loss, score_difference_loss
from pushforward.diffusion.processes import Process, VarianceExploding
from pushforward.diffusion.ratio import Bins, Discriminator, ExactRatio, effective_share, mean_over_processes
from pushforward.diffusion.teachers import Denoiser, Guided, Teacher
from pushforward.divergences import REVERSE_KL, FDivergence, named
from pushforward.errors import InvalidArgument
from pushforward.training.distributed import gather

__all__ = ["Distiller", "Losses"]

# Times among which a generator's own are chosen, and the share of the data's variance that is asked for there.
_TIMES = 64
_VARIANCE = 0.1


class Losses(NamedTuple):
    """A loss to minimise, `total`, (), and `parts` to log: detached numbers, () each, by name."""

    total: Tensor
    parts: dict[str, Tensor]


class Distiller:
    """Makes a one- to four-step generator from a teacher, by matching distributions under noise.

    It owns the student, the fake denoiser that follows it and the discriminator. Optimisers are the loop's
    (`Trainer` is one):

        distiller.prepare(batch)                   once, before the optimisers are made
        distiller.critic_loss(batch).total         for distiller.critics(), some steps for each one of the student's
        distiller.student_loss(batch).total        for distiller.trained()

    A batch is a tensor of samples, (B, ...), or a pair of them and their condition. What is random comes from torch's
    global generator.

    Args:
        teacher: A `Denoiser`, a `Guided` one, or anything with a process and x0. Its parameters are frozen here.
        divergence: One of `pushforward.divergences`, itself or its name, with a second derivative.
        student: What is trained: a `Generator`, or a `Denoiser` whose times are chosen as `generator_steps` says. Where
            only some of its parameters require gradients, as with adapters of peft, those alone are trained. None
            starts from a copy of the teacher. Weights of half precision become float32: in bfloat16 most steps of a
            usual length change nothing.
        ratio: An `ExactRatio`, or a `Discriminator` with taps of one's own. None makes one where one is needed.
        generator_steps: 1 to 4. The first is at the noisiest time up to which the teacher's answers to noise alone have
            a tenth of the data's variance: from more noise than that, every sample starts as the same blur.
        gan_weight: Weight of the discriminator's own term in the student's loss.
        critic_steps: The critics' steps for each one of the student's, for the loop to read.
        levels: Draws the noise at which distributions are matched, by its `sample_t`: a process of the teacher's kind,
            say RectifiedFlow(shift=5). None for the teacher's own, and where that is EDM's for more noise than it
            trains at, whose median is one standard deviation (of log sigma) higher: at the training's own levels
            students settle their classes late, and may leave the range where teachers know the way back.

    Raises:
        InvalidArgument: A divergence without a second derivative; a teacher that is no network, and no student; a
            network in which a discriminator finds no features; an exact ratio with a GAN term; levels of another kind.

    Example:
        >>> from pushforward.diffusion import GaussianMixture, VarianceExploding
        >>> teacher = GaussianMixture(
        ...     weights=[1.0], means=[[0.0, 0.0]], covariances=[1.0], process=VarianceExploding()
        ... )
        >>> class Scale(nn.Linear):
        ...     def forward(self, x_t, t):
        ...         return super().forward(x_t)
        >>> student = Denoiser(Scale(2, 2), teacher.process)
        >>> distiller = Distiller(teacher, divergence="reverse_kl", student=student, gan_weight=0)
        >>> distiller.prepare(teacher.sample(64).float())
        >>> distiller.student_loss(teacher.sample(64).float()).total.ndim
        0
    """

    @typed
    def __init__(
        self,
        teacher: Teacher,
        *,
        divergence: str | FDivergence = "js",
        student: Denoiser | Generator | None = None,
        ratio: Discriminator | ExactRatio | None = None,
        generator_steps: int = 1,
        gan_weight: float = 1e-3,
        critic_steps: int = 5,
        levels: Process | None = None,
    ) -> None:
        self.teacher = check_instance("teacher", teacher, Teacher)
        self.divergence = divergence if isinstance(divergence, FDivergence) else named(divergence)
        self.divergence.weight(torch.zeros(1))  # raises where there is none
        self.gan_weight = check_weight("gan_weight", gan_weight)
        self.critic_steps = check_count("critic_steps", critic_steps)
        if check_count("generator_steps", generator_steps) > MOST_STEPS:
            raise InvalidArgument(f"generator_steps is {generator_steps}; a generator has one to {MOST_STEPS}")
        network = _network_of(teacher)
        for module in (teacher, network):
            if isinstance(module, nn.Module):
                module.requires_grad_(False).eval()
        self._timed = isinstance(student, Generator)
        self.student = _generator(student, network, generator_steps)
        own = set() if network is None else {id(parameter) for parameter in network.parameters()}
        if own & {id(parameter) for parameter in self.student.parameters()}:
            raise InvalidArgument("student and teacher share their weights: give the student copy.deepcopy(teacher)")
        # In evaluation mode, as when it samples: what dropout hides in training it would not hide then.
        _trainable(self.student, given=student is not None).eval()
        self.fake = _single(copy.deepcopy(network or self.student.denoiser)).requires_grad_(True).eval()
        self.ratio = self._ratio(ratio, network)
        self.levels = _levels(teacher.process) if levels is None else levels
        if type(self.levels) is not type(teacher.process):
            raise InvalidArgument(
                f"levels is a {type(levels).__name__}, but the teacher's process is a "
                f"{type(teacher.process).__name__}, whose times are others: give one of that kind"
            )
        self.bins = Bins(self.levels)
        self.sigma_data = math.nan
        self._parallel: dict[str, nn.Module] = {}

    @property
    def discriminator(self) -> Discriminator | None:
        """The discriminator in use; None where the ratio is exact or not needed."""
        return self.ratio if isinstance(self.ratio, Discriminator) else None

    def trained(self) -> list[nn.Parameter]:
        """The student's parameters that require gradients, for the student's optimiser."""
        return [parameter for parameter in self.student.parameters() if parameter.requires_grad]

    def critics(self) -> list[nn.Parameter]:
        """The parameters for the critics' optimiser: the fake denoiser's, and the discriminator's if there is one."""
        return [parameter for module in self._critics().values() for parameter in module.parameters()]

    def prepare(self, batch: Batch) -> None:
        """Read the data's scale, the discriminator's sizes and, unless they were given, the student's times.

        Args:
            batch: Samples (B, ...), or a pair of them and their condition.

        Raises:
            ShapeError: The batch is neither a tensor of samples nor a pair.
        """
        x, condition = _checked(batch)
        self.to(x.device)
        times = self.student.times if self._timed else self._choose_times(x, condition)
        # The first process's word, where each has seen a batch of its own.
        learned = torch.tensor([[float(x.float().std().clamp_min(1e-6)), *times]], device=x.device)
        self.sigma_data, *times = gather(learned)[0].tolist()
        self.student.times = tuple(times)
        if self.discriminator is not None:
            self.discriminator.prepare(x, self.levels.sample_t(len(x), device=x.device), condition)

    @typed
    def student_loss(self, batch: Batch) -> Losses:
        """The student's loss, and measures of how well the student matches the teacher.

        Args:
            batch: Its samples give the number, mean and scale of the student's samples; the student gets its condition.

        Returns:
            The loss, with these parts: score_gap (|x0_teacher - x0_fake| / |x0 - x0_teacher|); drift (the mean of the
            student's samples minus the data's, in standard deviations of the data); spread (the standard deviation of
            the student's samples over the data's); and where there is a ratio, mean_ratio (E_q[r'], which is 1 if
            calibrated), effective_share (of the batch, under h') and clamped (the share of ratios at the clamp).

        Raises:
            InvalidArgument: `prepare` was not called.
        """
        x, condition = self._unpacked(batch)
        x0 = self._call("student", *self._input(x, condition), condition)
        x_t, t = self._noised(x0)
        with torch.no_grad():
            fake = self.fake(x_t, t, condition)
        teacher, logits = self._judged(x_t, t, condition)
        weight, parts = self._weighed(logits, t)
        length = (x0.detach() - teacher).abs().flatten(1).sum(-1).float()
        floor = 1e-4 * self.sigma_data * x0[0].numel()
        total = score_difference_loss(x0, teacher, fake, weight / length.clamp_min(floor)).mean()
        parts["score_gap"] = ((teacher - fake).abs().flatten(1).sum(-1) / length.clamp_min(floor)).mean()
        parts["drift"] = (x0.detach().mean() - x.mean()).abs() / self.sigma_data
        parts["spread"] = x0.detach().float().std() / self.sigma_data
        if logits is not None and self.gan_weight:
            parts["generator_loss"] = generator_loss(logits).mean()
            total = total + self.gan_weight * parts["generator_loss"]
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    @typed
    def critic_loss(self, batch: Batch) -> Losses:
        """The critics' loss on data and on new samples of the student, whose ratios update the bins.

        Args:
            batch: Samples of the data (B, ...), or a pair of them and their condition.

        Returns:
            The loss, and its parts: fake_loss and, with a discriminator, discriminator_loss and accuracy.

        Raises:
            InvalidArgument: `prepare` was not called.
        """
        x, condition = self._unpacked(batch)
        with torch.no_grad():
            x0 = self.student.denoiser(*self._input(x, condition), condition)
        x_t, t = self._noised(x0)
        read: list[dict[str, Tensor]] = []
        if self.discriminator is not None:
            real_t = self.teacher.process.add_noise(x, t, torch.randn_like(x))
            # Before the activations of the fake denoiser are there, which are the large ones.
            with torch.no_grad():
                read = [self.discriminator.features(points, t, condition) for points in (real_t, x_t)]
        alpha, sigma = self.teacher.process.coefficients(x_t, t)
        denoised = self._call("fake", x_t, t, condition)
        total = denoising_loss(denoised, x0, alpha, sigma, sigma_data=self.sigma_data).mean()
        parts = {"fake_loss": total}
        if read:
            real, fake = (self._call("discriminator", features, t) for features in read)
            parts["discriminator_loss"] = discriminator_loss(real, fake).mean()
            parts["accuracy"] = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
            total = total + parts["discriminator_loss"]
            self.bins.update(fake, t)
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    def parallel(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Send all passes that are trained through a wrapper, say DistributedDataParallel. Call it after `prepare`.

        Args:
            wrap: Given a module; returns the wrapped module.
        """
        trained = {"student": self.student.denoiser, **self._critics()}
        self._parallel = {name: wrap(module) for name, module in trained.items()}

    def to(self, device: torch.device) -> Distiller:
        """Move student, critics and teacher to a device.

        Args:
            device: The device.

        Returns:
            The distiller itself.
        """
        for module in (self.teacher, _network_of(self.teacher), self.student, self.fake, self.ratio, self.bins):
            if isinstance(module, nn.Module):
                module.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """The state of all that training changes: student, critics, bins; not the teacher."""
        modules = {"student": self.student, "bins": self.bins, **self._critics()}
        states = {name: module.state_dict() for name, module in modules.items()}
        return states | {"times": list(self.student.times), "sigma_data": self.sigma_data}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Call it after `prepare`.

        Args:
            state: The state, as `state_dict` returned it.
        """
        for name, module in {"student": self.student, "bins": self.bins, **self._critics()}.items():
            module.load_state_dict(state[name])
        self.student.times, self.sigma_data = tuple(state["times"]), state["sigma_data"]

    def _critics(self) -> dict[str, nn.Module]:
        critics: dict[str, nn.Module] = {"fake": self.fake}
        return critics if self.discriminator is None else critics | {"discriminator": self.discriminator}

    def _call(self, name: str, *arguments: Any) -> Tensor:
        modules = {"student": self.student.denoiser, **self._critics()} | self._parallel
        return modules[name](*arguments)

    def _unpacked(self, batch: Batch) -> tuple[Tensor, Any]:
        if math.isnan(self.sigma_data):
            raise InvalidArgument("the distiller has seen no data yet: call prepare with a batch first")
        return _checked(batch)

    def _input(self, x: Tensor, condition: Any) -> tuple[Tensor, Tensor]:
        """The input of one of the student's sampling steps, drawn at random: x_t, (B, ...), and its time."""
        step = int(torch.randint(len(self.student.times), ()))
        return self.student.input_of(step, torch.randn_like(x), condition)

    def _noised(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        t = self.levels.sample_t(len(x0), device=x0.device)
        return self.teacher.process.add_noise(x0, t, torch.randn_like(x0)), t

    def _judged(self, x_t: Tensor, t: Tensor, condition: Any) -> tuple[Tensor, Tensor | None]:
        """The teacher's x0 without gradient, and the logits, which have a gradient where there is a GAN term."""
        grad = self.gan_weight > 0
        discriminator = self.discriminator
        if discriminator is not None and discriminator.teacher is self.teacher:
            with torch.set_grad_enabled(grad), _frozen(discriminator):
                x0, features = discriminator.teacher.x0_and_features(x_t, t, condition, taps=discriminator.taps)
                return x0.detach(), discriminator(features, t)
        with torch.no_grad():
            x0 = self.teacher.x0(x_t, t, condition)
        if isinstance(self.ratio, ExactRatio):
            return x0, self.ratio(x_t.detach(), t, condition)
        if discriminator is None:
            return x0, None
        with torch.set_grad_enabled(grad), _frozen(discriminator):
            return x0, discriminator(discriminator.features(x_t, t, condition), t)

    def _weighed(self, logits: Tensor | None, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """h' of each sample, (B,), and the ratio's measures for the log."""
        if logits is None or self.divergence is REVERSE_KL:
            return torch.ones_like(t), {}
        raw = logits.detach().float()
        # An exact ratio needs no calibration.
        log_r = raw.clamp(-self.bins.clamp, self.bins.clamp) if self.discriminator is None else self.bins(raw, t)
        h = self.divergence.weight(log_r)
        weight = h / mean_over_processes(h).clamp_min(torch.finfo(h.dtype).tiny)
        return weight, {
            "mean_ratio": log_r.exp().mean(),
            "effective_share": effective_share(h),
            "clamped": (log_r.abs() >= self.bins.clamp).float().mean(),
        }

    def _ratio(
        self, given: Discriminator | ExactRatio | None, network: Denoiser | None
    ) -> Discriminator | ExactRatio | None:
        if isinstance(given, ExactRatio):
            if self.gan_weight:
                raise InvalidArgument("gan_weight needs a discriminator, and ratio is exact: set gan_weight=0")
            return given
        if given is not None:
            return check_instance("ratio", given, Discriminator)
        if self.divergence is REVERSE_KL and not self.gan_weight:
            return None
        if network is None:
            raise InvalidArgument(
                f"teacher is a {type(self.teacher).__name__}, in which a discriminator finds no features: give "
                "ratio=Discriminator(denoiser), an ExactRatio, or use divergence='reverse_kl' with gan_weight=0"
            )
        return Discriminator(network)

    @torch.no_grad()
    def _choose_times(self, x: Tensor, condition: Any) -> tuple[float, ...]:
        """The student's times, falling: the first as the class describes, the others evenly over the times below."""
        process, least = self.teacher.process, _VARIANCE * float(x.float().var(0).sum())
        times, noise = process.timesteps(_TIMES), torch.randn_like(x)
        answers = (self.teacher.x0(process.prior(noise, t), t, condition) for t in times.flip(0).to(x.device))
        variances = [float(x0.float().var(0).sum()) for x0 in answers]
        # Up from little noise: far above what it was trained on, a network's answers may vary again, and mean nothing.
        rise = next((k for k, found in enumerate(variances) if found >= least), None)
        if rise is None:
            last = max(range(len(times)), key=variances.__getitem__)
        else:
            last = next((k for k in range(rise, len(times)) if variances[k] < least), len(times)) - 1
        start = len(times) - 1 - last
        count = len(self.student.times)
        chosen = [start + (len(times) - start) * k // count for k in range(count)]
        return tuple(float(times[index]) for index in chosen)


def _checked(batch: Batch) -> tuple[Tensor, Any]:
    """A batch's samples, in float32 at least, and its condition.

    Raises:
        NonFiniteError: Samples or condition hold a number that is not finite.
    """
    x, condition = unpacked(batch)
    x = check_tensor("batch", x)
    x = x if x.layout is torch.strided else x.to_dense()
    for name, part in (("batch", x), *tensors_in("condition", condition)):
        check_finite(name, part)
    return x.to(torch.promote_types(x.dtype, torch.float32)), condition


def _network_of(teacher: Teacher) -> Denoiser | None:
    if isinstance(teacher, Guided):
        return _network_of(teacher.teacher)
    return teacher if isinstance(teacher, Denoiser) else None


def _single(module: nn.Module) -> nn.Module:
    """The module, with half-precision weights turned into float32."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and tensor.itemsize < torch.float32.itemsize:
            tensor.data = tensor.data.float()
    return module


def _trainable(student: Generator, *, given: bool) -> nn.Module:
    """The student in float32, with at least one parameter that requires gradients."""
    parameters = list(_single(student).parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        # A copy of a frozen teacher; what was put into it to be trained is, if anything was.
        for parameter in (weights_of_adapters(student) if given else []) or parameters:
            parameter.requires_grad_(True)
    return student


def _levels(process: Process) -> Process:
    if isinstance(process, VarianceExploding):
        return dataclasses.replace(process, log_mean=process.log_mean + process.log_std)
    return process


def _generator(student: Denoiser | Generator | None, network: Denoiser | None, steps: int) -> Generator:
    if isinstance(student, Generator):
        return student
    if student is None and network is None:
        raise InvalidArgument("student is None and the teacher has no network to copy: give a Denoiser or a Generator")
    denoiser = copy.deepcopy(network) if student is None else student
    denoiser = check_instance("student", denoiser, Denoiser)
    if not list(denoiser.parameters()):
        raise InvalidArgument("student has no parameters to train; its network must be an nn.Module")
    return Generator(denoiser, denoiser.process.timesteps(steps).tolist())


@contextmanager
def _frozen(discriminator: Discriminator) -> Suspended[None, None, None]:
    """A context in which gradients reach the samples and the discriminator's parameters get none."""
    discriminator.requires_grad_(False)
    try:
        yield
    finally:
        discriminator.requires_grad_(True)
