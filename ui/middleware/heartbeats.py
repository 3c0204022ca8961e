"""Track sessions' open streams and closed pages, for the session store.

A page and gradio_client keep a heartbeat open as long as they are there. Where it ends, the page is
gone or loaded anew, unless another one of the same session is open.
"""

import asyncio
import re
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from ..session.address import HEADER, address_of
from ..session.store import SessionStore
from .refusal import header
from .routes import rule_of

OPEN = re.compile(r"/gradio_api/(heartbeat|queue/data|call(?:/v2)?/[^/]+)(?:/([^/]+))?/?")


class Heartbeats:
    """ASGI middleware that reports streams of sessions to the store."""

    def __init__(self, app: ASGIApp, *, sessions: SessionStore, leave: Callable[[str], None]):
        """`leave` is called, in a thread, with a session whose last heartbeat has ended."""
        self._app, self._sessions, self._leave = app, sessions, leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session, beats = "", False
        if scope["type"] == "http" and rule_of(scope).kind == "stream":
            session, beats = _session(scope)
        if not session:
            await self._app(scope, receive, send)
            return
        try:
            address = address_of({HEADER: header(scope, HEADER) or ""})
            with self._sessions.stream(session, address, beats=beats):
                await self._app(scope, receive, send)
        finally:
            if beats and not self._sessions.is_there(session):
                asyncio.get_running_loop().run_in_executor(None, self._leave, session)


def _session(scope: Scope) -> tuple[str, bool]:
    """The session of a stream, '' for none, and whether it is a heartbeat. A call without a session
    is the session of its own event."""
    found = OPEN.fullmatch(get_route_path(scope))
    if found is None or scope["method"] != "GET":
        return "", False
    if found[1] == "queue/data":
        said = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=20)
        return said.get("session_hash", [""])[0], False
    return found[2] or "", found[1] == "heartbeat"
