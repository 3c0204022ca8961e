"""The file of an evaluation: facts, what was asked, and tables; and the same on a terminal.

Of rows of tasks every row counts the same; an interval is the 95 % percentile bootstrap over rows.
A difference is paired by row; beside it stands the interval over tasks, which says what to expect
of other tasks, where the one over rows says what to expect of other rows of these. Of the further
situations every unit counts the same, whatever the number of its questions. A cell that was not
made leaves its system out of the situation's table.
"""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from lab.evaluation.cells import Cells, Found, measured, owners, read_system
from lab.evaluation.evaluate import Rows
from lab.evaluation.intervals import (
    bootstrap,
    bootstrap_groups,
    in_words,
    paired_difference,
    share_of_way,
)
from lab.evaluation.questions import Situation
from lab.evaluation.situations import SITUATIONS
from lab.evaluation.systems import ALONE, ORACLE, OURS, PERFECT, describe
from ramole_core.settings import load_settings
from ramole_core.terminal.console import write_table

PUBLISHED = {
    "source": "arXiv 2406.16989, table 2, Llama-2-7b and 13b, mean over 48 tasks",
    "columns": ["7b IID", "7b OOD", "13b IID", "13b OOD"],
    "rows": {
        "perfect selection": [55.4, None, 63.6, None],
        "RAMoLE": [51.8, 47.7, 59.6, 53.7],
        "selection": [51.2, 43.0, 59.0, 48.9],
        "mixture": [49.8, 45.6, 58.8, 53.5],
        "fusion": [41.6, 40.2, 52.7, 48.9],
    },
}
MAIN = ("loss", "score", "likeness", "right")
"""What systems are compared by: the first of these that a situation has."""
Measured = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By system, measure and unit: means over the unit's questions."""


def make_report(
    cells: Cells,
    tasks: Sequence[Rows],
    *,
    systems: Sequence[str],
    places: Sequence[str],
    further: Sequence[Situation],
    hours: Mapping[str, float],
    facts: dict[str, object],
) -> dict:
    """Everything that the file holds; `places` are the row situations, `further` the others, and
    `hours` what each of these takes from the start."""
    seen = _trained_on("_router/router_config.json")
    tables = make_tables(cells, tasks=tasks, systems=systems, situations=places, trained_on=seen)
    tuned = set(_trained_on("_retriever/retriever.json"))
    return facts | {
        "rows_per_task": _range([len(task.rows) for task in tasks]),
        "tasks": {
            t.task: {"domain": t.domain, "metric": t.metric, "rows": len(t.rows)} for t in tasks
        },
        "retriever_tuned_on": [t.task for t in tasks if t.task in tuned],
        "methods": {name: describe(name) for name in systems},
        "settings": {name: SITUATIONS[name] for name in places},
        **tables,
        "situations": {
            one.name: make_situation_table(one, cells, systems=systems) for one in further
        },
        "hours": {name: round(value, 3) for name, value in hours.items()},
        "published": PUBLISHED,
    }


def show_report(report: dict) -> None:
    """Print the scores as tables."""
    if settings := report["settings"]:
        rows = [
            (name, *(_shown(report["cells"][setting].get(name)) for setting in settings))
            for name in report["methods"]
        ]
        write_table(("system", *settings), rows)
    for name, table in report["situations"].items():
        show_situation(name, table)
    if hours := report["hours"]:
        each = ", ".join(f"{name} {value:.2f}" for name, value in hours.items())
        print(f"Hours for whole situations at this pace: {each}; {sum(hours.values()):.1f} in all.")


def show_situation(name: str, table: Mapping) -> None:
    """Print a situation's measures."""
    columns = dict.fromkeys(measure for row in table["systems"].values() for measure in row)
    print(f"{name}: {table['questions']} questions, intervals over {table['units']} units")
    rows = [
        (system, *(_shown(row.get(measure)) for measure in columns))
        for system, row in table["systems"].items()
    ]
    write_table((table["unit"], *columns), rows)


def _shown(cell: Mapping[str, float] | None) -> str:
    return in_words(cell) if cell else ""


