"""The settings of `pushforward train-diffusion`: its flags, its recipe, and what `TeacherTrainer` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pushforward.jobs.errors import InputError
from pushforward.jobs.settings import AT_LEAST_ONE, COMMAND, FREE, SEED, Bound, Switch, check_bounds, default_or

__all__ = ["TrainDiffusion"]


@dataclass(frozen=True, kw_only=True)
class TrainDiffusion:
    """Train a diffusion model on images, draw from it, and say how near its samples come to them.

    It is the teacher that a one-step generator is distilled from, and is drawn from by `pushforward sample`. A recipe,
    a YAML file of settings, may stand beside the flags, which override it.

    Exit code 0: done. 2: a wrong flag or file. 130: interrupted.
    """

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A folder of pictures of one size (of folders, one a class), an .npz with `images` (N, H, W) or (N, H, W, C) and
    perhaps `labels`, or `digits`."""
    out: Annotated[Path | None, default_or("(required)", "FOLDER"), FREE] = None
    """Folder for the model, its checkpoints and its figures."""
    steps: Annotated[int, AT_LEAST_ONE] = 6000
    """Steps of training."""
    batch_size: Annotated[int | None, default_or("256, or all images", "INT"), AT_LEAST_ONE] = None
    """Images a step."""
    learning_rate: Annotated[float, Bound(above=0, below=1)] = 2e-3
    """Adam's peak learning rate."""
    average: Annotated[float, Bound(least=0, below=1)] = 0.995
    """Factor of the running average of the model."""
    label_dropout: Annotated[float, Bound(least=0, below=1)] = 0.1
    """With --conditional: share of images whose label is left out."""
    conditional: Switch = False
    """Tell the model the labels, so that it can be asked for a class."""
    every: Annotated[int, AT_LEAST_ONE, FREE] = 500
    """Steps between checkpoints."""
    log_every: Annotated[int, AT_LEAST_ONE, FREE] = 50
    """Steps between records in the log."""
    judged: Annotated[int | None, default_or("10000, of a U-Net 1000", "INT"), Bound(least=8), FREE] = None
    """Samples that the figures are of; more take longer and say more."""
    seed: Annotated[int, SEED] = 0
    """Random seed."""
    workers: Annotated[int, Bound(least=0), FREE] = 0
    """Processes that load the data; 0 loads it in the training's own."""
    resume: Annotated[Switch, COMMAND] = False
    """Go on with the run in --out from its last checkpoint."""
    json: Annotated[Switch, COMMAND] = False
    """Print the result as JSON."""
    quiet: Annotated[Switch, COMMAND] = False
    """Show no progress."""

    def run(self) -> int:
        """Check everything, then train, draw, judge, and write the run's folder; returns the exit code."""
        if self.out is None:
            raise InputError("--out: is needed, the folder for the run")
        check_bounds(self)

        from pushforward.jobs.train_diffusion.run import run

        return run(self, self.out)
