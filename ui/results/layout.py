"""The layout of the tab Results: tables, the choice of a setting, its picture."""

from dataclasses import dataclass

import gradio as gr

from ..parts.events import PLAIN

CAPTION = (
    '<p class="caption">A dot is the mean score, the line its 95 % interval; controls are grey and '
    "hollow. The table above has the same numbers.</p>"
)
CLOSER = "Every task, and who is ahead of whom"


@dataclass(frozen=True)
class ResultsLayout:
    """The tab's components."""

    shown: gr.State
    """The stamp of the files that the tab was drawn from."""
    top: gr.HTML
    chosen: gr.Accordion
    setting: gr.Radio
    rest: gr.HTML
    plot: gr.Plot
    ahead: gr.HTML
    by_task: gr.HTML


def lay_out() -> ResultsLayout:
    """The empty tab, inside the Blocks that is open."""
    top = gr.HTML(elem_id="results-top", **PLAIN)
    with gr.Accordion(CLOSER, open=False, visible=False, elem_id="results-choice") as chosen:
        setting = gr.Radio([], label="In which situation?", elem_id="results-setting")
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                plot = gr.Plot(show_label=False, container=False, elem_id="results-plot")
                gr.HTML(CAPTION, **PLAIN)
            with gr.Column(scale=5, min_width=300):
                ahead = gr.HTML(elem_id="results-ahead", **PLAIN)
        by_task = gr.HTML(elem_id="results-tasks", **PLAIN)
    rest = gr.HTML(elem_id="results-rest", **PLAIN)
    return ResultsLayout(gr.State(""), top, chosen, setting, rest, plot, ahead, by_task)
