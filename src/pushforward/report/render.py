"""One HTML file from `report.json` and its pictures; the page loads nothing from the network."""

from __future__ import annotations

import base64
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pushforward.report.model import Block, Section, load

__all__ = ["render"]

_TYPES = {".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg"}


def render(folder: Path) -> Path:
    """Make a run's page from its `report.json`.

    Pictures are put into the page as data, and as images rather than as markup, so that nothing within them can run.

    Args:
        folder: The run's folder.

    Returns:
        The page, `index.html` in the folder.

    Raises:
        FileNotFoundError: The folder holds no `report.json`, or a picture is missing.
        ValueError: `report.json` is not a report, or names a picture outside of the folder or of an unknown kind.
    """
    report = load(folder)
    environment = Environment(
        loader=PackageLoader("pushforward.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html").render(
        report=report, groups=_groups, data=lambda name: _data_uri(folder, name)
    )
    file = folder / "index.html"
    file.write_text(page, encoding="utf-8")
    return file


def _groups(section: Section) -> list[tuple[str, list[Block]]]:
    """The section's blocks, with neighbouring pictures of the same width put together."""

    def key(block: Block) -> str:
        return ("wide" if block.wide else "pictures") if block.kind == "picture" else block.kind

    return [(name, list(blocks)) for name, blocks in groupby(section.blocks, key)]


def _data_uri(folder: Path, name: str) -> str:
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise ValueError(f'picture "{name}" lies outside of {folder}')
    if file.suffix not in _TYPES:
        raise ValueError(f'picture "{name}" is none of {", ".join(_TYPES)}')
    return f"data:{_TYPES[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
