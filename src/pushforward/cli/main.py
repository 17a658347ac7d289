"""`pushforward`: read the command line, run the verb, turn what goes wrong into one line and an exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Annotated, Any, Union, cast

import tyro

from pushforward.cli.apply_map import ApplyMap
from pushforward.cli.distill_diffusion import DistillDiffusion
from pushforward.cli.distill_lm import DistillLm
from pushforward.cli.doctor import Doctor
from pushforward.cli.errors import BAD_INPUT, INTERRUPTED, InputError
from pushforward.cli.evaluate import Evaluate
from pushforward.cli.fit_map import FitMap
from pushforward.cli.sample import Sample
from pushforward.cli.solve import Solve
from pushforward.cli.tour import Tour
from pushforward.cli.train_diffusion import TrainDiffusion

__all__ = ["main"]

_VERBS = {
    DistillLm: ("distill-lm", "Distil a language model into a smaller one."),
    DistillDiffusion: ("distill-diffusion", "Distil a diffusion model into a one-step generator."),
    Evaluate: ("evaluate", "Judge a language model, or a generator of images."),
    TrainDiffusion: ("train-diffusion", "Train a diffusion model on images."),
    Sample: ("sample", "Draw images from a generator."),
    FitMap: ("fit-map", "Learn a map from one distribution to another."),
    ApplyMap: ("apply-map", "Apply a learned map to new points."),
    Solve: ("solve", "Solve transport between pictures, points, or for a cost."),
    Tour: ("tour", "Run the library on real data and write one page about it."),
    Doctor: ("doctor", "Print what is installed and solve on each device."),
}

_Verb = ApplyMap | DistillDiffusion | DistillLm | Doctor | Evaluate | FitMap | Sample | Solve | Tour | TrainDiffusion

_DESCRIPTION = "Make one distribution match another."


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The words after `pushforward`; None for those of the process.

    Returns:
        The exit code: 0 done, 1 a result that is not what was asked (it says so), 2 a wrong flag, file or content
        (one line on stderr names it), 130 interrupted.
    """
    try:
        return _parse(args).run()
    except InputError as error:
        return _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output, say `head`, has gone; there is nobody to tell.
        sys.stdout = io.StringIO()
        return 0


def _parse(args: Sequence[str] | None) -> _Verb:
    args = sys.argv[1:] if args is None else args
    # In the list of all verbs each has one line; asked for help itself, a verb says all that its docstring does.
    listed = not args or args[0] not in {name for name, _ in _VERBS.values()}
    verbs = [
        Annotated[verb, tyro.conf.subcommand(name, description=summary if listed else None)]
        for verb, (name, summary) in _VERBS.items()
    ]
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(
                cast(Any, Union[tuple(verbs)]),  # noqa: UP007  made of a list
                prog="pushforward",
                description=_DESCRIPTION,
                args=args,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code == BAD_INPUT:
            raise InputError(_first_sentence(said.getvalue())) from None
        raise


def _first_sentence(box: str) -> str:
    """The message in the box that tyro draws around an error: title, message, a blank line or a rule, advice."""
    words: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip().strip("│╰╯")
        if not text.strip("─- "):  # a rule, in Unicode or in ASCII, or nothing
            if words:
                break
        elif not text.startswith(" " * 8):  # what is set this far in explains an argument
            words += text.split()
    return " ".join(words) or "the command line could not be read; see pushforward --help"


def _fail(message: str, code: int) -> int:
    print("pushforward: " + " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
