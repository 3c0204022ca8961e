"""Result files as plain data, drawn by `html.py` and `markdown.py`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Literal

from .values import Span, at, span_of, text

Cell = Span | str | None
Drawn = Literal["", "words", "free", "from 0", "around 0", "percent", "heat"]


@dataclass(frozen=True)
class Column:
    """How the cells of a column are written and drawn."""

    name: str
    digits: int | None = 1
    """None: by the number's size."""
    signed: bool = False
    drawn: Drawn = ""
    """The scale of the intervals' lines, one for all columns of a table that have the same; `heat`
    colours the cell instead, `words` are no numbers."""


@dataclass(frozen=True)
class Table:
    caption: str
    first: str
    """The heading over the rows' names."""
    columns: Sequence[Column]
    groups: Mapping[str, Mapping[str, Sequence[Cell]]]
    """Cells by the title over the rows, which may be empty, and by the row's name."""
    note: str = ""

    @property
    def rows(self) -> dict[str, Sequence[Cell]]:
        """Of all groups; of a name that several have, the first."""
        groups = [*self.groups.values()][::-1]
        return {name: row for group in groups for name, row in group.items()}


def tables(
    caption: str,
    first: str,
    columns: Mapping[Any, Column],
    groups: Mapping[str, Mapping[str, object]],
    note: str = "",
) -> list[Table]:
    """The one table of these rows, none where no number can be read; what is empty is left out.

    A column's key is the path of its cell in a row of the file: an entry, or entries of entries.
    """
    read: dict[str, dict[str, list[Cell]]] = {}
    only_words = all(one.drawn == "words" for one in columns.values())
    for title, rows in groups.items():
        for name, row in rows.items():
            cells = [_cell(row, *both) for both in columns.items()]
            if any(isinstance(cell, Span) or (cell and only_words) for cell in cells):
                read.setdefault(title, {})[name] = cells
    every = [row for rows in read.values() for row in rows.values()]
    held = [bool(any(cells)) for cells in zip(*every, strict=True)]
    for row in every:
        row[:] = compress(row, held)
    shown = list(compress(columns.values(), held))
    return [Table(caption, first, shown, read, note.strip())] if read else []


def _cell(row: object, key: str | tuple[str, ...], column: Column) -> Cell:
    *path, last = key if isinstance(key, tuple) else (key,)
    raw = at(row, *path).get(last)
    if column.drawn == "words":
        return text(raw) or None
    return raw if isinstance(raw, Span) else span_of(raw)


@dataclass(frozen=True)
class Made:
    """The origin of tables: command, date, and checksums."""

    command: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Unmeasured:
    """Why there is no table, and the command that makes it."""

    sentence: str
    command: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are folded away."""

    title: str
    blocks: "Sequence[Block]"


Block = Table | Made | Unmeasured | Fold


@dataclass(frozen=True)
class Section:
    """One kind of result on the page."""

    key: str
    title: str
    lead: str
    blocks: Callable[[Path], Sequence[Block]]


def spoken(span: Span, column: Column) -> tuple[str, str]:
    """(`61.2`, `[58.0, 64.1]`); the second is empty without an interval."""
    digits = column.digits
    if digits is None:
        digits = 2 if abs(span.mean) < 10 else 1 if abs(span.mean) < 100 else 0
    form = f"{'+' if column.signed else ''},.{digits}f"
    mean, low, high = (f"{end:{form}}".replace("-", "−") for end in (span.mean, *span.ends))
    return mean, "" if span.low is None else f"[{low}, {high}]"
