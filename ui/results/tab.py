"""The tab Results: what was measured; docs/results.md has the commands that did.

Nothing is read before the tab is first opened; opened again, it is drawn anew only where a file
has changed.
"""

from pathlib import Path

import gradio as gr

from ..parts.errors import one_sentence
from ..parts.events import QUIET
from .files import RESULTS, stamp
from .layout import ResultsLayout
from .updates import closer, opened


def tab(folder: Path = RESULTS) -> None:
    """Build the tab inside the Blocks that is open; the files are those of `folder`."""
    with gr.Tab("Results", id="results", elem_id="results-tab") as results:
        ui = ResultsLayout()

    def on_open(before: str):
        with one_sentence():
            now = stamp(folder)
            return {ui.shown: now} if before == now else {ui.shown: now, **opened(ui, folder)}

    def on_setting(wanted: str | None):
        with one_sentence():
            return closer(ui, folder, wanted)

    changed = [ui.plot, ui.ahead, ui.by_task]
    every = [ui.shown, ui.top, ui.chosen, ui.setting, ui.rest, *changed]
    results.select(on_open, ui.shown, every, queue=False, **QUIET)
    ui.setting.input(
        on_setting, ui.setting, changed, trigger_mode="always_last", queue=False, **QUIET
    )
