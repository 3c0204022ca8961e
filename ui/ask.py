"""The tab Ask: type a prompt, watch the answer arrive, click a token and see why."""

import logging
import secrets
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from ramole_core import RamoleError

from . import token_panel, whole_panel
from .answer import Shown, answer
from .api import MODEL
from .ask_layout import about_html, how, lay_out
from .downloads import write_files
from .errors import UNEXPECTED
from .examples import LIVE, read_run, recorded_files
from .form import Form, form_of
from .found import beside_html, found_html, notice_html, timing_html
from .run import Live, Run
from .session import owner_of
from .spaces import gpu
from .tokens import view_of, view_of_run

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)
STOP_SECONDS = 10.0
"""How long Stop waits for the run to end: a step, or the prompt's forward."""
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
ASK = "() => document.querySelector('#ask-button').click()"


def tab(ramole: "Ramole") -> None:
    """Build the tab inside the Blocks that is open."""
    page = Context.root_block
    recorded = recorded_files()
    lives: dict[str, Live] = {}  # the run of each session, for Stop

    with gr.Tab("Ask", id="ask", elem_id="ask-tab") as ask_tab:
        ui = lay_out(
            ramole,
            recorded=[read_run(path).title for path in recorded],
            live=[example.title for example in LIVE],
        )
        ui.token, ui.whole = token_panel.lay_out(), whole_panel.lay_out()
        ui.run = gr.State(None)
    fields = list(ui.fields.values())
    answered = [ui.notice, ui.ask, ui.stop, ui.view, ui.beside, ui.beside_column]
    answered += [ui.found, ui.timing, ui.downloads, ui.npz, ui.json, ui.run]
    answered += [*ui.token.all, *ui.whole.all]

    def on_how(method, k):
        return gr.Accordion(label=how(method, k)), about_html(ramole, method)

    def on_wait():
        return notice_html("Waiting for a free place…", kind="busy"), *_buttons(running=True)

    @gpu(120)
    def on_ask(request: gr.Request, *values):
        live = lives[request.session_hash] = Live()
        name = secrets.token_hex(4)
        try:
            form = Form(*values)
            wanted = form.request(owner_of(request))
            yield begun(ui, name, beside=form.beside)
            for shown in answer(ramole, wanted, live, beside=form.beside):
                yield streamed(ui, shown, name) if shown.run is None else done(ui, shown.run, name)
            if live.run is None:
                yield emptied(ui, "Stopped.")
        except RamoleError as error:
            yield emptied(ui, str(error), kind="wrong")
        except Exception:
            log.exception("An answer failed.")
            yield emptied(ui, UNEXPECTED, kind="wrong")

    def on_stop(request: gr.Request):
        live = lives.get(request.session_hash)
        if live is None or live.ended.is_set():
            return ended(ui, "Stopped.")
        live.cancelled.set()
        live.ended.wait(STOP_SECONDS)
        if live.run is None:
            return emptied(ui, "Stopped.")
        return done(ui, live.run, secrets.token_hex(4))

    def on_recorded(event: gr.EventData):
        run = read_run(recorded[_index(event, len(recorded))])
        form = form_of(run.request, beside=run.beside is not None)
        values = {component: getattr(form, name) for name, component in ui.fields.items()}
        return {**values, **done(ui, run, secrets.token_hex(4))}

    def on_live(event: gr.EventData):
        example = LIVE[_index(event, len(LIVE))]
        values = {"prompt": example.prompt, "max_new_tokens": example.max_new_tokens, "raw": False}
        return {ui.fields[name]: value for name, value in values.items()}

    def on_names(request: gr.Request):
        names = sorted({card.name for card in ramole.pool.cards(owner_of(request))})
        return gr.Dropdown(choices=names), gr.Dropdown(choices=names)

    def on_leave(request: gr.Request):
        live = lives.pop(request.session_hash, None)
        if live is not None:
            live.cancelled.set()

    gr.on(
        [ui.fields["method"].change, ui.fields["k"].change],
        on_how,
        [ui.fields["method"], ui.fields["k"]],
        [ui.how, ui.about],
        queue=False,
        **QUIET,
    )
    asked = gr.on(
        [ui.ask.click, ui.fields["prompt"].submit],
        on_wait,
        None,
        [ui.notice, ui.ask, ui.stop],
        queue=False,
        **QUIET,
    )
    running = asked.then(
        on_ask,
        fields,
        answered,
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=ui.notice,
        concurrency_id=MODEL,
    )
    ui.stop.click(None, cancels=[running], **QUIET)
    ui.stop.click(on_stop, None, answered, queue=False, **QUIET)
    ui.recorded.select(on_recorded, None, [*fields, *answered], **QUIET)
    ui.live.select(on_live, None, fields, **QUIET).then(None, js=ASK, **QUIET)
    names = {"outputs": [ui.fields["pinned"], ui.fields["exclude"]], **QUIET}
    page.load(on_names, None, **names)
    ask_tab.select(on_names, None, **names)
    page.unload(on_leave)
    token_panel.connect(ramole, ui.token, view=ui.view, run=ui.run)
    whole_panel.connect(ui.whole, run=ui.run)


