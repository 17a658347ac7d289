"""`pushforward`: read the command line, run the verb, turn what goes wrong into one line and an exit code."""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Annotated, Any, TextIO, TypeVar, Union, cast

import tyro
from safetensors import SafetensorError

from pushforward.cli.endings import kept, refusal, terminating
from pushforward.jobs.apply_map import ApplyMap
from pushforward.jobs.distill_diffusion.settings import DistillDiffusion
from pushforward.jobs.distill_lm.settings import DistillLm
from pushforward.jobs.doctor import Doctor
from pushforward.jobs.errors import BAD_INPUT, INTERRUPTED, OK, TERMINATED, UNWRITTEN, InputError
from pushforward.jobs.evaluate import Evaluate
from pushforward.jobs.fit_map.settings import FitMap
from pushforward.jobs.folder import held, release
from pushforward.jobs.sample import Sample
from pushforward.jobs.solve.settings import Solve
from pushforward.jobs.tour.settings import Tour
from pushforward.jobs.train_diffusion.settings import TrainDiffusion

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

Result = TypeVar("Result")
_DESCRIPTION = "Make one distribution match another."


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The words after `pushforward`; None for those of the process.

    Returns:
        The exit code: 0 done, 1 a result that is not what was asked (it says so) or that could not be written, 2 a
        wrong flag, file or content (one line on stderr names it), 130 interrupted, 143 terminated.
    """
    if sys.stdout is None:  # closed before the start, in which case Python prints to nowhere
        return _fail("standard output is closed; send it to a file or to /dev/null", BAD_INPUT)
    terminated: list[int] = []
    try:
        with terminating(terminated), redirect_stdout(cast(Any, _Output(sys.stdout))):
            try:
                return _parse(args).run()
            finally:
                sys.stdout.flush()  # what was printed may only now meet a full disk, or a reader that has gone
    except InputError as error:
        release(failed=True)
        return _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt as stop:
        message = str(stop) or "interrupted"
        if terminated:
            return _fail(message.replace("interrupted", "terminated", 1), TERMINATED)
        return _fail(message, INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output, say `head`, has gone, which is how it says that it has enough.
        return OK
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = refusal(error)
        if reason is None:
            release(failed=True)
            raise
        return _fail(reason + "".join(kept(folder) for folder in held()), UNWRITTEN)
    finally:
        release()


class _Output:
    """Standard output; an error in writing to it is reported in one line."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._or_say(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._or_say(self._stream.flush)

    def _or_say(self, act: Callable[[], Result]) -> Result:
        try:
            return act()
        except OSError as error:
            try:  # Python tries once more when it ends, and would say in its own words that it cannot
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            except io.UnsupportedOperation:  # it is no file, as within tests
                pass
            if isinstance(error, BrokenPipeError):
                raise
            raise InputError(f"standard output cannot be written: {error.strerror}") from None


def _parse(args: Sequence[str] | None) -> _Verb:
    args = sys.argv[1:] if args is None else args
    _check_words(args)
    # In the list of all verbs each has one line; asked for help itself, a verb says all that its docstring does.
    listed = not args or args[0] not in {name for name, _ in _VERBS.values()}
    verbs = [
        Annotated[verb, tyro.conf.subcommand(name, description=summary if listed else None)]
        for verb, (name, summary) in _VERBS.items()
    ]
    output = io.StringIO()
    try:
        with redirect_stderr(output):
            return tyro.cli(
                cast(Any, Union[tuple(verbs)]),  # noqa: UP007  made of a list
                prog="pushforward",
                description=_DESCRIPTION,
                args=args,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code == BAD_INPUT:
            raise InputError(_plainly(_first_sentence(output.getvalue()))) from None
        raise


def _check_words(args: Sequence[str]) -> None:
    """Raise for an unknown command, and for empty words: `--out "$RUN"` with RUN not set would write here."""
    names = [name for name, _ in _VERBS.values()]
    if args and args[0] not in names and not args[0].startswith("-"):
        near = difflib.get_close_matches(args[0], names, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise InputError(f'"{args[0]}" is no command; {meant}')
    for before, word in zip(["", *args], args, strict=False):
        flag, equals, value = word.partition("=")
        if not word.strip() or (flag.startswith("--") and equals and not value.strip()):
            place = flag if equals else f"behind {before}"
            raise InputError(f"{place}: an empty word is given; is a variable of the shell not set?")


def _plainly(sentence: str) -> str:
    """An error of tyro's in plain words: choices in a steady order, and no Python types."""
    choices = re.search(r"Expected one of \((.+)\)", sentence)
    if choices:
        words = sorted(word for word in re.findall(r"'([^']*)'", choices[1]) if word != "None")
        sentence = sentence.replace(choices[0], "Expected one of " + ", ".join(words))
    for kind, words in (("FLOAT", "a number"), ("INT", "a whole number")):
        sentence = re.sub(
            rf"no type matching .*{kind}.* could be instantiated from \['(.*)'\]",
            rf"{words} is needed, not \1",
            sentence,
        )
    sentence = re.sub(
        r"invalid literal for int\(\) with base 10: '(.*)'", r"a whole number is needed, not \1", sentence
    )
    return re.sub(r"could not convert string to float: '(.*)'", r"a number is needed, not \1", sentence)


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
