"""The tab Results: what was measured; docs/results.md has the commands that did.

Nothing is read before the tab is first opened; opened again, it is drawn anew only where a file
has changed.
"""

from pathlib import Path
from typing import Any

import gradio as gr
import plotly.graph_objects as go

from ..charts.palette import INKS, NOBODY
from ..charts.plots import dress
from ..parts.errors import html_or_sentence, one_sentence
from ..parts.events import AT_ONCE, LATEST, PLAIN
from ..parts.markup import notice_html
from .adapters import ADAPTERS
from .answers import ANSWERS, by_task, differences
from .files import RESULTS, stamp
from .html import html, section_html
from .methods import METHODS
from .retrieval import RETRIEVAL
from .scores import Evaluation, evaluation, label
from .short import short_html
from .situations import STRESSES
from .speed import SPEED
from .who import WHO

CAPTION = (
    '<p class="caption">A dot is the mean score, the line its 95 % interval; controls are grey and '
    "hollow. The table above has the same numbers.</p>"
)
CONTROLS = ("base", "perfect", "uniform_router", "random_router")
ORDER = (4, 5, 2, 0, 3, 1)
"""Okabe-Ito's colours that read as a dot on white and on black, the best to tell apart first."""
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


REST = (METHODS, WHO, STRESSES, RETRIEVAL, ADAPTERS, SPEED)
"""The sections below the closer look."""


def opened(ui: ResultsLayout, folder: Path) -> dict[Any, Any]:
    """The whole tab, from the files as they are now."""
    found = evaluation(folder)
    drawn = {
        ui.top: html_or_sentence(lambda: top_html(folder), _refusal),
        ui.rest: html_or_sentence(lambda: rest_html(folder), _refusal),
        ui.chosen: gr.Accordion(visible=isinstance(found, Evaluation)),
    }
    if not isinstance(found, Evaluation):
        return drawn
    names = [(label(name), name) for name in found.settings]
    choice = gr.Radio(choices=names, value=names[0][1], visible=len(names) > 1)
    return {**drawn, ui.setting: choice, **closer(ui, folder, names[0][1])}


def closer(ui: ResultsLayout, folder: Path, wanted: str | None) -> dict[Any, Any]:
    """One setting: picture, differences, tasks; as it was where the setting is not there."""
    found = evaluation(folder)
    if not (isinstance(found, Evaluation) and isinstance(wanted, str) and wanted in found.cells):
        return {ui.plot: gr.skip()}
    return {
        ui.plot: scores_figure(found, wanted),
        ui.ahead: "".join(map(html, differences(found, wanted))),
        ui.by_task: "".join(map(html, by_task(found, wanted))),
    }


def inks_of(methods: list[str]) -> dict[str, str]:
    """The same colour for a method in every setting; grey for controls."""
    others = [name for name in methods if name not in CONTROLS]
    colours = {n: INKS[ORDER[i % len(ORDER)]].colour for i, n in enumerate(others)}
    return {name: colours.get(name, NOBODY.colour) for name in methods}


def scores_figure(found: Evaluation, setting: str) -> go.Figure:
    """The setting's scores, a row a method, the first on top: a dot for the mean, a line for the
    interval. Names stand on the axis, so colour is never the only cue."""
    scores, colours = found.cells[setting], inks_of(list(found.methods))
    figure = go.Figure()
    for name, span in scores.items():
        (low, high), hollow, colour = span.ends, name in CONTROLS, colours[name]
        figure.add_scatter(
            x=[span.mean],
            y=[name],
            mode="markers",
            marker={"size": 11, "color": colour, "symbol": f"circle{'-open' if hollow else ''}"}
            | {"line": {"width": 2 if hollow else 0, "color": colour}},
            error_x={"type": "data", "symmetric": False, "array": [high - span.mean]}
            | {"arrayminus": [span.mean - low], "color": colour, "thickness": 2, "width": 0},
            hovertemplate=f"{name}: {span.mean:.1f} [{low:.1f}, {high:.1f}]<extra></extra>",
            showlegend=False,
        )
    figure.update_xaxes(title="mean score", rangemode="tozero")
    figure.update_yaxes(categoryorder="array", categoryarray=list(scores)[::-1], automargin=True)
    return dress(figure, height=80 + 30 * len(scores), margin=(8, 16, 8, 44))


def top_html(folder: Path) -> str:
    """Return the summary, and the answers in detail."""
    return short_html(folder) + section_html(ANSWERS, folder)


def rest_html(folder: Path) -> str:
    """Every section below the closer look."""
    return "".join(section_html(section, folder) for section in REST)


def _refusal(sentence: str) -> str:
    return notice_html(sentence, kind="wrong")


def tab(folder: Path = RESULTS) -> None:
    """Build the tab inside the Blocks that is open; the files are those of `folder`."""
    with gr.Tab("Results", id="results", elem_id="results-tab") as results:
        ui = ResultsLayout()

    def on_open(before: str):
        with one_sentence():
            now = stamp(folder)
            return {ui.shown: now} if before == now else {ui.shown: now, **opened(ui, folder)}

    def on_setting(wanted: str | None):
        with one_sentence():
            return closer(ui, folder, wanted)

    changed = [ui.plot, ui.ahead, ui.by_task]
    every = [ui.shown, ui.top, ui.chosen, ui.setting, ui.rest, *changed]
    results.select(on_open, ui.shown, every, **AT_ONCE)
    ui.setting.input(on_setting, ui.setting, changed, **LATEST)
