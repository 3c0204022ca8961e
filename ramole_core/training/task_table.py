"""A table of tasks and adapters: the loss of each adapter on the rows of each task.

    losses[t, a] = mean over rows of task t of  -log p(answer | prompt) a token, adapter a alone

Every adapter has a task, the one that it is named after; its rows are drawn from the task's
training split alone. An adapter was trained on rows of its own task, perhaps on these, so of its
own task it shows more than of the others: the table compares adapters on a task that is not theirs,
and where no other is as good at a task, its own adapter is the one.
"""

import random
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from json import dumps

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.composition import find_method
from ramole_core.composition.trained import config_file, weights_file
from ramole_core.errors import RamoleError
from ramole_core.methods import find_row
from ramole_core.training.checkpoint import Progress, restore_checkpoint, save_checkpoint
from ramole_core.training.loop import Paused, TrainingRun
from ramole_core.training.loss import row_losses
from ramole_core.training.material import Material, identity
from ramole_core.training.mixed_model import MixedModel
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import Encoded, Task, encode_row
from ramole_core.training.weights_folder import (
    method_facts,
    weights_folder,
    write_json,
    write_tensors,
)


def write_task_table(recipe: MethodRecipe, given: Material, run: TrainingRun) -> Progress:
    """Measure the table over the adapters, one a task, and write it as the method's weights.

    `recipe.settings["rows"]` rows of each task are read, none longer than its `max_tokens`. A step
    is an adapter. Raises RamoleError where a task has too few rows, Paused at the deadline.
    """
    schedule, base, loras = recipe.schedule, given.base, given.loras
    rows = [draw_rows(base.tokenizer, task, recipe) for task in given.tasks]
    record = {
        "recipe": {
            "method": recipe.method,
            "settings": dict(recipe.settings),
            "max_tokens": schedule.max_tokens,
            "seed": schedule.seed,
            "split": "train",
        },
        **given.config,
    }
    facts = dumps({**record, **identity(base, given.tasks)}, sort_keys=True)
    held, progress = restore_checkpoint(run.checkpoint, facts=facts)
    columns = list(held["losses"].T) if held else []
    started = time.monotonic() - progress.seconds
    run.report(progress, len(loras))
    with closing(
        MixedModel(base, loras=loras, shapes=given.shapes, checksums=dict(given.known))
    ) as model:
        for at, name in list(enumerate(loras))[len(columns) :]:
            columns.append(losses_of(model, name, rows))
            progress.step = progress.kept_step = at + 1
            progress.seconds = time.monotonic() - started
            own, mean = columns[at][at].item(), columns[at].mean().item()
            progress.dev_losses.append({"step": float(at + 1), "own": own, "mean": mean})
            table = {"losses": torch.stack(columns, dim=1)}
            save_checkpoint(run.checkpoint, table, progress=progress, facts=facts)
            run.report(progress, len(loras))
            if time.monotonic() >= run.deadline and len(columns) < len(loras):
                raise Paused
    row = find_row(recipe.method)
    with weights_folder(run.out_dir) as folder:
        table = {"losses": torch.stack(columns, dim=1)}
        write_tensors(weights_file(folder, row), table, torch.float32)
        record |= {"trained_on": list(loras), **method_facts(base, progress, run.command)}
        # the table itself names no layer
        record["base_shapes"] = dict(list(given.shapes.items())[-7:])
        write_json(config_file(folder, row), record)
    return progress


def draw_rows(
    tokenizer: PreTrainedTokenizerBase, task: Task, recipe: MethodRecipe
) -> list[Encoded]:
    """The recipe's `rows` training rows of a task that fit; the seed decides which."""
    count, most = int(recipe.settings["rows"]), recipe.schedule.max_tokens
    order = list(task.train)
    random.Random(recipe.schedule.seed).shuffle(order)
    fitting = (one for row in order if len(one := encode_row(tokenizer, row)) <= most)
    found = list(islice(fitting, count))
    if len(found) == count:
        return found
    raise RamoleError(
        f"Of task {task.name}, {len(found)} training rows have at most {most} tokens, and "
        f"{count} are needed; take fewer with --set rows={max(1, len(found))}, or raise "
        "--max-tokens."
    )


def losses_of(
    model: MixedModel, name: str, tasks: Sequence[Sequence[Encoded]]
) -> Float[Tensor, " task"]:
    """Mean loss on the rows of each task with this adapter alone."""
    every = [row for rows in tasks for row in rows]
    with model.mixing(find_method("selection"), None, names=[(name,)]):
        losses = row_losses(model.plain, every)
    return torch.stack([part.mean() for part in losses.split([len(rows) for rows in tasks])])
