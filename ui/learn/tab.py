"""The tab Learn: ten steps through one recorded run, from the pool to the measurements.

Nothing is drawn before the tab is first opened; nothing here needs the model.
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ramole_core import AdapterCard, Ramole

from ..charts.explained import explanation_html, token_html
from ..charts.path import path_html
from ..charts.plots import token_figure, token_table
from ..charts.run import CONTRIBUTION, WEIGHT
from ..charts.tokens import view_of_run
from ..parts.errors import one_sentence
from ..parts.events import AT_ONCE, EACH, LATEST, number_in
from ..parts.markup import escaped
from .facts import facts, filled, word
from .frames import figure, table
from .guess import GUESSES, question_html, reveal_html
from .kept import gated, vectors
from .layout import LearnLayout
from .measured import scores_html
from .pictures import batch_html, judged_html, nearest_html, pool_html, vectors_html
from .steps import STEPS, TITLES, Step
from .switched import switched_html
from .toy import toy, toy_html

TOY_BY_HAND, TOY_GATED, WHY, AGAINST = 3, 4, 5, 6
"""Places of the steps that have more than a picture."""
LIKELIEST = (
    "The ten likeliest next tokens at the place of the picked token, ␣ for a space. The one that "
    "was taken is framed."
)
FIELDS = (
    "A field for each layer (from bottom to top) and module: the stronger the colour, the larger "
    "the {}. Empty: the adapter does not change that module."
)
TO_THE_TOP = """() => requestAnimationFrame(() => requestAnimationFrame(() => {
  const title = document.querySelector('#learn-words h2');
  const at = document.querySelector('#learn-steps label.selected');
  if (at) at.parentElement.scrollLeft = at.offsetLeft - at.parentElement.offsetLeft - 20;
  if (title && title.getBoundingClientRect().top < 0) title.scrollIntoView({ block: 'start' });
}))"""
"""The title of the step, and on a narrow page its place in the list, come into sight."""
OPENED = """(place, ...rest) => {
  const said = location.hash.match(/^#learn[?]step=(\\d+)$/);
  const steps = document.querySelectorAll('#learn-steps input');
  return [(said && steps[Number(said[1]) - 1]?.value) || place, ...rest];
}"""
"""The step that the page's address names."""
ADDRESS = """() => {
  const steps = [...document.querySelectorAll('#learn-steps input')];
  const at = steps.findIndex((step) => step.checked);
  if (at < 0 || !location.hash.startsWith('#learn')) return;
  window.ramoleAddress?.('#learn?step=' + (at + 1));
}"""
"""The page's address names the step, so that a reload and a link open it again."""


def tab(ramole: Ramole) -> None:
    """Build the tab inside the Blocks that is open."""
    with gr.Tab("Learn", id="learn", elem_id="learn-tab") as here:
        ui = LearnLayout()
    _connect(ui, LearnHandlers(ramole, ui), here)


class LearnHandlers:
    """Event handlers: outputs from the choices alone."""

    def __init__(self, ramole: Ramole, ui: LearnLayout):
        self.ramole, self.ui = ramole, ui

    def on_step(self, place: int | None, picked, guessed, what, off, *sliders) -> dict[Any, Any]:
        """The page of the step that was opened."""
        with one_sentence():
            ui, place = self.ui, within(place)
            drawn = {
                ui.steps: gr.Radio(value=TITLES[place]),
                ui.back: gr.Button(interactive=place > 0),
                ui.ahead: gr.Button(interactive=place < len(STEPS) - 1),
                ui.words: words_html(place),
                ui.picture: picture_html(place, self.ramole.pool.cards()),
                ui.tries: tries_html(STEPS[place]),
                ui.toy: gr.Column(visible=place in (TOY_BY_HAND, TOY_GATED)),
                ui.answer: gr.Column(visible=place in (WHY, AGAINST)),
                ui.guess: gr.Column(visible=place in GUESSES),
            }
            if place in (TOY_BY_HAND, TOY_GATED):
                drawn[ui.by_hand] = gr.Row(visible=place == TOY_BY_HAND)
                drawn[ui.toy_view] = self.on_slide(place, *sliders)
            if place in (WHY, AGAINST):
                drawn[ui.tokens] = view_of_run(gated(), "learn") | {"meaning": ""}
                drawn |= self.on_what(place, picked, what, off)
            if place in GUESSES:
                guess, chosen = GUESSES[place], guessed.get(place)
                drawn[ui.question] = question_html(guess)
                drawn[ui.choice] = gr.Radio(choices=guess.experts, value=chosen)
                drawn |= self.on_guess(place, chosen, guessed)
                del drawn[ui.guessed]
            return drawn

    def on_back(self, place: int | None, *chosen):
        return self.on_step(within(place) - 1, *chosen)

    def on_ahead(self, place: int | None, *chosen):
        return self.on_step(within(place) + 1, *chosen)

    def on_slide(self, place: int | None, *sliders):
        """The toy at the sliders as they stand: x, then the weights, which the gate replaces in its
        step."""
        with one_sentence():
            by_hand = within(place) == TOY_BY_HAND
            return toy_html(toy(sliders[:3], sliders[3:] if by_hand else None))

    def on_pick(self, place: int | None, picked: int, what: str, off, event: gr.EventData):
        """Show another token of the recorded answer."""
        index = number_in(event, "index")
        now = picked if index is None else index
        return {self.ui.picked: now, **self.on_what(place, now, what, off)}

    def on_what(self, place: int | None, picked: int, what: str, off) -> dict[Any, Any]:
        """One token of the recorded answer: each adapter's effect and its weights or contributions,
        or the likeliest tokens of base and mixture. `off` are switched off."""
        with one_sentence():
            ui, run, index = self.ui, gated(), token_at(picked)
            if within(place) == AGAINST:
                head = f"Token {index + 1} of {len(run.pieces)}: {word(run.pieces[index])}"
                shown = explanation_html(run.explained[index], run.pieces[index])
                return {
                    ui.what: gr.Radio(visible=False),
                    ui.off: gr.CheckboxGroup(visible=False),
                    ui.switched: "",
                    ui.token: f"<h3>{head}</h3>",
                    ui.plot: gr.Plot(visible=False),
                    ui.below: figure(shown, LIKELIEST),
                }
            named = CONTRIBUTION if what == "contributions" else WEIGHT
            heads, rows = token_table(run, index)
            twin = table("Every number", heads, ([str(cell) for cell in row] for row in rows))
            off = list(off or ())
            return {
                ui.what: gr.Radio(visible=True),
                ui.off: gr.CheckboxGroup(choices=run.experts, value=off, visible=True),
                ui.switched: switched_html(index, off),
                ui.token: token_html(run, index, closable=False),
                ui.plot: gr.Plot(value=token_figure(run, index, what=named), visible=True),
                ui.below: figure("", FIELDS.format(named), twin=twin),
            }

    def on_off(self, picked: int, off):
        """The token without these adapters."""
        with one_sentence():
            return switched_html(token_at(picked), off or ())

    def on_guess(self, place: int | None, chosen: str | None, guessed: dict) -> dict[Any, Any]:
        """The stretch without colours, or with them and the shares once a guess was made; it stays
        known when the step is opened again."""
        with one_sentence():
            at = within(place)
            if at not in GUESSES:
                return {self.ui.guessed: guessed}
            guess = GUESSES[at]
            return {
                self.ui.guessed: guessed if chosen is None else {**guessed, at: chosen},
                self.ui.stretch: guess.view(revealed=chosen in guess.experts),
                self.ui.reveal: reveal_html(guess, chosen),
            }


def within(place: int | None) -> int:
    """Return the index of a step, for any input."""
    return min(max(place or 0, 0), len(STEPS) - 1)


def token_at(picked: int) -> int:
    """Return the index of a token of the recorded answer, for any input."""
    return min(max(picked, 0), len(gated().pieces) - 1)


def words_html(place: int) -> str:
    """The title and the paragraphs, with the papers at the end."""
    step, known = STEPS[place], facts()
    told = [filled(paragraph, known) for paragraph in step.says]
    links = ", ".join(
        f'<a href="https://arxiv.org/abs/{number}" target="_blank" rel="noopener noreferrer">'
        f"{name}, arXiv {number}</a>"
        for name, number in step.papers
    )
    papers = f'<p class="quiet">Papers: {links}</p>' if links else ""
    return (
        f'<p class="quiet">Step {place + 1} of {len(STEPS)}</p><h2 tabindex="-1">{step.title}</h2>'
        + "".join(f"<p>{paragraph}</p>" for paragraph in told if paragraph)
        + papers
    )


def picture_html(place: int, cards: Sequence[AdapterCard]) -> str:
    """The picture of a step that needs nothing else; empty for the others."""
    pictures = {
        0: lambda: path_html(gated(), vectors().vector) + pool_html(cards),
        1: vectors_html,
        2: nearest_html,
        7: batch_html,
        8: judged_html,
        9: scores_html,
    }
    return pictures[place]() if place in pictures else ""


def tries_html(step: Step) -> str:
    """One line, and the button that goes there."""
    prompt = f' data-prompt="{escaped(step.prompt)}"' if step.prompt else ""
    put = " with this prompt" if step.prompt else ""
    return (
        f"<p><strong>Try it.</strong> {step.tries}</p>"
        f'<button type="button" data-step="{escaped(step.title)}" data-tab="{step.tab}"{prompt}>'
        f"Open {step.tab}{put}</button>"
    )


def _connect(ui: LearnLayout, handlers: LearnHandlers, here: gr.Tab) -> None:

    def to_the_top(stepped):
        there = stepped.then(None, js=TO_THE_TOP, **AT_ONCE)
        there.then(None, js=ADDRESS, **AT_ONCE)

    given = handlers.on_step, ui.chosen, ui.all
    to_the_top(here.select(*given, js=OPENED, **AT_ONCE))
    to_the_top(ui.steps.input(*given, **LATEST))
    for button, handler in ((ui.back, handlers.on_back), (ui.ahead, handlers.on_ahead)):
        to_the_top(button.click(handler, ui.chosen, ui.all, **AT_ONCE))
    for slider in ui.sliders:
        slider.change(handlers.on_slide, [ui.steps, *ui.sliders], ui.toy_view, **LATEST)
    ui.tokens.select(
        handlers.on_pick, [ui.steps, ui.picked, ui.what, ui.off], [ui.picked, *ui.looked_at], **EACH
    )
    looked = [ui.steps, ui.picked, ui.what, ui.off]
    ui.what.input(handlers.on_what, looked, ui.looked_at, **AT_ONCE)
    ui.off.input(handlers.on_off, [ui.picked, ui.off], ui.switched, **LATEST)
    ui.choice.input(
        handlers.on_guess, [ui.steps, ui.choice, ui.guessed], [ui.guessed, *ui.revealed], **AT_ONCE
    )
