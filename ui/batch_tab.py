"""The tab Batch: drop or paste rows, run them together, see who used which adapter, download."""

import logging
from html import escape
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from ramole_core import RamoleError

from .ask_layout import CHOOSE
from .batch_examples import EXAMPLES
from .batch_files import write_results
from .batch_picture import picture, picture_of
from .batch_rows import KINDS, MOST_ROWS, read, refused_html, text_of, verdict_html
from .batch_run import BatchRun, run_of, watched
from .batch_views import HEADERS, WIDTHS, progress_html, row_html, standing_html, table_of
from .errors import UNEXPECTED
from .found import notice_html
from .session import owner_of
from .spaces import gpu

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)
STOP_SECONDS = 10.0
"""How long Stop waits for the run to end: a step, or a prompt's forward."""
AT_ONCE = 16
"""Batches that may run at the same time; the engine mixes their rows."""
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
INTRO = (
    '<p class="lead">Many prompts at once: every row is answered in the same batch, each with its '
    "own adapters, method and length. Drop a file, paste rows, or start with an example.</p>"
)
SYNTAX = (
    '<p class="quiet">jsonl: <code>{"prompt": "…", "method": "mixture", "k": 2}</code> on each '
    "line; csv: a header with <code>prompt</code>. Optional columns: id, method, k, adapters "
    "(<code>a|b</code>), weights, exclude, max_new_tokens, temperature, top_p, seed, stop, system, "
    f"raw. At most {MOST_ROWS:,} rows.</p>"
)


def tab(ramole: "Ramole") -> None:
    """Build the tab inside the Blocks that is open."""
    page = Context.root_block
    runs: dict[str, BatchRun] = {}  # the last run of each session

    with gr.Tab("Batch", id="batch", elem_id="batch-tab"):
        ui = lay_out(ramole)
    rows = [ui.text, ui.kind, ui.method, ui.k, ui.length]
    shown = [ui.notice, ui.run, ui.stop, ui.progress, ui.picture, ui.row, ui.table]
    shown += [ui.results, ui.jsonl, ui.csv]

    def batch_of(request: gr.Request, text, kind, method, k, length):
        defaults = {"method": method, "k": k, "max_new_tokens": length}
        return read(ramole, text, kind, defaults=defaults, owner=owner_of(request))

    def on_check(request: gr.Request, text, *how):
        if not (text or "").strip():
            return ""
        return told(lambda: verdict_html(batch_of(request, text, *how)))

    def on_drop(path):
        try:
            text, kind = text_of(path)
        except RamoleError as error:
            return {ui.verdict: refused_html(str(error)), ui.drop: None}
        except Exception:
            log.exception("A file of rows could not be taken.")
            return {ui.verdict: refused_html(UNEXPECTED), ui.drop: None}
        return {ui.text: text, ui.kind: kind, ui.drop: None}

    def on_example(event: gr.EventData):
        said = event._data if isinstance(event._data, dict) else {}
        index = said.get("index")
        example = EXAMPLES[index if isinstance(index, int) and 0 <= index < len(EXAMPLES) else 0]
        return example.make(), example.kind

    def on_wait():
        return notice_html("Waiting for a free place…", kind="busy"), *buttons(running=True)

    @gpu(240)
    def on_run(request: gr.Request, *values):
        try:
            old = runs.get(request.session_hash)
            if old is not None:
                old.cancelled.set()
            batch = batch_of(request, *values)
            if not batch.rows:
                raise RamoleError("No row can run; each one's line is told beside the text.")
            run = runs[request.session_hash] = run_of(batch, owner=owner_of(request))
            drawn = -1
            yield begun(ui, run)
            for _ in watched(ramole, run):
                ended = sum(item.answer is not None for item in run.items)
                yield standing(ui, run, table=ended != drawn)
                drawn = ended
            yield done(ui, run)
        except RamoleError as error:
            yield failed(ui, str(error))
        except Exception:
            log.exception("A batch failed.")
            yield failed(ui, UNEXPECTED)

    def on_stop(request: gr.Request):
        run = runs.get(request.session_hash)
        if run is None:
            return failed(ui, "Stopped.", kind="quiet")
        run.cancelled.set()
        run.ended.wait(STOP_SECONDS)
        return done(ui, run)

    def on_row(request: gr.Request, event: gr.EventData):
        said = event._data if isinstance(event._data, dict) else {}
        run, number = runs.get(request.session_hash), said.get("n")
        if run is None or run.name != said.get("run") or not isinstance(number, int):
            return ""
        return row_html(run, number)

    def on_leave(request: gr.Request):
        run = runs.pop(request.session_hash, None)
        if run is not None:
            run.cancelled.set()

    check = {"fn": on_check, "inputs": rows, "outputs": ui.verdict, "queue": False, **QUIET}
    gr.on([part.change for part in rows], trigger_mode="always_last", **check)
    ui.drop.upload(
        on_drop,
        ui.drop,
        [ui.text, ui.kind, ui.verdict, ui.drop],
        api_visibility="private",
        show_progress="minimal",
        concurrency_id="rows",
        concurrency_limit=4,
    )
    ui.examples.select(on_example, None, [ui.text, ui.kind], queue=False, **QUIET)
    asked = ui.run.click(on_wait, None, [ui.notice, ui.run, ui.stop], queue=False, **QUIET)
    running = asked.then(
        on_run,
        rows,
        shown,
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=ui.notice,
        concurrency_id="batch",
        concurrency_limit=AT_ONCE,
    )
    ui.stop.click(None, cancels=[running], **QUIET)
    ui.stop.click(on_stop, None, shown, queue=False, **QUIET)
    ui.picture.select(on_row, None, ui.row, queue=False, **QUIET)
    page.unload(on_leave)


