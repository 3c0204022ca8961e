"""A page that is closed, or only loaded anew: its uploads wait a moment before they go.

Gradio tells of both in the same way, and gives the new page another session. So the uploads of a
tab that has a secret of its own go once nothing was heard of it for a while.
"""

import logging
import threading
from typing import TYPE_CHECKING

import gradio as gr

from .owner import page_owner
from .quota import forget, quota_of

if TYPE_CHECKING:
    from ramole_core import Ramole

log = logging.getLogger(__name__)
GRACE_SECONDS = 90.0
"""An open page gives a sign of life more often; a reload takes less."""


def leave(ramole: "Ramole", request: gr.Request) -> None:
    """The page of this request is gone; so are its uploads, at once or in a while."""
    presence, session = quota_of(ramole).presence, request.session_hash or ""
    owner = presence.gone(session)
    if owner is None or owner == page_owner(session):  # no uploads, or no secret to come back with
        forget(ramole, page_owner(session))
    elif not presence.elsewhere(owner):
        timer = threading.Timer(GRACE_SECONDS, _forget_silent, [ramole, owner, GRACE_SECONDS])
        timer.daemon = True
        timer.start()


def _forget_silent(ramole: "Ramole", owner: str, seconds: float) -> None:
    try:
        if quota_of(ramole).presence.silent(owner) >= seconds - 1:
            forget(ramole, owner)
    except Exception:
        log.exception("Uploads of a page that was closed could not be removed.")
