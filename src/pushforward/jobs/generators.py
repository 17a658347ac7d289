"""Generators in folders, and samples of them: teachers by Heun's steps, students by their own.

A run's folder, or the one within it that holds teacher.json or student.json, is a generator; so is a pipeline of
diffusers, in safetensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward.jobs.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pushforward.diffusion.pipeline import OneStepPipeline
    from pushforward.diffusion.teachers import Denoiser, Teacher
    from pushforward.jobs.inputs.images import Images

__all__ = [
    "JUDGED",
    "Source",
    "draw",
    "evenly",
    "find_generator",
    "judge_generator",
    "count_for",
    "load_generator",
    "say_duration",
]

# So many samples are judged: Frechet distances of fewer jump with the draw. And so many are drawn at a time.
JUDGED, JUDGED_UNET, BATCH = 10_000, 1000, 1000
# Trainings under so many seconds need no word before them.
_SHORT = 60.0
_KINDS = ("student", "teacher")


def find_generator(run: Path) -> Path | None:
    """The folder that holds a generator, this one or one within: a student before a teacher; None for neither."""
    places = [(folder, f"{kind}.json") for kind in _KINDS for folder in (run, run / kind)]
    places.append((run, "model_index.json"))
    return next((folder for folder, file in places if (folder / file).is_file()), None)


def load_generator(run: Path) -> Source:
    """Load a generator from a folder.

    Raises:
        InputError: There is none, or it is broken.
    """
    folder = find_generator(run)
    if folder is None:
        if not run.is_dir():
            raise InputError(f"{run}: there is no such folder")
        files = "student.json, teacher.json or diffusers' model_index.json"
        raise InputError(f"{run}: holds no generator: there is no {files}")

    from pushforward.diffusion.pipeline import OneStepPipeline
    from pushforward.errors import PushforwardError
    from pushforward.jobs.inputs.teachers import load_teacher, shape_of

    if (folder / "student.json").is_file():
        try:
            pipeline = OneStepPipeline.from_pretrained(folder)
        except PushforwardError as error:
            raise InputError(f"{run}: {error}") from None
        return Source(pipeline.generator.denoiser, pipeline.shape, pipeline)
    teacher, shape = load_teacher(run, flag="")
    shape = shape or shape_of(teacher)
    if shape is None:
        raise InputError(f"{run}: its model's config.json has no sample_size, by which to draw")
    return Source(teacher.eval().requires_grad_(False), shape)


class Source:
    """A generator on its device.

    Args:
        denoiser: The teacher, or the denoiser within the student.
        shape: The shape of one sample.
        student: The pipeline, of a student; None of a teacher.
    """

    def __init__(self, denoiser: Denoiser, shape: tuple[int, ...], student: OneStepPipeline | None = None) -> None:
        self.denoiser, self.shape, self.student = denoiser, shape, student

    @property
    def network(self) -> nn.Module:
        """The network without the modules around it."""
        network: Any = self.denoiser.network
        return getattr(network, "network", network)

    @property
    def latent(self) -> bool:
        """Whether the samples are latents, from which a decoder makes images."""
        return bool(getattr(self.network, "latent", False))

    @property
    def labels(self) -> Tensor | None:
        """The labels that the generator takes, sorted; None where it takes none."""
        from pushforward.jobs.inputs.teachers import labels_of

        return labels_of(self.denoiser)

    def draw(
        self, count: int, *, seed: int, steps: int | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Samples (count, ...), and the labels that they were drawn for.

        Args:
            count: How many.
            seed: The same one draws the same.
            steps: The steps of a teacher's sampler; None for its own number.
            labels: Of a generator that takes some, those to ask for, as often as they occur; None for all alike.
        """
        known = self.labels
        asked = None if known is None else evenly(known if labels is None else labels, count)
        return draw(self.student or self.denoiser, count, self.shape, seed=seed, steps=steps, labels=asked), asked


