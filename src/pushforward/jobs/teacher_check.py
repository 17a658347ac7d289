"""`pushforward doctor --teacher`: read a teacher and data from files, check the teacher, print the result."""

from __future__ import annotations

from pathlib import Path

from pushforward.jobs.errors import NOT_CONVERGED, OK, InputError
from pushforward.jobs.inputs.images import read_images

__all__ = ["check_teacher"]


def check_teacher(folder: Path, source: Path, *, samples: int) -> int:
    """Print a teacher's errors on noised data, and whether they agree with its configuration.

    Args:
        folder: A folder of diffusers, or one written by `train-diffusion`.
        source: Images, as `read_images` takes them.
        samples: How many of them to look at.

    Returns:
        Exit code: 0 where the teacher is what it is declared to be, else 1.

    Raises:
        InputError: Folder, data or flag is wrong.
    """
    import torch

    from pushforward.diffusion.doctor import FEWEST, examine
    from pushforward.jobs.inputs.teachers import labels_of, load_teacher

    if samples < FEWEST:
        raise InputError(f"--samples {samples}: must be at least {FEWEST}")
    images = read_images(source)
    # Files are often sorted by class.
    chosen = torch.randperm(len(images.samples), generator=torch.Generator().manual_seed(0))[:samples]
    data, labels = images.samples[chosen], images.labels
    teacher, _ = load_teacher(folder)
    labels = labels[chosen] if labels is not None and labels_of(teacher) is not None else None
    try:
        found = examine(teacher.eval(), data, labels)
    except (RuntimeError, ValueError, IndexError) as error:  # a network says in its own way that images do not fit it
        raise InputError(f"--teacher {folder}: {error}") from None
    with_labels = "" if labels is None else ", with labels"
    print(f"{'teacher':<18}{folder}: {found.declared}, {type(teacher.process).__name__}")
    print(f"{'data':<18}{source}: {len(data)} samples of {tuple(data.shape[1:])}{with_labels}")
    for level in found.levels:
        print(
            f"{f't = {level.t:.4g}':<18}noise {level.noise:.3g}: mean squared error of x0 {level.error:.4g}, "
            f"of a linear denoiser {level.linear:.4g}, of the mean {level.constant:.4g}"
        )
    print(f"{'verdict':<18}{found.advice}")
    return OK if found.verdict == "ok" else NOT_CONVERGED
