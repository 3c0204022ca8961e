"""Buttons that copy a request: as a link, and as Python."""

from pathlib import Path
from typing import Any

import gradio as gr

from ..charts.run import Run
from ..parts.events import PLAIN
from ..parts.link import link_to, link_to_recorded
from .python_words import python_words

HTML = """
<div class="takeaway" hidden>
<button type="button" class="link">Copy link</button>
<button type="button" class="python">Copy as Python</button>
</div>
"""


def takeaway_view(**options: Any) -> gr.HTML:
    """The component; its value is what `takeaway_of` returns."""
    script = (Path(__file__).parent / "takeaway.js").read_text("utf-8")
    return gr.HTML(value={}, html_template=HTML, js_on_load=script, **PLAIN, **options)


def takeaway_of(run: Run | None, *, recorded: str = "") -> dict[str, str]:
    """The end of an address and the lines of Python; `recorded`: the file of a recorded run."""
    if run is None:
        return {}
    beside = run.beside is not None
    link = link_to_recorded(recorded) if recorded else link_to(run.request, beside=beside)
    return {"link": link, "python": python_words(run.request), "prompt": run.request.prompt}