def evenly(labels: Tensor, count: int) -> Tensor:
    """A number of labels, sorted, in the shares that they have among the given ones."""
    import torch

    return labels.sort().values[torch.arange(count) * len(labels) // count]


def draw(
    source: OneStepPipeline | Teacher,
    count: int,
    shape: tuple[int, ...],
    *,
    seed: int,
    steps: int | None = None,
    labels: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Samples (count, ...) of a student or a teacher; all verbs draw the samples for their metrics with this function.

    So a model has one figure for one seed, on every page. The noise comes from the CPU, whatever the device.

    Args:
        source: What draws.
        count: How many.
        shape: The shape of one sample.
        seed: The same one draws the same.
        steps: The steps of a teacher's sampler; None for its own number.
        labels: One a sample; None for none.
        device: The model's.
    """
    import torch

    from pushforward.diffusion.pipeline import OneStepPipeline
    from pushforward.diffusion.samplers import STEPS, sample

    generator = torch.Generator().manual_seed(seed)
    condition = None if labels is None else labels.to(device)
    if isinstance(source, OneStepPipeline):
        return source(count, condition, generator=generator, output_type="raw", batch_size=BATCH).images
    return sample(
        source,
        count,
        shape,
        steps=steps or STEPS,
        condition=condition,
        generator=generator,
        batch_size=BATCH,
        device=device,
    )


def count_for(network: nn.Module) -> int:
    """The default number of samples for the metrics of a network; fewer for a U-Net, whose convolutions take long."""
    from pushforward.diffusion.networks import MLP

    return JUDGED if isinstance(network, MLP) else JUDGED_UNET


def say_duration(batches: int, steps: int, wanted: bool) -> Callable[[float], None]:
    """A function that prints on stderr how long a training will take, once the seconds of a batch are known."""

    def say(seconds: float) -> None:
        total = batches * seconds
        if wanted and total > _SHORT:
            each = f"{steps:,} steps of {total / steps:.2g} s"
            print(f"training takes about {duration(total)}: {each}; --steps sets how many", file=sys.stderr)

    return say


def duration(seconds: float) -> str:
    """A time in words, to two units.

    Example:
        >>> duration(13_800.0), duration(95.0)
        ('3 h 50 min', '2 min')
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def judge_generator(
    source: Source, images: Images, count: int | None, *, seed: int, steps: int | None = None
) -> dict[str, Any]:
    """A generator's metrics, the features that they are computed in, and warnings about them.

    Args:
        source: What draws.
        images: What the samples should be like.
        count: The number of samples; None for `count_for`.
        seed: The seed of the samples.
        steps: The steps of a teacher's sampler.

    Returns:
        features, samples, seed, the figures by name, and remarks.

    Raises:
        InputError: The images are of another shape, or too few.
    """
    from pushforward.diffusion.judge import FEWEST, SampleMetrics, remarks
    from pushforward.errors import PushforwardError
    from pushforward.jobs.inputs.teachers import check_known

    shape = tuple(images.samples.shape[1:])
    if shape != source.shape:
        raise InputError(f"{images.name}: its images are {shape}, but the generator draws {source.shape}")
    if len(images.samples) < FEWEST:
        raise InputError(f"{images.name}: holds {len(images.samples)} images; {FEWEST} are the least to be judged by")
    known = source.labels
    if known is not None and images.labels is not None:
        check_known(images.name, images.labels, known)
    count = count or count_for(source.network)
    try:
        drawn, _ = source.draw(count, seed=seed, steps=steps, labels=images.labels)
        judge = SampleMetrics(images.samples, images.labels)
        figures = judge(drawn)
    except PushforwardError as error:
        raise InputError(f"{images.name}: {error}") from None
    return {
        "features": judge.name,
        "samples": count,
        "seed": seed,
        **figures,
        "remarks": remarks(figures, name="the model"),
    }
