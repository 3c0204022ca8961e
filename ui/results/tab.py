"""The tab Results: the measured tables of `results/`, each with the command that made it.

Nothing is read before the tab is first opened; opened again, it is drawn anew only where a file
has changed.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ..ask.found import notice_html
from ..parts.errors import UNEXPECTED, one_sentence
from . import (
    adapters as results_adapters,
    answers as results_answers,
    retrieval as results_retrieval,
    router as results_router,
    speed as results_speed,
)
from .figure import scores_figure
from .files import RESULTS, stamp
from .glance import glance_html
from .scores import HELD_OUT, Evaluation, evaluation

log = logging.getLogger(__name__)
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
PLAIN: dict[str, Any] = {"apply_default_css": False}
CAPTION = (
    '<p class="caption">A dot is the mean score, the line its 95 % interval; controls are grey and '
    "hollow. The table above has the same numbers.</p>"
)
COPIES = """
element.addEventListener('click', async (event) => {
  const link = event.target.closest('.rm-glance a');
  if (link) {
    const title = document.querySelector(`${link.getAttribute('href')}-title`);
    if (!title) return;
    event.preventDefault();  // the address stays what it is
    title.scrollIntoView({ block: 'start' });
    title.focus({ preventScroll: true });
  }
  const button = event.target.closest('.rm-copy');
  if (!button) return;
  const code = button.parentElement.querySelector('code'), said = button.querySelector('span');
  let done = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {  // without https the clipboard is not there
    const range = document.createRange(), chosen = getSelection();
    range.selectNodeContents(code);
    chosen.removeAllRanges();
    chosen.addRange(range);
    done = document.execCommand('copy');
    if (done) chosen.removeAllRanges();
  }
  said.textContent = done ? 'Copied' : 'Press Ctrl+C';
  setTimeout(() => { said.textContent = 'Copy'; }, 2000);
});
"""


def tab(folder: Path = RESULTS) -> None:
    """Build the tab inside the Blocks that is open; the files are those of `folder`."""
    with gr.Tab("Results", id="results", elem_id="results-tab") as results:
        ui = lay_out()
        shown = gr.State("")

    def on_open(before: str):
        with one_sentence():
            now = stamp(folder)
            return {shown: now} if before == now else {shown: now, **opened(ui, folder)}

    def on_setting(wanted: str | None):
        with one_sentence():
            return closer(ui, folder, wanted)

    everything = [shown, ui.top, ui.chosen, ui.setting, ui.rest, *ui.closer]
    results.select(on_open, shown, everything, **QUIET)
    ui.setting.input(on_setting, ui.setting, ui.closer, trigger_mode="always_last", **QUIET)


def lay_out() -> SimpleNamespace:
    """The empty tab; `ui.closer` is what another setting changes."""
    ui = SimpleNamespace()
    ui.top = gr.HTML(elem_id="results-top", js_on_load=COPIES, **PLAIN)
    with gr.Column(visible=False, elem_id="results-choice") as ui.chosen:
        ui.setting = gr.Radio([], label="Look closer at one setting", elem_id="results-setting")
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                ui.plot = gr.Plot(show_label=False, container=False, elem_id="results-plot")
                gr.HTML(CAPTION, **PLAIN)
            with gr.Column(scale=5, min_width=300):
                ui.ahead = gr.HTML(elem_id="results-ahead", **PLAIN)
        ui.by_task = gr.HTML(elem_id="results-tasks", **PLAIN)
    ui.rest = gr.HTML(elem_id="results-rest", js_on_load=COPIES, **PLAIN)
    ui.closer = [ui.plot, ui.ahead, ui.by_task]
    return ui


def opened(ui: SimpleNamespace, folder: Path) -> dict[Any, Any]:
    """The whole tab, from the files as they are now."""
    found, missing = evaluation(folder)
    again, _ = evaluation(folder, HELD_OUT)
    drawn = {
        ui.top: told(
            lambda: (
                glance_html(folder, found)
                + results_answers.top_html(found, missing)
                + results_answers.again_html(again)
            )
        ),
        ui.rest: told(lambda: rest_html(folder, found)),
        ui.chosen: gr.Column(visible=found is not None),
    }
    if found is None:
        return drawn
    names = [(results_answers.label(name), name) for name in found.settings]
    first = names[0][1]
    choice = gr.Radio(choices=names, value=first, visible=len(names) > 1)
    return {**drawn, ui.setting: choice, **closer(ui, folder, first)}


def closer(ui: SimpleNamespace, folder: Path, wanted: str | None) -> dict[Any, Any]:
    """One setting: picture, differences, tasks; as it was where the setting is not there."""
    found, _ = evaluation(folder)
    if found is None or not isinstance(wanted, str) or wanted not in found.settings:
        return {ui.plot: gr.skip()}
    return {
        ui.plot: scores_figure(found, wanted),
        ui.ahead: results_answers.differences_html(found, wanted),
        ui.by_task: results_answers.by_task_html(found, wanted),
    }


def rest_html(folder: Path, found: Evaluation | None) -> str:
    """Everything below the first section's closer look."""
    return "".join(
        (
            results_answers.foot_html(found),
            results_retrieval.html(folder, found),
            results_adapters.html(folder),
            results_router.html(folder),
            results_speed.html(folder),
        )
    )


def told(make: Callable[[], str]) -> str:
    """The HTML that `make` gives; one sentence where a file holds what nobody thought of."""
    try:
        return make()
    except Exception:
        log.exception("Results could not be drawn.")
        return notice_html(UNEXPECTED, kind="wrong")
