"""A table of tasks and adapters: how well each adapter answers the rows of each task.

    losses[t, a] = mean over rows of task t of  -log p(answer | prompt) a token, adapter a alone

Every adapter has a task, the one that it is named after; its rows are drawn from the task's
training split alone. An adapter was trained on rows of its own task, perhaps on these, so of its
own task it says more than of the others: the table compares adapters on a task that is not theirs,
and says of a task that nobody else is as good at that its own adapter is the one.
"""

import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from ramole_core.whole_file import replacing


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

    `recipe.settings["rows"]` rows of each task are read, none longer than its `max_tokens`. A step
    is an adapter; until the last is done, `out_dir` holds nothing new but `.checkpoint/`, and
    calling again with the same recipe goes on from there. Raises RamoleError where a task has too
    few rows.
    """
    schedule, count = recipe.schedule, int(recipe.settings["rows"])
    rows = [
        draw_rows(base.tokenizer, task, count, max_tokens=schedule.max_tokens, seed=schedule.seed)
        for task in tasks
    ]
    known = [{"name": name, "checksum": checksums[name]} for name in loras]
    told = {
        "method": recipe.method,
        "settings": dict(recipe.settings),
        "max_tokens": schedule.max_tokens,
        "seed": schedule.seed,
        "split": "train",
    }
    facts = {"recipe": told, "adapters": known, "base_checksum": base.checksum}
    checkpoint = out_dir / ".checkpoint" / "table.json"
    columns, progress = restore_columns(checkpoint, facts)
    started = time.monotonic() - progress.seconds
    report(progress, len(loras))
    model = MixedModel(base, loras=loras, shapes=shapes, checksums=checksums)
    try:
        for at, name in enumerate(loras):
            if at < len(columns):
                continue
            losses = losses_of(model, name, rows)
            columns.append(losses.tolist())
            progress.step += 1
            progress.seconds = time.monotonic() - started
            progress.dev_losses.append(
                {"step": float(progress.step), "own": columns[at][at], "mean": losses.mean().item()}
            )
            save_columns(checkpoint, facts, columns, progress)
            report(progress, len(loras))
    finally:
        model.close()
    row = find_row(recipe.method)
    table = torch.tensor(columns).T.contiguous()
    save_file({"losses": table}, weights_file(out_dir, row), {"format": "pt"})
    record = {
        "schema": 2,
        "trained_on": list(loras),
        **facts,
        "base_model": base.name,
        "base_shapes": dict(list(shapes.items())[-7:]),  # the table itself names no layer
        "quantization": base.quantization,
        "command": command,
        "versions": versions(),
        "seconds": round(progress.seconds, 1),
        "dev_losses": progress.dev_losses,
    }
    config_file(out_dir, row).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    return progress


def save_columns(
    path: Path, facts: Mapping[str, object], columns: Sequence[Sequence[float]], progress: Progress
) -> None:
    """Write what is measured so far; `facts` guard against a mix-up."""
    state = {"facts": facts, "columns": columns, "progress": asdict(progress)}
    with replacing(path) as part:
        part.write_text(json.dumps(state), encoding="utf-8")


def restore_columns(path: Path, facts: Mapping[str, object]) -> tuple[list[list[float]], Progress]:
    """What was measured before a run was stopped; nothing where there was none."""
    if not path.is_file():
        return [], Progress()
    state = json.loads(path.read_text(encoding="utf-8"))
    if state["facts"] != json.loads(json.dumps(facts)):
        raise RamoleError(
            f"{path} belongs to another recipe; delete its folder to start afresh, or use the "
            "settings it was started with."
        )
    return state["columns"], Progress(**state["progress"])


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
