"""A button that makes a file first and then hands it over."""

import gradio as gr


def behind(label: str, name: str) -> gr.DownloadButton:
    """The download itself, never seen: a script presses it once the file is there.

    The class hides it for good: Gradio's own `visible="hidden"` is sometimes lost when the row
    around it appears.
    """
    return gr.DownloadButton(label, elem_id=name, elem_classes="behind", visible="hidden")


def download(label: str, name: str, *, min_width: int) -> tuple[gr.Button, gr.DownloadButton]:
    """A button `name` to see, and the hidden one, `name`-file, that holds the file."""
    seen = gr.Button(label, size="sm", elem_id=name, min_width=min_width)
    return seen, behind(label, f"{name}-file")
