"""The layout of the tab Results: tables, the choice of a setting, its picture."""

import gradio as gr

from ..parts.events import PLAIN

CAPTION = (
    '<p class="caption">A dot is the mean score, the line its 95 % interval; controls are grey and '
    "hollow. The table above has the same numbers.</p>"
)
CLOSER = "Every task, and who is ahead of whom"


class ResultsLayout:
    """The tab's components, built inside the Blocks that is open."""

    def __init__(self) -> None:
        self.top = gr.HTML(elem_id="results-top", **PLAIN)
        with gr.Accordion(
            CLOSER, open=False, visible=False, elem_id="results-choice"
        ) as self.chosen:
            self.setting = gr.Radio([], label="In which situation?", elem_id="results-setting")
            with gr.Row(equal_height=False):
                with gr.Column(scale=6, min_width=320):
                    self.plot = gr.Plot(show_label=False, container=False, elem_id="results-plot")
                    gr.HTML(CAPTION, **PLAIN)
                with gr.Column(scale=5, min_width=300):
                    self.ahead = gr.HTML(elem_id="results-ahead", **PLAIN)
            self.by_task = gr.HTML(elem_id="results-tasks", **PLAIN)
        self.rest = gr.HTML(elem_id="results-rest", **PLAIN)
        # The stamp of the files that the tab was drawn from.
        self.shown = gr.State("")
