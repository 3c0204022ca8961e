"""The page; it uses `ramole_core` through its public names alone, and never imports torch."""

from typing import TYPE_CHECKING

from . import gradio_import as gradio_import  # before Gradio is imported

if TYPE_CHECKING:
    import gradio as gr

    from ramole_core import Ramole


def build(ramole: "Ramole") -> "gr.Blocks":
    """Build the page of this system for `ui.serve`; nothing listens and nothing loads yet."""
    import gradio as gr

    from .api.endpoints import endpoints
    from .header import header
    from .parts.link import addressed
    from .tabs import TABS

    with gr.Blocks(title="RAMoLE", analytics_enabled=False) as page:
        header(ramole)
        run = gr.State(None)  # the finished answer that is in sight in Ask, a `Run` or None
        with gr.Tabs(selected="ask", elem_id="tabs"):
            for tab in TABS:
                tab(ramole, run)
        endpoints(ramole)
        addressed()
    return page
