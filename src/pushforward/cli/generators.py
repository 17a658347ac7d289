"""Generators in folders, drawn from: teachers by Heun's steps, students by their own.

A run's folder, or the one within it that holds teacher.json or student.json, is a generator; so is a pipeline of
diffusers, in safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward.cli.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pushforward.cli.image_inputs import Images
    from pushforward.diffusion.pipeline import OneStepPipeline
    from pushforward.diffusion.teachers import Denoiser

__all__ = ["JUDGED", "Source", "find_generator", "judge_generator", "load_generator"]

# So many samples are judged: Frechet distances of fewer jump with the draw.
JUDGED = 10_000
_KINDS = ("student", "teacher")


def find_generator(run: Path) -> Path | None:
    """The folder in it, or itself, that holds a generator: a student before a teacher; None where there is none."""
    places = [(folder, f"{kind}.json") for kind in _KINDS for folder in (run, run / kind)]
    places.append((run, "model_index.json"))
    return next((folder for folder, file in places if (folder / file).is_file()), None)


def load_generator(run: Path) -> Source:
    """What is drawn from.

    Raises:
        InputError: There is none, or it is broken.
    """
    folder = find_generator(run)
    if folder is None:
        files = "student.json, teacher.json or diffusers' model_index.json"
        raise InputError(f"{run}: holds no generator: there is no {files}")

    from pushforward.cli.teacher_inputs import load_teacher, shape_of
    from pushforward.diffusion.pipeline import OneStepPipeline
    from pushforward.errors import PushforwardError

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
        denoiser: Of the teacher, or within the student.
        shape: Of one sample.
        student: The pipeline, of a student; None of a teacher.
    """

    def __init__(self, denoiser: Denoiser, shape: tuple[int, ...], student: OneStepPipeline | None = None) -> None:
        self.denoiser, self.shape, self.student = denoiser, shape, student

    @property
    def network(self) -> nn.Module:
        """Without what is put around it."""
        network: Any = self.denoiser.network
        return getattr(network, "network", network)

    @property
    def classes(self) -> int | None:
        """How many labels it knows; None where it takes none."""
        from pushforward.cli.teacher_inputs import classes_of

        return classes_of(self.denoiser)

    def draw(
        self, count: int, *, seed: int, steps: int | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Samples (count, ...), and the labels that they were asked for.

        Args:
            count: How many.
            seed: The same one draws the same.
            steps: Of a teacher's sampler; None for its own number.
            labels: Of a generator that takes some, those to ask for, as often as they occur; None for all alike.
        """
        import torch

        from pushforward.diffusion.samplers import STEPS, sample

        device = next(self.denoiser.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        asked = None
        if self.classes is not None:
            known = torch.arange(self.classes) if labels is None else labels
            # Evenly through what is known, so that shares are kept, whatever the count.
            asked = known.sort().values[torch.arange(count) * len(known) // count].to(device)
        if self.student is not None:
            drawn = self.student(count, asked, generator=generator, output_type="raw", batch_size=1000).images
            return drawn, asked
        return sample(
            self.denoiser, count, self.shape, steps=steps or STEPS, condition=asked, generator=generator
        ), asked


def judge_generator(
    source: Source, images: Images, count: int, *, seed: int, steps: int | None = None
) -> dict[str, float | str]:
    """A generator's figures, and in which features they are.

    Args:
        source: What draws.
        images: What the samples should be like.
        count: Of samples.
        seed: Of them.
        steps: Of a teacher's sampler.

    Raises:
        InputError: The images are of another shape, or too few.
    """
    from pushforward.diffusion.judge import FEWEST, Judge
    from pushforward.errors import PushforwardError

    shape = tuple(images.samples.shape[1:])
    if shape != source.shape:
        raise InputError(f"{images.name}: its images are {shape}, but the generator draws {source.shape}")
    if len(images.samples) < FEWEST:
        raise InputError(f"{images.name}: holds {len(images.samples)} images; {FEWEST} are the least to be judged by")
    try:
        drawn, _ = source.draw(count, seed=seed, steps=steps, labels=images.labels)
    except PushforwardError as error:
        raise InputError(f"{images.name}: {error}") from None
    features = "pixels" if images.labels is None else "a small classifier's features"
    return {"features": features, "samples": count, **Judge(images.samples, images.labels)(drawn)}
