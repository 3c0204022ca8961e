"""The situations beyond the rows of one task: each with its measures, systems and unit."""

from dataclasses import dataclass, field

from ..parts.markup import escaped
from .tables import box, cell, group, head
from .values import Raw, Span, spans_of, table, text

MEASURES = {
    "score": "score",
    "lenient": "score, lenient",
    "right": "right one answers, %",
    "left": "left to the base, %",
    "likeness": "ROUGE-L to the base's answer",
    "same": "token for token the base's, %",
    "words": "words",
    "loss": "loss, nats a token",
    "first loss": "of the first part",
    "second loss": "of the second part",
    "ahead": "right adapter ahead, % of tokens",
    "leads": "ahead by contribution, % of tokens",
    "found": "right adapters found, %",
    "written": "questions answered at all, %",
}
"""Names in the file, and in words."""


@dataclass(frozen=True)
class Situation:
    """A situation's table."""

    what: str
    unit: str
    """What an interval draws again."""
    size: str
    """How many questions and units."""
    systems: dict[str, dict[str, Span]]
    """By system, then by measure."""
    parts: dict[str, dict[str, dict[str, Span]]] = field(default_factory=dict)
    """The same of some units, by part."""
    way: dict[str, Span] = field(default_factory=dict)
    """Percent of the way from the mixture to the bound, by system."""
    bound: str = ""

    @property
    def measures(self) -> list[str]:
        """Those that some system has, in a fixed order, unknown ones last."""
        held = dict.fromkeys(name for row in self.systems.values() for name in row)
        return [
            *(name for name in MEASURES if name in held),
            *(n for n in held if n not in MEASURES),
        ]


def situations_in(raw: object) -> dict[str, Situation]:
    """Every situation of which something can be read, by name."""
    found = {name: _situation(table(value)) for name, value in table(raw).items()}
    return {name: one for name, one in found.items() if one.systems}


def situations_html(found: dict[str, Situation]) -> str:
    """A table for each, folded away; nothing where there are none."""
    if not found:
        return ""
    shown = "".join(table_html(name, one) for name, one in found.items())
    summary = "Chats, other people's words, everyday talk, and more situations"
    return f"<details><summary>{summary}</summary>{shown}</details>"


def heads_of(one: Situation) -> list[str]:
    """The columns' names: measures, and the share of the way where it was measured."""
    names = [MEASURES.get(name, name) for name in one.measures]
    return [*names, *([f"way from mixture to {one.bound}, %"] if one.way else [])]


def spans_in(one: Situation, system: str, part: str | None = None) -> list[Span | None]:
    """A system's row, of all units or of a part."""
    systems = one.systems if part is None else one.parts[part]
    row: list[Span | None] = [systems.get(system, {}).get(name) for name in one.measures]
    return [*row, *([one.way.get(system) if part is None else None] if one.way else [])]


def _situation(raw: Raw) -> Situation:
    way = table(raw.get("way"))
    questions, units, unit = (
        text(raw.get("questions")),
        text(raw.get("units")),
        text(raw.get("unit")),
    )
    parts = {name: _systems(table(value)) for name, value in table(raw.get("parts")).items()}
    return Situation(
        what=text(raw.get("what")),
        unit=unit,
        size=f"{questions} questions; intervals are over {units} units (a unit is a {unit})",
        systems=_systems(raw),
        parts={name: systems for name, systems in parts.items() if systems},
        way=spans_of(way.get("percent")),
        bound=text(way.get("to")),
    )


def _systems(raw: Raw) -> dict[str, dict[str, Span]]:
    found = {name: spans_of(row) for name, row in table(raw.get("systems")).items()}
    return {name: row for name, row in found.items() if row}


def table_html(name: str, one: Situation) -> str:
    """A situation's table."""
    names = heads_of(one)
    heads = [head("method", scope="col")]
    heads += [head(words, scope="col", kind="number") for words in names]
    body = group("", _rows(one), columns=len(heads))
    for part in one.parts:
        body += group(part, _rows(one, part), columns=len(heads))
    return box(f"{name}: {one.what}", heads, body, kind="names", below=escaped(f"{one.size}."))


def _rows(one: Situation, part: str | None = None) -> str:
    systems = one.systems if part is None else one.parts[part]
    return "".join(
        f"<tr>{head(system)}{''.join(cell(span) for span in spans_in(one, system, part))}</tr>"
        for system in systems
    )
