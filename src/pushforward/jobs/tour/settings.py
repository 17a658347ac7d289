"""`pushforward tour`: what the library does, on real data, as one page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pushforward.jobs.errors import OK
from pushforward.jobs.folder import make_folder

__all__ = ["Tour"]


@dataclass(frozen=True, kw_only=True)
class Tour:
    """Run the library on real data that ships inside installed packages, and write one page about it."""

    out: Path = Path("runs/tour")
    """Folder for the page and its pictures."""

    def run(self) -> int:
        """Run every act, then write the page."""
        make_folder(self.out)
        from pushforward import report
        from pushforward.jobs.tour.acts import ACTS
        from pushforward.jobs.versions import footer

        sections: list[report.Section] = []
        for act in ACTS:
            start = time.perf_counter()
            section = act(self.out)
            print(f"{section.label}: {section.title}  ({time.perf_counter() - start:.1f} s)")
            sections.append(section)
        page = report.Report(
            title="A tour of pushforward",
            lead="Make one distribution match another: what the library does, measured on this machine a moment ago.",
            sections=tuple(sections),
            footer=footer(),
        )
        report.save(page, self.out)
        print(report.render(self.out))
        return OK
