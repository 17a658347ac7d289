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
            from pushforward.jobs.teacher_check import check_teacher

            return check_teacher(self.teacher, self.data, samples=self.samples)
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
