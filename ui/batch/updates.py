"""What the components of the tab Batch hold while rows run, after them, and where none can."""

from typing import Any

import gradio as gr

from ..parts.notice import notice_html
from .picture import picture_of
from .run import BatchRun
from .views import HEADERS, progress_html, standing_html, table_of

Look = tuple[Any, ...]
"""Notice, progress, picture, table, and the run once it has ended: `Outcome.looks`."""


class Drawing:
    """What notice, progress, picture and table hold, each time somebody looks at a run; and itself.

    All four have a value each time, as Gradio's browser half reads it: a component that is left
    out would be built anew, at ten times the cost. The table is made only where it has grown.
    """

    def __init__(self):
        self._ended = -1
        self._table: dict[str, Any] = {}

    def look(self, run: BatchRun) -> Look:
        """The run as it stands."""
        over, count = run.ended.is_set(), run.count()
        ended = len(run.items) - count["waits"] - count["runs"]
        if ended != self._ended or over:
            self._ended, self._table = ended, _table(run)
        kept = run if over else gr.skip()
        return standing_html(run), progress_html(run), picture_of(run), self._table, kept

    def wrong(self, sentence: str, before: BatchRun | None) -> Look:
        """No new run, and why; the one before stays in sight."""
        said = notice_html(sentence, kind="wrong")
        return said, progress_html(before), picture_of(before), _table(before), before


def _table(run: BatchRun | None) -> dict[str, Any]:
    return {"headers": HEADERS, "data": table_of(run), "metadata": None}
