"""The settings of `pushforward distill-diffusion`: its flags, its recipe, and what `Distiller` and `Trainer` take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pushforward.jobs.errors import InputError
from pushforward.jobs.settings import AT_LEAST_ONE, COMMAND, FREE, POSITIVE, Bound, Switch, check_bounds, default_or

__all__ = ["DistillDiffusion"]


@dataclass(frozen=True, kw_only=True)
class DistillDiffusion:
    """Distil a diffusion model into a generator of one to four steps, and say how good it became.

    Give flags, a recipe (a YAML file of the same settings, with _ in place of -), or both: flags override the recipe.
    The folder holds the student, for `pushforward sample` and `OneStepPipeline`, result.json and index.html; an
    interrupted run goes on with --resume.

    Exit code 0: done. 2: a wrong flag, file or recipe key. 130: interrupted.
    """

    teacher: Annotated[Path | None, default_or("(required)", "FOLDER")] = None
    """What train-diffusion left (RUN or RUN/teacher), or a pipeline of diffusers in safetensors."""
    data: Annotated[Path | None, default_or("(required)", "DATA")] = None
    """The teacher's data: a folder of pictures, an .npz with `images` and perhaps `labels`, or: digits."""
    out: Annotated[Path | None, default_or("(required)", "FOLDER"), FREE] = None
    """Folder for the student, the figures and a page that shows them."""
    divergence: str = "js"
    """reverse_kl, softened_reverse_kl, js, squared_hellinger, jeffreys, kl, generalised_js(0.3), skewed_kl(0.1)."""
    gan_weight: Annotated[float, Bound(least=0)] = 1e-3
    """Weight of the discriminator's own term; 0 leaves it out."""
    generator_steps: Annotated[int, Bound(least=1, most=4)] = 1
    """How many times the student asks its network, 1 to 4."""
    conditional: Switch = False
    """Tell teacher and student the labels of the data."""
    guidance: Annotated[float | None, default_or("none", "FLOAT"), Bound()] = None
    """Of a conditional teacher: distil it under classifier-free guidance of this scale."""
    steps: Annotated[int, AT_LEAST_ONE, FREE] = 5000
    """Steps of the student."""
    batch_size: Annotated[int, Bound(least=2)] = 256
    """Images a step, over all processes."""
    learning_rate: Annotated[float, POSITIVE] = 3e-4
    """The student's."""
    critic_steps: Annotated[int, AT_LEAST_ONE] = 5
    """Steps of its critics for each of the student's."""
    critic_rate: Annotated[float | None, default_or("three times the student's", "FLOAT"), POSITIVE] = None
    """The critics' learning rate."""
    warmup: Annotated[int, Bound(least=0)] = 200
    """Steps of the critics before the student's first."""
    average: Annotated[float, Bound(least=0, below=1)] = 0.999
    """Factor of the running average of the student; 0 keeps the student itself."""
    clip: Annotated[float, POSITIVE] = 10.0
    """The gradient's largest length; a longer one is scaled down."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """In which the networks compute."""
    every: Annotated[int, AT_LEAST_ONE, FREE] = 500
    """Steps between checkpoints, grids of samples and figures."""
    log_every: Annotated[int, AT_LEAST_ONE, FREE] = 10
    """Steps between records in the log."""
    judged: Annotated[int | None, default_or("10000, of a U-Net 1000", "INT"), Bound(least=100), FREE] = None
    """Images that are drawn for the final figures."""
    seed: int = 0
    """Random seed."""
    workers: Annotated[int, Bound(least=0), FREE] = 0
    """Processes that load the data; 0 loads it in the training's own."""
    resume: Annotated[Switch, COMMAND] = False
    """Go on with the run in --out from its last checkpoint."""
    quiet: Annotated[Switch, COMMAND] = False
    """Show no progress."""

    def run(self) -> int:
        """Check everything, then train, then write the run's folder; returns the exit code."""
        for name, what in (
            ("teacher", "the folder of the model to learn from"),
            ("data", "what the teacher was trained on"),
            ("out", "the folder for the run"),
        ):
            if getattr(self, name) is None:
                raise InputError(f"--{name}: is needed, {what}")
        check_bounds(self)
        if self.guidance is not None and not self.conditional:
            raise InputError("--guidance: is between condition and none; it needs --conditional")

        from pushforward.jobs.distill_diffusion.run import run

        return run(self)
