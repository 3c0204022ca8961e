"""The page: it talks to `ramole_core` through its public names alone, and never imports torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

    from ramole_core import Ramole


def build(ramole: "Ramole") -> "gr.Blocks":
    """The page of this system, ready for `ui.serve`; nothing listens and nothing loads yet."""
    import gradio as gr

    from . import header
    from .api import endpoints as api
    from .ask import tab as ask
    from .batch import tab as batch_tab
    from .pool import tab as pool_tab
    from .results import tab as results_tab

    with gr.Blocks(title="RAMoLE", analytics_enabled=False) as page:
        header.header(ramole)
        with gr.Tabs(selected="ask", elem_id="tabs"):
            ask.tab(ramole)
            pool_tab.tab(ramole)
            batch_tab.tab(ramole)
            results_tab.tab()
        api.endpoints(ramole)
    return page
