"""Situations whose questions are rows of tasks: unseen, switch, blind, permuted.

*Unseen*: rows of tasks that no adapter was made for. *Switch*: a chat of two turns of unrelated
tasks; the first is answered already, the second is written. *Blind*: the adapters show no examples.
*Permuted*: each set of examples is shown by its own adapter and by two impostors, so similarity
cannot tell them apart.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import cycle, islice

from lab.evaluation.asking import Answering, Asker, judge_score
from lab.evaluation.evaluate import Rows, questions_of
from lab.evaluation.questions import Question, Situation
from lab.evaluation.systems import PERFECT, WRITTEN, Ask

PAIRS = 50
"""Ordered pairs of tasks of `switch`."""
CHATS = 4
"""Chats of each pair."""
RETRIEVING = tuple(name for name in WRITTEN if name != PERFECT)


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