def begun(ui: SimpleNamespace, name: str, *, beside: bool) -> dict[Any, Any]:
    """An empty answer that is about to grow."""
    return {
        ui.notice: notice_html("Finding adapters…", kind="busy"),
        ui.view: view_of([], [], [], run=name, running=True),
        **_beside(ui, "" if beside else None),
        ui.timing: "",
        ui.downloads: gr.Row(visible=False),
        ui.run: None,
        **whole_panel.cleared(ui.whole),
        **token_panel.closed(ui.token),
    }


def streamed(ui: SimpleNamespace, shown: Shown, name: str) -> dict[Any, Any]:
    """A picture of the answer on its way."""
    changed: dict[Any, Any] = {ui.notice: notice_html(shown.note, kind="busy")}
    if shown.found:
        changed[ui.found] = found_html(shown.found)
        changed[ui.view] = view_of(
            shown.pieces, shown.weights, shown.experts, run=name, running=True
        )
    if shown.beside is not None:
        changed[ui.beside] = beside_html(shown.beside)
    return changed


def done(ui: SimpleNamespace, run: Run, name: str) -> dict[Any, Any]:
    """A finished answer: every panel follows."""
    said = f"Recorded run: {run.title}." if run.title else ""
    if run.answer.finish_reason == "cancelled":
        said = "Stopped."
    npz, json = write_files(run) if run.answer.trace else (None, None)
    return {
        **ended(ui, said),
        ui.view: view_of_run(run, name),
        **_beside(ui, run.beside.text if run.beside else None),
        ui.found: found_html(run.found),
        ui.timing: timing_html(run),
        ui.downloads: gr.Row(visible=npz is not None),
        ui.npz: _file(npz),
        ui.json: _file(json),
        ui.run: run,
        **token_panel.closed(ui.token),
        **whole_panel.drawn(ui.whole, run),
    }


def ended(ui: SimpleNamespace, sentence: str, *, kind: str = "quiet") -> dict[Any, Any]:
    """The buttons as at the start, and one sentence; whatever was shown stays."""
    ask, stop = _buttons(running=False)
    return {ui.notice: notice_html(sentence, kind=kind), ui.ask: ask, ui.stop: stop}


def emptied(ui: SimpleNamespace, sentence: str, *, kind: str = "quiet") -> dict[Any, Any]:
    """As `ended`, where no answer came; what was typed stays."""
    nothing = view_of([], [], [], run="", running=False)
    return {
        **ended(ui, sentence, kind=kind),
        **_beside(ui, None),
        ui.view: nothing,
        ui.run: None,
    }


def _buttons(*, running: bool) -> tuple[gr.Button, gr.Button]:
    return gr.Button(interactive=not running), gr.Button(interactive=running)


def _beside(ui: SimpleNamespace, text: str | None) -> dict[Any, Any]:
    return {
        ui.beside: beside_html(text),
        ui.beside_column: gr.Column(visible=text is not None),
    }


def _file(path) -> gr.DownloadButton:
    return gr.DownloadButton(value=None if path is None else str(path))


def _index(event: gr.EventData, count: int) -> int:
    data = event._data if isinstance(event._data, dict) else {}
    index = data.get("index")
    if not isinstance(index, int) or not 0 <= index < count:
        raise gr.Error("There is no such example.", print_exception=False)
    return index
