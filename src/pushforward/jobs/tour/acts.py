"""The acts of the tour: each takes the tour's folder, does its job on real data, returns its section of the page."""

from collections.abc import Callable
from pathlib import Path

from pushforward.jobs.tour.generators import generators
from pushforward.jobs.tour.language import language
from pushforward.jobs.tour.maps import maps
from pushforward.jobs.tour.transport import transport
from pushforward.report import Section

__all__ = ["ACTS"]

ACTS: tuple[Callable[[Path], Section], ...] = (transport, language, maps, generators)
