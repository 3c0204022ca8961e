"""Blocks as HTML that everyone can read: captions, scopes, scroll boxes, intervals drawn small.

Every word comes from a file, so each passes `escaped` (see `ui/parts/markup.py`).
"""

from collections.abc import Mapping
from pathlib import Path

from ..parts.markup import escaped
from .tables import Block, Cell, Column, Drawn, Fold, Made, Section, Table, Unmeasured, spoken
from .values import Span

CHECKED = "What was measured, and with what"
LONG_NAME, NARROW = 36, 6
"""Letters of a row's name from which on it may break; numbers and intervals of a row up to which
a table is narrow."""
PLAIN = {"IID": "adapter there", "OOD": "adapter hidden"}
"""Plain words for the papers' terms in a column's name."""
Scale = tuple[float, float]


def section_html(section: Section, folder: Path) -> str:
    """A section, folded under its heading."""
    inside = "".join(map(html, section.blocks(folder)))
    return (
        f'<details class="rm-results rm-fold" id="results-{section.key}">'
        f'<summary><h2 id="results-{section.key}-title">{escaped(section.title)}</h2></summary>'
        f'<div class="rm-inside"><p class="lead">{escaped(section.lead)}</p>{inside}</div>'
        "</details>"
    )


def html(block: Block) -> str:
    """Any block."""
    match block:
        case Table():
            return _table(block)
        case Fold(title, blocks):
            inside = "".join(map(html, blocks))
            return f"<details><summary>{escaped(title)}</summary>{inside}</details>"
        case Unmeasured(sentence, command):
            told = f"<p>{escaped(sentence)}</p><pre><code>{escaped(command)}</code></pre>"
            return f'<div class="rm-unmeasured">{told}</div>'
        case Made(_, facts):
            told = "".join(
                f"<div><dt>{escaped(name)}</dt><dd>{escaped(fact)}</dd></div>"
                for name, fact in facts.items()
            )
            more = f"<details><summary>{CHECKED}</summary><dl>{told}</dl></details>" if told else ""
            return f'<div class="rm-made">{more}</div>' if more else ""


def whisker(span: Span, scale: Scale, mark: float | None = None) -> str:
    """The interval as a line with a dot at its mean, and a tick at `mark`; the numbers stand beside
    it in words."""
    low, high, dot = (_place(end, scale) for end in (*span.ends, span.mean))
    tick = "" if mark is None else f'<i class="mark" style="left:{_place(mark, scale):.1f}%"></i>'
    return (
        f'<span class="rm-whisker" aria-hidden="true">{tick}'
        f'<i class="line" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<i class="dot" style="left:{dot:.1f}%"></i></span>'
    )


def _place(value: float, scale: Scale) -> float:
    """In percent of the scale, kept within it."""
    low, high = scale
    return min(max(100 * (value - low) / (high - low), 0), 100)


def _table(table: Table) -> str:
    rows = [row for group in table.groups.values() for row in group.values()]
    scales: dict[Drawn, Scale] = {one.drawn: _scale(table, one.drawn) for one in table.columns}
    heads = f'<th scope="col">{_breakable(table.first)}</th>'
    for one in table.columns:
        kind = "" if one.drawn == "words" else "number"
        name = " ".join(PLAIN.get(word, word) for word in one.name.split(" "))
        heads += f'<th scope="col" class="{kind}">{_breakable(name)}</th>'
    body = "".join(_group(title, table, scales) for title in table.groups)
    longest = max(len(name) for group in table.groups.values() for name in group)
    kind = "heat" if "heat" in scales else "words" if longest >= LONG_NAME else "names"
    wide = max(sum(1 if isinstance(c, Span) and c.low is None else 2 for c in row) for row in rows)
    narrow = " narrow" if wide <= NARROW and kind != "heat" else ""
    caption = escaped(table.caption)
    note = f'<p class="rm-under">{escaped(table.note)}</p>' if table.note else ""
    return (
        f'<div class="rm-table {kind}{narrow}"><div class="rm-scroll" tabindex="0" role="region" '
        f'aria-label="{caption}"><table><caption><span>{caption}</span></caption>'
        f"<thead><tr>{heads}</tr></thead>{body}</table></div>{note}</div>"
    )


def _group(title: str, table: Table, scales: Mapping[Drawn, Scale]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{_breakable(name)}</th>'
        f"{''.join(_cell(c, one, scales) for c, one in zip(row, table.columns, strict=True))}</tr>"
        for name, row in table.groups[title].items()
    )
    wide = f'scope="rowgroup" colspan="{1 + len(table.columns)}"'
    head = f'<tr class="group"><th {wide}><span>{escaped(title)}</span></th></tr>' if title else ""
    return f"<tbody>{head}{lines}</tbody>"


def _cell(cell: Cell, column: Column, scales: Mapping[Drawn, Scale]) -> str:
    """A number with its interval, and the interval drawn below where there is a scale."""
    if cell is None:
        return '<td class="number none"><span aria-label="not measured">–</span></td>'
    if isinstance(cell, str):
        return f"<td>{escaped(cell)}</td>"
    mean, ends = spoken(cell, column)
    said = mean + (f' <span class="ends">{ends}</span>' if ends else "")
    if cell.best:
        said = f'<strong>{said}<span class="sr"> (the best)</span></strong>'
    if column.drawn == "heat":
        return (
            f'<td class="number full" style="--full:{_place(cell.mean, (0, 100)):.0f}%">{said}</td>'
        )
    mark = 0 if column.drawn == "around 0" else None
    drawn = whisker(cell, scales[column.drawn], mark) if column.drawn else ""
    return f'<td class="number{" best" if cell.best else ""}">{said}{drawn}</td>'


def _scale(table: Table, drawn: Drawn) -> Scale:
    """The smallest that holds all intervals drawn so, with a little air."""
    rows = (row for group in table.groups.values() for row in group.values())
    cells = (
        cell
        for row in rows
        for cell, one in zip(row, table.columns, strict=True)
        if one.drawn == drawn
    )
    ends = [end for c in cells if isinstance(c, Span) for end in (c.mean, *c.ends)]
    if drawn == "percent" or not ends:
        return 0, 100
    ends += [0] if drawn == "around 0" else []
    low, air = min(ends), 0.06 * (max(ends) - min(ends)) or 0.5
    return 0 if drawn == "from 0" and low >= 0 else low - air, max(ends) + air


def _breakable(name: str) -> str:
    """Escaped, and free to break after an underscore or a slash."""
    return escaped(name).replace("_", "_<wbr>").replace("/", "/<wbr>")
