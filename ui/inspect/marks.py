"""The picked token, marked in every picture and in the answer; a click on a picture picks there.

The browser marks it, so that no picture is sent again.
"""

from pathlib import Path
from typing import Any

import gradio as gr

from ..charts.run import Run
from ..charts.spans import PER, spans_of
from ..parts.events import PLAIN

TEMPLATE = '<span hidden aria-hidden="true"></span>'


def marks(**options: Any) -> gr.HTML:
    """The component, which shows nothing itself; its value is what `marks_of` returns."""
    return gr.HTML(
        value=marks_of(None, "", None),
        html_template=TEMPLATE,
        js_on_load=(Path(__file__).parent / "marks.js").read_text("utf-8"),
        **PLAIN,
        **options,
    )


def marks_of(run: Run | None, name: str, token: int | None) -> dict[str, Any]:
    """The picked token, and each token's column in the pictures."""
    pieces = () if run is None else run.pieces
    return {"run": name, "token": token, "at": {per: list(spans_of(pieces, per).at) for per in PER}}
