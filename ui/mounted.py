"""The page as an application that somebody else listens for: a server of many engines mounts it.

All is as on a port of its own (`serve.py`): doors, routes, passwords, MCP. Connections are that
server's.
"""

import os
import tempfile
import threading
from typing import TYPE_CHECKING

CACHE = tempfile.TemporaryDirectory(prefix="ramole-page-")
os.environ.setdefault("GRADIO_TEMP_DIR", CACHE.name)  # read when gradio is imported
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr  # noqa: E402
from fastapi import FastAPI  # noqa: E402

import ui  # noqa: E402

from .serve import begin, served, tidy_on  # noqa: E402
from .session.quota import quota_of  # noqa: E402
from .session.states import remember_little  # noqa: E402
from .shutdown import end  # noqa: E402
from .watch.quiet import quiet_logs, quiet_server  # noqa: E402

if TYPE_CHECKING:
    from ramole_core import Ramole


def mounted(ramole: "Ramole") -> FastAPI:
    """The application; the model loads behind it. It ends what runs when it is shut down. Raises
    RamoleError for hosts, proxies or passwords that are none."""
    quiet_logs()
    page = ui.build(ramole)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(outer, page, path="/", **served(page, ramole))
    quiet_server()  # the modules that it loaded meanwhile
    remember_little(page, quota_of(ramole).presence.sessions)
    outer.router.add_event_handler("shutdown", lambda: end(page, ramole))
    for name, work in (("begin", begin), ("tidy", tidy_on)):
        threading.Thread(target=work, args=[ramole], name=name, daemon=True).start()
    return outer
