"""Downloads: a button that makes a file first, and its folder.

The files are written by us alone, in folders nobody can guess, and swept after an hour.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import gradio as gr
from gradio.components import Component
from gradio.utils import get_upload_folder

from .events import QUIET

PREFIX = "trace-"
HOUR = 3600.0
TAKE = "() => setTimeout(() => document.querySelector('#{}').click(), 100)"
"""Press the hidden button that holds a file, once the page has its address."""


@dataclass(frozen=True)
class Download:
    """A visible button, and the hidden one that holds the file."""

    seen: gr.Button
    file: gr.DownloadButton


def behind(label: str, name: str) -> gr.DownloadButton:
    """The hidden download, pressed by a script once the file exists.

    The class hides it for good: Gradio's own `visible="hidden"` is sometimes lost when the row
    around it appears.
    """
    return gr.DownloadButton(label, elem_id=name, elem_classes="behind", visible="hidden")


def download(label: str, name: str, *, min_width: int) -> Download:
    """A button `name` to see, and the hidden one, `name`-file, that holds the file."""
    seen = gr.Button(label, size="sm", elem_id=name, min_width=min_width)
    return Download(seen, behind(label, f"{name}-file"))


def connect(
    downloads: Sequence[Download],
    make: Callable,
    inputs: Component | Sequence[Component] | None = None,
) -> None:
    """Each button calls `make`, which gives a path for every one of them, and takes its own."""
    for one in downloads:
        files = [each.file for each in downloads]
        made = one.seen.click(make, inputs, files, concurrency_limit=None, **QUIET)
        made.success(None, js=TAKE.format(one.file.elem_id), **QUIET)


def fresh_folder(into: Path | None = None) -> Path:
    """A new folder for files to take away (unset: in Gradio's cache); old ones are removed."""
    root = into or Path(get_upload_folder())
    root.mkdir(parents=True, exist_ok=True)
    sweep(root, older_than=HOUR)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))


def sweep(root: Path, *, older_than: float) -> None:
    """Remove our folders that have not changed for so many seconds."""
    for folder in root.glob(f"{PREFIX}*"):
        if folder.is_dir() and time.time() - folder.stat().st_mtime > older_than:
            rmtree(folder, ignore_errors=True)
