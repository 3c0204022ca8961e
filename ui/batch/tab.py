"""The tab Batch: drop or paste rows, run them together, see who used which adapter, download."""

from collections.abc import Generator
from contextlib import closing
from typing import Any

import gradio as gr

from ramole_core import Ramole, RamoleError

from ..model.spaces import ELSEWHERE, gpu
from ..parts import downloads
from ..parts.errors import html_or_sentence, one_sentence, sentence_of
from ..parts.events import (
    AT_ONCE,
    CUT,
    EACH,
    LATEST,
    QUIET,
    free,
    number_in,
    on_failure,
    place_in,
    session_of,
    text_in,
)
from ..parts.fields import run_and_stop
from ..parts.markup import notice_html
from ..session.quota import quota_of
from ..session.store import Drawer
from .examples import EXAMPLES
from .files import write_results
from .layout import BatchLayout
from .picture import picture_of
from .rows import read, refused_html, text_of, verdict_html
from .run import BatchRun, run_of, watched
from .views import HEADERS, progress_html, row_html, standing_html, table_of

BatchUpdate = tuple[Any, ...]
"""Notice, progress, picture, table, and the run once it has ended: `BatchLayout.looks`."""
RUNNING = "A batch is on its way."
TYPED = "Your rows stay as they are; empty the box first, then press the example again."
SHOW = """
() => {{ setTimeout(() => {{
  if (innerWidth <= 640) document.querySelector('#{}').scrollIntoView({{ block: 'start' }});
}}, 100); }}
"""
"""On a phone the results are far below the button."""


def tab(ramole: Ramole) -> None:
    """Build the tab inside the Blocks that is open."""
    with gr.Tab("Batch", id="batch", elem_id="batch-tab"):
        ui = BatchLayout(ramole)
    _connect(ui, BatchHandlers(ramole, ui))


class BatchRenderer:
    """The values of notice, progress, picture and table for each update of a run.

    All four have a value each time, as Gradio's browser half reads it: a component that is left
    out would be built anew, at ten times the cost. The table is made only where it has grown.
    """

    def __init__(self):
        self._ended = -1
        self._table: dict[str, Any] = {}

    def look(self, run: BatchRun) -> BatchUpdate:
        """The run as it stands."""
        over, count = run.ended.is_set(), run.count()
        ended = len(run.items) - count["waits"] - count["runs"]
        if ended != self._ended or over:
            self._ended, self._table = ended, _table(run)
        kept = run if over else gr.skip()
        return standing_html(run), progress_html(run), picture_of(run), self._table, kept

    def wrong(self, sentence: str, before: BatchRun | None) -> BatchUpdate:
        """No new run, with the reason; the one before stays visible."""
        said = notice_html(sentence, kind="wrong")
        return said, progress_html(before), picture_of(before), _table(before), before


def _table(run: BatchRun | None) -> dict[str, Any]:
    return {"headers": HEADERS, "data": table_of(run), "metadata": None}


