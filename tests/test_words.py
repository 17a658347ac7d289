"""What is written: docstrings name what goes in and comes out, links lead somewhere, names are the field's.

`make check` runs this file. A rule of ruff or pydoclint would not do: both want one entry an argument, and here
arguments of one kind are described together ("a, b: weights of rows and columns").
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "pushforward"

# What users import from; a name in the `__all__` of one of these is public. (The arguments of `ot.compat` are POT's.)
ROOMS = ["divergences", "errors", "ot", "maps", "maps.costs", "maps.truths", "lm", "diffusion", "metrics", "training"]
ROOMS += ["plots", "samples", "report"]

# These words were names for a message, a condition and a label; say which of them it is.
RIDDLES = {"told", "said", "unlearnt", "spoken"}


def _public() -> dict[str, Any]:
    """The public classes and functions, and the classes' methods, by their full names."""
    found: dict[str, Any] = {}
    for module in map(importlib.import_module, ["pushforward", *(f"pushforward.{room}" for room in ROOMS)]):
        for value in (getattr(module, name) for name in module.__all__):
            if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("pushforward"):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    for name, value in list(found.items()):
        if inspect.isclass(value):
            found |= {f"{name}.{method}": function for method, function in _methods(value)}
    return dict(sorted(found.items()))


def _methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public methods that a class has by itself; one that fulfils a base's contract is described there."""
    for name, value in vars(kind).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        inherited = any(name in vars(base) for base in kind.__mro__[1:])
        if inspect.isfunction(function) and not name.startswith("_") and not inherited:
            yield name, function


def _described(doc: str) -> set[str]:
    """The arguments that a docstring's Args describe: "a", "a, b" and "**others" among them."""
    block = re.search(r"^Args:\n((?:    .*\n?|\n)+)", doc, re.MULTILINE)
    entries = re.findall(r"^    ((?:\*{0,2}\w+, )*\*{0,2}\w+)(?: \(.*?\))?:", block[1], re.MULTILINE) if block else []
    return {name.lstrip("*") for entry in entries for name in entry.split(", ")}


def missing(value: Any) -> list[str]:
    """What a public docstring leaves out: arguments by name, and "Returns" where there are arguments and a result."""
    value = inspect.unwrap(value)
    docs = [inspect.cleandoc(value.__doc__ or "")]
    if inspect.isclass(value):
        if getattr(value, "_is_protocol", False) or not {"__init__", "__dataclass_fields__"} & set(vars(value)):
            return []
        docs += [inspect.cleandoc(base.__doc__ or "") for base in value.__mro__[1:]]
    signature = inspect.signature(value)
    names = [name for name in signature.parameters if name not in ("self", "cls")]
    if inspect.isclass(value) and "__dataclass_fields__" in vars(value):
        # The fields of another library's base are described there.
        ours = [base for base in value.__mro__ if base.__module__.startswith("pushforward")]
        names = [name for name in names if any(name in vars(base).get("__annotations__", {}) for base in ours)]
    left_out = [name for name in names if not any(name in _described(doc) for doc in docs)]
    returns = not inspect.isclass(value) and signature.return_annotation not in ("None", None, inspect.Signature.empty)
    if names and returns and not re.search(r"^(Returns|Yields):$", docs[0], re.MULTILINE):
        left_out.append("Returns")
    return left_out


@pytest.mark.parametrize("name", PUBLIC := _public())
def test_a_public_docstring_describes_its_arguments_and_result(name: str):
    assert missing(PUBLIC[name]) == []


def test_what_a_docstring_leaves_out_is_found():
    def whole(a: int, b: int, *, c: int) -> int:
        """One.

        Args:
            a, b: Two
                lines.
            c: One.

        Returns:
            One.
        """
        return a + b + c

    def short(a: int, b: int) -> int:
        """One.

        Args:
            a: One.
        """
        return a + b

    assert missing(whole) == []
    assert missing(short) == ["b", "Returns"]


def _definitions(tree: ast.AST, public: bool = True) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and (not public or not node.name.startswith("_")):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, public)


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_docstring_says_more_than_a_word_or_two(file: Path):
    docs = [(node.name, ast.get_docstring(node) or "") for node in _definitions(ast.parse(file.read_text()))]
    assert [name for name, doc in docs if len(re.findall(r"\w[\w'.-]*", doc)) < 4] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_name_is_a_riddle(file: Path):
    tree = list(ast.walk(ast.parse(file.read_text())))
    names = {node.id for node in tree if isinstance(node, ast.Name)} | {
        node.arg for node in tree if isinstance(node, ast.arg | ast.keyword)
    }
    names |= {node.name.lstrip("_") for node in tree if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.attr.lstrip("_") for node in tree if isinstance(node, ast.Attribute)}
    assert not names & RIDDLES


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = [
        re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line) for line in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    ]
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {slug if not (before := slugs[:k].count(slug)) else f"{slug}-{before}" for k, slug in enumerate(slugs)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path):
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for link in links:
        if not re.match(r"https?:|mailto:", link):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not anchor or anchor in _anchors(target), link
