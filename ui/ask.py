"""The tab Ask: type a prompt, watch the answer arrive, click a token and see why."""

import logging
import secrets
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from ramole_core import RamoleError

from . import token_panel, whole_panel
from .answer import answer
from .ask_drawing import Drawing, begun, done, emptied, ended, growing
from .ask_layout import about_html, how, lay_out
from .downloads import write_files
from .errors import UNEXPECTED
from .examples import LIVE, read_run, recorded_files
from .form import Form, form_of
from .quota import quota_of
from .run import Live, Run
from .spaces import ELSEWHERE, gpu

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
RUNNING = "An answer is on its way."
ASK = "() => document.querySelector('#ask-button').click()"
TAKE = "() => setTimeout(() => document.querySelector('#{}').click(), 100)"
"""Press the hidden button that holds a file, once the page has its address."""


@dataclass(frozen=True)
class Asked:
    """A session's last question; Stop and a closed tab end it."""

    live: Live = field(default_factory=Live)
    name: str = field(default_factory=lambda: secrets.token_hex(4))
    """Of the run, for the browser."""


def tab(ramole: "Ramole") -> None:
    """Build the tab inside the Blocks that is open."""
    page = Context.root_block
    recorded = recorded_files()
    sessions: dict[str, Asked] = {}
    call = quota_of(ramole).presence.call

    with gr.Tab("Ask", id="ask", elem_id="ask-tab") as ask_tab:
        ui = lay_out(
            ramole,
            recorded=[read_run(path).title for path in recorded],
            live=[example.title for example in LIVE],
        )
        ui.token, ui.whole = token_panel.lay_out(), whole_panel.lay_out()
        ui.run, ui.open = gr.State(None), gr.State(False)
    fields = list(ui.fields.values())
    answered = [ui.notice, ui.ask, ui.stop, ui.view, ui.beside, ui.beside_column]
    answered += [ui.found, ui.timing, ui.downloads, ui.run, *ui.token.all, *ui.whole.all]

    def on_how(method, k):
        return gr.Accordion(label=how(method, k)), about_html(ramole, method)

    def on_begin(request: gr.Request, beside):
        asked = sessions.get(request.session_hash)
        if asked is not None and not asked.live.ended.is_set():
            raise gr.Error(RUNNING, visible=False, print_exception=False)  # ends the chain
        return begun(ui, beside=bool(beside))

    @gpu(120)
    def on_ask(request: gr.Request, *values):
        before = sessions.get(request.session_hash)
        if before is not None:
            before.live.cancelled.set()
        asked = sessions[request.session_hash] = Asked()
        drawing = Drawing(asked.name)
        try:
            form = Form(*values)
            with call(request) as visitor:
                pictures = answer(
                    ramole,
                    form.request(visitor.owner),
                    asked.live,
                    beside=form.beside,
                    address=visitor.address,
                )
                with closing(pictures):
                    for one in pictures:
                        yield drawing.picture(one) if one.run is None else drawing.end(one.run)
            if asked.live.run is None:
                yield drawing.wrong("Stopped.", kind="quiet")
        except RamoleError as error:
            yield drawing.wrong(str(error))
        except Exception:
            log.exception("An answer failed.")
            yield drawing.wrong(UNEXPECTED)
        finally:
            asked.live.ended.set()

    def on_end(request: gr.Request, run, whole):
        asked = sessions.get(request.session_hash)
        return emptied(ui) if run is None else done(ui, run, named(asked, run), whole=whole)

    def on_stop(request: gr.Request):
        asked = sessions.get(request.session_hash)
        if asked is not None:
            asked.live.cancelled.set()  # the answer's own stream then ends, with what came

    def on_recorded(whole, event: gr.EventData):
        run = read_run(recorded[_index(event, len(recorded))])
        form = form_of(run.request, beside=run.beside is not None)
        values = {component: getattr(form, name) for name, component in ui.fields.items()}
        return {**values, **done(ui, run, secrets.token_hex(4), whole=whole)}

    def on_live(event: gr.EventData):
        example = LIVE[_index(event, len(LIVE))]
        values = {"prompt": example.prompt, "max_new_tokens": example.max_new_tokens, "raw": False}
        return {ui.fields[name]: value for name, value in values.items()}

    def on_take(run: Run | None):
        if run is None or run.answer.trace is None:
            raise gr.Error("There is no trace yet; ask something first.", print_exception=False)
        return tuple(str(path) for path in write_files(run))

    def on_open(run: Run | None):
        drawn = whole_panel.cleared(ui.whole) if run is None else whole_panel.drawn(ui.whole, run)
        return {ui.open: True, **drawn}

    def on_names(request: gr.Request):
        with call(request) as visitor:
            names = sorted({card.name for card in ramole.pool.cards(visitor.owner)})
        return gr.Dropdown(choices=names), gr.Dropdown(choices=names)

    def on_leave(request: gr.Request):
        asked = sessions.pop(request.session_hash, None)
        if asked is not None:
            asked.live.cancelled.set()

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
        on_begin,
        ui.fields["beside"],
        answered,
        queue=False,
        **QUIET,
    )
    running = asked.success(
        on_ask,
        fields,
        growing(ui),
        postprocess=False,
        concurrency_limit=None,
        **QUIET,
    )
    running.then(on_end, [ui.run, ui.open], answered, queue=False, **QUIET)
    ui.stop.click(on_stop, queue=False, **QUIET)
    if ELSEWHERE:  # there no event reaches the answer: its stream is cut
        cut = ui.stop.click(None, cancels=[running], **QUIET)
        cut.then(lambda: {**emptied(ui), **ended(ui, "Stopped.")}, None, answered, **QUIET)
    ui.recorded.select(on_recorded, ui.open, [*fields, *answered], **QUIET)
    ui.live.select(on_live, None, fields, **QUIET).then(None, js=ASK, **QUIET)
    for button, file in ((ui.npz, "trace-npz-file"), (ui.json, "trace-json-file")):
        made = button.click(on_take, ui.run, [ui.npz_file, ui.json_file], **QUIET)
        made.success(None, js=TAKE.format(file), **QUIET)
    panel = ui.whole.entropy.parent
    panel.expand(on_open, ui.run, [ui.open, *ui.whole.all], **QUIET)
    panel.collapse(lambda: False, None, ui.open, queue=False, **QUIET)
    names = {"outputs": [ui.fields["pinned"], ui.fields["exclude"]], **QUIET}
    page.load(on_names, None, **names)
    ask_tab.select(on_names, None, **names)
    page.unload(on_leave)
    token_panel.connect(ramole, ui.token, view=ui.view, run=ui.run)
    whole_panel.connect(ui.whole, run=ui.run)


def named(asked: Asked | None, run: Run) -> str:
    """The name that the browser drew this run under, or a new one."""
    return asked.name if asked is not None and asked.live.run is run else secrets.token_hex(4)


def _index(event: gr.EventData, count: int) -> int:
    data = event._data if isinstance(event._data, dict) else {}
    index = data.get("index")
    if not isinstance(index, int) or not 0 <= index < count:
        raise gr.Error("There is no such example.", print_exception=False)
    return index
