"""The loop that every training run shares: step, measure, checkpoint, resume.

The batch of step t is a function of the seed and of t alone, so a run that was killed and taken up
again ends with the numbers of one that never stopped.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ramole_core.training.checkpoint import Progress, restore_checkpoint, save_checkpoint
from ramole_core.training.recipe import Schedule

Report = Callable[[Progress, int], None]
"""Called after every step with the progress and the number of steps in all."""


def train(
    parameters: dict[str, nn.Parameter],
    *,
    schedule: Schedule,
    loss_of: Callable[[int], Tensor],
    measure: Callable[[], dict[str, float]],
    checkpoint: Path,
    recipe: str,
    report: Report,
) -> Progress:
    """Train the named parameters with AdamW; `loss_of(t)` is the loss of step t's batch.

    `measure()` gives the dev losses by name; it is called before the first step, every
    `evaluate_every` steps, and at the end.
    """
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    progress = restore_checkpoint(checkpoint, parameters, optimizer=optimizer, recipe=recipe)
    started = time.monotonic() - progress.seconds
    if not progress.dev_losses:
        progress.dev_losses.append({"step": 0.0, **measure()})
        report(progress, schedule.steps)
    while progress.step < schedule.steps:
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(progress.step)
        loss = loss_of(progress.step)
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        progress.step += 1
        progress.train_losses.append(loss.item())
        ends = progress.step == schedule.steps
        if ends or progress.step % schedule.evaluate_every == 0:
            progress.dev_losses.append({"step": float(progress.step), **measure()})
        progress.seconds = time.monotonic() - started
        if ends or progress.step % schedule.checkpoint_every == 0:
            save_checkpoint(
                checkpoint, parameters, optimizer=optimizer, progress=progress, recipe=recipe
            )
        report(progress, schedule.steps)
    return progress
