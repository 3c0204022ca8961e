"""One picture on the page: heading, what to look for, the plot, files to take away, its table."""

from collections.abc import Sequence
from contextlib import nullcontext
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from ..charts.plots import Table
from ..parts.downloads import Download
from ..parts.events import PLAIN, QUIET

TAKE = """() => {
  const shown = document.querySelector('#PLOT .js-plotly-plot');
  if (!shown || !shown.layout || !window.Plotly) return;
  const { meta, margin } = shown.layout;
  const layout = {
    ...shown.layout, paper_bgcolor: '#ffffff', plot_bgcolor: '#ffffff',
    font: { ...shown.layout.font, color: '#222222' },
    title: { text: meta.title, x: 0.02, font: { size: 15 } },
    margin: { ...margin, t: (margin.t || 0) + 34 },
  };
  const size = { width: shown.clientWidth, height: shown.clientHeight + 34 };
  window.Plotly.downloadImage(
    { data: shown.data, layout, config: {} },
    { format: 'FORMAT', filename: 'ramole-NAME', scale: 'FORMAT' === 'png' ? 2 : 1, ...size },
  );
}"""
"""Plotly draws the file in the browser: black on white, under its title."""


class Picture:
    """Its components, built inside the tab that is open; `controls` stand below the heading,
    `column`: as one of several beside each other."""

    def __init__(
        self,
        name: str,
        heading: str,
        look: str,
        *,
        controls: Sequence[Component] = (),
        column: bool = False,
    ) -> None:
        self.name = name
        with gr.Column(min_width=320) if column else nullcontext():
            gr.HTML(f'<h3>{escape(heading)}</h3><p class="caption">{escape(look)}</p>', **PLAIN)
            for control in controls:
                control.render()
            self.plot = gr.Plot(show_label=False, container=False, elem_id=f"inspect-plot-{name}")
            with gr.Row(elem_classes=["inspect-take"]):
                self.png = gr.Button("PNG", size="sm", min_width=60, elem_id=f"inspect-png-{name}")
                self.svg = gr.Button("SVG", size="sm", min_width=60, elem_id=f"inspect-svg-{name}")
                self.csv = Download("CSV", f"inspect-csv-{name}", min_width=60)
            title = "These numbers as a table"
            with gr.Accordion(title, open=False, elem_id=f"inspect-fold-{name}") as self.fold:
                self.table = gr.Dataframe(interactive=False, show_label=False, max_height=320)
        # Whether the table is unfolded; a folded one is not sent.
        self.open = gr.State(False)

    @property
    def shown(self) -> list[Component]:
        """The components that another run or choice changes."""
        return [self.plot, self.table]

    def connect(self) -> None:
        """Connect the plot's download, which needs no server."""
        for button, kind in ((self.png, "png"), (self.svg, "svg")):
            script = TAKE.replace("PLOT", f"inspect-plot-{self.name}").replace("FORMAT", kind)
            button.click(None, js=script.replace("NAME", self.name), **QUIET)

    def drawn(self, figure: Any, table: Table | None) -> dict[Any, Any]:
        """Values for what is shown; None: an empty picture, or a folded table."""
        headers, rows = table or ([], [])
        value = gr.Dataframe(value=rows, headers=headers) if table else gr.Dataframe(value=[])
        return {self.plot: figure, self.table: value}
