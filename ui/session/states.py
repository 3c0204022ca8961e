"""What Gradio remembers of each session, made small: ten thousand invented ones fill no memory.

Gradio keeps a description of every component of the page for each session, 0.8 MB here, and a call
of the API without a session is a new one. It is used for Gradio's own deep links, which this page
does not have; of a component that changed, it is made when it changes.
"""

from gradio import state_holder

SESSIONS = 2000
"""Those used last are remembered: open pages, and clients."""


class SmallState(state_holder.SessionState):
    """A session without the descriptions of what it never changed."""

    def __init__(self, blocks):
        super().__init__(blocks)
        self.config_values = {}


def keep_sessions_small() -> None:
    """Have Gradio make such sessions from now on."""
    state_holder.SessionState = SmallState
