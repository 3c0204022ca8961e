"""The head of the page: what this is, in two lines, and whether the model is there yet."""

from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.context import Context

from .ask.found import notice_html
from .model.loading import loading_of

if TYPE_CHECKING:
    from ramole_core import Ramole

HERO = """
<header class="hero">
  <h1>RAMoLE</h1>
  <p>A whole pool of LoRA adapters as one model: the ones that fit your prompt are found, mixed for
  every token, and you see which of them spoke.</p>
</header>
"""


def header(ramole: "Ramole") -> None:
    """Build the head inside the Blocks that is open; a timer asks until the model is there."""
    page = Context.root_block
    with gr.Row(elem_id="head", equal_height=True):
        gr.HTML(HERO, apply_default_css=False, elem_id="hero")
        status = gr.HTML(elem_id="status", apply_default_css=False)
    timer = gr.Timer(1.0)

    def on_tick():
        state = loading_of(ramole).status()
        return status_html(state), gr.Timer(active=not state["ready"])

    quiet: dict[str, Any] = {
        "api_visibility": "private",
        "show_progress": "hidden",
        "queue": False,
    }
    page.load(on_tick, None, [status, timer], **quiet)
    timer.tick(on_tick, None, [status, timer], **quiet)


def status_html(status: dict[str, Any]) -> str:
    """The model's state in one line, with the share that is loaded."""
    if status["ready"]:
        return notice_html("The model is ready.", kind="ready")
    if status["error"]:
        return notice_html(f"{status['error']} Ask to try again.", kind="wrong")
    return notice_html(
        f"The model is loading: {status['stage']}, {status['fraction']:.0%}. "
        "Recorded runs work already.",
        kind="busy",
    )
