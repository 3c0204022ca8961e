"""The tab Batch: drop or paste rows, run them together, see who used which adapter, download."""

from typing import TYPE_CHECKING

import gradio as gr

from ..model.spaces import ELSEWHERE, gpu
from ..parts import downloads
from ..parts.errors import html_or_sentence, one_sentence
from ..parts.events import (
    AT_ONCE,
    CUT,
    EACH,
    LATEST,
    QUIET,
    free,
    number_in,
    on_failure,
    session_of,
)
from ..parts.fields import run_and_stop
from ..parts.markup import notice_html
from ..session.quota import quota_of
from .examples import EXAMPLES
from .layout import BatchLayout
from .rows import refused_html, text_of, verdict_html
from .run import BatchRun
from .sessions import Sessions

if TYPE_CHECKING:
    from ramole_core import Ramole

RUNNING = "A batch is on its way."
TYPED = "Your rows stay as they are; empty the box first, then press the example again."
SHOW = """
() => {{ setTimeout(() => {{
  if (innerWidth <= 640) document.querySelector('#{}').scrollIntoView({{ block: 'start' }});
}}, 100); }}
"""
"""On a phone what comes stands far below what was pressed."""


def tab(ramole: "Ramole") -> None:
    """Build the tab inside the Blocks that is open."""
    with gr.Tab("Batch", id="batch", elem_id="batch-tab"):
        ui = BatchLayout(ramole)
    _connect(ui, BatchHandlers(ramole, ui))


class BatchHandlers:
    def __init__(self, ramole: "Ramole", ui: BatchLayout):
        self.ui = ui
        self.sessions = Sessions(ramole)
        self.call = quota_of(ramole).presence.call

    def on_check(self, request: gr.Request, text, *how):
        """Show how many of the rows can run."""
        if not (text or "").strip():
            return ""
        with self.call(request) as visitor:
            return html_or_sentence(
                lambda: verdict_html(self.sessions.read(visitor.owner, text, *how)), refused_html
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
        index = number_in(event, "index")
        example = EXAMPLES[index if index is not None and 0 <= index < len(EXAMPLES) else 0]
        if (text or "").strip() and text not in [one.make() for one in EXAMPLES]:
            return gr.skip(), gr.skip(), refused_html(TYPED)
        return example.make(), example.kind, gr.skip()

    def on_begin(self, request: gr.Request):
        """Clear the outputs, unless a batch is on its way."""
        if self.sessions.busy(session_of(request)):
            raise gr.Error(RUNNING, visible=False, print_exception=False)  # ends the chain
        return notice_html("Reading the rows…", kind="busy"), "", *run_and_stop(running=True)

    def on_run(self, request: gr.Request, *values):
        """Run the batch and yield updates, in the order of `BatchLayout.looks`."""
        with self.call(request) as visitor:
            yield from self.sessions.looks(
                session_of(request), visitor.owner, *values, address=visitor.address
            )

    def on_end(self, request: gr.Request, ran: BatchRun | None):
        """The buttons as at the start."""
        if ELSEWHERE:
            self.sessions.keep(session_of(request), ran)
        return run_and_stop(running=False)

    def on_stop(self, request: gr.Request):
        """Stop the run; its updates end with what came."""
        self.sessions.stop(session_of(request))

    def on_row(self, request: gr.Request, event: gr.EventData):
        """One row in full."""
        return self.sessions.row_html(session_of(request), event._data)

    def on_take(self, request: gr.Request):
        """The results so far as files."""
        with one_sentence():
            return tuple(str(path) for path in self.sessions.results(session_of(request)))


def _connect(ui: BatchLayout, handlers: BatchHandlers) -> None:
    entry, out = ui.entry, ui
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
    begun = [out.notice, out.row, *buttons]
    asked = entry.run.click(handlers.on_begin, None, begun, **AT_ONCE)
    asked.success(None, js=SHOW.format("batch-side"), **QUIET)
    running = asked.success(
        gpu(240)(handlers.on_run),
        entry.rows,
        out.looks,
        postprocess=False,
        concurrency_limit=None,
        **QUIET,
    )
    over = running.then(handlers.on_end, out.ran, buttons, **AT_ONCE)
    on_failure(asked, out.notice)
    for event in (running, over):
        on_failure(event, out.notice, free(entry.run, entry.stop))
    entry.stop.click(handlers.on_stop, **AT_ONCE)
    if ELSEWHERE:  # there no event reaches the run: its stream is cut
        cut = entry.stop.click(None, js=CUT, cancels=[running], **QUIET)
        cut.then(lambda: run_and_stop(running=False), None, buttons, **AT_ONCE)

    picked = out.picture.select(handlers.on_row, None, out.row, **EACH)
    picked.then(None, js=SHOW.format("batch-row"), **QUIET)
    downloads.connect([out.jsonl, out.csv], handlers.on_take)
