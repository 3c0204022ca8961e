"""The layout of the tab Batch: rows, picture and results."""

from typing import Any

import gradio as gr

from ramole_core import Ramole

from ..parts.choices import choices
from ..parts.downloads import Download
from ..parts.events import PLAIN, enter_opens
from ..parts.fields import k_field, length_field, method_field
from .examples import EXAMPLES
from .picture import picture
from .rows import KINDS, MAX_ROWS
from .views import HEADERS, WIDTHS

INTRO = (
    '<p class="lead">Many prompts at once: every row is answered in the same batch, each with its '
    "own adapters, method and length. Start with an example, drop a file, or type rows.</p>"
)
SYNTAX = (
    '<p class="quiet">One prompt a line; or jsonl: <code>{"prompt": "…", "method": "mixture", '
    '"k": 2}</code> on each line; or csv with a header. Columns: <code>prompt</code>, and if you '
    "like id, method, k, adapters (<code>a|b</code>), weights, exclude, max_new_tokens, "
    "temperature, top_p, seed, stop, system, raw. Other columns are carried along to the results. "
    f"At most {MAX_ROWS:,} rows.</p>"
)
NAMES = """
new MutationObserver(() => {  // parts of Gradio's without a name
  const search = document.querySelector('#batch-table .search-input:not([aria-label])');
  if (search) search.setAttribute('aria-label', 'Search the results');
  const text = document.querySelector('#batch-text .cm-content:not([tabindex])');
  if (text) text.setAttribute('tabindex', '0');
  if (text) text.setAttribute('aria-label', 'Rows');
}).observe(document.body, { childList: true, subtree: true });
document.addEventListener('keydown', (event) => {  // Tab leaves the text, as everywhere
  if (event.key !== 'Tab' || !event.target.closest('#batch-text .cm-content')) return;
  event.stopPropagation();
}, true);
"""


class BatchInputs:
    def __init__(self, ramole: Ramole) -> None:
        self.examples = choices(
            {n: (example.badge, example.title) for n, example in enumerate(EXAMPLES)},
            "Rows to try",
            elem_id="batch-examples",
            kind="live",
            script=enter_opens("batch-file") + NAMES,
        )
        self.drop = gr.File(label="jsonl, csv or txt", height=132, elem_id="batch-file")
        self.text = gr.Code(
            label="Rows",
            language=None,
            lines=8,
            max_lines=12,
            interactive=True,
            elem_id="batch-text",
        )
        self.verdict = gr.HTML(elem_id="batch-verdict", **PLAIN)
        with gr.Row(elem_id="batch-bar"):
            self.run = gr.Button(
                "Run the rows", variant="primary", elem_id="batch-run", min_width=120
            )
            self.stop = gr.Button("Stop", interactive=False, elem_id="batch-stop", min_width=80)
        with gr.Accordion("For the rows that do not say", open=False, elem_id="batch-how"):
            with gr.Row():
                self.kind = gr.Dropdown(
                    list(KINDS), value="automatic", label="Read as", min_width=120
                )
                self.method = method_field(ramole, min_width=120)
            with gr.Row():
                self.k = k_field(3, min_width=120)
                self.length = length_field(ramole, 64, min_width=120, buttons=[])
        gr.HTML(SYNTAX, elem_id="batch-syntax", **PLAIN)

    @property
    def rows(self) -> list[Any]:
        """The arguments of `BatchHandlers.read`, in its order."""
        return [self.text, self.kind, self.method, self.k, self.length]


class BatchLayout:
    """The tab's components, built inside the Blocks that is open."""

    def __init__(self, ramole: Ramole) -> None:
        gr.HTML(INTRO, elem_id="batch-intro", **PLAIN)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=300, elem_id="batch-rows"):
                self.entry = BatchInputs(ramole)
            with gr.Column(scale=7, min_width=320, elem_id="batch-side"):
                self.notice = gr.HTML(elem_id="batch-notice", **PLAIN)
                self.progress = gr.HTML(elem_id="batch-progress", **PLAIN)
                self.picture = picture(elem_id="batch-picture")
                self.row = gr.HTML(elem_id="batch-row", **PLAIN)
        with gr.Column(elem_id="batch-results"):
            with gr.Row():
                self.jsonl = Download("Download as jsonl", "batch-jsonl", min_width=150)
                self.csv = Download("Download as csv", "batch-csv", min_width=150)
            self.table = gr.Dataframe(
                headers=HEADERS,
                column_widths=[*WIDTHS],
                label="Results",
                interactive=False,
                wrap=True,
                max_height=520,
                show_search="search",
                elem_id="batch-table",
            )
        # The run once it has ended.
        self.ran = gr.State(None)

    @property
    def looks(self) -> list[Any]:
        """The components that an update of a run changes."""
        return [self.notice, self.progress, self.picture, self.table, self.ran]
