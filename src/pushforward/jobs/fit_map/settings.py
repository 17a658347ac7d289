"""`pushforward fit-map`: a transport map from points of two distributions."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pushforward.jobs.errors import OK, InputError
from pushforward.jobs.folder import holds_run, interruption, make_folder

if TYPE_CHECKING:
    from pushforward.jobs.inputs.clouds import Cloud, Origin

__all__ = ["FitMap", "Method"]

Method = Literal["monge", "linear", "entropic", "progressive", "icnn"]
CostName = Literal["sqeuclidean", "euclidean", "manhattan", "cosine", "geodesic"]

# Flags that a method has no use for are refused rather than passed over.
_TAKES: dict[Method, tuple[str, ...]] = {
    "monge": ("cost", "epsilon", "steps", "batch_size"),
    "linear": (),
    "entropic": ("cost", "epsilon"),
    "progressive": ("cost", "epsilon"),
    "icnn": ("steps", "batch_size"),
}
_NONE = tyro.conf.arg(help_behavior_hint="(default: none)")
_OWN = "(default: the method's own)"


@dataclass(frozen=True, kw_only=True)
class FitMap:
    """Learn a map that carries one distribution into another, and say how well it does on points held out.

    Points (.npy, .npz with `points`, .csv: one a row), cells (.h5ad, two files or two groups of one), or two pictures,
    whose pixels are points in colour space: then the recoloured picture is written, too. The map is kept in the run's
    folder, for `pushforward apply-map`.

    Exit code 0: done. 2: a wrong flag or file. 130: interrupted.
    """

    first: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Where the map starts: .npy, .npz, .csv, .h5ad, or a picture."""
    second: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[TARGET]", help_behavior_hint="")] = (
        None
    )
    """Where it leads, of the same kind; with --obs it is left out."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(required)")] = None
    """Folder for the map, the figures and a page that shows them."""
    method: Method = "monge"
    """monge: linear, then better where held-out points say so. linear: between Gaussians, closed form. entropic,
    progressive: from plans between all points. icnn: the gradient of a convex network."""
    cost: Annotated[
        CostName | None,
        tyro.conf.arg(
            metavar="{sqeuclidean,euclidean,manhattan,cosine,geodesic}", help_behavior_hint="(default: sqeuclidean)"
        ),
    ] = None
    """What moving a point costs; geodesic is for points on a sphere."""
    epsilon: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=_OWN)] = None
    """Entropic regularisation, in units of the mean cost between source and target."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_OWN)] = None
    """Steps of training."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_OWN)] = None
    """Points of either side a step."""
    seed: int = 0
    """Of everything that is drawn."""
    hold_out: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.2
    """Share of the points of either side that is kept for judging."""
    obs: Annotated[str | None, tyro.conf.arg(metavar="COLUMN"), _NONE] = None
    """Cells: the column of `obs` that tells source from target."""
    source: Annotated[str | None, tyro.conf.arg(metavar="VALUE"), _NONE] = None
    """Cells: its value for the source."""
    target: Annotated[str | None, tyro.conf.arg(metavar="VALUE"), _NONE] = None
    """Cells: its value for the target."""
    rep: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: X)")] = None
    """Cells: which numbers of them: X, layers/NAME or obsm/NAME."""
    log1p: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Cells: these are counts; bring each cell to 10,000 and take log(1 + count)."""
    resume: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Go on with the run in --out from its last checkpoint."""
    json: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Print the result as JSON."""
    quiet: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: no)")] = False
    """Show no progress."""

    def run(self) -> int:
        """Check everything, then learn, judge, and write the run's folder."""
        out = self._check_flags()
        data = self._read()
        self._check_out(out)
        make_folder(out)

        from pushforward.errors import PushforwardError
        from pushforward.jobs.fit_map.run import run

        try:
            result = run(self, out, *data)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(interruption(out, " the same command and --resume")) from None
        except PushforwardError as error:
            if not self.resume:
                (out / "recipe.yaml").unlink(missing_ok=True)  # there is no run to go on with; the folder stays free
            # "X" and "Y" are what the library calls the two; a message of neither is of both.
            sides = {"X": str(self.first), "Y": str(self.second or self.first)}
            both = str(self.first) if self.second is None else f"{self.first} and {self.second}"
            raise InputError(f"{sides.get(str(error).split()[0], both)}: {error}") from None
        print(json.dumps(result, indent=2, allow_nan=False) if self.json else _block(result, out))
        return OK

    def settings(self) -> dict[str, Any]:
        """The method's own parameters, as far as they were given."""
        given = {name: getattr(self, name) for name in _TAKES[self.method]}
        return {name: value for name, value in given.items() if value is not None}

    def recipe(self) -> dict[str, Any]:
        """The flags that say what a run is, in words that YAML has."""
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        return {
            key: value
            for key, value in plain.items()
            if key not in ("out", "resume", "json", "quiet") and value is not None
        }

    def _check_flags(self) -> Path:
        if self.out is None:
            raise InputError("--out: is needed, the folder for the run")
        for name in ("cost", "epsilon", "steps", "batch_size"):
            if getattr(self, name) is not None and name not in _TAKES[self.method]:
                raise InputError(f"--{name.replace('_', '-')}: is of no use to --method {self.method}")
        if self.epsilon is not None and not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(f"--epsilon {self.epsilon}: must be a finite number above 0")
        for name, value, least in (("steps", self.steps, 1), ("batch-size", self.batch_size, 2)):
            if value is not None and value < least:
                raise InputError(f"--{name} {value}: must be at least {least}")
        if not 0 < self.hold_out <= 0.5:
            raise InputError(f"--hold-out {self.hold_out}: must be above 0, and 0.5 at most")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed {self.seed}: must be at least 0, and below 2^32")
        return self.out

    def _read(self) -> tuple[Origin, Cloud, Cloud]:
        from pushforward.jobs.inputs.clouds import kind_of, read_pair

        if kind_of(self.first) != "cells":
            for name in ("obs", "source", "target", "rep", "log1p"):
                if getattr(self, name):
                    raise InputError(f"--{name}: is for cells (.h5ad) only; {self.first} holds {kind_of(self.first)}")
        named = [name for name in ("obs", "source", "target") if getattr(self, name) is not None]
        if named and self.second is not None:
            raise InputError(f"--{named[0]}: picks groups of one file, but two are given")
        groups = None
        if named:
            if self.obs is None or self.source is None or self.target is None:
                raise InputError(f"--{named[0]}: --obs, --source and --target are needed together")
            groups = self.obs, self.source, self.target
        return read_pair(self.first, self.second, rep=self.rep or "X", log1p=self.log1p, groups=groups)

    def _check_out(self, out: Path) -> None:
        """See that the folder is free, or holds the run to be resumed."""
        import yaml

        file = out / "recipe.yaml"
        if not holds_run(out, file, resume=self.resume):
            return
        try:
            before = yaml.safe_load(file.read_text(encoding="utf-8"))
            changed = [name for name, value in self.recipe().items() if before.get(name) != value]
            changed += [name for name in before if name not in self.recipe() and name not in ("verb", "version")]
        except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
            raise InputError(f"--resume: {file} cannot be read: {error}") from None
        if changed:
            name = changed[0]
            raise InputError(
                f"--resume: the run in {out} has {name} {before.get(name)}, not {self.recipe().get(name)}; "
                "a run is resumed with its own settings"
            )


