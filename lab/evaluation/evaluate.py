"""Situations whose questions are rows of tasks: what is asked, and what is known already.

*IID*, *OOD*, *crowded*: a row of a task, in three pools (`situations.py`). *Unseen*: rows of tasks
that no adapter was made for. *Switch*: a chat of two turns of unrelated tasks; the first is
answered already, the second is written. *Blind*: the adapters show no examples. *Permuted*: each
set of examples is shown by its own adapter and by two impostors, so similarity cannot tell them
apart.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from lab.evaluation.asking import EXAMPLES, Answering, Asker, judge_score
from lab.evaluation.cells import Cells
from lab.evaluation.metrics import STRICTER
from lab.evaluation.questions import Found, Measure, Question, Situation
from lab.evaluation.situations import SITUATIONS, Crowd
from lab.evaluation.systems import ORDER, PERFECT, WRITTEN, Ask, takes_its_own
from ramole_core.errors import RamoleError
from ramole_core.training.rows import Row, metric_of, read_lines

PAIRS = 50
"""Ordered pairs of tasks of `switch`."""
CHATS = 4
"""Chats of each pair."""
RETRIEVING = tuple(name for name in WRITTEN if name != PERFECT)


@dataclass(frozen=True)
class Rows:
    """The rows of one task that are asked."""

    task: str
    domain: str
    metric: str
    rows: tuple[Row, ...]
    examples: tuple[Row, ...] = ()
    """Dev rows, at most EXAMPLES, for methods that fit weights: those before the rows that are
    asked, or the first where test rows are."""


def read_rows(
    data: Path, tasks: Sequence[str], *, split: str, count: int, skip: int = 0
) -> list[Rows]:
    """`count` rows of each task's file `SPLIT.jsonl` after the first `skip`, with examples that are
    not among them; raises RamoleError for a task that has no such rows."""
    found = []
    for name in tasks:
        file = data / name / f"{split}.jsonl"
        if not file.is_file():
            raise RamoleError(
                f"{file} was not found; name tasks of the data, which has {split} rows."
            )
        lines = read_lines(file)
        asked = lines[skip : skip + count]
        if not asked:
            raise RamoleError(f"{file} has no rows after its first {skip}; skip fewer.")
        dev = file.with_name("dev.jsonl")
        if split == "dev":
            examples = lines[max(0, skip - EXAMPLES) : skip]
        else:
            examples = read_lines(dev)[:EXAMPLES] if dev.is_file() else []
        domain = str(asked[0].get("domain", ""))
        rows = (
            tuple(Row(line["inputs"], line["targets"]) for line in part)
            for part in (asked, examples)
        )
        metric = STRICTER.get(name) or metric_of(lines)
        found.append(Rows(name, domain, metric, *rows))
    return found


def questions_of(
    task: Rows, right: str | None, *, hidden: Sequence[str], owner: str | None = None
) -> tuple[Question, ...]:
    """The rows of a task, for each of which `right` should answer and `hidden` may not be found."""
    return tuple(
        Question(row.inputs, (right,), (), row.targets, task.metric, tuple(hidden), owner)
        for row in task.rows
    )


def make_row_situations(
    ramole: Answering,
    cells: Cells,
    crowd: Crowd,
    *,
    tasks: Sequence[Rows],
    situations: Sequence[str],
    ask: Ask,
) -> list[Situation]:
    """The rows of each task in the situations `iid`, `ood` and `crowded`, those that are named."""
    asker = Asker(ramole, ask, judge_score, examples={task.task: task.examples for task in tasks})
    known = _Known(ramole, cells, {task.task: task.rows for task in tasks}, situations)
    made = []
    for name in situations:
        hidden = {task.task: crowd.excluded(name, task.task) for task in tasks}
        groups = {
            task.task: questions_of(task, task.task, hidden=hidden[task.task]) for task in tasks
        }
        measure = partial(_measure, name, known, asker.measure())
        made.append(
            Situation(name, SITUATIONS[name], "task", ORDER, groups, measure, own_rows=True)
        )
    return made


def _measure(
    situation: str, known: "_Known", ask: Measure, system: str, questions: Sequence[Question]
) -> list[Found]:
    found = [known.find(situation, system, one) for one in questions]
    left = [one for one, there in zip(questions, found, strict=True) if there is None]
    asked = iter(ask(system, left) if left else ())
    return [there or next(asked) for there in found]


@dataclass(frozen=True)
class _Known:
    """What would be the same answer again: a row for which the same single adapter is found as in
    another cell, and distractors of a method that takes its own pool, whoever else is there."""

    ramole: Answering
    cells: Cells
    rows: Mapping[str, Sequence[Row]]
    situations: Sequence[str]

    def find(self, situation: str, system: str, question: Question) -> Found | None:
        """What another cell has for the question."""
        if system == "selection":
            hits = self.ramole.retrieve(question.prompt, 1, exclude=question.excluded)
            places = [("alone", PERFECT), *((name, "selection") for name in self.situations)]
            found = (self._read(place, other, question) for place, other in places)
            return next((one for one in found if one and one.adapters[0] == hits[0].name), None)
        if situation == "crowded" and takes_its_own(system):
            return self._read("iid", system, question)
        return None

    def _read(self, place: str, system: str, question: Question) -> Found | None:
        task = str(question.right[-1])
        cell = self.cells.read(place, system, task)
        if cell is None:
            return None
        row = [row.inputs for row in self.rows[task]].index(question.prompt)
        scores = {"score": cell.strict[row], "lenient": cell.lenient[row], "left": 0.0}
        others = {name: values[row] for name, values in cell.measures.items()}
        return Found(tuple(cell.adapters[row]), scores | others)


def draw_pairs(names: Sequence[str], count: int, *, seed: int) -> list[tuple[str, str]]:
    """Ordered pairs of two different names, no pair twice, each name about equally often first and
    second; fewer where there are not so many."""
    chance = random.Random(f"{seed}/pairs")
    order = chance.sample(list(names), len(names))
    shifts = chance.sample(range(1, len(order)), max(0, len(order) - 1))
    pairs = [(a, order[(n + s) % len(order)]) for s in shifts for n, a in enumerate(order)]
    return pairs[:count]


def make_unseen(
    ramole: Answering, tasks: Sequence[Rows], *, hidden: Sequence[str], ask: Ask
) -> Situation:
    """Rows of tasks without an adapter; `hidden` are adapters that must not be found."""
    groups = {task.task: questions_of(task, None, hidden=hidden) for task in tasks}
    what = f"rows of {len(tasks)} tasks that no adapter was made for"
    measure = Asker(ramole, ask, judge_score).measure()
    return Situation("unseen", what, "task", RETRIEVING, groups, measure)


def make_switch(
    ramole: Answering,
    tasks: Sequence[Rows],
    *,
    hidden: Sequence[str],
    ask: Ask,
    seed: int,
    pairs: int = PAIRS,
    chats: int = CHATS,
) -> Situation:
    """Two-turn chats of unrelated tasks; the second answer is scored."""
    by_name = {task.task: task for task in tasks}
    turns = {name: cycle(task.rows) for name, task in by_name.items()}
    groups = {}
    for first, second in draw_pairs(list(by_name), pairs, seed=seed):
        one, other = (list(islice(turns[name], chats)) for name in (first, second))
        groups[f"{first}, then {second}"] = tuple(
            Question(
                then.inputs,
                (first, second),
                ((before.inputs, before.targets),),
                then.targets,
                by_name[second].metric,
                tuple(hidden),
            )
            for before, then in zip(one, other, strict=True)
        )
    what = "chats of two turns of unrelated tasks; the second answer is written and scored"
    measure = Asker(ramole, ask, judge_score).measure()
    return Situation("switch", what, "pair", WRITTEN, groups, measure)


def make_copied(
    ramole: Answering,
    tasks: Sequence[Rows],
    copies: Mapping[str, str],
    *,
    name: str,
    what: str,
    hidden: Sequence[str],
    owner: str,
    ask: Ask,
) -> Situation:
    """Rows of tasks whose adapters are found as copies (by task) that are `owner`'s alone."""
    groups = {
        task.task: questions_of(task, copies[task.task], hidden=hidden, owner=owner)
        for task in tasks
    }
    measure = Asker(ramole, ask, judge_score).measure()
    return Situation(name, what, "task", WRITTEN, groups, measure, shares_alone=True)
