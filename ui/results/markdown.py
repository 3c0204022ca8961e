"""Blocks as Markdown, for README and the pages of docs."""

import re
from collections.abc import Iterable

from .tables import Block, Cell, Column, Fold, Made, Table, Unmeasured, spoken

PLAIN = Column("")


def markdown(blocks: Iterable[Block]) -> str:
    """The blocks, a blank line between them."""
    return "\n\n".join(map(_block, blocks))


def written(cell: Cell, column: Column = PLAIN) -> str:
    """`61.2 [58.0, 64.1]`; nothing for None."""
    if cell is None or isinstance(cell, str):
        return plain(cell or "")
    said = " ".join(filter(None, spoken(cell, column)))
    return f"**{said}**" if cell.best else said


def _block(block: Block) -> str:
    match block:
        case Table():
            return _table(block)
        case Fold(title, blocks):
            inside = markdown(blocks)
            return f"<details><summary>{plain(title)}</summary>\n\n{inside}\n\n</details>"
        case Unmeasured(sentence, command):
            return f"{plain(sentence)}\n\n```bash\n{command}\n```"
        case Made(command, facts):
            kept = [k for k in facts if "SHA-256" not in k and k != "versions"]
            told = "; ".join(f"{plain(name)} {plain(facts[name])}" for name in kept)
            return f"{f'Measured: {told}.' if told else ''}\n\n```bash\n{command}\n```".strip()


def _table(table: Table) -> str:
    titled = any(table.groups)
    heads = [*([""] if titled else []), table.first, *(one.name for one in table.columns)]
    told = f"**{plain(table.caption)}** {plain(table.note)}".strip()
    lines = [told, "", _line(map(plain, heads)), "|---" * len(heads) + "|"]
    for title, rows in table.groups.items():
        for name, row in rows.items():
            cells = [written(cell, one) for cell, one in zip(row, table.columns, strict=True)]
            lines.append(_line([*([plain(title)] if titled else []), _name(name), *cells]))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _name(name: str) -> str:
    """A name of the program as code, anything else as text."""
    return f"`{name}`" if re.fullmatch("[a-z][a-z0-9_]*", name) else plain(name)


def plain(text: str) -> str:
    """Text that Markdown takes for nothing else, on one line."""
    return " ".join(re.sub(r"([\\`*_|[\]<])", r"\\\1", text).split())
