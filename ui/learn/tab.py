"""The tab Learn: ten steps through one recorded run, from the pool to how one knows that it works.

Nothing is drawn before the tab is first opened; nothing here needs the model.
"""

from typing import TYPE_CHECKING

import gradio as gr

from ..parts.errors import one_sentence
from ..parts.events import AT_ONCE, EACH, LATEST, number_in
from .layout import LearnLayout
from .steps import STEPS
from .switched import switched_html
from .updates import (
    GUESSES,
    guess_updates,
    step_updates,
    token_at,
    token_updates,
    toy_updates,
)

if TYPE_CHECKING:
    from ramole_core import Ramole

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


def tab(ramole: "Ramole") -> None:
    """Build the tab inside the Blocks that is open."""
    with gr.Tab("Learn", id="learn", elem_id="learn-tab") as here:
        ui = LearnLayout()
    _connect(ui, LearnHandlers(ramole, ui), here)


class LearnHandlers:
    def __init__(self, ramole: "Ramole", ui: LearnLayout):
        self.ramole, self.ui = ramole, ui

    def on_step(self, place: int | None, picked, guessed, what, off, *sliders):
        """The page of the step that was opened."""
        with one_sentence():
            return step_updates(
                self.ui,
                within(place),
                self.ramole.pool.cards(),
                picked=picked,
                guessed=guessed,
                what=what,
                off=off or (),
                sliders=sliders,
            )

    def on_back(self, place: int | None, *chosen):
        return self.on_step(within(place) - 1, *chosen)

    def on_ahead(self, place: int | None, *chosen):
        return self.on_step(within(place) + 1, *chosen)

    def on_slide(self, place: int | None, *sliders):
        """The toy at the sliders as they stand."""
        with one_sentence():
            return toy_updates(within(place), sliders)

    def on_pick(self, place: int | None, picked: int, what: str, off, event: gr.EventData):
        """Show another token of the recorded answer."""
        with one_sentence():
            index = number_in(event, "index")
            now = picked if index is None else index
            shown = token_updates(self.ui, within(place), now, what, off=off or ())
            return {self.ui.picked: now, **shown}

    def on_what(self, place: int | None, picked: int, what: str, off):
        """Weights or contributions."""
        with one_sentence():
            return token_updates(self.ui, within(place), picked, what, off=off or ())

    def on_off(self, picked: int, off):
        """The token without these adapters."""
        with one_sentence():
            return switched_html(token_at(picked), off or ())

    def on_guess(self, place: int | None, chosen: str | None, guessed: dict):
        """The answer to a guess; it stays known when the step is opened again."""
        with one_sentence():
            at = within(place)
            if at not in GUESSES or chosen is None:
                return {self.ui.guessed: guessed}
            return {
                self.ui.guessed: {**guessed, at: chosen},
                **guess_updates(self.ui, at, chosen),
            }


def within(place: int | None) -> int:
    """The place of a step, whatever came."""
    return min(max(place or 0, 0), len(STEPS) - 1)


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
