"""`pushforward train-diffusion`: a diffusion model of images, small enough to be trained here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import interruption, make_folder
from pushforward.jobs.recipes import check_resumed

__all__ = ["TrainDiffusion"]


@dataclass(frozen=True, kw_only=True)
class TrainDiffusion:
    """Train a diffusion model on images, draw from it, and say how near its samples come to them.

    It is the teacher that a one-step generator is distilled from, and is drawn from by `pushforward sample`.

    Exit code 0: done. 2: a wrong flag or file. 130: interrupted.
    """

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A folder of pictures of one size (of folders, one a class), an .npz with `images` (N, H, W) or (N, H, W, C) and
    perhaps `labels`, or `digits`."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(required)")] = None
    """Folder for the model, its checkpoints and its figures."""
    steps: int = 6000
    """Steps of training."""
    batch_size: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 256, or all images)")
    ] = None
    """Images a step."""
    learning_rate: float = 2e-3
    """Of Adam, at its highest."""
    conditional: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Tell the model the labels, so that it can be asked for a class."""
    judged: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 10000, of a U-Net 1000)")
    ] = None
    """Samples that the figures are of; more take longer and say more."""
    seed: int = 0
    """Of everything that is drawn."""
    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Go on with the run in --out from its last checkpoint."""
    json: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Print the result as JSON."""
    quiet: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Show no progress."""

    def run(self) -> int:
        """Check everything, then train, draw, judge, and write the run's folder."""
        out = self._check_flags()
        from pushforward.diffusion.judge import FEWEST
        from pushforward.jobs.inputs.images import read_images

        images = read_images(self.data)
        if self.conditional and images.labels is None:
            raise InputError(f"--conditional: {self.data} has no labels")
        if len(images.samples) < FEWEST:
            raise InputError(f"{self.data}: holds {len(images.samples)} images; {FEWEST} are the least to be judged by")
        if self.batch_size is not None and self.batch_size > len(images.samples):
            raise InputError(f"--batch-size {self.batch_size}: {self.data} has {len(images.samples)} images")
        check_resumed(out, self.recipe(), resume=self.resume, free=("judged",))
        make_folder(out)

        from pushforward.errors import PushforwardError
        from pushforward.jobs.train_diffusion.run import run

        try:
            result = run(self, out, images)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(interruption(out, " the same command and --resume")) from None
        except PushforwardError as error:
            raise InputError(f"{self.data}: {error}") from None
        print(json.dumps(result, indent=2) if self.json else _block(result, out))
        return OK

    def recipe(self) -> dict[str, Any]:
        """The flags that say what a run is, in words that JSON has."""
        plain = asdict(self) | {"data": str(self.data)}
        return {key: value for key, value in plain.items() if key not in ("out", "resume", "json", "quiet")}

    def _check_flags(self) -> Path:
        if self.out is None:
            raise InputError("--out: is needed, the folder for the run")
        for name, value, least in (
            ("steps", self.steps, 1),
            ("batch-size", self.batch_size, 1),
            ("judged", self.judged, 8),
        ):
            if value is not None and value < least:
                raise InputError(f"--{name} {value}: must be at least {least}")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"--learning-rate {self.learning_rate}: must be above 0, and below 1")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed {self.seed}: must be at least 0, and below 2^32")
        return self.out


def _block(result: dict[str, Any], out: Path) -> str:
    lines = [
        f"{'data':<18}{result['images']} images of {' x '.join(map(str, result['shape']))}",
        f"{'network':<18}{result['network']}, {result['parameters']:,} parameters",
        f"{'samples':<18}{result['samples']}, in {result['sampling_steps']} steps, seed {result['seed']}",
        f"{'figures in':<18}{result['features']}",
    ]
    from pushforward.diffusion.judge import written

    figures = written(result["figures"], rows=min(result["images"] // 2, result["samples"]))
    lines += [f"{name:<18}{text}" for name, text in figures.items()]
    lines += [f"{'warning':<18}{remark}" for remark in result["remarks"]]
    lines += [f"{'seconds':<18}{result['seconds']:.1f}", f"{'teacher':<18}{out / 'teacher'}"]
    return "\n".join([*lines, f"{'pictures':<18}{out / 'samples.png'}", f"{'page':<18}{out / 'index.html'}"])
