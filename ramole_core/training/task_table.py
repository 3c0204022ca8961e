"""A table of tasks and adapters: how well each adapter answers the rows of each task.

    losses[t, a] = mean over rows of task t of  -log p(answer | prompt) a token, adapter a alone

Every adapter has a task, the one that it is named after; its rows are drawn from the task's
training split alone. An adapter was trained on rows of its own task, perhaps on these, so of its
own task it says more than of the others: the table compares adapters on a task that is not theirs,
and says of a task that nobody else is as good at that its own adapter is the one.
"""

import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ramole_core.base.model import BaseModel
from ramole_core.composition import find_method
from ramole_core.composition.trained import config_file, weights_file
from ramole_core.errors import RamoleError
from ramole_core.methods import find_row
from ramole_core.training.card import versions
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Report
from ramole_core.training.loss import row_losses
from ramole_core.training.mixed_model import Loras, MixedModel, Shapes
from ramole_core.training.recipe import MethodRecipe
from ramole_core.training.rows import Encoded, Task, encode_row


def write_task_table(
    recipe: MethodRecipe,
    *,
    loras: Loras,
    tasks: Sequence[Task],
    base: BaseModel,
    shapes: Shapes,
    out_dir: Path,
    checksums: Mapping[str, str],
    command: str = "",
    report: Report = lambda progress, steps: None,
) -> Progress:
    """Measure the table over `loras`, one a task, and write it as the method's weights.

    `recipe.settings["rows"]` rows of each task are read, none longer than its `max_tokens`; a step
    of the progress is an adapter. Raises RamoleError where a task has too few.
    """
    started, count = time.monotonic(), int(recipe.settings["rows"])
    schedule, progress = recipe.schedule, Progress()
    rows = {
        task.name: draw_rows(
            base.tokenizer, task, count, max_tokens=schedule.max_tokens, seed=schedule.seed
        )
        for task in tasks
    }
    model = MixedModel(base, loras=loras, shapes=shapes, checksums=checksums)
    columns = []
    try:
        for name in loras:
            columns.append(losses_of(model, name, list(rows.values())))
            progress.step += 1
            progress.seconds = time.monotonic() - started
            report(progress, len(loras))
    finally:
        model.close()
    losses = torch.stack(columns, dim=1)
    own = losses.diagonal()
    progress.dev_losses.append(
        {
            "step": float(progress.step),
            "own": own.mean().item(),
            "best": losses.min(1).values.mean().item(),
            "mean": losses.mean().item(),
        }
    )
    report(progress, len(loras))
    row = find_row(recipe.method)
    out_dir.mkdir(parents=True, exist_ok=True)
    save_file({"losses": losses.contiguous()}, weights_file(out_dir, row), {"format": "pt"})
    record = {
        "schema": 2,
        "recipe": {
            "method": recipe.method,
            "settings": dict(recipe.settings),
            "max_tokens": schedule.max_tokens,
            "seed": schedule.seed,
            "split": "train",
        },
        "trained_on": list(loras),
        "adapters": [{"name": name, "checksum": checksums[name]} for name in loras],
        "base_model": base.name,
        "base_checksum": base.checksum,
        "quantization": base.quantization,
        "command": command,
        "versions": versions(),
        "seconds": round(progress.seconds, 1),
        "dev_losses": progress.dev_losses,
    }
    config_file(out_dir, row).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return progress


def draw_rows(
    tokenizer: PreTrainedTokenizerBase, task: Task, count: int, *, max_tokens: int, seed: int
) -> list[Encoded]:
    """`count` training rows of a task that fit into `max_tokens`; the seed decides which."""
    order = list(task.train)
    random.Random(seed).shuffle(order)
    found: list[Encoded] = []
    for row in order:
        if len(found) == count:
            return found
        one = encode_row(tokenizer, row)
        if len(one) <= max_tokens:
            found.append(one)
    if len(found) == count:
        return found
    raise RamoleError(
        f"Of task {task.name}, {len(found)} training rows have at most {max_tokens} tokens, and "
        f"{count} are asked for; ask for fewer with --set rows={max(1, len(found))}, or raise "
        "--max-tokens."
    )


def losses_of(
    model: MixedModel, name: str, tasks: Sequence[Sequence[Encoded]]
) -> Float[Tensor, " task"]:
    """Mean loss on the rows of each task with this adapter alone."""
    alone = find_method("selection")
    every = [row for rows in tasks for row in rows]
    losses = row_losses(
        model.plain, every, mixing=lambda _: model.mixing(alone, None, names=[(name,)])
    )
    parts = losses.split([len(rows) for rows in tasks])
    return torch.stack([part.mean() for part in parts])
