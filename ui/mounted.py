"""The page as an application that somebody else listens for: a server of many engines mounts it.

All is as on a port of its own (`serve.py`): doors, routes, passwords, MCP. Connections are that
server's.
"""

import threading
import time
from typing import TYPE_CHECKING

import gradio as gr
from fastapi import FastAPI

import ui

from .serve import TIDY_SECONDS, begin, served, tidy
from .session.states import remember_little
from .shutdown import end
from .watch.quiet import quiet_logs, quiet_server

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
    remember_little(page)
    outer.router.add_event_handler("shutdown", lambda: end(page, ramole))
    for name, work in (("begin", begin), ("tidy", _tidy_on)):
        threading.Thread(target=work, args=[ramole], name=name, daemon=True).start()
    return outer


def _tidy_on(ramole: "Ramole") -> None:
    while True:
        time.sleep(TIDY_SECONDS)
        tidy(ramole)
