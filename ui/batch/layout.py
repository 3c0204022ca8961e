"""Where the rows, the picture and the results of the tab Batch stand; `batch_tab` moves them."""

from html import escape
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..ask.form import METHOD
from ..parts.download_button import download
from .examples import EXAMPLES
from .picture import picture
from .rows import KINDS, MOST_ROWS
from .views import HEADERS, WIDTHS

if TYPE_CHECKING:
    from ramole_core import Ramole

INTRO = (
    '<p class="lead">Many prompts at once: every row is answered in the same batch, each with its '
    "own adapters, method and length. Start with an example, drop a file, or type rows.</p>"
)
SYNTAX = (
    '<p class="quiet">One prompt a line; or jsonl: <code>{"prompt": "…", "method": "mixture", '
    '"k": 2}</code> on each line; or csv with a header. Columns: <code>prompt</code>, and if you '
    "like id, method, k, adapters (<code>a|b</code>), weights, exclude, max_new_tokens, "
    "temperature, top_p, seed, stop, system, raw. Other columns are carried along to the results. "
    f"At most {MOST_ROWS:,} rows. <kbd>Esc</kbd>, then <kbd>Tab</kbd> leaves the text.</p>"
)
ON_LOAD = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-index]');
  if (button) trigger('select', { index: Number(button.dataset.index) });
});
document.addEventListener('keydown', (event) => {  // Gradio's drop zones heed Space alone
  if (event.key !== 'Enter' || !event.target.matches('#batch-file .upload-container')) return;
  event.preventDefault();
  event.target.click();
});
new MutationObserver(() => {  // parts of Gradio's without a name
  const search = document.querySelector('#batch-table .search-input:not([aria-label])');
  if (search) search.setAttribute('aria-label', 'Search the results');
  const text = document.querySelector('#batch-text .cm-content:not([tabindex])');
  if (text) text.setAttribute('tabindex', '0');
  if (text) text.setAttribute('aria-label', 'Rows');
}).observe(document.body, { childList: true, subtree: true });
"""
PLAIN: dict[str, Any] = {"apply_default_css": False}


def lay_out(ramole: "Ramole") -> SimpleNamespace:
    """Build the tab inside the Blocks that is open; the components by name."""
    ui = SimpleNamespace()
    gr.HTML(INTRO, elem_id="batch-intro", **PLAIN)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300, elem_id="batch-rows"):
            _rows(ui, ramole)
        with gr.Column(scale=7, min_width=320, elem_id="batch-side"):
            ui.notice = gr.HTML(elem_id="batch-notice", **PLAIN)
            ui.progress = gr.HTML(elem_id="batch-progress", **PLAIN)
            ui.picture = picture(elem_id="batch-picture")
            ui.row = gr.HTML(elem_id="batch-row", **PLAIN)
    with gr.Column(elem_id="batch-results"):
        with gr.Row():
            ui.jsonl, ui.jsonl_file = download("Download as jsonl", "batch-jsonl", min_width=150)
            ui.csv, ui.csv_file = download("Download as csv", "batch-csv", min_width=150)
        ui.table = gr.Dataframe(
            headers=HEADERS,
            column_widths=[*WIDTHS],
            label="Results",
            interactive=False,
            wrap=True,
            max_height=520,
            show_search="search",
            elem_id="batch-table",
        )
    return ui


def buttons(*, running: bool) -> tuple[gr.Button, gr.Button]:
    """Run and Stop, of which one can be pressed."""
    return gr.Button(interactive=not running), gr.Button(interactive=running)


def _rows(ui: SimpleNamespace, ramole: "Ramole") -> None:
    chips = "".join(
        f'<button type="button" data-index="{i}"><span class="badge live">{e.badge}'
        f"</span>{escape(e.title)}</button>"
        for i, e in enumerate(EXAMPLES)
    )
    ui.examples = gr.HTML(
        f'<div class="choices" role="group" aria-label="Rows to try">{chips}</div>',
        js_on_load=ON_LOAD,
        elem_id="batch-examples",
        **PLAIN,
    )
    ui.drop = gr.File(
        label="jsonl, csv or txt",
        height=118,
        elem_id="batch-file",
    )
    ui.text = gr.Code(
        label="Rows",
        language=None,
        lines=8,
        max_lines=12,
        interactive=True,
        elem_id="batch-text",
    )
    ui.verdict = gr.HTML(elem_id="batch-verdict", **PLAIN)
    with gr.Row(elem_id="batch-bar"):
        ui.run = gr.Button("Run the rows", variant="primary", elem_id="batch-run", min_width=120)
        ui.stop = gr.Button("Stop", interactive=False, elem_id="batch-stop", min_width=80)
    with gr.Accordion("For the rows that do not say", open=False, elem_id="batch-how"):
        with gr.Row():
            ui.kind = gr.Dropdown(list(KINDS), value="automatic", label="Read as", min_width=120)
            names = [method.name for method in ramole.methods()]
            ui.method = gr.Dropdown(names, value=METHOD, label="Method", min_width=120)
        with gr.Row():
            most = ramole.settings.max_new_tokens
            ui.k = gr.Slider(1, 8, 3, step=1, label="k, adapters to mix", min_width=120, buttons=[])
            ui.length = gr.Slider(
                1, most, min(64, most), step=1, label="Most new tokens", min_width=120, buttons=[]
            )
    gr.HTML(SYNTAX, elem_id="batch-syntax", **PLAIN)
