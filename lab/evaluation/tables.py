"""Tables of systems on tasks: cells are made where they are missing, and systems are compared.

Every mean has a 95 % bootstrap interval; differences are paired, over the same rows or tasks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.table import Table

from lab.evaluation.cells import Cell, Cells
from lab.evaluation.intervals import bootstrap, bootstrap_groups, in_words, paired_difference
from ramole_core.training.card import versions

MEASURES: dict[str, Callable[[Cell], list[float]]] = {
    "score": lambda cell: cell.strict,
    "lenient": lambda cell: cell.lenient,
    "loss": lambda cell: cell.measures["loss"],
}
Make = Callable[[Sequence[str]], Iterable[tuple[str, Cell]]]
"""Measures some tasks; yields each task's name and cell as it comes."""
Found = dict[str, Cell]
"""A system's cells by task."""


def open_cells(work: Path, **facts: object) -> Cells:
    """The cells that these facts decide, and the versions of the packages."""
    return Cells(work, facts | {"versions": versions()})


def fill(cells: Cells, situation: str, system: str, names: Sequence[str], make: Make) -> Found:
    """The system's cells of these tasks; those that are missing are made, kept and printed."""
    missing = [name for name in names if not cells.has(situation, system, name)]
    began = perf_counter()
    for name, cell in make(missing) if missing else ():
        ended = perf_counter()
        cell, began = replace(cell, seconds=round(ended - began, 1)), ended
        cells.write(situation, system, name, cell)
        print(line_of(situation, system, name, cell), flush=True)
    return read_system(cells, situation, system, names)


def read_system(cells: Cells, situation: str, system: str, names: Sequence[str]) -> Found:
    """The system's cells of these tasks, as far as they are made."""
    found = {name: cells.read(situation, system, name) for name in names}
    return {name: cell for name, cell in found.items() if cell is not None}


def measured(found: Mapping[str, Cell], measure: str) -> list[float]:
    """One measure of every row, task after task."""
    return [value for cell in found.values() for value in MEASURES[measure](cell)]


def owners(found: Mapping[str, Cell], measure: str) -> list[str]:
    """The task of each of these rows."""
    return [name for name, cell in found.items() for _ in MEASURES[measure](cell)]


def compare_rows(
    ours: Sequence[float],
    theirs: Sequence[float],
    tasks: Sequence[str],
    *,
    rival: str,
    digits: int = 4,
) -> dict[str, object]:
    """A row of a table: the mean with its interval over rows, and the difference to the rival on
    the same rows with its interval over tasks; `tasks` are the rows' own."""
    gap = bootstrap_groups(np.subtract(ours, theirs).tolist(), tasks)
    against = {"rival": rival, **gap.rounded(digits)}
    return {**bootstrap(ours).rounded(digits), "against": against}


def pair_systems(
    found: Mapping[str, Mapping[str, Cell]], names: Sequence[str], *, ours: str
) -> dict[str, dict[str, object]]:
    """Each system's mean over the tasks that all systems have, with its interval, by task, and
    `ours` minus it, paired. `found` are cells by system and task."""
    common = [name for name in names if all(name in cells for cells in found.values())]
    if not common:
        return {}
    table: dict[str, dict[str, object]] = {system: {} for system in found}
    for measure, values in MEASURES.items():
        means = {
            system: [_mean(values(cells[name])) for name in common]
            for system, cells in found.items()
        }
        for system, each in means.items():
            by_task = zip(common, each, strict=True)
            table[system][measure] = {
                **bootstrap(each).rounded(),
                f"{ours}_minus": paired_difference(means[ours], each).rounded(),
                "by_task": {name: round(mean, 4) for name, mean in by_task},
            }
    return table


def span_table(title: str, rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Means with their intervals for the terminal: a row a name, a column a measure."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table("", *columns, title=title)
    for name, row in rows.items():
        table.add_row(name, *(in_words(row[one]) if one in row else "" for one in columns))
    return table


def line_of(situation: str, system: str, task: str, cell: Cell) -> str:
    """A cell for the terminal."""
    measures = {"score": cell.strict, **cell.measures}
    means = "  ".join(f"{name} {_mean(rows):.4g}" for name, rows in measures.items() if rows)
    return f"{situation:12} {task:16} {system:24} {means}  {cell.seconds:.0f} s"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
