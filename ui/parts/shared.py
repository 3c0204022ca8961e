"""Components shared by the tabs of one open page."""

from dataclasses import dataclass

import gradio as gr


@dataclass(frozen=True)
class Shared:
    """Components that one tab writes and others read."""

    run: gr.State
    """The finished answer that is in sight in Ask, a `Run` or None."""

    @classmethod
    def build(cls) -> "Shared":
        """Inside the Blocks that is open, before the tabs."""
        return cls(gr.State(None))
