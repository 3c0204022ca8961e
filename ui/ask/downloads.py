"""Traces as files to take away: written by us alone, in folders nobody can guess, and swept."""

import tempfile
import time
from pathlib import Path
from shutil import rmtree

from gradio.utils import get_upload_folder

from ramole_core import write_trace

from ..charts.run import Run

PREFIX = "trace-"
HOUR = 3600.0


def write_files(run: Run, *, into: Path | None = None) -> tuple[Path, Path]:
    """The run's trace as `.npz` and `.json`, in a new folder; old folders are removed."""
    root = into or Path(get_upload_folder())
    root.mkdir(parents=True, exist_ok=True)
    sweep(root, older_than=HOUR)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    return (
        write_trace(run.answer, folder / "ramole-trace.npz"),
        write_trace(run.answer, folder / "ramole-trace.json"),
    )


def sweep(root: Path, *, older_than: float) -> None:
    """Remove our folders that have not changed for so many seconds."""
    for folder in root.glob(f"{PREFIX}*"):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > older_than:
            rmtree(folder, ignore_errors=True)
