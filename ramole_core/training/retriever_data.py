"""The example inputs that a retriever learns from: task folders, some of them taken together."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ramole_core.errors import RamoleError
from ramole_core.training.rows import read_task

EXAMPLES = 20
"""Inputs that stand for a task while it is measured, as many as an adapter has."""
DEV = 10
"""Dev inputs of each task that are measured."""


@dataclass(frozen=True)
class TaskTexts:
    """Inputs by task."""

    train: Mapping[str, tuple[str, ...]]
    examples: Mapping[str, tuple[str, ...]]
    dev: Mapping[str, tuple[str, ...]]


def read_texts(data: Path, words: str, *, rows: int, seed: int) -> TaskTexts:
    """The tasks named in `words`, comma separated, with `rows` training inputs each.

    `a+b` is one task with the inputs of both: twins without a difference would only teach
    noise. Raises RamoleError for a task that is not there.
    """
    if rows < 2:
        raise RamoleError(f"{rows} inputs of a task make no pair; give at least 2.")
    train: dict[str, tuple[str, ...]] = {}
    examples, dev = dict(train), dict(train)
    for group in (word.strip() for word in words.split(",")):
        if not group:
            continue
        tasks = [read_task(data / name) for name in group.split("+")]
        held = [row.inputs for task in tasks for row in task.train]
        held_out = [row.inputs for task in tasks for row in task.dev]
        drawn = random.Random(f"{seed}/{group}").sample(held, min(rows, len(held)))
        train[group] = tuple(drawn)
        examples[group] = tuple(drawn[:EXAMPLES])
        dev[group] = tuple(random.Random(group).sample(held_out, min(DEV, len(held_out))))
    return TaskTexts(train, examples, dev)
