"""A button that copies a link to what a tab shows."""

from pathlib import Path
from typing import Any

import gradio as gr

from .events import PLAIN

HTML = '<button type="button" class="copy-link" hidden>Copy link</button>'


def copy_button(**options: Any) -> gr.HTML:
    """The component; its value is what `copies` returns, and it is hidden before."""
    script = (Path(__file__).parent / "copying.js").read_text("utf-8")
    return gr.HTML(value={}, html_template=HTML, js_on_load=script, **PLAIN, **options)


def copies(link: str, *, tokens: str = "") -> dict[str, str]:
    """The end of the address; `tokens`: the element whose picked token goes along."""
    return {"link": link, "tokens": tokens}
