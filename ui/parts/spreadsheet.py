"""A table as csv that a spreadsheet shows and does not run."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""With one of these a cell would be taken for a formula."""


def inert_cell(value: object) -> object:
    """The value; text that a spreadsheet would take for a formula has a quote before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def write_csv(path: Path, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write the table to `path`, and return that."""
    with path.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file).writerow
        for row in (headers, *rows):
            write([inert_cell(cell) for cell in row])
    return path