def make_tables(
    cells: Cells,
    *,
    tasks: Sequence[Rows],
    systems: Sequence[str],
    situations: Sequence[str],
    trained_on: Sequence[str] = (),
) -> dict:
    """What the report says of the rows of tasks; strict scoring, and lenient means beside it.

    `trained_on` names the adapters that the router has seen: the tasks of the others also get a
    table of their own, `later`.
    """
    names = [task.task for task in tasks]
    table: dict = {"cells": {}, "lenient": {}, "differences": {}, "retrieval": {}, "left": {}}
    for situation in situations:
        found = {
            system: whole
            for system in systems
            if (whole := _whole(cells, "alone" if system in ALONE else situation, system, names))
        }
        table["cells"][situation] = {name: _cell(one) for name, one in found.items()}
        table["lenient"][situation] = {
            name: _span(measured(one, "lenient")) for name, one in found.items()
        }
        table["differences"][situation] = [
            {"method": ours, "rival": rival, **_gap(found[ours], theirs)}
            for ours in OURS
            if ours in found
            for rival, theirs in found.items()
            if rival != ours
        ]
        if mixed := _whole(cells, situation, "mixture", names):
            table["retrieval"][situation] = measure_retrieval(mixed)
        left = {name: measure_left(one) for name, one in found.items() if name not in ALONE}
        if any(shares is not None for shares in left.values()):
            table["left"][situation] = {
                name: _span(shares) for name, shares in left.items() if shares and any(shares)
            }
    later = [task for task in tasks if task.task not in trained_on]
    if trained_on and later:
        inner = make_tables(cells, tasks=later, systems=systems, situations=situations)
        for one in (cell for row in inner["cells"].values() for cell in row.values()):
            one.pop("by_task")
        table["later"] = {"tasks": [task.task for task in later]}
        table["later"] |= {part: inner[part] for part in ("cells", "differences")}
    return table


def measure_retrieval(mixed: Found) -> dict:
    """How often the row's own adapter comes first, and is among the k, in percent of rows."""
    pairs = [(task, names) for task, cell in mixed.items() for names in cell.adapters]
    return {
        "first": _span([100.0 * (names[:1] == [task]) for task, names in pairs]),
        "found": _span([100.0 * (task in names) for task, names in pairs]),
    }


def measure_left(found: Found) -> list[float] | None:
    """Percent of each task's rows that a system left to the base; None where its cells do not
    say."""
    left = [cell.measures["left"] for cell in found.values() if "left" in cell.measures]
    return [fmean(rows) for rows in left] or None


def make_situation_table(situation: Situation, cells: Cells, *, systems: Sequence[str]) -> dict:
    """What the report says of a further situation."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for system in situation.asked(systems):
        made = _whole(cells, situation.place(system), system, [*situation.groups])
        for unit, cell in made.items():
            scores = {"score": cell.strict, "lenient": cell.lenient, **cell.measures}
            for name, values in scores.items():
                if values:
                    found.setdefault(system, {}).setdefault(name, {})[unit] = fmean(values)
    table = {
        "what": situation.what,
        "unit": situation.unit,
        "units": len(situation.groups),
        "questions": situation.count,
        **_compared(found),
    }
    parts: dict[str, list[str]] = {}
    for unit in situation.groups:
        if part := situation.parts.get(unit):
            parts.setdefault(part, []).append(unit)
    if parts:
        table["parts"] = {part: _compared(_within(found, units)) for part, units in parts.items()}
    return table


def _within(found: Measured, units: Sequence[str]) -> Measured:
    return {
        system: {
            name: {unit: by_unit[unit] for unit in units if unit in by_unit}
            for name, by_unit in row.items()
        }
        for system, row in found.items()
    }


def _compared(found: Measured) -> dict:
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
        percent = {system: share.rounded() for system, share in shares.items() if share is not None}
        table["way"] = {"from": "mixture", "to": end, "percent": percent}
    return table


def _range(counts: Sequence[int]) -> int | str:
    """The one count, or `36 to 50`."""
    low, high = min(counts), max(counts)
    return low if low == high else f"{low} to {high}"


def _whole(cells: Cells, place: str, system: str, units: Sequence[str]) -> Found:
    """A system's cells by unit; none where one is missing."""
    found = read_system(cells, place, system, units)
    return found if len(found) == len(units) else {}


def _span(values: Sequence[float]) -> dict[str, float]:
    return bootstrap(values).rounded(2)


def _cell(found: Found) -> dict:
    means = zip(found, _means(found), strict=True)
    return _span(measured(found, "score")) | {"by_task": {t: round(mean, 2) for t, mean in means}}


def _gap(ours: Found, theirs: Found) -> dict[str, float]:
    """The mean difference with its interval over rows, and the one of drawing tasks again."""
    mine, others = measured(ours, "score"), measured(theirs, "score")
    rows = paired_difference(mine, others).rounded(2)
    gaps = np.subtract(mine, others).tolist()
    tasks = bootstrap_groups(gaps, owners(ours, "score")).rounded(2)
    return rows | {"task_low": tasks["low"], "task_high": tasks["high"]}


def _means(found: Found) -> list[float]:
    return [fmean(cell.strict) for cell in found.values()]


def _trained_on(record: str) -> list[str]:
    """The tasks that trained weights have seen, as their own record says."""
    file = load_settings().adapters_dir / record
    if not file.is_file():
        return []
    groups = json.loads(file.read_text(encoding="utf-8")).get("trained_on", ())
    return [name for group in groups for name in str(group).split("+")]
