"""Where the form, the examples and the answer of the tab Ask stand; what they do is in `ask`."""

from collections.abc import Sequence
from html import escape
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..charts.tokens import token_view
from ..parts.download_button import download
from .form import FIELDS, Form
from .found import beside_view, found_html

if TYPE_CHECKING:
    from ramole_core import Ramole

CHOOSE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-index]');
  if (button) trigger('select', { index: Number(button.dataset.index) });
});
"""


def lay_out(ramole: "Ramole", *, recorded: Sequence[str], live: Sequence[str]) -> SimpleNamespace:
    """Build the tab's upper part; the components by name, `fields` in the order of `Form`."""
    ui = SimpleNamespace()
    _form(ui, ramole, recorded, live)
    ui.notice = gr.HTML(elem_id="notice", apply_default_css=False)
    with gr.Row(equal_height=False, elem_id="results"):
        with gr.Column(scale=6, min_width=300):
            ui.view = token_view(elem_id="answer")
        with gr.Column(scale=4, min_width=260, visible=False) as ui.beside_column:
            ui.beside = beside_view(elem_id="beside")
        with gr.Column(scale=4, min_width=280, elem_id="side"):
            ui.found = gr.HTML(found_html(()), elem_id="found", apply_default_css=False)
            ui.timing = gr.HTML(elem_id="timing", apply_default_css=False)
            with gr.Row(elem_id="downloads", visible=False) as ui.downloads:
                ui.npz, ui.npz_file = download("Trace as .npz", "trace-npz", min_width=120)
                ui.json, ui.json_file = download("Trace as .json", "trace-json", min_width=120)
    return ui


def _form(
    ui: SimpleNamespace, ramole: "Ramole", recorded: Sequence[str], live: Sequence[str]
) -> None:
    start = Form()
    most = ramole.settings.max_new_tokens
    box: dict[str, Any] = {}
    box["prompt"] = gr.Textbox(
        label="Prompt",
        placeholder="Ask anything. Enter asks, Shift+Enter makes a new line.",
        lines=1,
        max_lines=12,
        autofocus=True,
        elem_id="prompt",
    )
    with gr.Column(elem_id="examples"):
        ui.recorded = _choices("recorded", recorded, "Recorded runs, shown without the model")
        ui.live = _choices("live", live, "Live prompts, asked now")
    with gr.Row(elem_id="ask-bar"):
        ui.ask = gr.Button("Ask", variant="primary", elem_id="ask-button", min_width=110)
        ui.stop = gr.Button("Stop", interactive=False, elem_id="stop-button", min_width=90)
        box["beside"] = gr.Checkbox(
            start.beside, label="the bare base beside it", elem_id="beside-box", container=False
        )
    with gr.Accordion(how(start.method, start.k), open=False, elem_id="more") as ui.how:
        with gr.Row():
            box["method"] = gr.Dropdown(
                [method.name for method in ramole.methods()],
                value=start.method,
                label="Method",
                elem_id="method",
                min_width=150,
            )
            box["k"] = gr.Slider(
                1,
                8,
                start.k,
                step=1,
                label="k, adapters to mix",
                elem_id="k",
                min_width=150,
                buttons=[],
            )
        about = about_html(ramole, start.method)
        ui.about = gr.HTML(about, elem_id="about", apply_default_css=False)
        with gr.Row():
            box["pinned"] = gr.Dropdown(
                [], value=[], multiselect=True, label="Exactly these adapters (k is then ignored)"
            )
            box["weights"] = gr.Textbox(
                label="Their weights, in place of the method's", placeholder="0.7, 0.3"
            )
            box["exclude"] = gr.Dropdown([], value=[], multiselect=True, label="Never these")
        with gr.Row():
            box["max_new_tokens"] = gr.Slider(
                1, most, min(start.max_new_tokens, most), step=1, label="Most new tokens"
            )
            box["temperature"] = gr.Slider(0, 2, 0, step=0.05, label="Temperature (0: greedy)")
            box["top_p"] = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p")
            box["seed"] = gr.Number(None, label="Seed", precision=0, min_width=100)
        with gr.Row():
            box["system"] = gr.Textbox(label="System prompt", placeholder="the template's own")
            box["stop"] = gr.Textbox(label="Stop strings, one a line", lines=1, max_lines=4)
            box["raw"] = gr.Checkbox(False, label="Continue the text as it is (no chat template)")
    ui.fields = {name: box[name] for name in FIELDS}


def how(method: str, k: int) -> str:
    """Title of the folded part of the form."""
    return f"How: {method}, k = {k}. Change the method, the adapters or the decoding"


def about_html(ramole: "Ramole", name: str) -> str:
    """What a method does, in one line, and where it was published."""
    for method in ramole.methods():
        if method.name == name:
            said = f"{method.name}: {method.summary} ({method.paper})."
            return f'<p class="quiet">{escape(said)}</p>'
    return ""


def _choices(kind: str, titles: Sequence[str], label: str) -> gr.HTML:
    buttons = "".join(
        f'<button type="button" data-index="{i}"><span class="badge {kind}">{kind}</span>'
        f"{escape(title)}</button>"
        for i, title in enumerate(titles)
    )
    return gr.HTML(
        f'<div class="choices" role="group" aria-label="{escape(label)}">{buttons}</div>',
        js_on_load=CHOOSE,
        elem_id=f"examples-{kind}",
        apply_default_css=False,
        visible=bool(titles),
    )
