"""Whatever is wrong with a flag, a file or its content: exit code 2, one line on stderr that names it, no traceback."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return open, ("exploded", "w")


def _grey(name: str, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(name)


def _prepare() -> None:
    """Every file, good and bad, that the cases below name."""
    rng = np.random.default_rng(0)
    _grey("good.png", rng.integers(1, 255, (6, 6)))
    _grey("good2.png", rng.integers(1, 255, (6, 6)))
    _grey("wide.png", rng.integers(1, 255, (6, 9)))
    _grey("black.png", np.zeros((6, 6)))
    Path("words.png").write_text("this is no picture")
    Path("cut.png").write_bytes(Path("good.png").read_bytes()[:60])
    np.save("x.npy", rng.random((5, 2)))
    np.save("y.npy", rng.random((4, 2)))
    np.save("y3.npy", rng.random((4, 3)))
    np.save("line.npy", rng.random(5))
    np.save("cube.npy", rng.random((2, 2, 2)))
    np.save("none.npy", np.zeros((0, 2)))
    np.save("text.npy", np.array([["a", "b"]]))
    np.save("complex.npy", np.ones((3, 2), dtype=complex))
    np.save("objects.npy", np.array([[Bomb(), 1.0]], dtype=object), allow_pickle=True)
    np.save("nan.npy", np.array([[0.0, 1.0], [np.nan, 2.0]]))
    np.save("minus-inf.npy", np.array([[0.0, -np.inf], [1.0, 2.0]]))
    Path("bomb.npy").write_bytes(pickle.dumps(Bomb()))
    Path("bomb.npz").write_bytes(pickle.dumps(Bomb()))
    Path("cut.npy").write_bytes(Path("x.npy").read_bytes()[:-9])
    np.savez("objects.npz", points=np.array([[Bomb()]], dtype=object))
    np.savez("unknown.npz", points=np.ones((3, 2)), colour=np.ones(3))
    np.savez("short.npz", points=np.ones((3, 2)), weights=np.ones(2))
    np.savez("negative.npz", points=np.ones((3, 2)), weights=np.array([1.0, -1.0, 1.0]))
    np.savez("massless.npz", points=np.ones((3, 2)), weights=np.zeros(3))
    np.savez("cost-short.npz", cost=np.ones((3, 2)), a=np.ones(2))
    np.save("many.npy", rng.random((30, 2)))
    np.save("more.npy", rng.random((20, 2)))
    np.savez("weighted.npz", points=np.ones((30, 2)), weights=np.ones(30))
    Path("empty").mkdir()
    Path("nan.csv").write_text("0,1\n2,nan\n")
    Path("words.csv").write_text("0,1\n2,three\n")
    Path("ragged.csv").write_text("0,1\n2,3,4\n")
    Path("header.csv").write_text("x,y\n")
    Path("latin.csv").write_bytes(b"0,1\n\xff\xfe,2\n")
    Path("empty.csv").touch()
    Path("empty.npy").touch()
    Path("notes.txt").write_text("0,1\n")
    Path("folder.npy").mkdir()
    Path("taken").touch()
    Path("text.txt").write_text("words " * 50)
    np.save("square.npy", rng.random((6, 6)))
    for name, text in RECIPES.items():
        Path(f"{name}.yaml").write_text(text, encoding="utf-8")
    Path("utf16.yaml").write_bytes("seed: 1\n".encode("utf-16"))
    Path("bytes.yaml").write_bytes(bytes(range(256)))
    Path("folder.yaml").mkdir()


# What is wrong with a recipe, and what the line must name.
RECIPES = {
    "nothing": "",
    "list": "- a\n",
    "word": "word\n",
    "null": "null\n",
    "unknown": "speed: 3\n",
    "tab": "out:\n\t- b\n",
    "twice": "out: a\nout: b\n",
    "number-key": "5: 3\n",
    "code": '!!python/object/apply:os.mkdir ["exploded"]\n',
    "open": "out: [\n",
    "mapping": "batch_size: {a: 1}\n",
    "yes": "batch_size: yes\n",
    "rate-yes": "learning_rate: on\n",
    "infinite": "batch_size: .inf\n",
    "day": "batch_size: 2024-01-01\n",
    "half": "batch_size: 1.5\n",
    "spelt": "batch_size: ten\n",
    "number-path": "out: 5\n",
    "empty-path": 'out: ""\n',
    "two": "---\nout: a\n---\nout: b\n",
    "loop": "out: &a [*a]\n",
    "anchor": "out: *b\n",
    "list-key": "? [a, b]\n: 3\n",
    "binary": "out: !!binary aGVsbG8=\n",
    "merge": "<<: 5\n",
    "deep": "[" * 3000,
}
NAMES = {  # the setting that the line names, where it is one
    "unknown": "speed",
    "twice": "out: is set twice",
    "rate-yes": "learning_rate",
    **dict.fromkeys(("yes", "mapping", "infinite", "day", "half", "spelt"), "batch_size"),
    **dict.fromkeys(("loop", "number-path", "empty-path", "binary"), "out"),
}


CASES: list[tuple[str, str]] = [  # the words after `pushforward`, and what the one line must name
    ("", "solve, tour, doctor"),
    ("fly", "fly"),
    ("solve", "pushforward solve: A"),
    ("solve x.npy y.npy y3.npy", "y3.npy"),
    ("solve x.npy y.npy --speed 3", "--speed"),
    ("solve x.npy y.npy --method magic", "magic"),
    ("solve x.npy y.npy --epsilon small", "small"),
    ("solve x.npy y.npy --epsilon -1", "--epsilon"),
    ("solve x.npy y.npy --epsilon 0", "--epsilon"),
    ("solve x.npy y.npy --epsilon nan", "--epsilon"),
    ("solve x.npy y.npy --epsilon inf", "--epsilon"),
    ("solve x.npy y.npy --epsilon", "--epsilon"),
    ("solve x.npy y.npy --tol 0", "--tol"),
    ("solve x.npy y.npy --tol -1e-9", "--tol"),
    ("solve x.npy y.npy --max-iterations 0", "--max-iterations"),
    ("solve x.npy y.npy --max-iterations 1.5", "1.5"),
    ("solve x.npy y.npy --cost chebyshev", "chebyshev"),
    ("solve x.npy y.npy --p 1", "--p"),
    ("solve x.npy y.npy --background 0.1", "--background"),
    ("solve x.npy --cost euclidean", "--cost"),
    ("solve good.png good2.png --p 3", "3"),
    ("solve good.png good2.png --scale 0", "--scale"),
    ("solve good.png good2.png --background -1", "--background"),
    ("solve good.png good2.png --cost euclidean", "--cost"),
    ("solve x.npy y.npy --out taken", "taken"),
    ("solve x.npy y.npy --out taken/run", "taken/run"),
    ("tour --out taken", "taken"),
    ("tour --acts 3", "--acts"),
    ("doctor x.npy", "x.npy"),
    ("solve missing.npy y.npy", "missing.npy"),
    ("solve x.npy missing.csv", "missing.csv"),
    ("solve missing.png good.png", "missing.png"),
    ("solve folder.npy y.npy", "folder.npy"),
    ("solve empty.npy y.npy", "empty.npy"),
    ("solve empty.csv y.npy", "empty.csv"),
    ("solve notes.txt y.npy", "notes.txt"),
    ("solve x.npy notes.txt", "notes.txt"),
    ("solve good.png", "good.png"),
    ("solve good.png x.npy", "x.npy"),
    ("solve good.png wide.png", "wide.png"),
    ("solve good.png black.png", "black.png"),
    ("solve good.png words.png", "words.png"),
    ("solve cut.png good.png", "cut.png"),
    ("solve line.npy y.npy", "line.npy"),
    ("solve x.npy y3.npy", "y3.npy"),
    ("solve cube.npy", "cube.npy"),
    ("solve line.npy", "line.npy"),
    ("solve none.npy y.npy", "none.npy"),
    ("solve text.npy y.npy", "text.npy"),
    ("solve complex.npy y.npy", "complex.npy"),
    ("solve objects.npy y.npy", "objects.npy"),
    ("solve bomb.npy y.npy", "bomb.npy"),
    ("solve bomb.npz y.npy", "bomb.npz"),
    ("solve objects.npz y.npy", "objects.npz"),
    ("solve cut.npy y.npy", "cut.npy"),
    ("solve nan.npy y.npy", "nan.npy"),
    ("solve nan.npy", "nan.npy"),
    ("solve minus-inf.npy", "minus-inf.npy"),
    ("solve unknown.npz y.npy", "unknown.npz"),
    ("solve short.npz y.npy", "short.npz"),
    ("solve negative.npz y.npy", "negative.npz"),
    ("solve massless.npz y.npy", "massless.npz"),
    ("solve cost-short.npz", "cost-short.npz"),
    ("solve nan.csv y.npy", "nan.csv"),
    ("solve words.csv y.npy", "words.csv"),
    ("solve ragged.csv y.npy", "ragged.csv"),
    ("solve header.csv y.npy", "header.csv"),
    ("solve latin.csv y.npy", "latin.csv"),
    ("fit-map", "fit-map: SOURCE"),
    ("fit-map many.npy more.npy", "--out"),
    ("fit-map many.npy --out run", "many.npy: is the source only"),
    ("fit-map many.npy more.npy --out taken", "taken"),
    ("fit-map many.npy more.npy --out run --method magic", "magic"),
    ("fit-map many.npy more.npy --out run --cost chebyshev", "chebyshev"),
    ("fit-map many.npy more.npy --out run --cost geodesic --method entropic", "many.npy and more.npy: cost"),
    ("fit-map many.npy more.npy --out run --method linear --epsilon 1", "--epsilon"),
    ("fit-map many.npy more.npy --out run --method linear --cost euclidean", "--cost"),
    ("fit-map many.npy more.npy --out run --method entropic --batch-size 9", "--batch-size"),
    ("fit-map many.npy more.npy --out run --epsilon 0", "--epsilon"),
    ("fit-map many.npy more.npy --out run --epsilon nan", "--epsilon"),
    ("fit-map many.npy more.npy --out run --steps 0", "--steps"),
    ("fit-map many.npy more.npy --out run --batch-size 1", "--batch-size"),
    ("fit-map many.npy more.npy --out run --hold-out 0", "--hold-out"),
    ("fit-map many.npy more.npy --out run --hold-out 0.9", "--hold-out"),
    ("fit-map many.npy more.npy --out run --seed -1", "--seed"),
    ("fit-map many.npy more.npy --out run --obs condition", "--obs"),
    ("fit-map many.npy more.npy --out run --log1p", "--log1p"),
    ("fit-map many.npy more.npy --out run --resume", "--resume"),
    ("fit-map many.npy x.npy --out run", "x.npy: gives 5 points"),
    ("fit-map many.npy y3.npy --out run", "y3.npy: its points have 3 coordinates, those of many.npy 2"),
    ("fit-map many.npy good.png --out run", "good.png: holds pictures but many.npy holds points"),
    ("fit-map many.npy cells.h5ad --out run", "cells.h5ad: holds cells but many.npy holds points"),
    ("fit-map many.npy notes.txt --out run", "cells .h5ad"),
    ("fit-map many.npy nan.npy --out run", "row 2, column 1 is nan, the first of 1 such row"),
    ("fit-map many.npy cut.npy --out run", "cut.npy"),
    ("fit-map many.npy objects.npy --out run", "objects.npy"),
    ("fit-map many.npy short.npz --out run", "short.npz"),
    ("fit-map many.npy weighted.npz --out run", "weighted.npz: has weights"),
    ("fit-map good.png words.png --out run", "words.png"),
    ("apply-map", "apply-map: RUN"),
    ("apply-map empty many.npy", "empty: is no folder"),
    ("apply-map none many.npy", "none: is no folder"),
    ("apply-map taken many.npy", "taken: is no folder"),
    ("apply-map empty many.npy x.npy", "x.npy"),
    ("slove x.npy y.npy", '"slove" is no command; did you mean solve?'),
    ("--fly", "--fly"),
    ("solve x.npy y.npy --epsilon 1e-400", "--epsilon"),
    ("solve x.npy y.npy --epsilon=one", "--epsilon: a number is needed, not one"),
    ("solve x.npy y.npy --max-iterations one", "--max-iterations: a whole number is needed, not one"),
    ("solve x.npy y.npy --exact=1", "1"),
    ("solve x.npy y.npy --Epsilon 1", "--Epsilon"),
    ("solve x.npy y.npy --ink dark", "--ink: is for pictures only"),
    ("solve x.npy y.npy --ink blue", "Expected one of dark, light"),
    ("solve x.npy y.npy --cost matrix", "--cost"),
    ("solve square.npy --ink dark", "--ink"),
    ("solve good.png good2.png --p 3", "Expected one of 1, 2"),
    ("solve good.png good2.png --background 1e308", "--background"),
    ("solve good.png good2.png --background nan", "--background"),
    ("solve good.png good2.png --scale 1e308", "good.png"),
    ("solve good.png good2.png --cost matrix", "--cost"),
    ("solve x.npy empty", "empty"),
    ("solve x.npy", "x.npy: is the only file"),
    ("solve x.npy y.npy --out x.npy", "--out x.npy"),
    ("solve x.npy y.npy --out=", "--out: an empty word"),
    ("fit-map many.npy more.npy --out run --seed 1.5", "--seed"),
    ("fit-map many.npy more.npy --out run --seed 99999999999", "--seed"),
    ("fit-map many.npy more.npy --out run --hold-out nan", "--hold-out"),
    ("fit-map many.npy more.npy --out run --hold-out half", "--hold-out: a number is needed, not half"),
    ("fit-map many.npy more.npy --out run --rep X", "--rep"),
    ("fit-map empty more.npy --out run", "empty"),
    ("evaluate", "evaluate: MODEL"),
    ("evaluate none", "none: there is no such folder"),
    ("evaluate taken", "taken: there is no such folder"),
    ("evaluate empty", "--task"),
    ("evaluate empty --task sst2", "--data"),
    ("evaluate empty --task magic", "magic"),
    ("evaluate empty --task sst2 --data empty --split all", "Expected one of dev, test, train"),
    ("evaluate empty --text text.txt --batch-size 0", "--batch-size"),
    ("evaluate empty --text text.txt --max-length 1", "--max-length"),
    ("evaluate empty --text text.txt --num many", "--num"),
    ("sample", "sample: RUN"),
    ("sample empty", "--out"),
    ("sample none --out a.png", "none: there is no such folder"),
    ("sample taken --out a.png", "taken: there is no such folder"),
    ("sample empty --out a.png", "empty: holds no generator"),
    ("sample empty --out a.gif", ".gif"),
    ("sample empty --out a", "--out a"),
    ("sample empty --out none/a.png", "none is no folder"),
    ("sample empty --out a.png --num 0", "--num"),
    ("sample empty --out a.png --num 1e3", "--num"),
    ("sample empty --out a.png --steps 0", "--steps"),
    ("sample empty --out a.png --seed -1", "--seed"),
    ("doctor --teacher empty", "--teacher"),
    ("doctor --data digits", "--data"),
    ("doctor --samples 5", "--samples"),
    ("doctor --teacher none --data digits", "none: there is no such folder"),
    ("doctor --teacher empty --data none", "none: there is no such file"),
    ("doctor --teacher empty --data digits --samples 0", "--samples"),
    ("distill-lm none.yaml", "none.yaml"),
    ("distill-lm --teacher empty --student layers:1 --text text.txt --out run --loss 1e999*kd", "1e999*kd: the weight"),
    ("distill-diffusion none.yaml", "none.yaml"),
    *(
        (f"{verb} {recipe}.yaml", f"{recipe}.yaml: {NAMES.get(recipe, '')}")
        for verb in ("distill-lm", "distill-diffusion")
        for recipe in (*RECIPES, "utf16", "bytes", "folder")
    ),
]


@pytest.mark.parametrize(("words", "named"), CASES, ids=[case[0] or "nothing" for case in CASES])
def test_one_line_names_it(words: str, named: str, here: Path, run: Callable):
    _prepare()
    outcome = run(*words.split())
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("pushforward: ")
    assert named in outcome.err
    assert len(outcome.err) < 1000
    assert "Traceback" not in outcome.err
    assert not Path("exploded").exists(), "a pickle was loaded"


def test_the_line_says_where_and_how_to_mend(here: Path, run: Callable):
    _prepare()
    assert 'line 2: "three" is not a number' in run("solve", "words.csv", "y.npy").err
    assert "row 2, column 2 is nan" in run("solve", "nan.csv", "y.npy").err
    assert "good.png is 6 x 6" in run("solve", "good.png", "wide.png").err
    assert "never loaded" in run("solve", "objects.npy", "y.npy").err


@pytest.mark.parametrize("words", [["--out", ""], ["--out="], ["--out", "  "], ["--cost", ""]])
def test_an_empty_word_is_a_variable_that_is_not_set(words: list[str], here: Path, run: Callable):
    _prepare()
    before = sorted(Path().iterdir())
    outcome = run("solve", "x.npy", "y.npy", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{words[0].rstrip('=')}: an empty word is given" in outcome.err
    assert sorted(Path().iterdir()) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(here: Path, run: Callable):
    _prepare()
    Path("x.npy").chmod(0)
    outcome = run("solve", "x.npy", "y.npy")
    assert outcome.code == 2
    assert "x.npy: cannot be read" in outcome.err