def lay_out(ramole: "Ramole") -> SimpleNamespace:
    """The components by name."""
    ui, plain = SimpleNamespace(), {"apply_default_css": False}
    most = ramole.settings.max_new_tokens
    chips = "".join(
        f'<button type="button" data-index="{i}"><span class="badge live">{e.badge}'
        f"</span>{escape(e.title)}</button>"
        for i, e in enumerate(EXAMPLES)
    )
    gr.HTML(INTRO, elem_id="batch-intro", **plain)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300, elem_id="batch-rows"):
            ui.drop = gr.File(label="A .jsonl, .csv or .txt file", height=124, elem_id="batch-file")
            ui.examples = gr.HTML(
                f'<div class="choices" role="group" aria-label="Rows to try">{chips}</div>',
                js_on_load=CHOOSE,
                elem_id="batch-examples",
                **plain,
            )
            ui.text = gr.Code(
                label="Rows: one prompt a line, jsonl or csv",
                language=None,
                lines=10,
                max_lines=16,
                wrap_lines=False,
                interactive=True,
                elem_id="batch-text",
            )
            gr.HTML(SYNTAX, **plain)
            with gr.Accordion("For the rows that do not say", open=False, elem_id="batch-how"):
                with gr.Row():
                    ui.kind = gr.Dropdown(
                        list(KINDS), value="automatic", label="Read as", min_width=120
                    )
                    names = [method.name for method in ramole.methods()]
                    ui.method = gr.Dropdown(names, value="ramole", label="Method", min_width=120)
                with gr.Row():
                    ui.k = gr.Slider(1, 8, 3, step=1, label="k, adapters to mix", buttons=[])
                    ui.length = gr.Slider(
                        1, most, min(64, most), step=1, label="Most new tokens", buttons=[]
                    )
            ui.verdict = gr.HTML(elem_id="batch-verdict", **plain)
            with gr.Row(elem_id="batch-bar"):
                ui.run = gr.Button("Run the rows", variant="primary", elem_id="batch-run")
                ui.stop = gr.Button("Stop", interactive=False, elem_id="batch-stop")
        with gr.Column(scale=7, min_width=320, elem_id="batch-side"):
            ui.notice = gr.HTML(elem_id="batch-notice", **plain)
            ui.progress = gr.HTML(elem_id="batch-progress", **plain)
            ui.picture = picture(elem_id="batch-picture")
            ui.row = gr.HTML(elem_id="batch-row", **plain)
    with gr.Column(visible=False, elem_id="batch-results") as ui.results:
        with gr.Row():
            ui.jsonl = gr.DownloadButton("Download as jsonl", size="sm", elem_id="batch-jsonl")
            ui.csv = gr.DownloadButton("Download as csv", size="sm", elem_id="batch-csv")
        ui.table = gr.Dataframe(
            headers=HEADERS,
            column_widths=WIDTHS,
            label="Results",
            interactive=False,
            wrap=True,
            max_height=520,
            show_search="search",
            elem_id="batch-table",
        )
    return ui


def told(make) -> str:
    """The HTML that `make` gives, or the sentence that it fails with."""
    try:
        return make()
    except RamoleError as error:
        return refused_html(str(error))
    except Exception:
        log.exception("Rows could not be read.")
        return refused_html(UNEXPECTED)


def buttons(*, running: bool) -> tuple[gr.Button, gr.Button]:
    """Run and Stop, of which one can be pressed."""
    return gr.Button(interactive=not running), gr.Button(interactive=running)


def begun(ui: SimpleNamespace, run: BatchRun) -> dict[Any, Any]:
    """The picture of a run that has not begun."""
    return {
        **standing(ui, run, table=False),
        ui.row: "",
        ui.table: [],
        ui.results: gr.Column(visible=False),
    }


def standing(ui: SimpleNamespace, run: BatchRun, *, table: bool) -> dict[Any, Any]:
    """A run on its way; the table only where it has grown."""
    changed: dict[Any, Any] = {
        ui.notice: standing_html(run),
        ui.progress: progress_html(run),
        ui.picture: picture_of(run),
    }
    if table and (rows := table_of(run)):
        changed |= {ui.table: rows, ui.results: gr.Column(visible=True)}
    return changed


def done(ui: SimpleNamespace, run: BatchRun) -> dict[Any, Any]:
    """A run that has ended, well or not: whatever came can be seen and taken away."""
    jsonl, csv = write_results(run)
    start, stop = buttons(running=False)
    return {
        **standing(ui, run, table=True),
        ui.run: start,
        ui.stop: stop,
        ui.jsonl: str(jsonl),
        ui.csv: str(csv),
    }


def failed(ui: SimpleNamespace, sentence: str, *, kind: str = "wrong") -> dict[Any, Any]:
    """One sentence and the buttons as at the start; whatever was shown stays."""
    start, stop = buttons(running=False)
    return {ui.notice: notice_html(sentence, kind=kind), ui.run: start, ui.stop: stop}
