"""A run's folder as one HTML page that holds everything it shows.

`RUN/report.json` holds the page as data (`Report`), the pictures lie beside it in `RUN/pictures/`, and `render` makes
`RUN/index.html` of both. A job adds to a run by adding a `Section`; it never writes HTML.
"""

from pushforward.report.model import Block, Code, Facts, Picture, Report, Section, Table, Text, load, save
from pushforward.report.pictures import draw
from pushforward.report.render import render

__all__ = ["Block", "Code", "Facts", "Picture", "Report", "Section", "Table", "Text", "draw", "load", "render", "save"]
