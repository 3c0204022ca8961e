"""Show a training run on the terminal: a bar, a line for each measurement, and the pause."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    TextColumn,
    TimeRemainingColumn,
)

from ramole_core.terminal.console import write_json
from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Paused, TrainingRun
from ramole_core.training.options import Pace, command_line


@contextmanager
def shown_run(name: str, out_dir: Path, pace: Pace) -> Iterator[TrainingRun]:
    """Show a command's `TrainingRun`, on standard error where standard output is for JSON.

    Where it pauses at its deadline, the command ends there, with exit status 0.
    """
    console = Console(stderr=pace.as_json)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    shown, step, steps = 0, 0, 0
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(name, total=None)

        def report(progress: Progress, most: int) -> None:
            nonlocal shown, step, steps
            if len(progress.dev_losses) < shown:  # the next adapter of the run
                shown = 0
            for measured in progress.dev_losses[shown:]:
                console.print(measured_line(measured, progress), markup=False, highlight=False)
            shown, step, steps = len(progress.dev_losses), progress.step, most
            bar.update(task, total=most, completed=step)

        try:
            yield TrainingRun(out_dir, command_line(), report, pace.deadline)
            return
        except Paused:
            pass
    console.print(f"Paused after step {step} of {steps}; resume with the same command.")
    if pace.as_json:
        write_json({"paused": True, "step": step, "steps": steps})
    raise typer.Exit


def measured_line(measured: dict[str, float], progress: Progress) -> str:
    """`step 40  dev loss: adapter 0.412  train 0.398  92 s`."""
    losses = "  ".join(f"{key} {value:.4f}" for key, value in measured.items() if key != "step")
    recent = progress.train_losses[: int(measured["step"])][-10:]
    train = f"  train {sum(recent) / len(recent):.4f}" if recent else ""
    return f"step {measured['step']:.0f}  dev loss: {losses}{train}  {progress.seconds:.0f} s"
