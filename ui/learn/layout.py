"""The layout of the tab Learn: steps, texts, pictures, sliders and guess."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..charts.tokens import token_view
from ..parts.events import PLAIN
from .kept import DIFFER
from .steps import TITLES
from .toy import START, WEIGHTS

SHOWN = {"weights": "Weights", "contributions": "Contributions"}
"""What the pictures of step 6 can show."""


@dataclass(frozen=True)
class LearnLayout:
    """The tab's components."""

    steps: gr.Radio
    back: gr.Button
    ahead: gr.Button
    words: gr.HTML
    picture: gr.HTML
    toy: gr.Column
    by_hand: gr.Row
    x: Sequence[gr.Slider]
    weights: Sequence[gr.Slider]
    toy_view: gr.HTML
    answer: gr.Column
    """The recorded answer of steps 6 and 7."""
    tokens: gr.HTML
    what: gr.Radio
    off: gr.CheckboxGroup
    """Adapters that step 6 switches off at the token."""
    switched: gr.HTML
    token: gr.HTML
    plot: gr.Plot
    below: gr.HTML
    guess: gr.Column
    question: gr.HTML
    stretch: gr.HTML
    choice: gr.Radio
    reveal: gr.HTML
    tries: gr.HTML
    picked: gr.State
    """The place of the token that is looked at."""
    guessed: gr.State
    """What was guessed, by the place of the step."""

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


def lay_out() -> LearnLayout:
    """The empty tab, inside the Blocks that is open."""
    with gr.Row(elem_id="learn-row", equal_height=False):
        with gr.Column(scale=2, min_width=210, elem_id="learn-list"):
            steps = gr.Radio(
                list(TITLES), value=TITLES[0], type="index", label="Steps", elem_id="learn-steps"
            )
        with gr.Column(scale=7, min_width=280, elem_id="learn-page"):
            words = gr.HTML(elem_id="learn-words", **PLAIN)
            picture = gr.HTML(elem_id="learn-picture", **PLAIN)
            with gr.Column(visible=False, elem_id="learn-toy") as toy:
                with gr.Column(elem_id="learn-sliders"):
                    with gr.Row():
                        x = [_slider(f"x, number {n + 1}", -2, 2, 0.5, START[n]) for n in range(3)]
                    with gr.Row() as by_hand:
                        weights = [
                            _slider(f"w{n + 1}, weight of adapter {name}", 0, 1, 0.1, WEIGHTS[n])
                            for n, name in enumerate(("one", "two"))
                        ]
                toy_view = gr.HTML(elem_id="learn-numbers", **PLAIN)
            with gr.Column(visible=False, elem_id="learn-answer") as answer:
                tokens = token_view(elem_id="learn-tokens")
                token = gr.HTML(elem_id="learn-token", **PLAIN)
                off = gr.CheckboxGroup(
                    [], label="Switch off, and read this token again", elem_id="learn-off"
                )
                switched = gr.HTML(elem_id="learn-switched", **PLAIN)
                what = gr.Radio(
                    [(words_, name) for name, words_ in SHOWN.items()],
                    value="weights",
                    label="The pictures show",
                    elem_id="learn-what",
                )
                plot = gr.Plot(show_label=False, container=False, elem_id="learn-plot")
                below = gr.HTML(elem_id="learn-below", **PLAIN)
            with gr.Column(visible=False, elem_id="learn-guess") as guess:
                question = gr.HTML(elem_id="learn-question", **PLAIN)
                stretch = token_view(elem_id="learn-stretch")
                choice = gr.Radio([], label="Your guess", elem_id="learn-choice")
                reveal = gr.HTML(elem_id="learn-reveal", **PLAIN)
            tries = gr.HTML(elem_id="learn-try", js_on_load=script(), **PLAIN)
            with gr.Row(elem_id="learn-walk"):
                back = gr.Button("Back", elem_id="learn-back", interactive=False, min_width=100)
                ahead = gr.Button("Next", variant="primary", elem_id="learn-next", min_width=100)
    return LearnLayout(
        steps,
        back,
        ahead,
        words,
        picture,
        toy,
        by_hand,
        x,
        weights,
        toy_view,
        answer,
        tokens,
        what,
        off,
        switched,
        token,
        plot,
        below,
        guess,
        question,
        stretch,
        choice,
        reveal,
        tries,
        gr.State(DIFFER),
        gr.State({}),
    )


def script() -> str:
    """What the button of "Try it" does, over `element`."""
    return (Path(__file__).parent / "learn.js").read_text("utf-8")


def _slider(label: str, low: float, high: float, step: float, value: float) -> gr.Slider:
    return gr.Slider(low, high, value, step=step, label=label, min_width=150, buttons=["reset"])
