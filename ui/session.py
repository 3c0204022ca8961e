"""Whose uploads are whose: a browser tab, or a client of the API, is an owner until it leaves."""

import gradio as gr

PREFIX = "session-"
"""Owners that begin so do not outlive the server's process."""


def owner_of(request: gr.Request | None) -> str | None:
    """The owner of this request's uploads; None, where there is no session, sees the samples only."""
    session = getattr(request, "session_hash", None)
    return f"{PREFIX}{session}" if session else None
