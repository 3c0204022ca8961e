"""The whole answer at a glance: entropy of each token, one adapter over layers and tokens."""

from typing import Any

import gradio as gr
from gradio.components import Component

from ..charts.effect_bars import evenness_figure, evenness_table
from ..charts.grid import grid_of
from ..charts.heat import map_figure, whole
from ..charts.palette import letter_of
from ..charts.run import Run, led_by
from ..parts.events import PLAIN, QUIET

ENTROPY = (
    '<p class="caption">Entropy of the gate (what sets the weights) for each token, the mean over '
    "layers and modules. At the dashed line all adapters weigh the same; at 0 one of them has all "
    "the weight.</p>"
)
LAYERS = (
    '<p class="caption">Contribution of this adapter to each token (to the right) in each layer '
    "(upwards): the length of its weighted update beside the output's, the mean over modules; "
    "blank where it has none.</p>"
)


class WholePanel:
    """The panel's components, built inside the tab that is open."""

    def __init__(self) -> None:
        title = "The whole answer: entropy, and layers by tokens"
        with gr.Accordion(title, open=False, elem_id="whole-panel") as self.fold:
            self.entropy = gr.Plot(show_label=False, elem_id="entropy-plot", container=False)
            gr.HTML(ENTROPY, **PLAIN)
            self.expert = gr.Dropdown([], label="Adapter", elem_id="whole-expert")
            self.layers = gr.Plot(show_label=False, elem_id="layers-plot", container=False)
            gr.HTML(LAYERS, **PLAIN)
            with gr.Accordion("These numbers as a table", open=False):
                self.table = gr.Dataframe(interactive=False, show_label=False, max_height=320)

    @property
    def all(self) -> list[Component]:
        """The components that a run changes."""
        return [self.entropy, self.expert, self.layers, self.table]

    def connect(self, *, run: gr.State) -> None:
        """Connect the choice of an adapter to its picture."""

        def on_expert(run: Run | None, expert: int | None):
            grid = None if run is None else grid_of(run)
            if grid is None or expert is None or not 0 <= expert < len(grid.experts):
                return gr.skip()
            return map_figure(grid, whole(grid), expert)

        self.expert.input(on_expert, [run, self.expert], self.layers, **QUIET)

    def drawn(self, run: Run | None) -> dict[Any, Any]:
        """The panel for a finished run; empty where there are no weights."""
        grid = None if run is None else grid_of(run)
        if run is None or grid is None:
            return self.cleared()
        led = led_by(run.leaders, len(run.experts))
        first = led.index(max(led))
        names: list[tuple[str, str | int | float]] = [
            (f"{letter_of(place)} {name}", e)
            for e, (name, place) in enumerate(zip(run.experts, run.places, strict=True))
        ]
        headers, rows = evenness_table(run)
        headers += [f"{name}, share" for name, _ in names]
        for row, shares in zip(rows, run.shares.tolist(), strict=True):
            row += [round(share, 3) for share in shares]
        return {
            self.entropy: evenness_figure(run),
            self.expert: gr.Dropdown(choices=names, value=first),
            self.layers: map_figure(grid, whole(grid), first),
            self.table: gr.Dataframe(value=rows, headers=headers),
        }

    def cleared(self) -> dict[Any, Any]:
        """The empty panel; the style sheet hides it while the answer has no legend."""
        return {
            self.entropy: None,
            self.expert: gr.Dropdown(choices=[], value=None),
            self.layers: None,
            self.table: gr.Dataframe(value=[]),
        }
