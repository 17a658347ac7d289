"""`pushforward`: read the command line, run the verb, turn what goes wrong into one line and an exit code."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar, Union, cast

import tyro
from safetensors import SafetensorError

from pushforward.cli.endings import kept, refusal, terminating
from pushforward.jobs.errors import BAD_INPUT, INTERRUPTED, OK, TERMINATED, UNWRITTEN, InputError
from pushforward.jobs.folder import held, release
from pushforward.jobs.recipes import read_recipe, recipe_among

__all__ = ["main"]

# Where each verb's settings are, and what the list of all says of it.
_VERBS = {
    "distill-lm": ("distill_lm.settings.DistillLm", "Distil a language model into a smaller one."),
    "distill-diffusion": (
        "distill_diffusion.settings.DistillDiffusion",
        "Distil a diffusion model into a one-step generator.",
    ),
    "evaluate": ("evaluate.Evaluate", "Judge a language model, or a generator of images."),
    "train-diffusion": ("train_diffusion.settings.TrainDiffusion", "Train a diffusion model on images."),
    "sample": ("sample.Sample", "Draw images from a generator."),
    "fit-map": ("fit_map.settings.FitMap", "Learn a map from one distribution to another."),
    "apply-map": ("apply_map.ApplyMap", "Apply a learned map to new points."),
    "solve": ("solve.settings.Solve", "Solve transport between pictures, points, or for a cost."),
    "tour": ("tour.settings.Tour", "Run the library on real data and write one page about it."),
    "doctor": ("doctor.Doctor", "Print what is installed and solve on each device."),
}
Result = TypeVar("Result")


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
                return _run(sys.argv[1:] if args is None else args)
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


def _run(args: Sequence[str]) -> int:
    """Run the command of these words: a verb, then its flags, or a recipe and the flags that override it."""
    _check_words(args)
    if not args or args[0] not in _VERBS:
        about = {name: tyro.conf.subcommand(name, description=summary) for name, (_, summary) in _VERBS.items()}
        verbs: Any = Union[tuple(Annotated[_settings(name), shown] for name, shown in about.items())]  # noqa: UP007
        return _parse(verbs, "pushforward", args, description="Make one distribution match another.").run()
    verb, kind, words = args[0], _settings(args[0]), list(args[1:])
    place = recipe_among(words, kind)
    file = None if place is None else Path(words.pop(place))
    try:
        default = None if file is None else read_recipe(file, verb, kind)
        return _parse(kind, f"pushforward {verb}", words, default=default).run()
    except InputError as error:
        # Keys of a recipe are named as the flags are.
        raise error if file is None else InputError(f"{file}: {error}") from None


def _settings(verb: str) -> Any:
    module, _, name = _VERBS[verb][0].rpartition(".")
    return getattr(importlib.import_module(f"pushforward.jobs.{module}"), name)


def _parse(kind: Any, prog: str, args: Sequence[str], *, default: Any = None, description: str | None = None) -> Any:
    """The settings that the words say, by tyro."""
    printed = io.StringIO()
    given = {} if default is None else {"default": default}
    try:
        with redirect_stderr(printed):
            return tyro.cli(
                kind, prog=prog, description=description, args=args, config=(tyro.conf.FlagCreatePairsOff,), **given
            )
    except SystemExit as stop:
        if stop.code == BAD_INPUT:
            raise InputError(_plainly(_first_sentence(printed.getvalue()))) from None
        raise


def _check_words(args: Sequence[str]) -> None:
    """Raise for an unknown command, and for empty words: `--out "$RUN"` with RUN not set would write here."""
    names = list(_VERBS)
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
