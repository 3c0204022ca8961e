"""The trace of a run as files to download."""

import re
from collections.abc import Mapping
from pathlib import Path

from ramole_core import write_trace

from ..charts.run import Run
from ..parts.downloads import fresh_folder

MAX_LETTERS = 40
"""Letters of the prompt in a file's name."""


def write_files(
    run: Run, *, facts: Mapping[str, object] | None = None, into: Path | None = None
) -> tuple[Path, Path]:
    """The run's trace as `.npz` and `.json`, with what was asked and `facts` of what answered, in a
    new folder; old folders are removed."""
    folder, name = fresh_folder(into), name_of(run)
    npz, as_json = (
        write_trace(run.answer, folder / f"{name}.{kind}", request=run.request, facts=facts)
        for kind in ("npz", "json")
    )
    return npz, as_json


def name_of(run: Run) -> str:
    """A file name for the run: `ramole-METHOD-first-words-of-the-prompt`."""
    words = re.findall(r"[a-z0-9]+", run.request.prompt.lower())
    start = "-".join(words)[:MAX_LETTERS].strip("-")
    return "-".join(part for part in ("ramole", run.request.method, start) if part)