def _block(result: dict[str, Any], out: Path) -> str:
    names = ("divergence", "w2", "exact_gap", "variance_ratio", "mean_shift")
    heads = ("divergence", "W2^2", "gap", "variance ratio", "mean shift")
    held_out = result["points"]["held_out"]
    lines = [
        f"{'problem':<18}{result['problem']}",
        f"{'method':<18}{result['method']}" + (f", stage {result['stage']}" if result["stage"] else ""),
        f"{'held out':<18}{held_out[0]} and {held_out[1]} points, on which:",
        f"{'':<18}" + "".join(f"{head:>16}" for head in heads),
    ]
    for row, figures in result["figures"].items():
        cells = (f"{figures[name]:.4g}" if figures.get(name) is not None else "" for name in names)
        lines.append(f"{row:<18}" + "".join(f"{cell:>16}" for cell in cells))
    lines.append(f"{'floor':<18}{'':>16}{result['floor']:>16.4g}")
    lines += [f"{'seconds':<18}{result['seconds']:.1f}", f"{'map':<18}{out / 'map'}"]
    if result["picture"]:
        lines.append(f"{'picture':<18}{out / result['picture']}")
    lines += [f"{'warning':<18}{text}" for text in result["warnings"]]
    return "\n".join([*lines, f"{'page':<18}{out / 'index.html'}"])
