"""Where the tables, the choice of a setting and its picture stand in the tab Results."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..parts.events import PLAIN

CAPTION = (
    '<p class="caption">A dot is the mean score, the line its 95 % interval; controls are grey and '
    "hollow. The table above has the same numbers.</p>"
)
CLOSER = "Every task, and who is ahead of whom"
PRESSES = """
element.addEventListener('click', async (event) => {
  const link = event.target.closest('.rm-glance a');
  if (link) {
    const section = document.querySelector(link.getAttribute('href'));
    if (!section) return;
    event.preventDefault();  // the address stays what it is
    const native = section.matches('details');
    const title = section.querySelector(native ? 'summary' : 'button.label-wrap');
    if (native) section.open = true;
    else if (!title.classList.contains('open')) title.click();
    section.scrollIntoView({ block: 'start' });
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


@dataclass(frozen=True)
class Layout:
    """The tab's components."""

    top: gr.HTML
    chosen: gr.Accordion
    setting: gr.Radio
    plot: gr.Plot
    ahead: gr.HTML
    by_task: gr.HTML
    rest: gr.HTML
    shown: gr.State
    """The stamp of the files that the tab was drawn from."""

    @property
    def closer(self) -> list[Any]:
        """What another setting changes."""
        return [self.plot, self.ahead, self.by_task]

    @property
    def all(self) -> list[Any]:
        """What the files change."""
        return [self.shown, self.top, self.chosen, self.setting, self.rest, *self.closer]


def lay_out() -> Layout:
    """The empty tab, inside the Blocks that is open."""
    top = gr.HTML(elem_id="results-top", js_on_load=PRESSES, **PLAIN)
    with gr.Accordion(CLOSER, open=False, visible=False, elem_id="results-choice") as chosen:
        setting = gr.Radio([], label="In which situation?", elem_id="results-setting")
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                plot = gr.Plot(show_label=False, container=False, elem_id="results-plot")
                gr.HTML(CAPTION, **PLAIN)
            with gr.Column(scale=5, min_width=300):
                ahead = gr.HTML(elem_id="results-ahead", **PLAIN)
        by_task = gr.HTML(elem_id="results-tasks", **PLAIN)
    rest = gr.HTML(elem_id="results-rest", js_on_load=PRESSES, **PLAIN)
    return Layout(top, chosen, setting, plot, ahead, by_task, rest, gr.State(""))
