"""`pushforward sample`: images of a generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import drafted
from pushforward.jobs.settings import AT_LEAST_ONE, SEED, check_bounds, default_or

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Sample"]

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw images from a one-step student, or by Heun's steps from a diffusion model, trained here or by diffusers.

    A file that ends in .png gets all of them side by side; one that ends in .npz gets `images` (N, H, W, C), uint8,
    and `labels` where they were asked for.

    Exit code 0: done. 2: a wrong flag or file.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of a run, of a teacher or student in it, or of a pipeline of diffusers."""
    num: Annotated[int, AT_LEAST_ONE] = 64
    """How many."""
    out: Annotated[Path | None, default_or("(required)", "FILE")] = None
    """.png (.jpg, .webp) or .npz."""
    label: Annotated[int | None, default_or("none", "INT")] = None
    """Of a generator that knows labels: this class alone; without it, all classes alike."""
    steps: Annotated[int | None, default_or("18", "INT"), AT_LEAST_ONE] = None
    """Steps of a teacher's sampler; a student has its own."""
    seed: Annotated[int, SEED] = 0
    """The same one draws the same images."""

    def run(self) -> int:
        """Draw the images and write them; returns the exit code."""
        out = self._check_flags()

        import torch

        from pushforward.errors import PushforwardError
        from pushforward.jobs.generators import load_generator
        from pushforward.jobs.inputs.teachers import spans

        source = load_generator(self.run_folder)
        if len(source.shape) != 3 or source.shape[0] not in (1, 3) or source.latent:
            what = "latents" if source.latent else "samples"
            raise InputError(f"{self.run_folder}: draws {what} of shape {source.shape}, which are no images")
        if self.steps is not None and source.student is not None:
            raise InputError(f"--steps: is of no use to a student, which has {len(source.student.generator.times)}")
        labels = None
        if self.label is not None:
            known = source.labels
            if known is None:
                raise InputError(f"--label: {self.run_folder} knows no labels")
            if self.label not in known:
                raise InputError(f"--label {self.label}: {self.run_folder} knows {spans(known.tolist())}")
            labels = torch.tensor([self.label])
        try:
            drawn, asked = source.draw(self.num, seed=self.seed, steps=self.steps, labels=labels)
        except PushforwardError as error:
            raise InputError(f"{self.run_folder}: {error}") from None
        _write(out, drawn, asked)
        print(out)
        return OK

    def _check_flags(self) -> Path:
        if self.out is None:
            raise InputError("--out: is needed, the file for the images")
        if self.out.suffix.lower() not in (*_PICTURES, ".npz"):
            raise InputError(f'--out {self.out}: "{self.out.suffix}" does not fit; .npz {" ".join(_PICTURES)} do')
        if not self.out.parent.is_dir():
            raise InputError(f"--out {self.out}: {self.out.parent} is no folder")
        check_bounds(self)
        return self.out


def _write(out: Path, drawn: Tensor, labels: Tensor | None) -> None:
    import numpy as np

    from pushforward.report.generators import save_grid

    try:
        with drafted(out) as draft:
            if out.suffix.lower() != ".npz":
                save_grid(draft, drawn.cpu(), columns=math.ceil(math.sqrt(len(drawn))))
            else:
                pixels = (drawn.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
                arrays: dict[str, Any] = {} if labels is None else {"labels": labels.cpu().numpy()}
                np.savez(draft, images=pixels, **arrays)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from None
