"""Updates of the tab Batch: for running rows, finished ones, and none."""

from typing import Any

import gradio as gr

from ..parts.markup import notice_html
from .picture import picture_of
from .run import BatchRun
from .views import HEADERS, progress_html, standing_html, table_of

Look = tuple[Any, ...]
"""Notice, progress, picture, table, and the run once it has ended: `BatchLayout.looks`."""


class Drawing:
    """The values of notice, progress, picture and table for each update of a run.

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
        """No new run, with the reason; the one before stays visible."""
        said = notice_html(sentence, kind="wrong")
        return said, progress_html(before), picture_of(before), _table(before), before


def _table(run: BatchRun | None) -> dict[str, Any]:
    return {"headers": HEADERS, "data": table_of(run), "metadata": None}
