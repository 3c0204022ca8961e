"""The folded map of the tab Pool: drawn when it is opened, and again for a prompt."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..parts.errors import one_sentence
from ..parts.events import PLAIN
from ..parts.fields import k_field
from ..session.quota import Quota
from .map import CHANGE, FOUND_BY, OF, draw

if TYPE_CHECKING:
    from ramole_core import Ramole

FOLD = "Map: which adapters are alike, and which ones a prompt finds"


class Map:
    """Its components, folded, inside the tab that is open."""

    def __init__(self) -> None:
        with gr.Accordion(FOLD, open=False, elem_id="pool-map") as self.fold:
            with gr.Row(equal_height=False):
                self.prompt = gr.Textbox(
                    label="A prompt to place among them (optional)",
                    placeholder="Fix the capital letters in the following text: i live in paris",
                    lines=1,
                    max_lines=4,
                    scale=3,
                    min_width=240,
                    elem_id="pool-map-prompt",
                )
                self.k = k_field(3, min_width=160)
                self.k.label = "k, adapters to find"
                self.show = gr.Button("Show where it falls", min_width=150, elem_id="pool-map-show")
            self.plot = gr.Plot(show_label=False, container=False, elem_id="pool-map-plot")
            self.told = gr.HTML(elem_id="pool-map-told", **PLAIN)
            # In what pairs are alike.
            self.by = gr.Radio(
                [FOUND_BY, CHANGE], value=FOUND_BY, label="Pairs alike in", elem_id="pool-pairs-by"
            )
            self.pairs = gr.Plot(show_label=False, container=False, elem_id="pool-pairs-plot")
            self.pairs_told = gr.HTML(elem_id="pool-pairs-told", **PLAIN)

    @property
    def drawn(self) -> list[Any]:
        """In the order in which `Drawn` has them."""
        return [self.plot, self.told, self.pairs, self.pairs_told]


def connect_map(ui: Map, ramole: "Ramole", quota: Quota, call: Callable) -> None:
    """Every event of it."""

    def on_draw(prompt: str, k: float, by: str, request: gr.Request):
        by = by if by in OF else FOUND_BY
        with one_sentence(), call(request) as visitor:
            drawn = draw(ramole, quota, prompt, k, owner=visitor.owner, by=by)
            return drawn.map, drawn.told, drawn.pairs, drawn.pairs_told

    gr.on(
        [ui.fold.expand, ui.prompt.submit, ui.show.click, ui.by.input],
        on_draw,
        [ui.prompt, ui.k, ui.by],
        ui.drawn,
        trigger_mode="always_last",
        concurrency_id="map",
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=ui.plot,
    )
