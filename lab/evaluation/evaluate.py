"""Ask every system for the rows of every task in every situation, cell by cell."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from lab.evaluation.cells import Cell, Cells
from lab.evaluation.metrics import score
from lab.evaluation.situations import Crowd
from lab.evaluation.systems import (
    ALONE,
    RANDOM,
    Ask,
    fits_weights,
    random_request,
    request_of,
    takes_its_own,
)
from ramole_core.errors import RamoleError
from ramole_core.request import Generation, Request
from ramole_core.retrieval import Hit
from ramole_core.training.rows import Row

EXAMPLES = 5
"""Pairs that a method which fits weights gets; LoraHub's number."""
Progress = Callable[[str, int, int], None]
"""Called with a cell's name, the cells done, and the cells in all."""


@runtime_checkable
class Answering(Protocol):
    """What is asked: `Ramole`, or a fake of it in fast tests."""

    def retrieve(
        self, text: str, k: int = 3, exclude: Iterable[str] = (), owner: str | None = None
    ) -> list[Hit]: ...
    def generate(self, requests: Sequence[Request]) -> list[Generation]: ...


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
    began = time.perf_counter()
    excluded = crowd.excluded(situation, task.task)
    worth: list[tuple[float, float]] = [(0.0, 0.0)] * len(task.rows)
    adapters: list[list[str]] = [[] for _ in task.rows]
    abstained = [0.0] * len(task.rows)
    left = []
    for n, row in enumerate(task.rows):
        if system == "selection":
            hit = ramole.retrieve(row.inputs, 1, exclude=excluded)[0]
            if (n, hit.name) in known:
                worth[n], adapters[n] = known[n, hit.name], [hit.name]
                continue
        left.append(n)
    request = _requests(ramole, system, task, excluded=excluded, ask=ask)
    requests = [request(task.rows[n].inputs) for n in left]
    for n, answer in zip(left, ramole.generate(requests) if requests else [], strict=True):
        adapters[n], abstained[n] = answer.adapters, 100.0 * left_to_base(answer)
        worth[n] = _worth(task.metric, answer.text.strip(), task.rows[n].targets)
    strict, lenient = ([round(pair[n], 2) for pair in worth] for n in (0, 1))
    spent = round(time.perf_counter() - began, 2)
    return Cell(strict, lenient, adapters, spent, {"left": abstained})


def left_to_base(answer: Generation) -> bool:
    """Whether the base was left to answer because nothing fitted, as the answer's evidence says."""
    return decision_of(answer) == "base"


def decision_of(answer: Generation) -> str | None:
    """Who answers by the evidence: `adapters`, `base`, or `kept` from the turn before; None where
    the answer has no evidence."""
    return getattr(getattr(answer, "evidence", None), "decision", None)


def _requests(
    ramole: Answering, system: str, task: Rows, *, excluded: Sequence[str], ask: Ask
) -> Callable[[str], Request]:
    """What the system is asked for a prompt of the task."""

    def plain(prompt: str) -> Request:
        return request_of(system, prompt, own=task.task, excluded=excluded, ask=ask)

    def by_chance(prompt: str) -> Request:
        found = [hit.name for hit in ramole.retrieve(prompt, ask.k, exclude=excluded)]
        return random_request(prompt, found, ask=ask)

    if system == RANDOM:
        return by_chance
    if not fits_weights(system):
        return plain
    if not task.examples:
        raise RamoleError(
            f"System {system} finds its weights on the {EXAMPLES} rows before those that are "
            f"asked, and there are none: skip at least {EXAMPLES}."
        )
    pairs = [(row.inputs, row.targets) for row in task.examples]
    names = found_for([text for text, _ in pairs], ramole, excluded=excluded, k=ask.k)
    return lambda prompt: replace(plain(prompt), examples=pairs, adapters=names, exclude=())


def found_for(
    texts: Sequence[str], ramole: Answering, *, excluded: Sequence[str], k: int
) -> tuple[str, ...]:
    """The k adapters that are nearest to the texts on the whole, each of which brings its own k."""
    nearness: Counter[str] = Counter()
    for text in texts:
        nearness.update({hit.name: hit.score for hit in ramole.retrieve(text, k, exclude=excluded)})
    return tuple(name for name, _ in nearness.most_common(k))


def _worth(metric: str, answer: str, target: str) -> tuple[float, float]:
    """Strict and lenient score."""
    return (
        score(metric, [answer], [target])[0],
        score(metric, [answer], [target], forgiving=True)[0],
    )


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
