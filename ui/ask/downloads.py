"""The trace of a run as files to take away."""

from pathlib import Path

from ramole_core import write_trace

from ..charts.run import Run
from ..parts.downloads import fresh_folder


def write_files(run: Run, *, into: Path | None = None) -> tuple[Path, Path]:
    """The run's trace as `.npz` and `.json`, in a new folder; old folders are removed."""
    folder = fresh_folder(into)
    return (
        write_trace(run.answer, folder / "ramole-trace.npz"),
        write_trace(run.answer, folder / "ramole-trace.json"),
    )
