"""The layout of the tab Compare: prompt, columns' choices and answers."""

from typing import Any

import gradio as gr
from gradio.components import Component

from ramole_core import Ramole

from ..charts.tokens import token_view
from ..parts.events import HELD, PLAIN
from ..parts.fields import k_field, length_field, method_field
from ..parts.link import copy_button
from ..parts.prompts import placeholder
from .link import MAX_COLUMNS, START, Column

LEAD = (
    '<p class="quiet">The same prompt in several ways, all in one batch. A word that the first '
    "column lacks has a line above it; an adapter has the same letter and colour everywhere. Pick "
    "a token to see who wrote it.</p>"
)


class ColumnLayout:
    """One column."""

    def __init__(self, ramole: Ramole, n: int, start: Column) -> None:
        with gr.Column(visible=n < 2, min_width=250, elem_classes=["compared"]) as self.column:
            self.method = method_field(
                ramole, value=start.method, elem_id=f"compare-method-{n}", min_width=140
            )
            with gr.Accordion("k and adapters", open=False):
                self.k = k_field(start.k, min_width=120)
                self.adapters = gr.Dropdown(
                    [], value=[], multiselect=True, label="Exactly these adapters"
                )
                self.without = gr.Dropdown([], value=[], multiselect=True, label="Without these")
            # Its settings, and the decision on its adapters.
            self.head = gr.HTML(elem_id=f"compare-head-{n}", **PLAIN)
            self.view = token_view(elem_id=f"compare-answer-{n}")

    @property
    def choices(self) -> list[Component]:
        """The fields of a `Column`, in its order."""
        return [self.method, self.k, self.adapters, self.without]


class CompareLayout:
    """The tab's components, built inside the Blocks that is open."""

    def __init__(self, ramole: Ramole) -> None:
        gr.HTML(LEAD, **PLAIN)
        self.prompt = gr.Textbox(
            label="Prompt",
            placeholder=placeholder([card.name for card in ramole.pool.cards()]),
            lines=1,
            max_lines=12,
            elem_id="compare-prompt",
        )
        with gr.Row(elem_id="compare-bar", equal_height=True):
            self.ask = gr.Button(
                "Compare", variant="primary", elem_id="compare-button", min_width=120
            )
            self.stop = gr.Button("Stop", interactive=False, elem_id="compare-stop", min_width=90)
            counts = list(range(2, MAX_COLUMNS + 1))
            self.count = gr.Radio(
                counts, value=2, label="Columns", elem_id="compare-count", min_width=160
            )
            self.length = length_field(ramole, 64, min_width=200)
        gr.HTML(HELD, elem_id="compare-held", **PLAIN)
        self.notice = gr.HTML(elem_id="compare-notice", **PLAIN)
        # The part of the page's address for this tab.
        self.copy, self.told = copy_button(elem_id="compare-copy"), gr.Textbox(visible=False)
        # The question of the answers in sight.
        self.above = gr.HTML(elem_id="compare-asked", **PLAIN)
        with gr.Row(elem_id="compare-columns", equal_height=False):
            self.columns = [ColumnLayout(ramole, n, start) for n, start in enumerate(START)]
        self.token = gr.HTML(elem_id="compare-token", **PLAIN)
        # The comparison in sight, a `Compared` or None.
        self.asked = gr.State(None)

    @property
    def values(self) -> list[Component]:
        """All inputs: prompt, count, length, then each column's choices."""
        each = [choice for shown in self.columns for choice in shown.choices]
        return [self.prompt, self.count, self.length, *each]

    @property
    def growing(self) -> list[Any]:
        """The components that an update changes."""
        return [self.notice, *(shown.view for shown in self.columns), self.asked]
