"""The panel that shows how the answer in sight came about, drawn when somebody wants to see it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from ramole_core import RamoleError

from ..charts.path import path_html
from ..charts.run import Run
from ..parts.errors import one_sentence
from ..parts.events import QUIET

if TYPE_CHECKING:
    from ramole_core import Ramole

NONE = "There is no answer yet; ask something first."
SEE = """() => setTimeout(() => {
  document.querySelector('#path .path')?.scrollIntoView({ block: 'nearest' });
}, 100)"""


@dataclass(frozen=True)
class PathPanel:
    """Its button and its picture."""

    watch: gr.Button
    view: gr.HTML

    def connect(self, ramole: "Ramole", *, run: gr.State) -> None:
        """Draw the path of the run in sight."""

        def on_watch(run: Run | None):
            if run is None or not run.pieces:
                raise gr.Error(NONE, print_exception=False)
            with one_sentence():
                try:
                    vector = ramole.retriever.embed([run.request.prompt])[0]
                except RamoleError:  # the picture stands without it
                    vector = ()
                return path_html(run, vector)

        self.watch.click(on_watch, run, self.view, **QUIET).success(None, js=SEE, **QUIET)
