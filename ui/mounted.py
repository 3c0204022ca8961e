"""The page as an ASGI application, mounted by a server of many engines.

Everything is as on its own port (`serve.py`): middleware, routes, passwords, MCP; but connections
are that server's.
"""

import threading

from .gradio_home import CACHE as CACHE  # isort: skip  before Gradio is imported
import gradio as gr
from fastapi import FastAPI

import ui
from ramole_core import Ramole, announce_page

from .serve import launched, served, tidy_on
from .session.owner import OPERATOR_KEY
from .shutdown import end
from .watch.quiet import quiet_logs


def mounted(ramole: Ramole) -> FastAPI:
    """The application; the model loads in the background, the command line finds the page, and
    shutdown ends what runs. Raises RamoleError for hosts, proxies or passwords that are none."""
    quiet_logs()
    page = ui.build(ramole)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(outer, page, path="/", **served(page, ramole))
    page.app = outer.router.routes[-1].app  # pyright: ignore[reportAttributeAccessIssue] mounted
    launched(page, ramole)
    outer.router.add_event_handler("shutdown", lambda: end(page, ramole))
    announce_page(ramole.settings.data_dir, ramole.settings.url, OPERATOR_KEY)
    threading.Thread(target=tidy_on, args=[page, ramole], name="tidy", daemon=True).start()
    return outer
