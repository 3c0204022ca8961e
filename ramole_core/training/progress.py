"""A run's progress on the terminal: a bar, and a line for each measurement of the dev loss."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    TextColumn,
    TimeRemainingColumn,
)

from ramole_core.training.checkpoint import Progress
from ramole_core.training.loop import Report


@contextmanager
def show_progress(name: str, *, quiet: bool = False) -> Iterator[Report]:
    """A `report` for the loop; on standard error when `quiet`, so that JSON stays alone."""
    console = Console(stderr=quiet)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    shown = 0
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(name, total=None)

        def report(progress: Progress, steps: int) -> None:
            nonlocal shown
            for measured in progress.dev_losses[shown:]:
                console.print(measured_line(measured, progress), markup=False, highlight=False)
            shown = len(progress.dev_losses)
            bar.update(task, total=steps, completed=progress.step)

        yield report


def measured_line(measured: dict[str, float], progress: Progress) -> str:
    """`step 40  dev loss: adapter 0.412  train 0.398  92 s`."""
    losses = "  ".join(f"{key} {value:.4f}" for key, value in measured.items() if key != "step")
    recent = progress.train_losses[-10:]
    train = f"  train {sum(recent) / len(recent):.4f}" if recent else ""
    return f"step {measured['step']:.0f}  dev loss: {losses}{train}  {progress.seconds:.0f} s"
