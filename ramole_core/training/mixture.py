"""The rows of several tasks mixed for one training run."""

import random
from collections.abc import Sequence

from ramole_core.base.model import BaseModel
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import Task, TaskRow, encode_task


def mixed_rows(base: BaseModel, tasks: Sequence[Task], recipe: MethodRecipe) -> list[TaskRow]:
    """The training rows of all tasks, as many of each as the smallest one has."""
    most = recipe.schedule.max_tokens
    encoded = [encode_task(base.tokenizer, one.name, one.train, max_tokens=most) for one in tasks]
    count = min(len(rows) for rows in encoded)
    chance = random.Random(recipe.schedule.seed)
    return [row for rows in encoded for row in chance.sample(rows, count)]


def dev_rows(base: BaseModel, tasks: Sequence[Task], recipe: MethodRecipe) -> list[TaskRow]:
    """The rows that the dev loss is measured on: the first of each task that fit, as many of each
    where it has them."""
    schedule = recipe.schedule
    share = max(1, schedule.dev_rows // len(tasks))
    most = schedule.max_tokens
    encoded = [encode_task(base.tokenizer, one.name, one.dev, max_tokens=most) for one in tasks]
    return [row for rows in encoded for row in rows[:share]]
