"""Ask every system for the rows of every task in every situation, cell by cell."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from lab.evaluation.asking import EXAMPLES, Answering, Asker, judge_score
from lab.evaluation.cells import Cell, Cells
from lab.evaluation.questions import Found, Question, cell_of
from lab.evaluation.situations import Crowd
from lab.evaluation.systems import ALONE, Ask, takes_its_own
from ramole_core.errors import RamoleError
from ramole_core.training.rows import Row

Progress = Callable[[str, int, int], None]
"""Called with a cell's name, the cells done, and the cells in all."""


@dataclass(frozen=True)
class Rows:
    """The rows of one task that are asked."""

    task: str
    domain: str
    metric: str
    rows: tuple[Row, ...]
    examples: tuple[Row, ...] = ()
    """Those before the rows that are asked, at most EXAMPLES, for methods that fit weights."""


def read_rows(
    data: Path, tasks: Sequence[str], *, split: str, count: int, skip: int = 0
) -> list[Rows]:
    """`count` rows of each task's file `SPLIT.jsonl` after the first `skip`, whose last are the
    examples; raises RamoleError for a task that has none."""
    found = []
    for name in tasks:
        file = data / name / f"{split}.jsonl"
        if not file.is_file():
            raise RamoleError(
                f"{file} was not found; name tasks of the data, which has {split} rows."
            )
        first = max(0, skip - EXAMPLES)
        wanted = file.read_text(encoding="utf-8").splitlines()[first : skip + count]
        lines = [json.loads(line) for line in wanted]
        rows = tuple(Row(line["inputs"], line["targets"]) for line in lines)
        before, asked = rows[: skip - first], rows[skip - first :]
        if not asked:
            raise RamoleError(f"{file} has no rows after its first {skip}; skip fewer.")
        found.append(Rows(name, lines[0].get("domain", ""), lines[0]["metric"], asked, before))
    return found


def order_of(
    tasks: Sequence[Rows], systems: Sequence[str], situations: Sequence[str]
) -> Iterator[tuple[str, str, Rows]]:
    """Every cell: (situation, system, task), column by column; one where nothing is retrieved."""
    for system in systems:
        for situation in situations[:1] if system in ALONE else situations:
            for task in tasks:
                yield ("alone" if system in ALONE else situation), system, task


def run_cells(
    ramole: Answering,
    cells: Cells,
    crowd: Crowd,
    *,
    tasks: Sequence[Rows],
    systems: Sequence[str],
    situations: Sequence[str],
    ask: Ask,
    progress: Progress = lambda name, done, total: None,
) -> None:
    """Make the cells that are not there. What would be the same answers again is not asked twice:
    a row for which the same single adapter was found as in another cell, and distractors of a
    method that takes its own pool, whoever else is there."""
    every = list(order_of(tasks, systems, situations))
    for done, (situation, system, task) in enumerate(every):
        if not cells.claim(situation, system, task.task):
            continue
        progress(f"{situation} {system} {task.task}", done, len(every))
        if situation == "crowded" and takes_its_own(system):
            if (same := cells.read("iid", system, task.task)) is not None:
                cells.write(situation, system, task.task, same)
                continue
        known = _known_alone(cells, task, situations)
        cells.write(
            situation,
            system,
            task.task,
            _make(ramole, crowd, situation, system, task, ask=ask, known=known),
        )


def _make(
    ramole: Answering,
    crowd: Crowd,
    situation: str,
    system: str,
    task: Rows,
    *,
    ask: Ask,
    known: Mapping[tuple[int, str], tuple[float, float]],
) -> Cell:
    began = perf_counter()
    excluded = crowd.excluded(situation, task.task)
    questions = [
        Question(row.inputs, (task.task,), (), row.targets, task.metric, excluded)
        for row in task.rows
    ]
    found: dict[int, Found] = {}
    for n, question in enumerate(questions if system == "selection" else ()):
        name = ramole.retrieve(question.prompt, 1, exclude=excluded)[0].name
        if (n, name) in known:
            strict, lenient = known[n, name]
            found[n] = Found((name,), {"score": strict, "lenient": lenient, "left": 0.0})
    left = [n for n in range(len(questions)) if n not in found]
    if left:
        asker = Asker(ramole, ask, judge_score, examples=task.examples)
        asked = asker.measure()(system, [questions[n] for n in left])
        found |= dict(zip(left, asked, strict=True))
    return cell_of([found[n] for n in range(len(questions))], perf_counter() - began)


def _known_alone(
    cells: Cells, task: Rows, situations: Sequence[str]
) -> dict[tuple[int, str], tuple[float, float]]:
    """What single adapters' answers are worth, by row and adapter, of the cells that are there."""
    found = {}
    for place, system in [("alone", "perfect"), *((s, "selection") for s in situations)]:
        cell = cells.read(place, system, task.task)
        if cell is not None:
            pairs = zip(cell.strict, cell.lenient, strict=True)
            for n, (names, pair) in enumerate(zip(cell.adapters, pairs, strict=True)):
                found[n, names[0]] = pair
    return found
