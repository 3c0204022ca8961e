"""The whole answer at a glance: entropy of each token, and one adapter over layers and tokens."""

from types import SimpleNamespace
from typing import Any

import gradio as gr

from ..charts.palette import letter_of
from ..charts.plots import entropy_figure, layers_figure, tokens_table
from ..charts.run import Run, mean_weights, shares, strongest

ENTROPY = (
    '<p class="caption">Entropy of the gate for each token, the mean over layers and modules. At '
    "the dashed line all adapters weigh the same; at 0 one of them has all the weight.</p>"
)
LAYERS = (
    '<p class="caption">Weight of this adapter for each token (to the right) and layer (upwards), '
    "the mean over modules.</p>"
)


def lay_out() -> SimpleNamespace:
    """Build the panel; `ui.all` is what a run changes."""
    ui = SimpleNamespace()
    with gr.Accordion(
        "The whole answer: entropy, and layers by tokens",
        open=False,
        elem_id="whole-panel",
    ):
        ui.entropy = gr.Plot(show_label=False, elem_id="entropy-plot", container=False)
        gr.HTML(ENTROPY, apply_default_css=False)
        ui.expert = gr.Dropdown([], label="Adapter", elem_id="whole-expert")
        ui.layers = gr.Plot(show_label=False, elem_id="layers-plot", container=False)
        gr.HTML(LAYERS, apply_default_css=False)
        with gr.Accordion("These numbers as a table", open=False):
            ui.table = gr.Dataframe(interactive=False, show_label=False, max_height=320)
    ui.all = [ui.entropy, ui.expert, ui.layers, ui.table]
    return ui


def connect(ui: SimpleNamespace, *, run: gr.State) -> None:
    """Another adapter, another picture."""

    def on_expert(run: Run | None, expert: int | None):
        if run is None or expert is None or not 0 <= expert < len(run.experts):
            return gr.skip()
        return _layers(run, expert)

    ui.expert.input(
        on_expert, [run, ui.expert], ui.layers, api_visibility="private", show_progress="hidden"
    )


def drawn(ui: SimpleNamespace, run: Run) -> dict[Any, Any]:
    """The panel for a finished run; empty where there are no weights."""
    gates = run.gates
    if not run.experts or not gates.size:
        return cleared(ui)
    leaders = [strongest(row) for row in mean_weights(gates)]
    led = shares(leaders, len(run.experts))
    first = led.index(max(led))
    names = [(f"{letter_of(e)} {name}", e) for e, name in enumerate(run.experts)]
    headers, rows = tokens_table(gates, run.pieces, run.experts)
    return {
        ui.entropy: entropy_figure(gates, run.pieces, selected=None),
        ui.expert: gr.Dropdown(choices=names, value=first),
        ui.layers: _layers(run, first),
        ui.table: gr.Dataframe(value=rows, headers=headers),
    }


def cleared(ui: SimpleNamespace) -> dict[Any, Any]:
    """Nothing to see; the style sheet hides the panel while the answer has no legend."""
    return {
        ui.entropy: None,
        ui.expert: gr.Dropdown(choices=[], value=None),
        ui.layers: None,
        ui.table: gr.Dataframe(value=[]),
    }


def _layers(run: Run, expert: int):
    trace = run.answer.trace
    return layers_figure(
        run.gates,
        run.pieces,
        expert=expert,
        name=run.experts[expert],
        layers=trace.layers if trace else [],
    )
