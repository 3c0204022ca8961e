"""From cells to tables: means with intervals, paired differences, and retrieval.

Every row counts the same; an interval is the 95 % percentile bootstrap over rows. A difference is
paired by row; beside it stands the interval over tasks, which says what to expect of other tasks,
where the one over rows says what to expect of other rows of these. A cell that was not made leaves
its system out of the situation's table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from rich.table import Table

from lab.evaluation.cells import Cells
from lab.evaluation.evaluate import Rows
from lab.evaluation.intervals import Scores, bootstrap, flat, gap_between, rounded
from lab.evaluation.systems import ALONE, OURS

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


def system_scores(
    cells: Cells, situation: str, system: str, tasks: Sequence[Rows], *, forgiving: bool = False
) -> dict[str, list[float]] | None:
    """Each row's score by task; None where a cell is missing."""
    found = {}
    for task in tasks:
        cell = cells.read("alone" if system in ALONE else situation, system, task.task)
        if cell is None:
            return None
        found[task.task] = cell.lenient if forgiving else cell.strict
    return found


def make_tables(
    cells: Cells,
    *,
    tasks: Sequence[Rows],
    systems: Sequence[str],
    situations: Sequence[str],
    trained_on: Sequence[str] = (),
) -> dict:
    """What the report says of the scores; strict scoring, and lenient means beside it.

    `trained_on` names the adapters that the router has seen: the tasks of the others also get a
    table of their own, `later`.
    """
    table: dict = {"cells": {}, "lenient": {}, "differences": {}, "retrieval": {}, "left": {}}
    for situation in situations:
        scores = _of(cells, situation, systems, tasks, forgiving=False)
        mild = _of(cells, situation, systems, tasks, forgiving=True)
        table["cells"][situation] = {name: _cell(found) for name, found in scores.items()}
        table["lenient"][situation] = {name: _interval(flat(s)) for name, s in mild.items()}
        table["differences"][situation] = [
            {"method": ours, "rival": rival, **gap_between(scores[ours], found)}
            for ours in OURS
            if ours in scores
            for rival, found in scores.items()
            if rival != ours
        ]
        retrieved = measure_retrieval(cells, situation, tasks)
        if retrieved:
            table["retrieval"][situation] = retrieved
        left = measure_left(cells, situation, scores, tasks)
        if left:
            table["left"][situation] = left
    later = [task for task in tasks if task.task not in trained_on]
    if trained_on and later:
        table["later"] = _later(cells, tasks=later, systems=systems, situations=situations)
    return table


def _later(
    cells: Cells, *, tasks: Sequence[Rows], systems: Sequence[str], situations: Sequence[str]
) -> dict:
    """The same scores over tasks whose adapters the router has never seen, and the differences."""
    inner = make_tables(cells, tasks=tasks, systems=systems, situations=situations)
    means = {
        situation: {
            name: {part: value for part, value in cell.items() if part != "by_task"}
            for name, cell in row.items()
        }
        for situation, row in inner["cells"].items()
    }
    names = [task.task for task in tasks]
    return {"tasks": names, "cells": means, "differences": inner["differences"]}


def table_of(report: dict) -> Table:
    """The report's scores for the terminal."""
    table = Table("system", *report["settings"])
    for system in report["methods"]:
        cells = []
        for situation in report["settings"]:
            cell = report["cells"][situation].get(system)
            cells.append(
                f"{cell['mean']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" if cell else ""
            )
        table.add_row(system, *cells)
    return table


def measure_retrieval(cells: Cells, situation: str, tasks: Sequence[Rows]) -> dict | None:
    """How often the row's own adapter comes first, and is among the k, in percent of rows."""
    first, found = [], []
    for task in tasks:
        cell = cells.read(situation, "mixture", task.task)
        if cell is None:
            return None
        first += [100.0 * (names[:1] == [task.task]) for names in cell.adapters]
        found += [100.0 * (task.task in names) for names in cell.adapters]
    return {"first": _interval(first), "found": _interval(found)}


def measure_left(
    cells: Cells, situation: str, systems: Iterable[str], tasks: Sequence[Rows]
) -> dict[str, dict[str, float]] | None:
    """Percent of rows that a system left to the base, with the interval over tasks; those that
    never do are left out. None where the cells do not say."""
    found: dict[str, dict[str, float]] | None = None
    for system in systems:
        if system in ALONE:
            continue
        made = [cells.read(situation, system, task.task) for task in tasks]
        left = [cell.measures["left"] for cell in made if cell and "left" in cell.measures]
        if left:
            shares = [sum(rows) / len(rows) for rows in left]
            found = (found or {}) | ({system: _interval(shares)} if any(shares) else {})
    return found


def _of(
    cells: Cells,
    situation: str,
    systems: Sequence[str],
    tasks: Sequence[Rows],
    *,
    forgiving: bool,
) -> dict[str, dict[str, list[float]]]:
    found = {
        name: system_scores(cells, situation, name, tasks, forgiving=forgiving) for name in systems
    }
    return {name: scores for name, scores in found.items() if scores is not None}


def _cell(scores: Scores) -> dict:
    by_task = {task: round(sum(rows) / len(rows), 2) for task, rows in scores.items()}
    return _interval(flat(scores)) | {"by_task": by_task}


def _interval(values: Sequence[float]) -> dict[str, float]:
    return rounded(asdict(bootstrap(values)))
