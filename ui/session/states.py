"""What Gradio remembers of each session: its states, and not the whole page once more.

Gradio keeps a copy of every component for each session that ever called, 10,000 of them and nearly
a megabyte each, for links that this page does not offer. Sessions are names that anybody invents.
"""

from types import SimpleNamespace

import gradio as gr

MOST_SESSIONS = 2000
"""Of more, those that were silent longest begin anew."""


def remember_little(page: gr.Blocks) -> None:
    """Call it once the page is launched."""
    holder = page.state_holder
    holder.capacity = MOST_SESSIONS
    # what a new session copies: the page's functions, and of its components none
    holder.blocks = SimpleNamespace(default_config=page.default_config, blocks={})  # pyright: ignore
