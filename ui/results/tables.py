"""What result files say, as plain data, drawn by `html.py` and `markdown.py`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .values import Span, at, span_of, text

Cell = Span | str | None
Key = str | tuple[str, ...]
"""Where a row of a file has a cell: an entry, or an entry of an entry."""
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


def tables(
    caption: str,
    first: str,
    columns: Mapping[Key, Column],
    groups: Mapping[str, Mapping[str, object]],
    note: str = "",
) -> list[Table]:
    """The one table of these rows, none where no number can be read; what is empty is left out."""
    shown = list(columns.values())
    counted = [n for n, one in enumerate(shown) if one.drawn != "words"] or range(len(shown))
    read = {
        title: {name: [_cell(row, *both) for both in columns.items()] for name, row in rows.items()}
        for title, rows in groups.items()
    }
    read = {
        title: {name: row for name, row in rows.items() if any(row[n] for n in counted)}
        for title, rows in read.items()
    }
    cells = {title: rows for title, rows in read.items() if rows}
    every = [row for rows in cells.values() for row in rows.values()]
    held = [n for n in range(len(shown)) if any(row[n] for row in every)]
    cells = {
        title: {name: [row[n] for n in held] for name, row in rows.items()}
        for title, rows in cells.items()
    }
    columns_held = [shown[n] for n in held]
    return [Table(caption, first, columns_held, cells, note.strip())] if cells else []


def _cell(row: object, key: Key, column: Column) -> Cell:
    *path, last = key if isinstance(key, tuple) else (key,)
    raw = at(row, *path).get(last)
    if column.drawn == "words":
        return text(raw) or None
    return raw if isinstance(raw, Span) else span_of(raw)


@dataclass(frozen=True)
class Made:
    """How tables were made: the command, what was measured, and what can be checked."""

    command: str
    date: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)


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
    """What the page shows of one kind of result."""

    key: str
    tile: str
    """Its name at a glance."""
    title: str
    lead: str
    blocks: Callable[[Path], Sequence[Block]]
    headline: Callable[[Path], tuple[str, str]]
    """(its one number, empty where nothing is measured; what that counts)."""


def spoken(span: Span, column: Column) -> tuple[str, str]:
    """(`61.2`, `[58.0, 64.1]`); the second is empty without an interval."""
    digits = column.digits
    if digits is None:
        digits = 2 if abs(span.mean) < 10 else 1 if abs(span.mean) < 100 else 0
    form = f"{'+' if column.signed else ''},.{digits}f"
    mean, low, high = (f"{end:{form}}".replace("-", "−") for end in (span.mean, *span.ends))
    return mean, "" if span.low is None else f"[{low}, {high}]"
