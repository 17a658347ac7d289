"""Drawing a picture once for light and once for dark pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from pushforward import plots
from pushforward.report.model import Picture

__all__ = ["draw"]


def draw(
    folder: Path,
    name: str,
    paint: Callable[[Figure], object],
    *,
    alt: str,
    caption: str = "",
    size: tuple[float, float] = (4.6, 3.8),
    wide: bool = False,
) -> Picture:
    """Draw a picture in both variants into a run's folder.

    Args:
        folder: The run's folder; the files become `pictures/<name>-light.svg` and `-dark.svg` in it.
        name: File name without its end: letters, digits, dashes.
        paint: Draws on the empty figure that it is given; called once for each variant.
        alt: A description for readers who do not see the picture.
        caption: What it means.
        size: Width and height in inches. Letters are 10.5 points high, so 4.6 inches still read on a phone.
        wide: Whether it takes the page's full width.

    Returns:
        The block for the page.

    Raises:
        ValueError: `name` has other characters.
    """
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f'"{name}" is no picture name: small letters, digits and dashes only')
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for theme in plots.THEMES:
        files[theme] = f"pictures/{name}-{theme}.svg"
        with plots.theme(theme):
            figure = plots.figure(*size)
            paint(figure)
            # Without a date the same run writes the same bytes.
            figure.savefig(folder / files[theme], format="svg", metadata={"Date": None})
    return Picture(light=files["light"], dark=files["dark"], alt=alt, caption=caption, wide=wide)
