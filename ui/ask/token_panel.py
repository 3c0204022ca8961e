"""One token under the glass: its weights by layer, module and adapter, and what else was likely."""

import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr

from ramole_core import Explanation, RamoleError

from ..charts.plots import token_figure, token_table
from ..charts.run import Run
from ..parts.errors import UNEXPECTED
from .explained import PICK, explanation_html, token_html, waiting_html

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)
TOP = 10
PICKS = 16
"""Picks that are answered at the same time; most need no model."""
ASKING = threading.Lock()
"""One question to the model at a time, so that the streams of others go on between two."""
CAPTION = (
    '<p class="caption">Each square is one module (to the right) of one layer (upwards); the '
    "fuller its colour, the larger the adapter's weight there when this token was chosen.</p>"
)


def lay_out() -> SimpleNamespace:
    """Build the panel; `ui.all` is what a pick changes.

    Its parts are always there, and hidden by the style sheet until `ui.token` has a heading: a part
    that is mounted as its first value arrives may miss it.
    """
    ui = SimpleNamespace()
    with gr.Column(elem_id="token-panel"):
        ui.token = gr.HTML(PICK, elem_id="token", apply_default_css=False)
        with gr.Row(equal_height=False, elem_classes=["detail"]):
            with gr.Column(scale=3, min_width=320):
                ui.plot = gr.Plot(show_label=False, elem_id="token-plot", container=False)
                ui.caption = gr.HTML(CAPTION, apply_default_css=False)
            with gr.Column(scale=2, min_width=300):
                ui.likely = gr.HTML(elem_id="likely", apply_default_css=False)
        with gr.Accordion("These weights as a table", open=False, elem_classes=["detail"]):
            ui.table = gr.Dataframe(interactive=False, show_label=False, max_height=320)
    ui.all = [ui.token, ui.plot, ui.likely, ui.table]
    return ui


def connect(ramole: "Ramole", ui: SimpleNamespace, *, view: gr.HTML, run: gr.State) -> None:
    """A token picked in `view` is shown here."""

    def on_pick(run: Run | None, event: gr.EventData) -> Iterator[dict[Any, Any]]:
        index = _index(run, event)
        if run is None or index is None:
            yield {ui.token: waiting_html("A token can be opened once its answer has ended.")}
            return
        explanation = run.explained.get(index)
        yield {**opened(ui, run, index), ui.likely: _likely(explanation, run, index)}
        if explanation is None:
            yield {ui.likely: explain(ramole, run, index)}

    view.select(
        on_pick,
        run,
        ui.all,
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=PICKS,
        trigger_mode="always_last",
    )


def opened(ui: SimpleNamespace, run: Run, index: int) -> dict[Any, Any]:
    """Everything about one token that the trace holds."""
    trace, gates = run.answer.trace, run.gates
    if trace is None or not run.experts or index >= len(gates):
        return {ui.token: token_html(run, index), ui.plot: None, ui.table: gr.Dataframe(value=[])}
    axes = {"layers": trace.layers, "modules": trace.modules}
    headers, rows = token_table(gates[index], run.experts, **axes)
    return {
        ui.token: token_html(run, index),
        ui.plot: token_figure(gates[index], run.experts, **axes),
        ui.table: gr.Dataframe(value=rows, headers=headers),
    }


def closed(ui: SimpleNamespace) -> dict[Any, Any]:
    """The panel before any token is picked."""
    return {ui.token: PICK, ui.likely: ""}


def explain(ramole: "Ramole", run: Run, index: int) -> str:
    """The likeliest tokens there, as HTML, or one sentence on why not."""
    trace = run.answer.trace
    if trace is None or not ramole.loaded:
        return waiting_html("What else was likely is shown once the model is there; pick again.")
    try:
        position = trace.prompt_length + index - 1
        with ASKING:
            found = ramole.explain(run.request, position, top=TOP, token_ids=trace.token_ids)
        return explanation_html(found, _chosen(run, index))
    except RamoleError as error:
        return waiting_html(str(error))
    except Exception:
        log.exception("A token could not be explained.")
        return waiting_html(UNEXPECTED)


def _likely(explanation: Explanation | None, run: Run, index: int) -> str:
    if explanation is None:
        return waiting_html("Asking base and mixture what else was likely here…")
    return explanation_html(explanation, _chosen(run, index))


def _chosen(run: Run, index: int) -> str:
    """The token's own text, which may differ from the piece it added to the answer."""
    trace = run.answer.trace
    return trace.tokens[trace.prompt_length + index] if trace else run.pieces[index]


def _index(run: Run | None, event: gr.EventData) -> int | None:
    data = event._data if isinstance(event._data, dict) else {}
    index = data.get("index")
    good = run is not None and isinstance(index, int) and 0 <= index < len(run.pieces)
    return index if good else None
