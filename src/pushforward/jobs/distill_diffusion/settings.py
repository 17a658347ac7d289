"""`pushforward distill-diffusion`: a diffusion model into a generator of one to four steps."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import make_folder
from pushforward.jobs.recipes import as_json, check_resumed, read_recipe

__all__ = ["DistillDiffusion", "Settings"]

_NEEDED = tyro.conf.arg(help_behavior_hint="(required)")
_NONE = tyro.conf.arg(help_behavior_hint="(default: none)")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is distilled, on what and how. A recipe holds the same under the same names, with _ in place of -."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # a key that is no setting is an error

    teacher: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), _NEEDED] = None
    """What train-diffusion left (RUN or RUN/teacher), or a pipeline of diffusers in safetensors."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="DATA"), _NEEDED] = None
    """The teacher's data: a folder of pictures, an .npz with `images` and perhaps `labels`, or: digits."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), _NEEDED] = None
    """Folder for the student, the figures and a page that shows them."""
    divergence: str = "js"
    """reverse_kl, softened_reverse_kl, js, squared_hellinger, jeffreys, kl, generalised_js(0.3), skewed_kl(0.1)."""
    gan_weight: float = 1e-3
    """Weight of the discriminator's own term; 0 leaves it out."""
    generator_steps: int = 1
    """How many times the student asks its network, 1 to 4."""
    conditional: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Tell teacher and student the labels of the data."""
    guidance: Annotated[float | None, tyro.conf.arg(metavar="FLOAT"), _NONE] = None
    """Of a conditional teacher: distil it under classifier-free guidance of this scale."""
    steps: int = 5000
    """Steps of the student."""
    batch_size: int = 256
    """Images a step, over all processes."""
    learning_rate: float = 3e-4
    """The student's."""
    critic_steps: int = 5
    """Steps of its critics for each of the student's."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """In which the networks compute."""
    every: int = 500
    """Steps between checkpoints, grids of samples and figures."""
    judged: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 10000, of a U-Net 1000)")
    ] = None
    """Images that are drawn for the final figures."""
    seed: int = 0
    """Of everything that is drawn."""


@dataclass(frozen=True, kw_only=True)
class DistillDiffusion:
    """Distil a diffusion model into a generator of one to four steps, and say how good it became.

    Give flags or a recipe, a YAML file of the same settings. The folder holds the student, for `pushforward sample` and
    `OneStepPipeline`, results.json and index.html; an interrupted run goes on with --resume.

    Exit code 0: done. 2: a wrong flag, file or recipe key. 130: interrupted.
    """

    recipe: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[RECIPE]", help_behavior_hint="")] = (
        None
    )
    """YAML file of settings, in place of flags."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = Settings()
    """What is distilled."""
    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Go on with the run in --out from its last checkpoint."""
    quiet: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Show no progress."""

    def run(self) -> int:
        """Check everything, then train, then write the run's folder."""
        if self.recipe is None:
            return self._distil(self.settings)
        try:
            return self._distil(read_recipe(self.recipe, self.settings, example="data: digits"))
        except InputError as error:
            # Keys are named as the flags are.
            raise InputError(f"{self.recipe}: {error}") from None

    def _distil(self, settings: Settings) -> int:
        out, recipe = _check(settings), as_json(settings)
        check_resumed(out, recipe, resume=self.resume, free=("out", "judged", "steps"), note=" (but for steps)")
        from pushforward.jobs.distill_diffusion.run import prepare, run

        job = prepare(settings, out, progress=not self.quiet)
        make_folder(out)
        (out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
        print(run(job))
        return OK


def _check(settings: Settings) -> Path:
    """Refuse settings that cannot be meant, before anything is loaded; the run's folder."""
    for name, what in (
        ("teacher", "the folder of the model to learn from"),
        ("data", "what the teacher was trained on"),
    ):
        if getattr(settings, name) is None:
            raise InputError(f"--{name}: is needed, {what}")
    if settings.out is None:
        raise InputError("--out: is needed, the folder for the run")
    for name, least in (("generator_steps", 1), ("steps", 1), ("batch_size", 2), ("critic_steps", 1), ("every", 1)):
        if getattr(settings, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be at least {least}")
    if settings.generator_steps > 4:
        raise InputError(f"--generator-steps {settings.generator_steps}: must be 4 at most")
    if settings.judged is not None and settings.judged < 100:
        raise InputError(f"--judged {settings.judged}: must be at least 100, or the figures say nothing")
    if not (math.isfinite(settings.learning_rate) and settings.learning_rate > 0):
        raise InputError(f"--learning-rate {settings.learning_rate}: must be a finite number above 0")
    if not (math.isfinite(settings.gan_weight) and settings.gan_weight >= 0):
        raise InputError(f"--gan-weight {settings.gan_weight}: must be a finite number, at least 0")
    if settings.guidance is not None and not math.isfinite(settings.guidance):
        raise InputError(f"--guidance {settings.guidance}: must be a finite number")
    if settings.guidance is not None and not settings.conditional:
        raise InputError("--guidance: is between condition and none; it needs --conditional")
    return settings.out
