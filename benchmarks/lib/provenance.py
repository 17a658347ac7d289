"""A digest of the modules that made a row: what a commit says of a clean tree only.

The digest is one of (name, text) of every module of a package, in the order of the names. It survives a move, so that
rows of before and after it compare: a module that moved is entered under the name that it had when its rows were
committed (`MOVED`, new name -> recorded name; whoever moves a module adds a line), and import statements, which are all
that a move changes in the text of the others, are left out, with blank lines and the packages' `__init__.py`.

Rows of up to 2026-11-26 carry digests of the whole bytes of `maps/*.py`; their commits say what those were.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from pathlib import Path

MONGE = ("conditions", "fitting", "judge", "monge", "networks", "objective", "reading", "stages", "start")
MOVED = {f"monge/{name}.py": f"{name}.py" for name in MONGE}


def without_imports(text: str) -> str:
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(line for line in lines if line.strip())


def digest(folder: Path) -> str:
    """Nine characters that stand for the modules below the folder, wherever in it they lie."""
    files = {str(file.relative_to(folder)): file for file in folder.rglob("*.py") if file.name != "__init__.py"}
    named = sorted((MOVED.get(name, name), file) for name, file in files.items())
    parts = [f"{name}\n{without_imports(file.read_text())}\n" for name, file in named]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:9]


def sources(package: str = "pushforward.maps") -> str:
    """The digest of an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return digest(Path(spec.submodule_search_locations[0]))
