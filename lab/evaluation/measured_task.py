"""A task's dev rows under a plain model: greedy answers by the task's metric, and forced losses."""

import time
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.evaluation.answers import answer_rows
from lab.evaluation.cells import Cell
from lab.evaluation.metrics import score
from ramole_core.training.loss import row_losses
from ramole_core.training.rows import Task, encode_rows

MAX_TOKENS = 256
"""Of a row whose loss is measured, prompt and answer."""


@torch.no_grad()
def measure_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    rows: int,
    names: Sequence[str],
    began: float | None = None,
) -> Cell:
    """The first `rows` dev rows; `names` of the adapters that answer. `began`: since when its
    seconds count, by `time.perf_counter`."""
    began = time.perf_counter() if began is None else began
    dev = task.dev[:rows]
    targets = [row.targets for row in dev]
    losses = row_losses(model, encode_rows(tokenizer, dev, max_tokens=MAX_TOKENS))
    answers = answer_rows(model, tokenizer, [row.inputs for row in dev])
    return Cell(
        score(task.metric, answers, targets),
        score(task.metric, answers, targets, forgiving=True),
        [list(names)] * len(dev),
        time.perf_counter() - began,
        {"loss": losses.tolist()},
    )
