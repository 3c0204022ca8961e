"""Shut a server down: answers first, then connections, within two seconds.

An answer that runs ends as `cancelled` and reaches its reader with what it has; connections that
are still open after that are cut.
"""

import logging
import time

import gradio as gr

from ramole_core import Ramole, withdraw_page

ANSWER_SECONDS = 0.5
"""Seconds for answers to reach the browser."""
CONNECTION_SECONDS = 1
"""Seconds, whole ones, for connections; uvicorn's own wait has no end."""


def end(page: gr.Blocks, ramole: Ramole) -> None:
    """End what runs, and listen no more; returns within about two seconds."""
    ramole.stop()
    until = time.monotonic() + ANSWER_SECONDS
    while any(page._queue.active_jobs) and time.monotonic() < until:
        time.sleep(0.02)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # to be cut off is no fault
    server = getattr(page, "server", None)  # none where another server has mounted the page
    if server is not None:
        server.config.timeout_graceful_shutdown = CONNECTION_SECONDS
    page.close(verbose=False)
    withdraw_page(ramole.settings.data_dir)
