"""The tab Batch: drop or paste rows, run them together, see who used which adapter, download."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from ramole_core import RamoleError

from .batch_examples import EXAMPLES
from .batch_layout import buttons, lay_out
from .batch_rows import refused_html, text_of, verdict_html
from .batch_run import BatchRun
from .batch_sessions import Sessions
from .errors import UNEXPECTED, one_sentence
from .found import notice_html
from .quota import quota_of
from .spaces import ELSEWHERE, gpu

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
RUNNING = "A batch is on its way."
TAKE = "() => setTimeout(() => document.querySelector('#{}').click(), 100)"
"""Press the hidden button that holds a file, once the page has its address."""
SHOW = """
() => {{ setTimeout(() => {{
  if (innerWidth <= 640) document.querySelector('#{}').scrollIntoView({{ block: 'start' }});
}}, 100); }}
"""
"""On a phone what comes stands far below what was pressed."""


def tab(ramole: "Ramole") -> None:
    """Build the tab inside the Blocks that is open."""
    page, sessions = Context.root_block, Sessions(ramole)
    call = quota_of(ramole).presence.call

    with gr.Tab("Batch", id="batch", elem_id="batch-tab"):
        ui = lay_out(ramole)
        ui.ran = gr.State(None)
    rows = [ui.text, ui.kind, ui.method, ui.k, ui.length]
    shown = [ui.notice, ui.progress, ui.picture, ui.table, ui.ran]

    def on_check(request: gr.Request, text, *how):
        if not (text or "").strip():
            return ""
        with call(request) as visitor:
            return told(lambda: verdict_html(sessions.read(visitor.owner, text, *how)))

    def on_drop(path):
        text, kind = gr.skip(), gr.skip()

        def take() -> str:
            nonlocal text, kind
            text, kind = text_of(path)
            return ""

        return {ui.verdict: told(take), ui.text: text, ui.kind: kind, ui.drop: None}

    def on_example(event: gr.EventData):
        said = event._data if isinstance(event._data, dict) else {}
        index = said.get("index")
        example = EXAMPLES[index if isinstance(index, int) and 0 <= index < len(EXAMPLES) else 0]
        return example.make(), example.kind

    def on_begin(request: gr.Request):
        if sessions.busy(request.session_hash):
            raise gr.Error(RUNNING, visible=False, print_exception=False)  # ends the chain
        return notice_html("Reading the rows…", kind="busy"), "", *buttons(running=True)

    @gpu(240)
    def on_run(request: gr.Request, *values):
        with call(request) as visitor:
            yield from sessions.looks(
                request.session_hash, visitor.owner, *values, address=visitor.address
            )

    def on_end(request: gr.Request, ran: BatchRun | None):
        if ELSEWHERE:
            sessions.keep(request.session_hash, ran)
        return buttons(running=False)

    def on_stop(request: gr.Request):
        sessions.stop(request.session_hash)

    def on_row(request: gr.Request, event: gr.EventData):
        return sessions.row_html(request.session_hash, event._data)

    def on_take(request: gr.Request):
        with one_sentence():
            return tuple(str(path) for path in sessions.results(request.session_hash))

    def on_leave(request: gr.Request):
        sessions.leave(request.session_hash)

    check = {"fn": on_check, "inputs": rows, "outputs": ui.verdict, "queue": False, **QUIET}
    gr.on([part.change for part in rows], trigger_mode="always_last", **check)
    ui.drop.upload(
        on_drop,
        ui.drop,
        [ui.text, ui.kind, ui.verdict, ui.drop],
        api_visibility="private",
        show_progress="minimal",
        concurrency_limit=None,
    )
    ui.examples.select(on_example, None, [ui.text, ui.kind], queue=False, **QUIET)
    begun = [ui.notice, ui.row, ui.run, ui.stop]
    asked = ui.run.click(on_begin, None, begun, queue=False, **QUIET)
    asked.success(None, js=SHOW.format("batch-side"), **QUIET)
    running = asked.success(on_run, rows, shown, postprocess=False, concurrency_limit=None, **QUIET)
    ended = {"outputs": [ui.run, ui.stop], "queue": False, **QUIET}
    running.then(on_end, ui.ran, **ended)
    ui.stop.click(on_stop, queue=False, **QUIET)
    if ELSEWHERE:  # there no event reaches the run: its stream is cut
        cut = ui.stop.click(None, cancels=[running], **QUIET)
        cut.then(lambda: buttons(running=False), None, **ended)
    picked = ui.picture.select(on_row, None, ui.row, queue=False, **QUIET)
    picked.then(None, js=SHOW.format("batch-row"), **QUIET)
    for button, file in ((ui.jsonl, "batch-jsonl-file"), (ui.csv, "batch-csv-file")):
        made = button.click(
            on_take, None, [ui.jsonl_file, ui.csv_file], concurrency_limit=None, **QUIET
        )
        made.success(None, js=TAKE.format(file), **QUIET)
    page.unload(on_leave)


def told(make: Callable[[], str]) -> str:
    """The HTML that `make` gives, or the sentence that it fails with."""
    try:
        return make()
    except RamoleError as error:
        return refused_html(str(error))
    except Exception:
        log.exception("Rows could not be read.")
        return refused_html(UNEXPECTED)
