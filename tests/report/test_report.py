"""A run's folder becomes one page that holds everything and lets nothing through."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pushforward import plots, report
from pushforward.report import Code, Facts, Picture, Report, Section, Table, Text

HOSTILE = "<script>alert(1)</script>&\"'</style>"


class _Links(HTMLParser):
    """Collects what a browser would fetch, and checks that tags are closed in order."""

    VOID = ("meta", "source", "img")

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parse(page: str) -> _Links:
    links = _Links()
    links.feed(page)
    assert links.open == []
    return links


def _full(folder: Path, words: str = "plain") -> Report:
    picture = report.draw(
        folder, "one", lambda figure: plots.picture(figure.subplots(), [[0, 1]]), alt=words, caption=words
    )
    blocks = (
        Text(text=words),
        Code(text=words),
        Facts(facts=((words, words),)),
        Table(columns=(words, "number"), rows=((words, "1.5"),), caption=words),
        picture,
        picture,
    )
    section = Section(title=words, label=words, blocks=blocks)
    return Report(title=words, lead=words, sections=(section, section), footer=(words,))


def test_what_is_saved_is_loaded(tmp_path: Path):
    page = _full(tmp_path)
    report.save(page, tmp_path)
    assert report.load(tmp_path) == page


def test_the_page_asks_nothing_of_the_network(tmp_path: Path):
    report.save(_full(tmp_path), tmp_path)
    text = report.render(tmp_path).read_text()
    links = _parse(text)
    assert len(links.fetched) == 2 + 2 * 2 * 2
    assert all(link.startswith(("data:image/svg+xml;base64,", "#s")) for link in links.fetched)
    assert "url(" not in text
    assert "@import" not in text
    assert "script" not in links.tags


def test_everything_is_escaped(tmp_path: Path):
    report.save(_full(tmp_path, HOSTILE), tmp_path)
    text = report.render(tmp_path).read_text()
    assert "script" not in _parse(text).tags
    assert "<script>" not in text
    # title, h1, lead, footer; and per section: nav, label, h2, text, code, facts, table, pictures
    assert text.count("&lt;script&gt;") >= 4 + 2 * 10


def test_both_themes_and_small_screens_are_served(tmp_path: Path):
    report.save(_full(tmp_path), tmp_path)
    text = report.render(tmp_path).read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "@media (prefers-color-scheme: dark)" in text
    light, dark = ((tmp_path / f"pictures/one-{theme}.svg").read_text() for theme in plots.THEMES)
    assert light != dark
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", text)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        report.save(_full(tmp_path / name), tmp_path / name)
    assert report.render(tmp_path / "one").read_bytes() == report.render(tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"titel": "x"}, "titel"),
        ({"title": 3}, "title"),
        ({"sections": [{"title": "a", "blocks": [{"kind": "video"}]}]}, "video"),
        ({"sections": [{"title": "a", "blocks": [{"kind": "text", "html": "<b>"}]}]}, "html|text"),
        (
            {"sections": [{"title": "a", "blocks": [{"kind": "table", "columns": ["a"], "rows": [["1", "2"]]}]}]},
            "2 cells",
        ),
    ],
)
def test_a_wrong_report_is_refused_by_name(tmp_path: Path, change: dict, named: str):
    page = {"title": "t", "lead": "l", "sections": [], **change}
    (tmp_path / "report.json").write_text(json.dumps(page))
    with pytest.raises(ValueError, match=named):
        report.load(tmp_path)


@pytest.mark.parametrize("name", ["../secret.svg", "/etc/hostname.svg", "pictures/one.exe"])
def test_only_pictures_of_the_run_are_taken(tmp_path: Path, name: str):
    folder = tmp_path / "run"
    (folder / "pictures").mkdir(parents=True)
    (tmp_path / "secret.svg").write_text("<svg/>")
    (folder / "pictures" / "one.exe").write_text("x")
    section = Section(title="s", blocks=(Picture(light=name, dark=name, alt="a"),))
    report.save(Report(title="t", lead="l", sections=(section,)), folder)
    with pytest.raises(ValueError, match=re.escape(name)):
        report.render(folder)


def test_a_picture_name_is_plain(tmp_path: Path):
    with pytest.raises(ValueError, match="no picture name"):
        report.draw(tmp_path, "../up", lambda figure: None, alt="a")
