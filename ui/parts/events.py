"""Shared options, scripts and senders of events and HTML components."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypedDict

import gradio as gr
from gradio.context import Context


class Quiet(TypedDict):
    """Gradio's options for every event of a tab."""

    api_visibility: Literal["private"]
    show_progress: Literal["hidden"]


class Plain(TypedDict):
    """Gradio's options for every HTML component of the page."""

    apply_default_css: bool


QUIET: Quiet = {"api_visibility": "private", "show_progress": "hidden"}
"""No endpoint, and no shimmer over what it changes."""
PLAIN: Plain = {"apply_default_css": False}
"""The page's own style sheets alone."""
ENTER_OPENS = """
document.addEventListener('keydown', (event) => {  // Gradio's drop zones heed Space alone
  if (event.key !== 'Enter' || !event.target.matches('#ZONE .upload-container')) return;
  event.preventDefault();
  event.target.click();
});
"""


ENTER = """() => {
  const button = document.querySelector('BUTTON');
  const said = document.querySelector('HELD p');
  said.textContent = button.disabled ? 'WHAT is on its way: wait for its end, or press Stop.' : '';
  if (button.disabled) setTimeout(() => { said.textContent = ''; }, 5000); else button.click();
}"""
HELD = '<p class="notice quiet" role="status"></p>'
"""Where a key that does nothing now says why."""


def enter_of(button: str, held: str, what: str) -> str:
    """Script of a text field: Enter presses the button, and says in `held` where it cannot."""
    return ENTER.replace("BUTTON", button).replace("HELD", held).replace("WHAT", what)


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
