"""The layout of the tab Inspect: run, tokens, playback and pictures."""

from typing import Any

import gradio as gr
from gradio.components import Component

from ..charts.heat import WINNER
from ..charts.run import MEASURES
from ..charts.spans import PER
from ..charts.tokens import token_view
from ..parts.downloads import Download
from ..parts.events import PLAIN
from ..parts.link import copy_button
from .cuts import EFFECTS, ENTROPY, LAYER, LAYERS, LOADS, MODULE, Cut
from .picture import Picture
from .player import marks, player
from .sources import PICK

LEAD = (
    '<p class="quiet">One answer, taken apart: which adapter did how much, at which token, in '
    "which layer of the model.</p>"
)
READ = (
    '<p class="caption">In the next three pictures a square is one place of the model at one '
    "token. Its colour is that of the adapter that leads there (grey: none stands out); with one "
    "adapter chosen, the fuller the square, the more it did. Blank: it has nothing there. "
    "Effect: what its absence would have changed, which has no layers, so that contribution "
    "stands for it there; contribution: how far it moved the model's outputs; weight: its share of "
    "the gate.</p>"
)
WHOEVER = "whoever leads"
AGAINST = (
    "Look for adapters that one run leans on and the other hardly touches. The hatched bars are "
    "the pinned run's."
)


class InspectLayout:
    """The tab's components, built inside the Blocks that is open."""

    def __init__(self) -> None:
        gr.HTML(LEAD, **PLAIN)
        with gr.Row(elem_id="inspect-bar", equal_height=False):
            with gr.Column(scale=3, min_width=300):
                self.head = gr.HTML(elem_id="inspect-head", **PLAIN)
                self.copy = copy_button(elem_id="inspect-copy")
            self.source = gr.Dropdown([], label="Run", elem_id="inspect-source", min_width=290)
            self.pin = gr.Button("Pin this run", elem_id="inspect-pin", min_width=130, size="md")
            # Pressed by the page where Ask has another answer while this tab is in sight.
            self.again = gr.Button("Show what Ask has", elem_id="inspect-again", visible="hidden")
        self.notice = gr.HTML(elem_id="inspect-notice", **PLAIN)
        with gr.Row(equal_height=False, elem_id="inspect-top"):
            with gr.Column(scale=7, min_width=300):
                self.view = token_view(elem_id="inspect-answer")
                self.player = player(elem_id="inspect-player")
            with gr.Column(scale=5, min_width=300):
                self.token = gr.HTML(PICK, elem_id="inspect-token", **PLAIN)
        self.marks = marks(elem_id="inspect-marks")
        # All pictures; hidden where there is nothing to draw.
        with gr.Column(elem_id="inspect-body") as self.body:
            # What a `Choice` is made of, in its order.
            # By the name of their cut.
            self.controls, self.pictures = _pictures()
        # The pinned run beside this one.
        with gr.Column(visible=False, elem_id="inspect-both") as self.both:
            gr.HTML("<h2>Beside the pinned run</h2>", **PLAIN)
            self.sides = gr.HTML(elem_id="inspect-sides", **PLAIN)
            self.against = Picture("against", "Loads of both", AGAINST)
        gr.HTML('<h2 id="inspect-files">Take it all away</h2>', **PLAIN)
        with gr.Row(elem_classes=["inspect-take"]):
            self.html = Download(
                "All pictures as one HTML page (5 MB)", "inspect-html", min_width=220
            )
            self.npz = Download("Trace as .npz", "inspect-npz", min_width=120)
            self.json = Download("Trace as .json", "inspect-json", min_width=120)
        # The run that is shown, an `Inspected`.
        self.held = gr.State(None)
        # A `Run` or None.
        self.pinned = gr.State(None)

    @property
    def opens(self) -> list[gr.State]:
        """Which tables are unfolded, in the order of the pictures, the comparison last."""
        return [*(one.open for one in self.pictures.values()), self.against.open]

    @property
    def all(self) -> list[Any]:
        """The components that another run changes."""
        drawn = [part for one in self.pictures.values() for part in one.shown]
        head = [
            self.copy,
            self.source,
            self.pin,
            self.head,
            self.notice,
            self.view,
            self.token,
            self.player,
        ]
        states = [self.held, self.body, self.marks]
        return [*head, *states, *self.controls, *drawn, *self.compared]

    @property
    def compared(self) -> list[Any]:
        """The components that pinning changes."""
        return [self.pin, self.pinned, self.both, self.sides, *self.against.shown]


def _pictures() -> tuple[tuple[Component, ...], dict[str, Picture]]:
    with gr.Row(elem_id="inspect-choice", equal_height=True):
        expert = gr.Dropdown(
            [(WHOEVER, WINNER)], value=WINNER, label="Show", elem_id="inspect-expert", min_width=200
        )
        what = gr.Radio(
            list(MEASURES),
            value=MEASURES[0],
            label="Measured by",
            elem_id="inspect-what",
            min_width=250,
        )
        per = gr.Radio(
            list(PER),
            value=PER[0],
            label="One column for each",
            elem_id="inspect-per",
            min_width=220,
        )
    built = {EFFECTS.name: _built(EFFECTS)}
    gr.HTML(READ, **PLAIN)
    layer = gr.Slider(0, 1, 0, step=1, label="Layer", elem_id="inspect-layer", render=False)
    module = gr.Dropdown([], label="Module", elem_id="inspect-module", render=False)
    built[LAYERS.name] = _built(LAYERS)
    with gr.Row(equal_height=False):
        built[LAYER.name] = _built(LAYER, layer)
        built[MODULE.name] = _built(MODULE, module)
    with gr.Row(equal_height=False):
        built[LOADS.name] = _built(LOADS, column=True)
        built[ENTROPY.name] = _built(ENTROPY, column=True)
    return (what, per, expert, layer, module), built


def _built(cut: Cut, *controls: Component, column: bool = False) -> Picture:
    beside = column or bool(controls)
    return Picture(cut.name, cut.title, cut.look, controls=controls, column=beside)
