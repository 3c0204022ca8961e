"""A table as csv that a spreadsheet shows without running formulas."""

import csv
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

FORMULA = "=+-@＝＋－＠"
"""With one of these a cell would be taken for a formula, wide forms included."""
UNSEEN = ("C", "Z")
"""Categories of characters that a spreadsheet passes over first: blanks and control characters."""


def inert_cell(value: object) -> object:
    """The value; text that a spreadsheet would take for a formula has a quote before it."""
    if not isinstance(value, str):
        return value
    seen = (letter for letter in value if not unicodedata.category(letter).startswith(UNSEEN))
    formula = value.startswith(("\t", "\r")) or next(seen, " ") in FORMULA
    return f"'{value}" if formula else value


def write_csv(path: Path, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write the table to `path`, and return that."""
    with path.open("w", newline="", encoding="utf-8") as file:
        write = csv.writer(file).writerow
        for row in (headers, *rows):
            write([inert_cell(cell) for cell in row])
    return path