class BatchHandlers:
    """Event handlers, with the last run of each session: a browser can only reach its own."""

    def __init__(self, ramole: Ramole, ui: BatchLayout):
        self.ramole, self.ui = ramole, ui
        presence = quota_of(ramole).presence
        self.call = presence.call
        self.runs: Drawer[BatchRun] = presence.sessions.drawer(
            weigh=lambda run: run.weight, end=lambda run: run.cancelled.set()
        )

    def on_check(self, request: gr.Request, text, *how):
        """Show how many of the rows can run."""
        if not (text or "").strip():
            return ""
        with self.call(request) as visitor:
            return html_or_sentence(
                lambda: verdict_html(read(self.ramole, text, *how, owner=visitor.owner)),
                refused_html,
            )

    def on_drop(self, path):
        """A file's text in the editor."""
        entry, text, kind = self.ui.entry, gr.skip(), gr.skip()

        def take() -> str:
            nonlocal text, kind
            text, kind = text_of(path)
            return ""

        verdict = html_or_sentence(take, refused_html)
        return {entry.verdict: verdict, entry.text: text, entry.kind: kind, entry.drop: None}

    def on_example(self, text, event: gr.EventData):
        """Rows to try, in the editor; what was typed there stays."""
        example = EXAMPLES[place_in(event, len(EXAMPLES))]
        most = self.ramole.settings.max_new_tokens
        if (text or "").strip() and text not in [one.make(most) for one in EXAMPLES]:
            return gr.skip(), gr.skip(), refused_html(TYPED)
        return example.make(most), example.kind, gr.skip()

    def busy(self, session: str) -> bool:
        """Whether a run is running and not stopped."""
        run = self.runs.get(session)
        return run is not None and not run.ended.is_set() and not run.cancelled.is_set()

    def on_begin(self, request: gr.Request):
        """Clear the outputs, unless a batch is running."""
        if self.busy(session_of(request)):
            raise gr.Error(RUNNING, visible=False, print_exception=False)  # ends the chain
        return notice_html("Reading the rows…", kind="busy"), "", *run_and_stop(running=True)

    def on_run(self, request: gr.Request, *rows: Any) -> Generator[BatchUpdate, None, None]:
        """Run the rows (as `read` takes them); yields updates, the last after the end."""
        session, drawing = session_of(request), BatchRenderer()
        before = self.runs.get(session)
        try:
            with self.call(request) as visitor:
                batch = read(self.ramole, *rows, owner=visitor.owner)
                if not batch.rows:
                    raise RamoleError("No row can run; what is wrong with each stands by the text.")
                run = run_of(batch, owner=visitor.owner, address=visitor.address)
                self.runs.put(session, run)
                yield drawing.look(run)
                with closing(watched(self.ramole, run)) as turns:
                    for _ in turns:
                        yield drawing.look(run)
        except Exception as error:
            yield drawing.wrong(sentence_of(error), before)
        finally:
            if (run := self.runs.get(session)) is not None:
                self.runs.put(session, run)  # with what it weighs now

    def on_end(self, request: gr.Request, ran: BatchRun | None):
        """The buttons as at the start."""
        if ELSEWHERE and ran is not None:  # it ended in another process
            self.runs.put(session_of(request), ran)
        return run_and_stop(running=False)

    def on_stop(self, request: gr.Request):
        """Stop the run; its updates end with what came."""
        self.runs.end_of(session_of(request))

    def on_row(self, request: gr.Request, event: gr.EventData):
        """One row in full: the event has the run's name and the row's number."""
        run, number = self.runs.get(session_of(request)), number_in(event, "n")
        if run is None or run.name != text_in(event, "run") or number is None:
            return ""
        return row_html(run, number)

    def on_take(self, request: gr.Request):
        """The results so far as files, jsonl and csv."""
        with one_sentence():
            run = self.runs.get(session_of(request))
            if run is None:
                raise RamoleError("There are no results yet; run some rows first.")
            return tuple(str(path) for path in write_results(run))


def _connect(ui: BatchLayout, handlers: BatchHandlers) -> None:
    entry = ui.entry
    gr.on(
        [part.change for part in entry.rows], handlers.on_check, entry.rows, entry.verdict, **LATEST
    )
    entry.drop.upload(
        handlers.on_drop,
        entry.drop,
        [entry.text, entry.kind, entry.verdict, entry.drop],
        api_visibility="private",
        show_progress="minimal",
        concurrency_limit=None,
    )
    example = [entry.text, entry.kind, entry.verdict]
    entry.examples.select(handlers.on_example, entry.text, example, **AT_ONCE)

    buttons = [entry.run, entry.stop]
    begun = [ui.notice, ui.row, *buttons]
    asked = entry.run.click(handlers.on_begin, None, begun, **AT_ONCE)
    asked.success(None, js=SHOW.format("batch-side"), **QUIET)
    running = asked.success(
        gpu(240)(handlers.on_run),
        entry.rows,
        ui.looks,
        postprocess=False,
        concurrency_limit=None,
        **QUIET,
    )
    over = running.then(handlers.on_end, ui.ran, buttons, **AT_ONCE)
    on_failure(asked, ui.notice)
    for event in (running, over):
        on_failure(event, ui.notice, free(entry.run, entry.stop))
    entry.stop.click(handlers.on_stop, **AT_ONCE)
    if ELSEWHERE:  # there no event reaches the run: its stream is cut
        cut = entry.stop.click(None, js=CUT, cancels=[running], **QUIET)
        cut.then(lambda: run_and_stop(running=False), None, buttons, **AT_ONCE)

    picked = ui.picture.select(handlers.on_row, None, ui.row, **EACH)
    picked.then(None, js=SHOW.format("batch-row"), **QUIET)
    downloads.connect([ui.jsonl, ui.csv], handlers.on_take)
