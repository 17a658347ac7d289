"""`pushforward doctor`: what is installed and whether it solves; and whether a teacher is what it is declared to be."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pushforward.jobs.errors import NOT_CONVERGED, OK, InputError

__all__ = ["Doctor"]


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Print versions, devices, threads and kernels, and solve one known problem on each device. Or examine a teacher.

    Exit code 0: every device gave the right answer, or the teacher is what it is declared to be; 1: not so.
    """

    teacher: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: none)")] = None
    """Folder of a diffusion teacher, from diffusers or trained here: does it predict what its configuration says?"""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="(default: none)")] = None
    """For --teacher: data like that it was trained on; a folder of pictures, an .npz with `images`, or `digits`."""
    samples: int = 512
    """For --teacher: how many samples to look at."""

    def run(self) -> int:
        """Check the installation, or a teacher, and print the result."""
        if self.teacher is not None and self.data is not None:
            return _check_teacher(self.teacher, self.data, samples=self.samples)
        if self.teacher is not None or self.data is not None:
            raise InputError("--teacher and --data go together: known data is noised for the teacher")
        if self.samples != Doctor.samples:
            raise InputError(f"--samples {self.samples}: is for --teacher, which is not given")
        from pushforward.errors import InvalidArgument
        from pushforward.jobs.versions import machine, native, versions

        for name, version in versions():
            print(f"{name:<18}{version}")
        print(f"{'machine':<18}{machine()}")
        try:
            print(f"{'native kernels':<18}{native()}")
        except InvalidArgument as error:
            raise InputError(str(error)) from error
        healthy = [_examine(device) for device in _devices()]
        return OK if all(healthy) else NOT_CONVERGED


def _devices() -> list[str]:
    import torch

    found = ["cpu"] + [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return found + (["mps"] if torch.backends.mps.is_available() else [])


def _examine(device: str) -> bool:
    """Solve a problem with a known answer on one device, print one line, and return whether it was right."""
    import torch

    import pushforward as pf

    # On a line the optimal plan keeps the order, so the exact cost is the mean squared difference of the sorted points.
    dtype = torch.float32 if device == "mps" else torch.float64
    tol = 1e-4 if dtype == torch.float32 else 1e-9
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(200, generator=generator, dtype=torch.float64) for _ in range(2))
    truth = float((x.sort().values - y.sort().values).square().mean())
    cost = (x[:, None] - y[None, :]).square().to(device, dtype)
    start = time.perf_counter()
    try:
        solution = pf.solve(cost, epsilon=1e-3, tol=tol, throw=False)
        lower, upper = (float(bound) for bound in solution.bounds())
    except (RuntimeError, pf.errors.PushforwardError) as error:  # RuntimeError is what torch raises for a broken device
        print(f"{device:<18}FAILED: {' '.join(str(error).split())}")
        return False
    seconds = time.perf_counter() - start
    slack = 1e-5 if dtype == torch.float32 else 1e-12
    right = solution.status is pf.Status.CONVERGED and lower - slack <= truth <= upper + slack
    name = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    print(
        f"{device:<18}{'ok' if right else 'WRONG'}: {solution.status.name} in {seconds:.3f} s, marginal error "
        f"{float(solution.marginal_error):.1e}, bounds {lower:.6f} to {upper:.6f} around {truth:.6f}{name}"
    )
    return right


def _check_teacher(folder: Path, source: Path, *, samples: int) -> int:
    """Print how a teacher does on noised data, and whether that is what its configuration says.

    Args:
        folder: Of diffusers, or written by `train-diffusion`.
        source: Images, as `read_images` takes them.
        samples: How many of them to look at.

    Returns:
        Exit code: 0 where the teacher is what it is declared to be, else 1.

    Raises:
        InputError: Folder, data or flag is wrong.
    """
    import torch

    from pushforward.diffusion.doctor import FEWEST, examine
    from pushforward.jobs.inputs.images import read_images
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
        unlabelled = labels is None and labels_of(teacher) is not None
        hint = f"; the teacher takes labels, and {source} has none" if unlabelled else ""
        raise InputError(f"--teacher {folder}: {error}{hint}") from None
    labelled = "" if labels is None else ", with labels"
    print(f"{'teacher':<18}{folder}: {found.declared}, {type(teacher.process).__name__}")
    print(f"{'data':<18}{source}: {len(data)} samples of {tuple(data.shape[1:])}{labelled}")
    for level in found.levels:
        print(
            f"{f't = {level.t:.4g}':<18}noise {level.noise:.3g}: mean squared error of x0 {level.error:.4g}, "
            f"of a linear denoiser {level.linear:.4g}, of the mean {level.constant:.4g}"
        )
    print(f"{'verdict':<18}{found.advice}")
    return OK if found.verdict == "ok" else NOT_CONVERGED
