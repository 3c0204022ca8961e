"""Downloads: a button that makes a file first, its folder, and tables as csv.

The files are in folders with random names, and are swept after an hour.
"""

import csv
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
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

FORMULA = "=+-@＝＋－＠"
"""With one of these a spreadsheet would take a cell for a formula, wide forms included."""
UNSEEN = ("C", "Z")
"""Categories of characters that a spreadsheet passes over first: blanks and control characters."""


class Download:
    """A visible button `name`, and the hidden one, `name`-file, that holds the file."""

    def __init__(self, label: str, name: str, *, min_width: int) -> None:
        self.seen = gr.Button(label, size="sm", elem_id=name, min_width=min_width)
        self.file = behind(label, f"{name}-file")


def behind(label: str, name: str) -> gr.DownloadButton:
    """The hidden download, pressed by a script once the file exists.

    The class hides it for good: Gradio's own `visible="hidden"` is sometimes lost when the row
    around it appears.
    """
    return gr.DownloadButton(label, elem_id=name, elem_classes="behind", visible="hidden")


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


def inert_cell(value: object) -> object:
    """The value; text that a spreadsheet would take for a formula has a quote before it."""
    if not isinstance(value, str):
        return value
    seen = (letter for letter in value if not unicodedata.category(letter).startswith(UNSEEN))
    formula = value.startswith(("\t", "\r")) or next(seen, " ") in FORMULA
    return f"'{value}" if formula else value


def write_csv(path: Path, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write the table to `path`, and return that. It begins with the mark of UTF-8, without which
    Excel assumes an older encoding."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        write = csv.writer(file).writerow
        for row in (headers, *rows):
            write([inert_cell(cell) for cell in row])
    return path
