"""From the cells of situations to tables: every mean with its interval over units.

The unit is the situation's: tasks, pairs of tasks, families of prompts, adapters. Each counts the
same, whatever the number of its questions; an interval draws units again, paired ones together.
"""

from collections.abc import Mapping, Sequence

from rich.table import Table

from lab.evaluation.cells import Cells
from lab.evaluation.intervals import bootstrap, paired_difference, share_of_way
from lab.evaluation.questions import Situation
from lab.evaluation.systems import ORACLE, OURS, PERFECT
from lab.evaluation.tables import span_table

MAIN = ("loss", "score", "likeness", "right")
"""What systems are compared by: the first of these that a situation has."""
Measured = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By system, measure and unit: means over the unit's questions."""


def make_situation_table(situation: Situation, cells: Cells, *, systems: Sequence[str]) -> dict:
    """What the report says of a situation; a system that lacks a cell is left out."""
    found = _measured(situation, cells, systems)
    table = {
        "what": situation.what,
        "unit": situation.unit,
        "units": len(situation.groups),
        "questions": situation.count,
        **_tables(found),
    }
    parts: dict[str, list[str]] = {}
    for unit in situation.groups:
        if part := situation.parts.get(unit):
            parts.setdefault(part, []).append(unit)
    if parts:
        table["parts"] = {part: _tables(_within(found, units)) for part, units in parts.items()}
    return table


def show_situation(name: str, table: Mapping) -> Table:
    """A situation's measures for the terminal."""
    title = f"{name}: {table['questions']} questions, intervals over {table['units']} units"
    return span_table(f"{title} ({table['unit']})", table["systems"])


def _measured(situation: Situation, cells: Cells, systems: Sequence[str]) -> Measured:
    found = {}
    for system in situation.asked(systems):
        made = {u: cells.read(situation.place(system), system, u) for u in situation.groups}
        if any(cell is None for cell in made.values()):
            continue
        rows: dict[str, dict[str, float]] = {}
        for unit, cell in made.items():
            assert cell is not None
            scores = {"score": cell.strict, "lenient": cell.lenient, **cell.measures}
            for name, values in scores.items():
                if values:
                    rows.setdefault(name, {})[unit] = sum(values) / len(values)
        found[system] = rows
    return found


def _within(found: Measured, units: Sequence[str]) -> Measured:
    return {
        system: {
            name: {unit: by_unit[unit] for unit in units if unit in by_unit}
            for name, by_unit in row.items()
        }
        for system, row in found.items()
    }


def _tables(found: Measured) -> dict:
    """Means of every measure, our methods' differences to all others, and shares of the way."""
    table: dict = {
        "systems": {
            system: {name: bootstrap(list(v.values())).rounded() for name, v in row.items()}
            for system, row in found.items()
        }
    }
    main = next((name for name in MAIN if any(name in row for row in found.values())), None)
    if main is None:
        return table
    values = {system: list(row[main].values()) for system, row in found.items() if main in row}
    table["compared by"] = main
    table["differences"] = [
        {"method": ours, "rival": rival, **paired_difference(values[ours], theirs).rounded()}
        for ours in OURS
        if ours in values
        for rival, theirs in values.items()
        if rival != ours
    ]
    end = next((name for name in (ORACLE, PERFECT) if name in values), None)
    if end is not None and "mixture" in values:
        shares = {
            system: share_of_way(values["mixture"], values[end], mine)
            for system, mine in values.items()
            if system not in ("mixture", end)
        }
        table["way"] = {
            "from": "mixture",
            "to": end,
            "percent": {system: s.rounded() for system, s in shares.items() if s is not None},
        }
    return table
