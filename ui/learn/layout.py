"""The layout of the tab Learn: steps, texts, pictures, sliders and guess."""

from typing import Any

import gradio as gr

from ..charts.tokens import token_view
from ..parts.events import PLAIN, script_beside
from .kept import DIFFER
from .steps import TITLES
from .toy import START, WEIGHTS

SHOWN = {"weights": "Weights", "contributions": "Contributions"}
"""Choices of the pictures of step 6."""


class LearnLayout:
    """The tab's components, built inside the Blocks that is open."""

    def __init__(self) -> None:
        with gr.Row(elem_id="learn-row", equal_height=False):
            with gr.Column(scale=2, min_width=210, elem_id="learn-list"):
                self.steps = gr.Radio(
                    list(TITLES),
                    value=TITLES[0],
                    type="index",
                    label="Steps",
                    elem_id="learn-steps",
                )
            with gr.Column(scale=7, min_width=280, elem_id="learn-page"):
                self.words = gr.HTML(elem_id="learn-words", **PLAIN)
                self.picture = gr.HTML(elem_id="learn-picture", **PLAIN)
                with gr.Column(visible=False, elem_id="learn-toy") as self.toy:
                    with gr.Column(elem_id="learn-sliders"):
                        with gr.Row():
                            self.x = [
                                _slider(f"x, number {n + 1}", -2, 2, 0.5, START[n])
                                for n in range(3)
                            ]
                        with gr.Row() as self.by_hand:
                            self.weights = [
                                _slider(
                                    f"w{n + 1}, weight of adapter {name}", 0, 1, 0.1, WEIGHTS[n]
                                )
                                for n, name in enumerate(("one", "two"))
                            ]
                    self.toy_view = gr.HTML(elem_id="learn-numbers", **PLAIN)
                # The recorded answer of steps 6 and 7.
                with gr.Column(visible=False, elem_id="learn-answer") as self.answer:
                    self.tokens = token_view(elem_id="learn-tokens")
                    self.token = gr.HTML(elem_id="learn-token", **PLAIN)
                    # Adapters that step 6 switches off at the token.
                    self.off = gr.CheckboxGroup(
                        [], label="Switch off, and read this token again", elem_id="learn-off"
                    )
                    self.switched = gr.HTML(elem_id="learn-switched", **PLAIN)
                    self.what = gr.Radio(
                        [(words_, name) for name, words_ in SHOWN.items()],
                        value="weights",
                        label="The pictures show",
                        elem_id="learn-what",
                    )
                    self.plot = gr.Plot(show_label=False, container=False, elem_id="learn-plot")
                    self.below = gr.HTML(elem_id="learn-below", **PLAIN)
                with gr.Column(visible=False, elem_id="learn-guess") as self.guess:
                    self.question = gr.HTML(elem_id="learn-question", **PLAIN)
                    self.stretch = token_view(elem_id="learn-stretch")
                    self.choice = gr.Radio([], label="Your guess", elem_id="learn-choice")
                    self.reveal = gr.HTML(elem_id="learn-reveal", **PLAIN)
                self.tries = gr.HTML(
                    elem_id="learn-try", js_on_load=script_beside(__file__, "learn.js"), **PLAIN
                )
                with gr.Row(elem_id="learn-walk"):
                    self.back = gr.Button(
                        "Back", elem_id="learn-back", interactive=False, min_width=100
                    )
                    self.ahead = gr.Button(
                        "Next", variant="primary", elem_id="learn-next", min_width=100
                    )
        # The place of the token that is looked at.
        self.picked = gr.State(DIFFER)
        # What was guessed, by the place of the step.
        self.guessed = gr.State({})

    @property
    def sliders(self) -> list[Any]:
        return [*self.x, *self.weights]

    @property
    def chosen(self) -> list[Any]:
        """The inputs of a step."""
        return [self.steps, self.picked, self.guessed, self.what, self.off, *self.sliders]

    @property
    def all(self) -> list[Any]:
        """The components that a step changes."""
        return [
            *(self.steps, self.back, self.ahead, self.words, self.picture),
            *(self.toy, self.by_hand, self.toy_view),
            *(self.answer, self.tokens, *self.looked_at),
            *(self.guess, self.question, self.choice, *self.revealed),
            self.tries,
        ]

    @property
    def looked_at(self) -> list[Any]:
        """The components that another token changes."""
        return [self.what, self.off, self.switched, self.token, self.plot, self.below]

    @property
    def revealed(self) -> list[Any]:
        """The components that a guess changes."""
        return [self.stretch, self.reveal]


def _slider(label: str, low: float, high: float, step: float, value: float) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=label, min_width=150, buttons=["reset"])
