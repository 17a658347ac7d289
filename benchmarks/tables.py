"""Writes the committed results into the README and the documentation, as markdown tables.

    python benchmarks/tables.py [--check] [FILE ...]

Between the lines `<!-- table:NAME -->` and `<!-- /table:NAME -->` of each file (by default README.md,
benchmarks/README.md and docs/**/*.md) the table NAME is written anew from `results/*.json`. With `--check` nothing is
written, and the exit code is 1 where a table is not up to date. The tables are those of the modules `*_tables.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import digits_tables
import f_tables
import lm_pairs_tables
import lm_tables
import map_cells_tables
import map_costs_tables
import maps_tables
import ot_tables
from lib import RESULTS, ROOT, Tables, filled

MODULES = (
    ot_tables, maps_tables, map_cells_tables, map_costs_tables, lm_tables, lm_pairs_tables, f_tables, digits_tables,
)  # fmt: skip
TABLES: Tables = {name: table for module in MODULES for name, table in module.TABLES.items()}


def pages() -> list[Path]:
    """The pages that hold tables."""
    every = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    return [path for path in every if path.is_file()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a table is out of date")
    arguments = parser.parse_args()
    stale = []
    for path in arguments.files or pages():
        text = path.read_text()
        new = filled(text, TABLES, RESULTS)
        if new != text:
            stale.append(str(path))
            if not arguments.check:
                path.write_text(new)
    if arguments.check and stale:
        sys.exit(f"tables not up to date in {', '.join(stale)}: run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
