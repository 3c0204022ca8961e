"""Shared options, scripts and senders of events and HTML components."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.context import Context
from gradio.events import Dependency

from .markup import notice_html

EventOptions = dict[str, Any]
"""Gradio's options of events, or of HTML components."""
QUIET: EventOptions = {"api_visibility": "private", "show_progress": "hidden"}
"""No endpoint, and no shimmer over what it changes."""
AT_ONCE: EventOptions = {**QUIET, "queue": False}
"""Events outside Gradio's queue."""
EACH: EventOptions = {**AT_ONCE, "trigger_mode": "multiple"}
"""Every press is handled, as with the tokens of an answer."""
LATEST: EventOptions = {**AT_ONCE, "trigger_mode": "always_last"}
"""Of several events only the last is handled, as with a slider."""
PLAIN: EventOptions = {"apply_default_css": False}
"""Components with only the page's own style sheets."""
ENTER_OPENS = """
document.addEventListener('keydown', (event) => {  // Gradio's drop zones heed Space alone
  if (event.key !== 'Enter' || !event.target.matches('#ZONE .upload-container')) return;
  event.preventDefault();
  event.target.click();
});
"""


WAITS = "WHAT is on its way: wait for its end, or press Stop."
ENTER = """() => {
  const button = document.querySelector('BUTTON');
  const said = document.querySelector('HELD p');
  said.textContent = button.disabled ? 'WAITS' : '';
  if (button.disabled) setTimeout(() => { said.textContent = ''; }, 5000); else button.click();
}"""
NOT_ASKED = """() => {
  const running = document.querySelector('BUTTON').disabled;
  const said = document.querySelector('HELD p');
  if (said.querySelector('button')) return;  // a question that is kept is named there already
  said.textContent = running ? 'WAITS' : 'That was not asked: the server is busy. Try again.';
  setTimeout(() => { if (!said.querySelector('button')) said.textContent = ''; }, 5000);
}"""
HELD = '<p class="notice quiet" role="status"></p>'
"""Element that explains why a key does nothing now."""
FAILED = (
    "That failed: a value among the settings may be out of range, or the server is busy. Correct "
    "the value, or try again."
)
"""Notice where an event failed outside its handler."""
CUT = "() => { window.ramoleCut = Date.now(); }"
"""Script of a Stop that cuts a stream, which Gradio counts as a failure."""
RESTORED = "() => Date.now() - (window.ramoleCut || 0) < 10000 ? [] : VALUES"


def enter_of(button: str, held: str, what: str) -> str:
    """Script of a text field: Enter presses the button, or explains in `held` why it cannot."""
    return _filled(ENTER, button, held, what)


def not_asked_of(button: str, held: str, what: str) -> str:
    """Script for a refused event: it explains that in `held`."""
    return _filled(NOT_ASKED, button, held, what)


def _filled(script: str, button: str, held: str, what: str) -> str:
    said = script.replace("WAITS", WAITS).replace("WHAT", what)
    return said.replace("BUTTON", button).replace("HELD", held)


def on_failure(
    event: Dependency, notice: gr.HTML, values: Mapping[Block, object] | None = None
) -> None:
    """Where the event fails outside its handler, show that in `notice`, and give these components
    these values.

    Gradio's page then runs no `then`. All of it is done in the browser: a server that is busy
    refuses the next call as well.
    """
    given = {notice: notice_html(FAILED, kind="wrong"), **(values or {})}
    script = RESTORED.replace("VALUES", json.dumps([*given.values()]))
    event.failure(None, None, [*given], js=script, queue=False, **QUIET)


def free(run: gr.Button, stop: gr.Button) -> dict[Block, object]:
    """For `on_failure`: nothing is running (`run_and_stop`)."""
    return {run: gr.update(interactive=True), stop: gr.update(interactive=False)}


def open_page() -> gr.Blocks:
    """The Blocks that is being built; RuntimeError outside of one."""
    page = Context.root_block
    if page is None:
        raise RuntimeError("No gr.Blocks is open; build the tab inside `with gr.Blocks():`.")
    return page


@contextmanager
def outermost() -> Iterator[None]:
    """What is built inside belongs to the page itself, not to the row or the tabs that are open:
    Gradio would count it as a tab, and show what comes after it twice."""
    inner, Context.block = Context.block, Context.root_block
    try:
        yield
    finally:
        Context.block = inner


def enter_opens(zone: str) -> str:
    """Script: Enter opens the drop zones inside the element of this id, as a click does."""
    return ENTER_OPENS.replace("ZONE", zone)


def script_beside(file: str, name: str) -> str:
    """The text of a script that lies beside this Python file."""
    return (Path(file).parent / name).read_text("utf-8")


def scripted(value: object, template: str, script: str, *, elem_id: str) -> gr.HTML:
    """A component that a script draws from its value, over `element`, `props` and `watch`."""
    return gr.HTML(value=value, html_template=template, js_on_load=script, elem_id=elem_id, **PLAIN)


def session_of(request: gr.Request) -> str:
    """The browser tab that an event came from; empty where Gradio knows none."""
    return request.session_hash or ""


def text_in(event: gr.EventData, name: str) -> str:
    """A text that a component of ours sent with its event; empty for anything else."""
    said = event._data if isinstance(event._data, dict) else {}
    text = said.get(name)
    return text if isinstance(text, str) else ""


def number_in(event: gr.EventData, name: str) -> int | None:
    """A whole number that a component of ours sent with its event; None for anything else."""
    said = event._data if isinstance(event._data, dict) else {}
    number = said.get(name)
    return number if isinstance(number, int) else None


def place_in(event: gr.EventData, count: int) -> int:
    """The index of one of so many examples that was pressed; raises gr.Error for any other."""
    index = number_in(event, "index")
    if index is None or not 0 <= index < count:
        raise gr.Error("There is no such example.", print_exception=False)
    return index
